"""The sweeps that come with the notebooks ask for what the notebooks have."""

from pathlib import Path

import pytest

from frugal.lab.live.cli import find_notebook
from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.sweep import read_sweep

SWEEPS = sorted((Path(__file__).parents[1] / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_its_parameters_and_its_objective_are_the_notebooks(path: Path) -> None:
    sweep = read_sweep(path, find_notebook)
    code = "".join(cell.source for cell in read_notebook(sweep.plan.path).cells if cell.cell_type == "code")
    assert f"{sweep.objective.record}=" in code
