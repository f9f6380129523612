"""The tables for those who come from another project name parameters that are there."""

import re
from pathlib import Path

import pytest

from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.run.parameters import read_parameters

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "coming_from").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_parameters_named_are_those_of_the_notebooks_named(page: Path) -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \| ([\d, ]+) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 10
    for flag, here, notebooks in rows:
        for number in notebooks.split(", "):
            (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
            known = {parameter.name for parameter in read_parameters(read_notebook(path))}
            assert set(re.findall(r"`(\w+)`", here.partition(":")[0])) <= known, (flag, number)
