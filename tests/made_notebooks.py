"""Small notebooks for the tests of running and recording."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = """\
n: int = 3  # how many [smoke: 1, full: 1_000]
name: str = "x"  # what to call it
seed: int = 0  # of the random numbers"""


def make_notebook(path: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    """Write a notebook with a title, a parameters cell and the given code cells."""
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# A title\n\nWhat it shows."),
            new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            *map(new_code_cell, cells),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, path)
    return path
