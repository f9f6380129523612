"""How long the notebooks take, written into the README's table from runs."""

import re
from pathlib import Path
from typing import Any

from frugal.errors import InputError
from frugal.files import write_text
from frugal.lab.pages.latest_runs import PROFILE, default_runs
from frugal.lab.pages.run_facts import recorded_run

SENTENCE = re.compile(r"^Minutes are those of .*$", re.MULTILINE)


def write_minutes(reports: Path, readme: Path) -> list[str]:
    """Put the minutes of each notebook's newest finished run into the last cell of its row, and name the machine.

    Returns:
        The notebooks whose row was written.

    Raises:
        InputError: there is no such run, they come from several machines, or the page has no row or sentence for them.
    """
    runs = {name: recorded_run(notebook) for name, notebook in default_runs(reports).items()}
    machines = {machine(run) for run in runs.values()}
    if len(machines) > 1:
        raise InputError(f"{reports}: the runs come from several machines: {'; '.join(sorted(machines))}")
    page, written = readme.read_text(encoding="utf-8"), []
    for name, run in runs.items():
        row = re.compile(rf"^(\|.*\(notebooks/{re.escape(name)}\.ipynb\).*\|)[^|\n]*\|$", re.MULTILINE)
        page, found = row.subn(rf"\g<1> {run['seconds'] / 60:.1f} |", page)
        written += [name] * found
    sentence = f"Minutes are those of the `{PROFILE}` profile on {machines.pop()}, written here by `frugal minutes`."
    page, found = SENTENCE.subn(lambda _: sentence, page)
    if not written or not found:
        raise InputError(f"{readme}: has no table of notebooks, or no line that begins: Minutes are those of")
    write_text(readme, page)
    return written


def machine(run: dict[str, Any]) -> str:
    about = run.get("machine") or {}
    return "{processor}, {cores} cores, {memory_gb:.3g} GB, threads: {threads}".format(
        **{"processor": "an unknown machine", "cores": "?", "memory_gb": 0.0, "threads": "?", **about}
    )
