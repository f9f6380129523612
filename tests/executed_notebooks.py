"""Executed notebooks for tests of reports and index, put together without a kernel."""

from pathlib import Path
from typing import Any

import matplotlib
import nbformat
from nbformat import NotebookNode, v4

from frugal.lab.pages.figures import figure_output
from frugal.lab.pages.records import bundle

matplotlib.use("Agg")

RUN = {
    "notebook": "01_echo",
    "profile": "smoke",
    "parameters": {"leak": 0.3, "units": 500, "text": "tales"},
    "changed": ["units"],
    "status": "done",
    "error": None,
    "started": "2025-03-14T12:03:05+00:00",
    "seconds": 134.2,
    "peak_memory_mb": 1234.5,
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "clean": False,
    "versions": {"python": "3.11.9", "torch": "2.13.0"},
    "machine": {"processor": "Some CPU", "cores": 2, "memory_gb": 7.8, "system": "Linux", "threads": "1"},
    "command": "frugal run notebooks/01_echo.ipynb -p units 500",
    "seed": 0,
}


def code(source: str = "pass", outputs: list[NotebookNode] | None = None, **metadata: Any) -> NotebookNode:
    return v4.new_code_cell(source, outputs=outputs or [], execution_count=1, metadata=metadata)


def text(source: str) -> NotebookNode:
    return v4.new_markdown_cell(source)


def display(**data: Any) -> NotebookNode:
    """An output with the given data; the underscores in the MIME types' names stand for slashes."""
    return v4.new_output("display_data", data={name.replace("_", "/"): value for name, value in data.items()})


def stream(text: str, name: str = "stdout") -> NotebookNode:
    return v4.new_output("stream", name=name, text=text)


def error(name: str = "ValueError", value: str = "no such thing") -> NotebookNode:
    traceback = [f"\x1b[31m{name}\x1b[39m Traceback", f"\x1b[31m{name}\x1b[39m: {value}"]
    return v4.new_output("error", ename=name, evalue=value, traceback=traceback)


def figure(caption: str = "A line rises.", alt: str = "One rising line.") -> NotebookNode:
    import matplotlib.pyplot as plt

    drawn, axes = plt.subplots()
    axes.plot([1, 2, 3])
    data, metadata = figure_output(drawn, caption, alt)
    return v4.new_output("display_data", data=data, metadata=metadata)


def recorded(**values: Any) -> NotebookNode:
    return v4.new_output("display_data", data=bundle(values))


def notebook(*cells: NotebookNode, run: dict[str, Any] | None = None, **metadata: Any) -> NotebookNode:
    """A notebook with the record of its run; `run` changes the record, an empty one leaves it out."""
    if run != {}:
        metadata["frugal"] = {"run": {**RUN, **(run or {})}}
    return v4.new_notebook(cells=list(cells), metadata=metadata)


def save(notebook: NotebookNode, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path
