"""Finished runs as Markdown pages with their figures beside them, for readers of the repository.

Where repositories are browsed, an HTML report is shown as source, and an executed notebook without the figures that its
HTML holds. Markdown is shown as it is meant.
"""

import re
from base64 import b64decode
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from nbformat import NotebookNode

from frugal.files import appearing
from frugal.lab.pages.latest_runs import PROFILE, default_runs
from frugal.lab.pages.outputs import WIDGET, cells_for_readers
from frugal.lab.pages.run_facts import RunFacts, read_run

NOTEBOOKS = "../../notebooks"  # as seen from docs/gallery
IMAGE = re.compile(r"data:image/(svg|png|jpeg)[^;]*;base64,(.*)", re.DOTALL)


def write_gallery(reports: Path, gallery: Path) -> Path:
    """Replace the gallery by the newest finished run of each notebook at its default size; gives the first page."""
    notebooks = default_runs(reports)
    with appearing(gallery) as folder:
        (folder / "figures").mkdir(parents=True)
        entries = []
        for name, notebook in notebooks.items():
            run, figures = read_run(notebook, name), Figures(folder, name)
            (folder / f"{name}.md").write_text(page(notebook, run, figures, set(notebooks)), encoding="utf-8")
            entry = [f"## [{run.title}]({name}.md)", run.summary, figures.first]
            entries.append("\n\n".join(filter(None, entry)))
        (folder / "README.md").write_text("\n\n".join([INTRODUCTION, *entries]) + "\n", encoding="utf-8")
    return gallery / "README.md"


INTRODUCTION = f"""\
# Gallery

What the notebooks gave at their `{PROFILE}` size, to read without running anything. `make gallery` writes these
pages from the newest finished runs; each says at its end which commit and machine it comes from."""


class Figures:
    """The images of one run, kept as files in a gallery's folder; `first` is one of them as HTML."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.count = 0
        self.first = ""

    def keep(self, image: Tag) -> None:
        """Write the image that the tag holds to a file, and let the tag name it."""
        found = IMAGE.fullmatch(str(image["src"]))
        if found is None:
            return
        self.count += 1
        kind, content = found.groups()
        path = f"figures/{self.name}-{self.count}.{kind}"
        (self.folder / path).write_bytes(b64decode(content))
        image["src"] = path
        self.first = self.first or str(image)


def page(notebook: NotebookNode, run: RunFacts, figures: Figures, names: set[str]) -> str:
    """A run's text, figures and results; its code stays in the notebook."""
    name = figures.name
    parts = [f"# {run.title}", f"[All pages](README.md) · [the notebook, with its code]({NOTEBOOKS}/{name}.ipynb)"]
    for cell in cells_for_readers(notebook):
        if cell.cell_type == "markdown":
            parts.append(relinked(cell.source.strip(), names))
        elif cell.cell_type == "code":
            parts += [readable(output, figures) for output in cell.outputs]
    facts = [("Profile", run.profile), ("Started", run.when), ("Took", run.took), *run.facts]
    parts.append("## Where this comes from")
    parts.append("\n".join(f"- {fact}: {words}" for fact, words in facts if words))
    parts.append(f"To repeat this run:\n\n{fenced(run.command)}")
    return "\n\n".join(filter(None, parts)) + "\n"


def relinked(markdown: str, names: set[str]) -> str:
    """Links between notebooks lead to their pages, where there are such."""

    def target(link: re.Match[str]) -> str:
        return f"]({link[1]}.md)" if link[1] in names else f"]({NOTEBOOKS}/{link[1]}.ipynb)"

    return re.sub(r"\]\((\w+)\.ipynb\)", target, markdown)


def readable(output: NotebookNode, figures: Figures) -> str:
    """An output as Markdown; nothing for messages and controls."""
    if output.output_type == "stream":
        return fenced(output.text) if output.name == "stdout" else ""
    if output.output_type == "error":
        return fenced(output.traceback[0])
    if "text/html" in output.data:
        return with_files(output.data["text/html"], figures)
    if WIDGET in output.data:
        return ""
    return str(output.data.get("text/markdown") or fenced(output.data.get("text/plain", "")))


def with_files(html: str, figures: Figures) -> str:
    """HTML with its images in files, as one block of a Markdown page: without empty lines."""
    soup = BeautifulSoup(html, "html.parser")
    for image in soup.find_all("img"):
        figures.keep(image)
    return re.sub(r"\n\s*\n", "\n", str(soup)).strip()


def fenced(text: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}" if text.strip() else ""
