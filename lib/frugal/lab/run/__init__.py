"""One run of a notebook: its parameters checked, its kernel started and watched, its provenance and report kept.

Enters: what a single run needs before, while and after its cells run. What a page looks like belongs to `lab.pages`.
Names: `plan_run`, `carry_out`, `read_parameters`, `report_progress`, `provenance`.
"""
