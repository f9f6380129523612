"""A sweep's runs on disk: each in a folder named by all that decides its result. The folders are the study."""

import contextlib
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from frugal.errors import InputError
from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.pages.records import read_records
from frugal.lab.pages.run_facts import read_status
from frugal.lab.run.execution import Plan
from frugal.lab.run.parameters import check
from frugal.lab.sweep.definition import Sweep, as_choice

# A run in one of these states is finished; one that was killed or interrupted is run again.
FINISHED = ("done", "failed", "timeout", "stopped")


@dataclass(frozen=True)
class Run:
    """One notebook run of a sweep; its folder is there once it is over."""

    plan: Plan
    folder: Path

    @property
    def progress(self) -> Path:
        """Where it reports its progress while it goes on."""
        return self.folder.parent / "progress" / self.folder.name

    @property
    def attempts(self) -> list[Path]:
        """Temporary folders of attempts at it, some of which may be dead."""
        return list(self.folder.parent.glob(f".{self.folder.name}.*/"))

    @property
    def status(self) -> str | None:
        """What its folder says, None if nothing readable."""
        return read_status(self.folder).get("status")

    @property
    def error(self) -> str | None:
        """Why it failed, if it did."""
        return read_status(self.folder).get("error")


@dataclass(frozen=True)
class Point:
    """A point of the search space and its runs, one per seed."""

    values: dict[str, Any]
    runs: tuple[Run, ...]

    @property
    def status(self) -> str | None:
        """`done` if all runs are; the first other state that a finished point has; None while runs are missing."""
        found = [run.status for run in self.runs]
        if any(status not in FINISHED for status in found):
            return None
        return next((status for status in found if status != "done"), "done")

    @property
    def error(self) -> str:
        """Why it failed, by the first of its runs that did."""
        failed = next((run for run in self.runs if run.status != "done"), None)
        return "" if failed is None else failed.error or f"a run ended as {failed.status or 'lost'}"

    def value(self, sweep: Sweep) -> float:
        """The objective's mean over the runs, all of which are done."""
        read = [sweep.objective.read(read_records(read_notebook(run.folder / "notebook.ipynb"))) for run in self.runs]
        return sum(read) / len(read)


def make_point(sweep: Sweep, values: dict[str, Any], root: Path) -> Point:
    """The runs of a point, each with the folder that is or will be its own."""
    runs = []
    for number in range(sweep.seeds):
        seed = {"seed": sweep.seed + number} if sweep.seeds > 1 else {}
        given = {**sweep.plan.given, **check(sweep.plan.parameters, {**values, **seed})}
        plan = replace(sweep.plan, given=given)
        runs.append(Run(plan, root / plan.identity))
    return Point(values, tuple(runs))


def finished_points(sweep: Sweep, root: Path) -> list[Point]:
    """All points of this sweep whose runs are finished, whoever ran them; other code or parameters do not count."""
    from optuna.trial import TrialState, create_trial

    found = {}
    for path in sorted(root.glob("*/status.json")):
        try:
            parameters = read_status(path.parent)["parameters"]
            values = {name: as_choice(parameters[name]) for name in sweep.search}
            create_trial(state=TrialState.FAIL, params=values, distributions=sweep.search)  # refuses other values
            point = make_point(sweep, values, root)
        except (ValueError, KeyError, InputError):
            continue
        if point.status is not None:
            found[json.dumps(values)] = point
    return list(found.values())


def give_up(attempts: list[Path]) -> None:
    """Remove temporary folders; an attempt that still goes on in one of them can then no longer become a run's folder.

    Each is moved first, in one step, since a folder that appears while it is being removed would be half a folder.
    """
    for attempt in attempts:
        place = tempfile.TemporaryDirectory(dir=attempt.parent, prefix=".given_up.")
        with place, contextlib.suppress(FileNotFoundError):  # it may have ended just now
            attempt.rename(Path(place.name) / attempt.name)
