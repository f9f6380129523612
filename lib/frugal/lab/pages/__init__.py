"""What readers see of a run: figures and results as a cell shows them, reports, index, gallery.

Enters: what shows something in a notebook or reads it back from the executed file. Starts no kernel.
Names: `record`, `read_records`, `show`, `use_style`, `COLOURS`, `latest_records`, `read_notebook`, `write_report`.
"""
