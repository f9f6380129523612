"""What decides a run's result, as one word: runs that agree in it need not be repeated."""

import hashlib
import json
import os.path
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import frugal
from frugal.files import checksum

if TYPE_CHECKING:
    from nbformat import NotebookNode


def identity(notebook: "NotebookNode", values: dict[str, Any]) -> str:
    """A hash of the notebook's code, the library's, the parameters' values, and the files that these name."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    files = {str(path): file_hash(path) for path in named_paths(values) if path.is_file()}
    text = json.dumps([code, library_hash(), values, files], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def named_paths(values: dict[str, Any]) -> list[Path]:
    """What parameters name, alone or in lists, that is there as a file or folder."""
    words = [word for value in values.values() for word in (value if isinstance(value, list) else [value])]
    return [Path(word) for word in words if isinstance(word, str) and os.path.exists(word)]


def file_hash(path: Path) -> str | None:
    try:
        return checksum(path)
    except OSError:  # the notebook says so where it needs it
        return None


@cache
def library_hash() -> str:
    """Of the sources of this library."""
    top = Path(frugal.__file__).parent
    sources = sorted(top.rglob("*.py"))
    text = b"".join(str(path.relative_to(top)).encode() + path.read_bytes() for path in sources)
    return hashlib.sha256(text).hexdigest()
