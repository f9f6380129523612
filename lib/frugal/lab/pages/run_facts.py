"""What an executed notebook says about its run, read from the file alone.

`frugal run` leaves the facts in `metadata.frugal.run`; papermill leaves parameters and times; "Run All" leaves neither.
Whatever is missing stays empty: nothing is guessed, and papermill's word on success is not taken, because it also says
"completed" when the kernel was killed.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from frugal.lab.pages.notebooks import plain, title_and_text

# Shown in words and in colour, so that neither is needed to read it.
STATUS_WORDS = {
    "done": "done",
    "failed": "failed",
    "timeout": "stopped at its time limit",
    "killed": "killed",
    "interrupted": "interrupted",
    "stopped": "stopped by its sweep",
    "running": "running",
    "lost": "ended without a word",
    "unknown": "outcome not recorded",
}


@dataclass(frozen=True)
class RunFacts:
    """One run of a notebook; `facts` are the rest of what was recorded, as pairs of name and words.

    `set_again` names parameters that a later cell gives values of its own.
    """

    title: str
    summary: str
    status: str
    error: str
    profile: str
    parameters: dict[str, Any]
    changed: frozenset[str]
    set_again: frozenset[str]
    started: datetime | None
    seconds: float | None
    facts: list[tuple[str, str]]
    command: str

    @property
    def status_words(self) -> str:
        return STATUS_WORDS[self.status]

    @property
    def when(self) -> str:
        return f"{self.started:%Y-%m-%d %H:%M} UTC" if self.started else ""

    @property
    def took(self) -> str:
        return "" if self.seconds is None else duration_words(self.seconds)


def read_status(folder: Path) -> dict[str, Any]:
    """What the status file of a run's folder says; empty where there is none that can be read."""
    try:
        return dict(json.loads((folder / "status.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


@dataclass(frozen=True)
class Now:
    """What a run that goes on is doing: cell of how many, its section, what it printed last, since when it runs."""

    cell: int
    cells: int
    section: str
    line: str
    started: datetime | None

    @classmethod
    def read(cls, status: dict[str, Any]) -> "Now | None":
        """From a run's status file; None if it does not say."""
        try:
            return cls(started=read_time(status["started"]), **status["doing"])
        except (KeyError, TypeError):
            return None

    @property
    def words(self) -> str:
        seconds = (datetime.now(UTC) - self.started).total_seconds() if self.started else 0.0
        parts = [
            f"cell {self.cell} of {self.cells}" if self.cell else "starting",
            self.section,
            f"{int(seconds) // 60}:{int(seconds) % 60:02}",
            self.line,
        ]
        return ", ".join(part for part in parts if part)


def read_run(notebook: NotebookNode, name: str) -> RunFacts:
    """The facts of a run; `name` is the title of a notebook that has none."""
    run = recorded_run(notebook)
    title, text = title_and_text(notebook)
    error = run.get("error") or first_error(notebook)
    status = run.get("status") or ("failed" if error else "unknown")
    seconds = run.get("seconds")
    return RunFacts(
        title=title or str(run.get("notebook") or name),
        summary=first_sentence(text),
        status=status if status in STATUS_WORDS else "unknown",
        error=str(error or ""),
        profile=str(run.get("profile") or ""),
        parameters=dict(run.get("parameters") or {}),
        changed=frozenset(run.get("changed") or ()),
        set_again=frozenset(run.get("set_again") or ()),
        started=read_time(run.get("started")),
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        facts=facts(run),
        command=str(run.get("command") or ""),
    )


def recorded_run(notebook: NotebookNode) -> dict[str, Any]:
    run = notebook.metadata.get("frugal", {}).get("run")
    if run:
        return dict(run)
    papermill = notebook.metadata.get("papermill", {})
    return {
        "parameters": papermill.get("parameters"),
        "changed": list(papermill.get("parameters") or {}),
        "started": papermill.get("start_time"),
        "seconds": papermill.get("duration"),
    }


def facts(run: dict[str, Any]) -> list[tuple[str, str]]:
    """Where the results come from, in words, without what was not recorded."""
    machine = run.get("machine") or {}
    parts = {
        "processor": "{}",
        "cores": "{} cores",
        "memory_gb": "{:.3g} GB memory",
        "threads": "threads: {}",
        "system": "{}",
    }
    commit = run.get("commit")
    tree = {True: "clean", False: "with uncommitted changes"}.get(run.get("clean"), "")  # type: ignore[arg-type]
    peak = run.get("peak_memory_mb")
    versions = ", ".join(f"{name} {version}" for name, version in (run.get("versions") or {}).items())
    pairs = [
        ("Commit", f"{commit[:12]}{', ' * bool(tree)}{tree}" if commit else ""),
        ("Seed", "" if run.get("seed") is None else str(run["seed"])),
        ("Peak memory", "" if peak is None else f"{peak / 1000:.2g} GB" if peak >= 1000 else f"{peak:.0f} MB"),
        ("Machine", ", ".join(form.format(machine[part]) for part, form in parts.items() if machine.get(part))),
        ("Accelerators", ", ".join(machine.get("accelerators") or [])),
        ("Versions", versions),
    ]
    return [(name, words) for name, words in pairs if words]


def first_error(notebook: NotebookNode) -> str:
    """The first error in a cell that was not meant to raise one."""
    for cell in notebook.cells:
        if "raises-exception" in cell.metadata.get("tags", []):
            continue
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"{output.ename}: {output.evalue[:300]}"
    return ""


def first_sentence(markdown: str) -> str:
    paragraph = markdown.strip().split("\n\n")[0]
    if paragraph.startswith(("#", "|", "```", "- ", "$$", "<")):
        return ""
    return re.split(r"(?<=[.!?])\s", plain(" ".join(paragraph.split())), maxsplit=1)[0]


def read_time(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def duration_words(seconds: float) -> str:
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def words(value: Any) -> str:
    """A parameter's value for reading: text as it is, everything else as in the parameters cell."""
    return value if isinstance(value, str) and value else repr(value)
