"""The latest finished run of each notebook and kept results of long runs, for what brings results together."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frugal.errors import InputError
from frugal.files import CHECKOUT, reports_folder
from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.pages.records import read_records

if TYPE_CHECKING:
    from nbformat import NotebookNode


PROFILE = "default"  # of the runs that the README and the gallery tell of


def default_runs(reports: Path) -> "dict[str, NotebookNode]":
    """The latest runs at the notebooks' default size.

    Raises:
        InputError: there is none.
    """
    found = latest_runs(reports, PROFILE)
    if not found:
        raise InputError(f"{reports}: no finished run at profile {PROFILE}; `make reports` makes them")
    return found


def latest_runs(reports: Path, profile: str | None = None) -> "dict[str, NotebookNode]":
    """Executed notebooks by name (`01_text_and_foundation`), each from the newest run that `frugal run` saw finish.

    Args:
        reports: folder of reports.
        profile: only runs of this size.
    """
    latest = {}
    # The name of a run's folder begins with its time, so the newest comes last and stays.
    for path in sorted(reports.glob("runs/*/*/notebook.ipynb")):
        try:
            notebook = read_notebook(path)
        except InputError:
            continue  # the index names damaged files; here they have nothing to say
        run = notebook.metadata.get("frugal", {}).get("run", {})
        if run.get("status") == "done" and profile in (None, run.get("profile")):
            latest[path.parent.parent.name] = notebook
    return latest


def latest_records(reports: Path | None = None) -> dict[str, dict[str, Any]]:
    """What the latest finished run of each notebook recorded, by the notebook's name.

    Args:
        reports: folder of reports; `reports/` by default.

    Example:
        >>> latest_records(Path("a folder without runs"))
        {}
    """
    found = latest_runs(reports_folder() if reports is None else reports)
    return {name: read_records(notebook) for name, notebook in found.items()}


def kept_results(name: str) -> Any:
    """What a script of `benchmarks/` left in `results/NAME.json`, to be shown beside small runs and called kept.

    Example:
        >>> [round(row["error"], 2) for row in kept_results("forward_forward")["digits"]][:1]
        [1.39]
    """
    return json.loads((CHECKOUT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
