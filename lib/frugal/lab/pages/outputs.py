"""What an executed notebook says to a reader: its cells and outputs without what was only of use while it ran."""

import copy
import re

from nbconvert.filters import strip_ansi
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode

from frugal.lab.pages.notebooks import is_papermill_banner, split_title
from frugal.lab.pages.widgets import States, widget_states, widget_text

WIDGET = "application/vnd.jupyter.widget-view+json"
# tqdm's bar, with and without a known total, as text or as a widget's words. A longer line is no bar, and
# would take the pattern quadratic time.
PROGRESS = re.compile(r".*?(\d+%\|.*\| \S+|\d\w*) \[\d\d:\d\d[^\]]*\]")
LONGEST_BAR = 2000  # characters
LONGEST_TEXT = 500_000  # characters of one output; of a longer one the page shows the beginning and the end
LONGEST_HTML = 5_000_000
END_SHOWN = 100_000


def cells_for_readers(notebook: NotebookNode) -> list[NotebookNode]:
    """Copies of the cells without the title, with what `output_for_readers` leaves of their outputs."""
    cells: list[NotebookNode] = []
    states = widget_states(notebook)
    for cell in copy.deepcopy(notebook.cells):
        failed = any(output.output_type == "error" for output in cell.get("outputs", []))  # kept from nobody
        removed = tagged(cell, "remove-cell") and not failed
        if is_papermill_banner(cell) or (cell.cell_type != "raw" and not cell.source.strip()) or removed:
            continue
        if cell.cell_type == "markdown" and not any(earlier.cell_type == "markdown" for earlier in cells):
            cell.source = split_title(cell.source)[1]
        elif cell.cell_type == "code":
            # Tags that only hide something need nothing, for all code is folded.
            if tagged(cell, "remove-input"):
                cell.metadata["transient"] = {"remove_source": True}
            if tagged(cell, "remove-output") and not failed:
                cell.outputs = []
            CoalesceStreamsPreprocessor().preprocess_cell(cell, {}, 0)
            shown = [output_for_readers(output, states) for output in cell.outputs]
            cell.outputs = [output for output in shown if output]
        cells.append(cell)
    return cells


def tagged(cell: NotebookNode, tag: str) -> bool:
    """Whether the cell has a tag of the Jupyter world, in either of its spellings."""
    return not {tag, tag.replace("-", "_")}.isdisjoint(cell.metadata.get("tags", []))


def output_for_readers(output: NotebookNode, states: States) -> NotebookNode | None:
    """An output without colours and progress bars that are over; None if nothing is left."""
    if output.output_type == "stream":
        output.text = shortened(without_progress(strip_ansi(output.text)))
        return output if output.text else None
    if output.output_type == "error":
        output.traceback = [shortened(strip_ansi("\n".join(output.traceback)))]
        return output
    data = output.data
    for kind in ("text/plain", "text/markdown", "text/latex"):
        if isinstance(data.get(kind), str):
            data[kind] = shortened(data[kind])
    if isinstance(page := data.get("text/html"), str) and len(page) > LONGEST_HTML:
        data["text/html"] = f'<p class="note">{len(page):,} characters of HTML stand in the executed notebook only.</p>'
    if WIDGET in data and set(data) <= {WIDGET, "text/plain"}:
        last = widget_text(states, data[WIDGET].get("model_id", ""))
        first = PROGRESS.sub("", data.get("text/plain", ""))  # a bar's words when it was new
        return output if without_progress(last) or (first and not last) else None
    return output


def shortened(text: str) -> str:
    """The text, or its beginning and end and how much the executed notebook holds between them."""
    if len(text) <= LONGEST_TEXT:
        return text
    first = text[: LONGEST_TEXT - END_SHOWN].rpartition("\n")[0] or text[: LONGEST_TEXT - END_SHOWN]
    last = text[-END_SHOWN:].partition("\n")[2] or text[-END_SHOWN:]
    left = text[len(first) : len(text) - len(last)]
    lines, characters = left.count("\n"), len(left)
    return f"{first}\n[… {lines:,} lines, {characters:,} characters, left out: notebook.ipynb holds them …]\n{last}"


def without_progress(text: str) -> str:
    """The text without progress bars that are over, and without the lines that held nothing else."""
    kept = []
    for line in text.split("\n"):
        rest = PROGRESS.sub(unfinished, line) if len(line) <= LONGEST_BAR else line
        if rest or not line:
            kept.append(rest)
    return "\n".join(kept).strip("\n")


def unfinished(bar: re.Match[str]) -> str:
    """A progress bar that stopped before its end; nothing for one that came there, or has no end."""
    share = re.search(r"(\d+)%", bar[0])
    return bar[0] if share and share[1] != "100" else ""
