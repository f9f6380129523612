"""What a run is doing at the moment, for whoever watches it: the terminal, and the index of reports."""

import re
from typing import Any

from nbformat import NotebookNode

from frugal.lab.pages.notebooks import plain
from frugal.lab.pages.widgets import box_around, widget_text

KEPT = 500  # characters of what a cell prints, of which the last line is shown


class Doing:
    """Where a run is: `cell` of `cells` code cells, under the heading `section`, and the `line` it printed last."""

    def __init__(self, notebook: NotebookNode) -> None:
        self.cells = sum(is_run(cell) for cell in notebook.cells)
        self.cell, self.section, self.printed = 0, "", ""

    def enter(self, cell: NotebookNode) -> None:
        """The run has come to this cell."""
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#{2,4}[ \t]+(.+)", cell.source, re.MULTILINE)
            self.section = plain(headings[-1]) if headings else self.section
        elif is_run(cell):
            self.cell, self.printed = self.cell + 1, ""

    def hear(self, message: dict[str, Any], widgets: dict[str, Any]) -> None:
        """Take in what the kernel sent; `widgets` are the states of its widgets, some of which are progress bars."""
        content = message["content"]
        if message["msg_type"] == "stream":
            self.printed = (self.printed + content["text"][-KEPT:])[-KEPT:]
        elif message["msg_type"] == "comm_msg" and "value" in content["data"].get("state", {}):
            bar = box_around(widgets, content["comm_id"])
            self.printed += f"\n{widget_text(widgets, bar)}\n" if bar else ""
            self.printed = self.printed[-KEPT:]

    @property
    def line(self) -> str:
        lines = [line.strip() for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", self.printed))]
        return next((line for line in reversed(lines) if line), "")

    def facts(self) -> dict[str, Any]:
        return {"cell": self.cell, "cells": self.cells, "section": self.section, "line": self.line}


def is_run(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())
