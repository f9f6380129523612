"""What the latest finished run of each notebook recorded, for notebooks that bring results together."""

from pathlib import Path
from typing import Any

from frugal.errors import InputError
from frugal.files import reports_folder
from frugal.lab.parameters import read_notebook
from frugal.lab.recording import read_records


def latest_records(reports: Path | None = None) -> dict[str, dict[str, Any]]:
    """Records by notebook name (`01_text_and_foundation`), each from the newest run that `frugal run` saw finish.

    Args:
        reports: folder of reports; `reports/` by default.
    """
    latest = {}
    # The name of a run's folder begins with its time, so the newest comes last and stays.
    for path in sorted((reports or reports_folder()).glob("runs/*/*/notebook.ipynb")):
        try:
            notebook = read_notebook(path)
        except InputError:
            continue  # the index names damaged files; here they have nothing to say
        if notebook.metadata.get("frugal", {}).get("run", {}).get("status") == "done":
            latest[path.parent.parent.name] = read_records(notebook)
    return latest
