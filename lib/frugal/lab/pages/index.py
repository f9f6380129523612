"""The page that lists all runs, rebuilt from their executed notebooks alone."""

from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nbformat import NotebookNode

from frugal.files import write_text
from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.pages.records import read_records, shown
from frugal.lab.pages.run_facts import RunFacts, read_run, words

TEMPLATE = Path(__file__).parent / "template"
RESULTS_SHOWN = 6


@dataclass(frozen=True)
class Entry:
    """A run in the list; `link` leads to its report, `results` are the single values that it recorded.

    `number` is its place in the list of facts that the page's script compares.
    """

    number: int
    run: RunFacts
    notebook: str
    link: str
    results: dict[str, str]
    thumbnail: str
    alt: str

    @property
    def changed(self) -> str:
        return ", ".join(f"{name} = {words(self.run.parameters.get(name))}" for name in sorted(self.run.changed))

    @property
    def facts(self) -> dict[str, Any]:
        """What the page's script compares, as words."""
        parameters = {name: words(value) for name, value in self.run.parameters.items()}
        when = self.run.when or "not recorded"
        return {
            "title": self.run.title,
            "when": when,
            "link": self.link,
            "parameters": parameters,
            "results": self.results,
        }

    @property
    def order(self) -> tuple[datetime, str]:
        return self.run.started or datetime.min.replace(tzinfo=UTC), self.link


@dataclass(frozen=True)
class Unreadable:
    """A file that should be an executed notebook, and what is wrong with it."""

    link: str
    reason: str


def write_index(reports: Path) -> Path:
    """Write `index.html` in the folder of reports, from the notebooks of runs and of sweeps' reports below it."""
    from jinja2 import Environment, FileSystemLoader

    paths = [*reports.glob("runs/*/*/notebook.ipynb"), *reports.glob("sweeps/*/report/notebook.ipynb")]
    found = [read_entry(number, path, reports) for number, path in enumerate(sorted(paths))]
    environment = Environment(loader=FileSystemLoader(TEMPLATE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    script = (TEMPLATE / "runs.js").read_text(encoding="utf-8")
    page = environment.get_template("runs.html.j2").render(
        groups=groups([entry for entry in found if isinstance(entry, Entry)]),
        facts=[entry.facts if isinstance(entry, Entry) else None for entry in found],
        unreadable=[entry for entry in found if isinstance(entry, Unreadable)],
        most=RESULTS_SHOWN,
        script=script,
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),  # the browser runs no other script
    )
    write_text(reports / "index.html", page)
    return reports / "index.html"


def groups(entries: list[Entry]) -> list[list[Entry]]:
    """The runs of each notebook, newest first, and the notebook with the newest run first."""
    by_notebook: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.order, reverse=True):
        by_notebook.setdefault(entry.notebook, []).append(entry)
    return list(by_notebook.values())


def read_entry(number: int, path: Path, reports: Path) -> Entry | Unreadable:
    report = path.with_name("report.html")
    link = quote((report if report.exists() else path).relative_to(reports).as_posix())
    try:
        notebook = read_notebook(path)
        results = {name: shown(value) for name, value in read_records(notebook).items() if not isinstance(value, list)}
        run = read_run(notebook, path.parent.parent.name)
        return Entry(number, run, path.parent.parent.name, link, results, **first_figure(notebook))
    except Exception as error:  # one damaged file, whatever is wrong with it, must not hide the others
        return Unreadable(link, str(error) or type(error).__name__)


def first_figure(notebook: NotebookNode) -> dict[str, Any]:
    """Thumbnail and alt text of the first figure that `show` left in the notebook; empty where there is none."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            figure = output.get("metadata", {}).get("frugal", {})
            if str(figure.get("thumbnail", "")).startswith("data:image/png;base64,"):
                return {"thumbnail": figure["thumbnail"], "alt": figure.get("alt", "")}
    return {"thumbnail": "", "alt": ""}
