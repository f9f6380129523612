"""Notebook files and the text in them."""

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from frugal.errors import InputError

if TYPE_CHECKING:
    from nbformat import NotebookNode


def read_notebook(path: Path) -> "NotebookNode":
    """Read and validate a notebook file, as format 4.

    Raises:
        InputError: the file is missing, empty or not a notebook.
    """
    import nbformat  # takes a second or two: spared to the notebooks that import this room to record results

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give the path of a notebook") from error
    if not text.strip():
        raise InputError(f"{path}: is empty; expected a notebook (.ipynb)")
    try:
        with warnings.catch_warnings(action="ignore"):  # of what nbformat mends, such as two cells with one id
            notebook = nbformat.reads(text, as_version=4)
            nbformat.validate(notebook)
    except Exception as error:  # nbformat raises errors of many kinds on text that is no notebook
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: is not a valid notebook ({reason[:200]}); save it again from JupyterLab") from error
    return notebook


def title_and_text(notebook: "NotebookNode") -> tuple[str, str]:
    """The title and the rest of a notebook's first text."""
    texts = [cell for cell in notebook.cells if cell.cell_type == "markdown" and not is_papermill_banner(cell)]
    return split_title(texts[0].source) if texts else ("", "")


def is_papermill_banner(cell: "NotebookNode") -> bool:
    """Whether papermill put the cell there to point at an error."""
    return "papermill-error-cell-tag" in cell.metadata.get("tags", [])


def split_title(source: str) -> tuple[str, str]:
    """The heading that a notebook's first text starts with, as plain text, and the rest."""
    heading = re.match(r"\s*#[ \t]+(.+)", source)
    return (plain(heading[1]), source[heading.end() :]) if heading else ("", source)


def plain(markdown: str) -> str:
    """Markdown of one line without links, emphasis and the signs around formulas."""
    return re.sub(r"\*+|`|\$", "", re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", markdown)).strip()
