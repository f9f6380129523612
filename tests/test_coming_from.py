"""The tables for those who come from another project name parameters that are there."""

import re
from pathlib import Path

import pytest

from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.run.parameters import read_parameters

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "coming_from"
LIBRARIES = ("reservoirpy",)  # these have code of their own to compare with, not notebooks
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.stem not in LIBRARIES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_parameters_named_are_those_of_the_notebooks_named(page: Path) -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \| ([\d, ]+) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 10
    for flag, here, notebooks in rows:
        for number in notebooks.split(", "):
            (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
            known = {parameter.name for parameter in read_parameters(read_notebook(path))}
            assert set(re.findall(r"`(\w+)`", here.partition(":")[0])) <= known, (flag, number)


def test_the_ten_lines_of_both_libraries_make_the_same_error() -> None:
    pytest.importorskip("reservoirpy.nodes", reason="reservoirpy is not installed: nothing to compare with")
    errors = []
    for code in re.findall(r"```python\n(.+?)```", (FOLDER / "reservoirpy.md").read_text(encoding="utf-8"), re.DOTALL):
        assert len([line for line in code.splitlines() if line]) <= 10
        names: dict[str, float] = {}
        exec(code, names)
        errors.append(names["error"])
    assert len(errors) == 2
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    assert errors[1] < 0.01
