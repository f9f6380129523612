"""The driver of a sweep: it asks Optuna for points, has their runs carried out, and tells it what came of them.

The run folders are the only record. Whatever dies, starting the sweep again finds what is finished, runs what is not,
and gives the sampler all results so far.
"""

import json
import shutil
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from frugal.errors import InputError, UnavailableError
from frugal.files import write_text
from frugal.lab.run.progress import STOP, read_progress
from frugal.lab.sweep.definition import Sweep
from frugal.lab.sweep.pool import Pool, Site, Submit, worker_pool
from frugal.lab.sweep.runs import FINISHED, Point, Run, finished_points, give_up, make_point
from frugal.lab.sweep.worker import execute_run

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import TrialState

RETRIES = 2  # of a run whose worker or kernel was killed
POLL_SECONDS = 1.0


def run_sweep(sweep: Sweep, reports: Path, site: Site) -> Path:
    """Carry out what is left of a sweep; gives the sweep's folder, with `sweep.json` and a folder per run.

    Raises:
        InputError: another driver has this sweep in hand.
        UnavailableError: the workers cannot be reached any more; started again, it goes on.
        KeyboardInterrupt: it was interrupted; started again, it goes on.
    """
    root = (reports / "sweeps" / sweep.name).resolve()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)  # its files tell workers what to do
    try:
        lock = FileLock(root / ".lock").acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{sweep.name}: another `frugal sweep` has this sweep in hand; wait for it or stop it"
        ) from None
    with lock:
        # Of workers that were killed, or that have not noticed yet that their driver was.
        give_up(list(root.glob(".*/")))
        driver = Driver(sweep, root)
        if driver.more():
            with worker_pool(site, root / "workers") as pool:
                driver.carry_out(pool)
        driver.write()
    return root


@dataclass
class Pending:
    """A point whose runs are on their way."""

    trial: "Trial"
    point: Point
    waiting: "dict[Future[str], tuple[Run, int]]" = field(default_factory=dict)  # with the attempts so far
    reported: int = 0


