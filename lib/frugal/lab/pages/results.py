"""What runs recorded, as one table: a row for each run, its parameters beside its results."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from frugal.errors import InputError
from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.pages.records import read_records, shown
from frugal.lab.pages.run_facts import recorded_run

FACTS = ("notebook", "run", "status", "profile", "started", "seconds")
WIDEST = 40  # characters of a cell in the terminal
PARAMETER, RESULT = "parameters.", "results."  # before their names, as pandas.json_normalize writes them


def result_rows(reports: Path, name: str = "") -> list[dict[str, Any]]:
    """A row for each run of the notebooks, or of the sweep, whose name begins so; oldest first.

    The columns are `FACTS`, `parameters.NAME` and `results.NAME`; a recorded table is a list of dictionaries.

    Raises:
        InputError: there is no such run.
    """
    paths = [*reports.glob(f"runs/{name}*/*/notebook.ipynb"), *reports.glob(f"sweeps/{name}*/*/notebook.ipynb")]
    rows = [row for path in paths if path.parent.name != "report" and (row := result_row(path, reports))]
    if not rows:
        runs = f"runs of a notebook or sweep called {name}" if name else "runs"
        raise InputError(f"{reports}: there are no {runs} yet; `frugal run` and `frugal sweep` make them")
    return sorted(rows, key=lambda row: (row["started"] or "", row["run"]))


def result_row(path: Path, reports: Path) -> dict[str, Any] | None:
    """Of one executed notebook; None for a damaged one, which the index names."""
    try:
        notebook = read_notebook(path)
        run, records = recorded_run(notebook), read_records(notebook)
    except (InputError, KeyError, TypeError, ValueError):
        return None
    about = {**run, "notebook": run.get("notebook") or path.parent.parent.name}
    return {
        **{name: about.get(name) for name in FACTS},
        "run": path.parent.relative_to(reports).as_posix(),
        **{PARAMETER + name: value for name, value in (run.get("parameters") or {}).items()},
        **{RESULT + name: value for name, value in records.items()},
    }


def as_csv(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV; lists and tables are JSON in their cell, what a run does not have is empty."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [*FACTS, *(name for kind in (PARAMETER, RESULT) for name in names if name.startswith(kind))]
    return csv_text([{name: cell(value) for name, value in row.items()} for row in rows], columns)


def csv_text(rows: list[dict[str, Any]], columns: list[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _in_brief(value: Any) -> str:
    """A cell of a terminal's table: one line that is not too long."""
    words = " ".join(shown(value).split())
    return words if len(words) <= WIDEST else f"{words[:WIDEST]} ..."


def as_columns(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The rows in words for a terminal: parameters in which they differ, and single results."""
    names = dict.fromkeys(name for row in rows for name in row)
    tables = {name for row in rows for name, value in row.items() if isinstance(value, list)}
    single = [name for name in names if name.startswith(RESULT) and name not in tables]
    differ = [name for name in names if name.startswith(PARAMETER) and len({str(row.get(name)) for row in rows}) > 1]
    columns = ["run", "status", *differ, *single]
    head = [name.removeprefix(PARAMETER).removeprefix(RESULT) for name in columns]
    return [head, *([_in_brief(row.get(name)) for name in columns] for row in rows)]
