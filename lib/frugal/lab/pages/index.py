"""The page that lists all runs and kept models, rebuilt from executed notebooks and models' cards alone."""

import time
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nbformat import NotebookNode

from frugal.cards import kept_models
from frugal.files import write_text
from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.pages.records import html_table, read_records, shown
from frugal.lab.pages.run_facts import Now, RunFacts, read_run, read_status, words

TEMPLATE = Path(__file__).parent / "template"
RESULTS_SHOWN = 6
SILENT_SECONDS = 60  # after which a run that says that it goes on is taken for dead


@dataclass(frozen=True)
class Entry:
    """A run in the list; `link` leads to its report, `results` are the single values that it recorded."""

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
        return {
            "title": self.run.title,
            "when": self.run.when or "not recorded",
            "link": self.link,
            "parameters": {name: words(value) for name, value in self.run.parameters.items()},
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


def write_index(reports: Path, waiting: Sequence[str] = ()) -> Path:
    """Write `index.html` in the folder of reports, from the notebooks of runs and of sweeps' reports below it.

    Args:
        reports: the folder.
        waiting: names of notebooks that are to be run soon. While there are such, or a run goes on, the page loads
            itself again every few seconds.
    """
    paths = sorted([*reports.glob("runs/*/*/notebook.ipynb"), *reports.glob("sweeps/*/report/notebook.ipynb")])
    live = {path: each for path in paths if (each := read_live(path)) is not None}
    ended = [path for path in paths if path not in live]
    found = [read_entry(path, reports, changed(path)) for path in ended]
    entries = [each for each in found if isinstance(each, Entry)]
    models = [kept.row for kept in kept_models()]
    template, script = page_template()
    page = template.render(
        groups=groups(entries),
        facts={entry.link: entry.facts for entry in entries},
        unreadable=[each for each in found if isinstance(each, Unreadable)],
        live=list(live.values()),
        waiting=waiting,
        models=html_table("Kept models, the newest first", models) if models else "",
        written=datetime.now(UTC),
        most=RESULTS_SHOWN,
        script=script,
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),  # the browser runs no other script
    )
    write_text(reports / "index.html", page)
    return reports / "index.html"


@cache
def page_template() -> tuple[Any, str]:
    """The page's template and its script."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(TEMPLATE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("runs.html.j2"), (TEMPLATE / "runs.js").read_text(encoding="utf-8")


def changed(path: Path) -> tuple[int, int]:
    """When a run's files changed last: what was read from them holds as long as this."""
    report = path.with_name("report.html")
    return path.stat().st_mtime_ns, report.stat().st_mtime_ns if report.exists() else 0


def read_live(path: Path) -> tuple[str, Now] | None:
    """The title of the run whose notebook this is, and what it is doing, if it goes on."""
    about = read_status(path.parent)
    if about.get("status") != "running" or time.time() - path.with_name("status.json").stat().st_mtime > SILENT_SECONDS:
        return None
    present = Now.read(about)
    return None if present is None else (str(about.get("title") or path.parent.parent.name), present)


def groups(entries: list[Entry]) -> list[list[Entry]]:
    """The runs of each notebook, newest first, and the notebook with the newest run first."""
    by_notebook: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.order, reverse=True):
        by_notebook.setdefault(entry.notebook, []).append(entry)
    return list(by_notebook.values())


@cache
def read_entry(path: Path, reports: Path, _changed: tuple[int, int]) -> Entry | Unreadable:
    """A run that has ended, read once as long as its files stay the same."""
    report = path.with_name("report.html")
    link = quote((report if report.exists() else path).relative_to(reports).as_posix())
    try:
        notebook = read_notebook(path)
        results = {name: shown(value) for name, value in read_records(notebook).items() if not isinstance(value, list)}
        run = read_run(notebook, path.parent.parent.name)
        if run.status == "running":  # no word of it for a while: its process was killed
            run = replace(run, status="lost")
        return Entry(run, path.parent.parent.name, link, results, **first_figure(notebook))
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
