"""An executed notebook as one HTML file for readers: self-contained, no network request, good on a phone.

The notebook's text and outputs are turned into HTML here; the page around them is the template's.
"""

import re
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from bs4 import BeautifulSoup, Tag
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode, from_dict
from nbformat.v4 import new_markdown_cell, new_output

from frugal.files import write_text
from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.pages.outputs import WIDGET, cells_for_readers, output_for_readers
from frugal.lab.pages.run_facts import read_run, words
from frugal.lab.pages.widgets import States, widget_html, widget_states

TEMPLATE = Path(__file__).parent / "template"
NUMBER = re.compile(r"[-+−±]?[\d,.]*\d(e[-+]?\d+)?\s*(%|[a-zA-Zµ]{1,3}|\s*±.*)?|nan|[-−]?inf|[—–-]?", re.IGNORECASE)  # noqa: RUF001


SCRIPT = "application/javascript"
# What is taken out of texts and outputs: elements that a reader would miss, in words, and those that show nothing.
LOST = {"script": "script", "iframe": "page in a frame", "frame": "page in a frame", "object": "plug-in"}
LOST |= {"embed": "plug-in", "portal": "page in a frame"}
HANDLER = "control that answers to the mouse or keyboard"
DROPPED = ("base", "meta", "link", "noscript", "animate", "animatetransform", "set")
ACTIVE = re.compile(
    rf"<\s*({'|'.join([*LOST, *DROPPED, 'form'])})\b"
    r"|[\s/\"'](on\w+|formaction|ping|srcdoc|target)\s*="
    r"|(java|vb)script|data:text|&(#|tab|newline|colon)",
    re.IGNORECASE,
)
PICTURES = ("img", "video", "audio")
PICTURE = re.compile(rf"<({'|'.join(PICTURES)})\b", re.IGNORECASE)
LONG_TEXT = 24  # characters: a table's column with more has room for about as many, so that its rows stay low
NOT_AS_WISHED = "This report could not be made as usual; here are the texts as written and the outputs as plain text."


@dataclass(frozen=True)
class Heading:
    """An entry of the table of contents; `text` is HTML."""

    level: int
    anchor: str
    text: str


def write_report(notebook: Path, html: Path) -> None:
    """Render an executed notebook, whole or partly run, to a report; a plainer one where that fails.

    Raises:
        InputError: the file cannot be read as a notebook.
    """
    executed = read_notebook(notebook)
    try:
        page = report(executed, notebook.stem)
    except Exception as error:  # whatever one cell or output leads to, the other notebooks' reports shall be written
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        page = report(plain_notebook(executed, reason), notebook.stem)
    write_text(html, page)


def plain_notebook(notebook: NotebookNode, reason: str) -> NotebookNode:
    """The notebook with text as it was written and outputs as plain text, and why."""
    cells = [new_markdown_cell(f"# {notebook.metadata.get('title', 'Report')}"), new_markdown_cell(NOT_AS_WISHED)]
    cells[1].source += f"\n\n    {reason}"
    for cell in notebook.cells:
        if cell.cell_type != "code":
            cells.append(new_markdown_cell(f"<pre>{escape(cell.source)}</pre>"))
            continue
        outputs = []
        for output in cell.get("outputs", []):
            if output.output_type in ("stream", "error"):
                outputs.append(output)
            elif isinstance(words := output.get("data", {}).get("text/plain"), str):
                outputs.append(new_output("display_data", {"text/plain": words}))
        cells.append(NotebookNode({**cell, "outputs": outputs}))
    return NotebookNode({**notebook, "cells": cells})


def report(notebook: NotebookNode, name: str) -> str:
    """The report's HTML; `name` is the title of a notebook that has none."""
    cells, headings = readable_cells(notebook)
    exporter().environment.globals.update(run=read_run(notebook, name), headings=headings)
    return str(exporter().from_notebook_node(NotebookNode({**notebook, "cells": cells}))[0])


@cache
def exporter() -> HTMLExporter:
    """The exporter with its template, which takes longer to compile than a short notebook to run."""
    made = HTMLExporter(template_name=TEMPLATE.name, extra_template_basedirs=[str(TEMPLATE.parent)])
    made.register_filter("focusable", focusable)
    script = (TEMPLATE / "report.js").read_text(encoding="utf-8")
    script_hash = b64encode(sha256(script.encode()).digest()).decode()
    made.environment.globals.update(words=words, script=script, script_hash=script_hash)
    return made


