import json
from pathlib import Path

import nbformat
import pytest

from frugal.lab import latest_records
from frugal.lab.pages.records import bundle


def write_run(reports: Path, notebook: str, run: str, status: str, **results: int | float) -> Path:
    output = nbformat.v4.new_output("display_data", bundle(dict(results)))
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("record(...)", outputs=[output])])
    book.metadata["frugal"] = {"run": {"status": status}}
    path = reports / "runs" / notebook / run / "notebook.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(book, path)
    return path


def test_the_newest_finished_run_of_each_notebook_speaks(tmp_path: Path) -> None:
    write_run(tmp_path, "01_a", "20260101-000000-aaaa", "done", bits=3.0)
    write_run(tmp_path, "01_a", "20260102-000000-aaaa", "done", bits=2.0)
    write_run(tmp_path, "01_a", "20260103-000000-aaaa", "failed", bits=1.0)
    write_run(tmp_path, "02_b", "20260101-000000-aaaa", "done", size=7)
    assert latest_records(tmp_path) == {"01_a": {"bits": 2.0}, "02_b": {"size": 7}}


@pytest.mark.parametrize("content", ["", "{", json.dumps({"cells": 3})])
def test_a_damaged_file_is_passed_over(tmp_path: Path, content: str) -> None:
    write_run(tmp_path, "01_a", "20260101-000000-aaaa", "done", bits=3.0)
    write_run(tmp_path, "01_a", "20260102-000000-aaaa", "done", bits=2.0).write_text(content)
    assert latest_records(tmp_path) == {"01_a": {"bits": 3.0}}


def test_no_runs_are_no_records(tmp_path: Path) -> None:
    assert latest_records(tmp_path / "nothing") == {}
