"""The table for those who come from GPT-Echo names parameters that are there."""

import re
from pathlib import Path

from frugal.lab.parameters import read_notebook, read_parameters

ROOT = Path(__file__).parents[1]


def test_the_parameters_named_are_those_of_the_notebooks_named() -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \| ([\d, ]+) \|$", (ROOT / "docs" / "gpt_echo.md").read_text(), re.MULTILINE)
    assert len(rows) > 15
    for flag, here, notebooks in rows:
        for number in notebooks.split(", "):
            (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
            known = {parameter.name for parameter in read_parameters(read_notebook(path))}
            assert set(re.findall(r"`(\w+)`", here)) <= known, (flag, number)