def readable_cells(notebook: NotebookNode) -> tuple[list[NotebookNode], list[Heading]]:
    """The cells with their text and outputs as HTML, without the title, and the headings in the text."""
    headings: list[Heading] = []
    cells, states = cells_for_readers(notebook), widget_states(notebook)
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = markdown_to_html(cell.source, headings, cell.get("attachments", {}))
        for output in cell.get("outputs", []):
            if "data" in output:
                add_html(output.data, states)
    return cells, headings


def add_html(data: dict[str, Any], states: States) -> None:
    """Give an output's data the HTML that the page shows, if not its plain text."""
    widget = data.pop(WIDGET, None)
    if widget is not None and set(data) <= {"text/plain"}:
        shown = widget_html(states, widget.get("model_id", ""), captured_html)
        data["text/html"] = f'<div class="widget">{shown}</div>' if shown else note("control")
    if SCRIPT in data:
        del data[SCRIPT]
        data.setdefault("text/html", note("script"))
    if "text/html" in data:
        data["text/html"] = readable_tables(inert(with_pictures(data["text/html"], {})))
    elif "text/markdown" in data:
        data["text/html"] = markdown_to_html(data["text/markdown"], [], {})
    elif "text/latex" in data:
        data["text/html"] = formula(data["text/latex"].strip().strip("$"), display=True)


def captured_html(output: dict[str, Any]) -> str:
    """What an Output widget captured, as a page shows it."""
    kept = output_for_readers(from_dict({"metadata": {}, **output}), {})
    if kept is None:
        return ""
    if kept.output_type in ("stream", "error"):
        words = kept.text if kept.output_type == "stream" else kept.traceback[0]
        return f'<pre tabindex="0">{escape(words)}</pre>'
    add_html(kept.data, {})
    for kind in ("image/png", "image/jpeg"):
        if kind in kept.data:
            return f'<figure><img src="data:{kind};base64,{escape(kept.data[kind])}" alt="Figure in a widget"></figure>'
    return str(kept.data.get("text/html") or f'<pre tabindex="0">{escape(kept.data.get("text/plain", ""))}</pre>')


def markdown_to_html(source: str, headings: list[Heading], attachments: dict[str, Any]) -> str:
    """Render a notebook's markdown; its headings are added to `headings`."""
    html = MarkdownWithMath(renderer=Renderer(headings)).render(source)
    return focusable(readable_tables(inert(with_pictures(html, attachments))))


def with_pictures(html: str, attachments: dict[str, Any]) -> str:
    """HTML with attached pictures in their places and a link for each that the page's rules keep it from loading."""
    if not PICTURE.search(html):
        return html
    soup = BeautifulSoup(html, "html.parser")
    for element in soup.find_all(PICTURES, src=True):
        url, words = str(element["src"]), str(element.get("alt", ""))
        if url.startswith("attachment:"):
            name = unquote(url.removeprefix("attachment:"))
            if not attachments.get(name):
                element.name, element.attrs = "span", {"class": "note"}
                element.string = f"(picture missing: {words or name})"
                continue
            kind, picture = next(iter(attachments[name].items()))
            url = element["src"] = f"data:{kind};base64,{picture if isinstance(picture, str) else ''.join(picture)}"
        if not url.startswith("data:"):
            # A link within a link would take its place.
            element.name, element.attrs = ("span", {}) if element.find_parent("a") else ("a", {"href": url})
            element.string = words or url
    return str(soup)


def inert(html: str) -> str:
    """HTML without what acts by itself or leads the reader away; a sentence stands where something shown is lost.

    The page's rules already keep scripts from running. Not all browsers and ways of acting are bound by them: a page
    may be left for another one by a `meta` element, for instance.
    """
    if not ACTIVE.search(html):
        return html
    soup = BeautifulSoup(html, "html.parser")
    for element in soup.find_all([*LOST, *DROPPED]):
        if element.name in LOST:
            element.insert_before(BeautifulSoup(note(LOST[element.name]), "html.parser"))
        element.decompose()
    for element in soup.find_all("form"):
        element.insert_before(BeautifulSoup(note("form"), "html.parser"))
        element.unwrap()
    lost = [strip_handlers(element) for element in soup.find_all(True)]
    return str(soup) + (note(HANDLER) if any(lost) else "")