class Driver:
    """One sweep in progress: finished points, and those on their way."""

    def __init__(self, sweep: Sweep, root: Path) -> None:
        self.sweep, self.root, self.begun = sweep, root, time.monotonic()
        self.finished = [(point, outcome(sweep, point)) for point in finished_points(sweep, root)]
        self.pending: list[Pending] = []
        self.study = make_study(sweep, self.finished)
        self.left: list[dict[str, Any]] | None = None
        if sweep.sampler == "grid":
            known = [point.values for point, _ in self.finished]
            self.left = [values for values in sweep.grid() if values not in known]

    def more(self) -> bool:
        """Whether the budget allows another point."""
        count = len(self.finished) + len(self.pending)
        if self.sweep.points is not None and count >= self.sweep.points:
            return False
        if self.sweep.minutes is not None and time.monotonic() - self.begun > 60 * self.sweep.minutes:
            return False
        return self.left is None or bool(self.left)

    def carry_out(self, pool: Pool) -> None:
        """Run points until the budget is spent, so many at a time that no worker waits."""
        total = self.sweep.points if self.left is None else len(self.finished) + len(self.left)
        with tqdm(total=total, initial=len(self.finished), unit=" points", desc=self.sweep.name, disable=None) as bar:
            while self.pending or self.more():
                if not pool.reachable():
                    raise UnavailableError("the workers cannot be reached any more: start the sweep again, it goes on")
                while self.more() and sum(len(each.waiting) for each in self.pending) < 2 * pool.workers:
                    self.begin(pool.submit)
                futures = [future for each in self.pending for future in each.waiting]
                wait(futures, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                for pending in list(self.pending):
                    self.look_at(pending, pool.submit)
                    if not pending.waiting:
                        self.finish(pending)
                        bar.update()
                bar.set_postfix_str(self.summary(), refresh=True)

    def begin(self, submit: Submit) -> None:
        """Ask for a point and submit those of its runs that are not finished."""
        if self.left:
            self.study.enqueue_trial(self.left.pop(0))
        trial = self.study.ask(self.sweep.search)
        pending = Pending(trial, make_point(self.sweep, trial.params, self.root))
        for run in pending.point.runs:
            if run.status not in FINISHED:
                pending.waiting[self._submit(submit, run)] = (run, 1)
        self.pending.append(pending)

    def look_at(self, pending: Pending, submit: Submit) -> None:
        """Stop what has no prospects, take what is finished, submit again what was killed."""
        for run, _ in pending.waiting.values():
            for step, value in read_progress(run.progress)[pending.reported :]:
                pending.trial.report(value, step)
                pending.reported += 1
                if pending.trial.should_prune():
                    write_text(run.progress / STOP, "")
        for future in [future for future in pending.waiting if future.done()]:
            run, attempts = pending.waiting.pop(future)
            if future.exception() is None and future.result() in FINISHED:
                continue
            give_up(run.attempts)
            if run.status not in FINISHED and attempts <= RETRIES:  # it may have finished before it was lost
                pending.waiting[self._submit(submit, run)] = (run, attempts + 1)

    def finish(self, pending: Pending) -> None:
        """Tell the study what came of a point and write the table of all points."""
        self.pending.remove(pending)
        found = outcome(self.sweep, pending.point)
        self.finished.append((pending.point, found))
        self.study.tell(pending.trial, found.value, found.state)
        self.write()
        if found.reason:
            values = ", ".join(f"{name}={value}" for name, value in pending.point.values.items())
            tqdm.write(f"{self.sweep.name}: {values} failed: {found.reason}", file=sys.stderr)

    def write(self) -> None:
        """Write `sweep.json`: what was asked, and each finished point with its outcome and runs."""
        from optuna.distributions import distribution_to_json

        sweep = self.sweep
        rows = []
        for point, found in self.finished:
            folders = [str(run.folder.relative_to(self.root)) for run in point.runs]
            row = {"state": found.state.name.lower(), "value": found.value, "reason": found.reason}
            rows.append({"values": point.values, **row, "runs": folders})
        about = {
            "name": sweep.name,
            "notebook": sweep.plan.path.stem,
            "objective": str(sweep.objective),
            "direction": sweep.objective.direction,
            "sampler": sweep.sampler,
            "search": {name: json.loads(distribution_to_json(space)) for name, space in sweep.search.items()},
            "points": rows,
        }
        write_text(self.root / "sweep.json", json.dumps(about, indent=2, ensure_ascii=False) + "\n")

    def summary(self) -> str:
        """Done, failed and best so far, for the progress bar."""
        states = [found.state.name for _, found in self.finished]
        done = states.count("COMPLETE")
        best = f", best {self.study.best_value:.4g}" if done else ""
        return f"{done} done, {states.count('FAIL')} failed{best}"

    def _submit(self, submit: Submit, run: Run) -> "Future[str]":
        plan = run.plan
        shutil.rmtree(run.progress, ignore_errors=True)
        run.progress.mkdir(parents=True, exist_ok=True)  # an attempt that was given up may still report
        how = (self.sweep.timeout, self.sweep.warm, str(run.folder), str(run.progress))
        return submit(execute_run, str(plan.path.resolve()), plan.given, plan.profile, *how)


@dataclass(frozen=True)
class Outcome:
    """What came of a finished point: Optuna's state, the value of a complete one, why another one failed."""

    state: "TrialState"
    value: float | None = None
    reason: str | None = None


def make_study(sweep: Sweep, finished: list[tuple[Point, Outcome]]) -> "Study":
    """An Optuna study that knows the finished points; its sampler goes on with other random numbers."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = sweep.seed + len(finished)
    samplers: dict[str, Any] = {
        "grid": optuna.samplers.RandomSampler,  # every point is given
        "random": optuna.samplers.RandomSampler,
        "tpe": partial(optuna.samplers.TPESampler, constant_liar=True),
        "cmaes": optuna.samplers.CmaEsSampler,
    }
    pruners: dict[str, Any] = {
        "none": optuna.pruners.NopPruner,
        "median": optuna.pruners.MedianPruner,
        "halving": optuna.pruners.SuccessiveHalvingPruner,
    }
    study = optuna.create_study(
        sampler=samplers[sweep.sampler](seed=seed),
        pruner=pruners[sweep.pruner](),
        direction="minimize" if sweep.objective.direction == "minimise" else "maximize",
        study_name=sweep.name,
    )
    for point, found in finished:
        reported = dict(read_progress(point.runs[0].progress)) if sweep.pruner != "none" else {}
        study.add_trial(
            optuna.trial.create_trial(
                state=found.state,
                value=found.value,
                params=point.values,
                distributions=sweep.search,
                intermediate_values=reported,
            )
        )
    return study


def outcome(sweep: Sweep, point: Point) -> Outcome:
    """What came of a finished point."""
    from optuna.trial import TrialState

    if point.status == "stopped":
        return Outcome(TrialState.PRUNED)
    if point.status != "done":
        return Outcome(TrialState.FAIL, reason=point.error)
    try:
        return Outcome(TrialState.COMPLETE, point.value(sweep))
    except InputError as error:  # the notebook did not record the objective, or no number as it
        return Outcome(TrialState.FAIL, reason=str(error))


def best_point(folder: Path) -> dict[str, Any] | None:
    """The best finished point of the sweep in this folder, with its `value` and `values`; None where none has one."""
    about = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    sign = 1 if about["direction"] == "minimise" else -1
    done = [point for point in about["points"] if point["state"] == "complete"]
    return min(done, key=lambda point: sign * point["value"], default=None)
