"""Every notebook as it is used: run at its smallest size, read as a report, started by plain papermill."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

from frugal.lab import read_records
from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.run.execution import run_notebook
from frugal.lab.run.parameters import read_parameters

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MINUTES = 10  # for a run that takes one on two idle cores, so that a busy machine is no failure

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@every_notebook
def test_it_runs_at_smoke_and_its_report_can_be_read(path: Path, tmp_path: Path) -> None:
    result = run_notebook(path, profile="smoke", timeout=MINUTES, reports=tmp_path)
    assert (result.status, result.error) == ("done", None)
    assert read_records(result.notebook)
    page = BeautifulSoup(result.report.read_text(encoding="utf-8"), "html.parser")
    figures = page.select("main figure img")
    assert figures
    assert all(len(figure["alt"].split()) > 5 and figure["src"].startswith("data:image/") for figure in figures)
    assert not page.select("script[src], link[href^=http], img[src^=http], iframe")


@every_notebook
def test_every_parameter_says_what_it_is(path: Path) -> None:
    parameters = read_parameters(read_notebook(path))
    assert parameters
    assert [parameter.name for parameter in parameters if not parameter.help] == []


@every_notebook
def test_its_cells_are_small_and_carry_no_outputs(path: Path) -> None:
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert max(len(cell.source.splitlines()) for cell in code) <= 30
    assert sum(len(cell.source.splitlines()) for cell in code) <= 300
    assert not any(cell.outputs or cell.execution_count for cell in code)


def test_plain_papermill_runs_one_from_another_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "papermill", NOTEBOOKS[0], "out.ipynb", "-p", "new_tokens", "3"]
    command += ["-p", "trial_tokens", "128"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, env={**os.environ, "FRUGAL_REPORTS": "."})
    assert read_records(tmp_path / "out.ipynb")["cores"] >= 1