def strip_handlers(element: Tag) -> bool:
    """Take out attributes that act or lead away; whether a reader misses one of them."""
    missed = False
    for name, value in list(element.attrs.items()):
        target = re.sub(r"[\s\x00-\x20]+", "", value).lower() if isinstance(value, str) else ""
        handler = name.lower().startswith("on") or target.startswith(("javascript:", "vbscript:", "data:text/html"))
        if handler or name.lower() in ("formaction", "ping", "srcdoc", "target"):
            del element[name]
            missed = missed or handler
    return missed


def note(what: str) -> str:
    """Stands where something of an output is left out."""
    return f'<p class="note">A {what} stood here; it works only in JupyterLab.</p>'


def focusable(html: str) -> str:
    """Let the keyboard reach, and so scroll, blocks of code; in the code itself a `<` is escaped."""
    return html.replace("<pre>", '<pre tabindex="0">')


class Renderer(IPythonRenderer):
    """Markdown with formulas as MathML and headings collected for the contents."""

    def __init__(self, headings: list[Heading]) -> None:
        super().__init__(escape=False)
        self.headings = headings

    def heading(self, text: str, level: int, **_attributes: Any) -> str:
        level = max(level, 2)  # the page has one title
        plain = BeautifulSoup(text, "html.parser").get_text()
        stem = re.sub(r"[^\w]+", "-", plain.lower()).strip("-") or "section"
        taken = sum(re.fullmatch(rf"{re.escape(stem)}(-\d+)?", each.anchor) is not None for each in self.headings)
        anchor = f"{stem}-{taken + 1}" if taken else stem
        self.headings.append(Heading(level, anchor, re.sub(r"</?(a|img)\b[^>]*>", "", inert(text))))
        link = f'<a class="anchor" href="#{anchor}" aria-label="Link to this section">#</a>'
        return f'<h{level} id="{anchor}">{text} {link}</h{level}>\n'

    def inline_math(self, body: str) -> str:
        return formula(body, display=False)

    def block_math(self, body: str) -> str:
        return formula(body, display=True)

    def latex_environment(self, name: str, body: str) -> str:
        if name.rstrip("*") == "equation":
            return formula(body, display=True)
        return formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return f'<img src="{escape(url)}" alt="{escape(text)}">'


# A formula does not break across lines: what may be wider than a telephone scrolls by itself.
SHORT_FORMULA = 30


def formula(latex: str, display: bool) -> str:
    """MathML for a formula, or its source where it cannot be converted."""
    from latex2mathml.converter import convert

    # The converter knows `align*` alone of these, and gives the same layout for it.
    known = re.sub(r"\{(align|aligned|split)\}", "{align*}", latex.strip())
    try:
        mathml = convert(known, display="block" if display else "inline")
    except Exception:  # whatever the converter stumbles over, the reader gets the source
        mathml = ""
    if not mathml or "<mi>\\" in mathml:
        mathml = f'<code class="tex">{escape(latex)}</code>'
    if not display and len(latex) <= SHORT_FORMULA:
        return mathml
    kind, tag = ("formula", "div") if display else ("inline-formula", "span")
    return f'<{tag} class="{kind}" tabindex="0" role="group" aria-label="Formula">{mathml}</{tag}>'


def readable_tables(html: str) -> str:
    """Give every table scopes, right-aligned numbers and a frame that scrolls by itself."""
    if "<table" not in html:
        return html
    soup = BeautifulSoup(html, "html.parser")
    for table in soup.find_all("table"):
        caption = table.find("caption")
        name = caption.get_text(" ", strip=True) if caption else "Table"
        mark_up_table(table)
        table.wrap(soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0", "role": "group", "aria-label": name}))
    return str(soup)


def mark_up_table(table: Tag) -> None:
    for name in ("border", "class"):
        table.attrs.pop(name, None)
    rows = [row.find_all(["td", "th"]) for row in table.find_all("tr")]
    for row in rows:
        for cell in row:
            cell.attrs.pop("style", None)
            if cell.name == "th" and not cell.get_text(strip=True):
                cell.name = "td"
            if cell.name == "th":
                cell["scope"] = "col" if cell.find_parent("thead") else "row"
    for column in zip(*rows, strict=False) if len({len(row) for row in rows}) == 1 else ():
        body = [cell for cell in column if not cell.find_parent("thead") and cell.name == "td"]
        texts = [cell.get_text(strip=True) for cell in body]
        if any(texts) and all(NUMBER.fullmatch(text) for text in texts):
            for cell in column:
                cell["class"] = "number"
        elif max(map(len, texts), default=0) > LONG_TEXT:
            for cell in column:
                cell["class"] = "words"
