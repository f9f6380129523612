"""Several runs, side by side: each in a process of its own, so many at a time as cores and memory allow."""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from frugal.errors import InputError
from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.pages.run_facts import read_status
from frugal.lab.run.execution import Plan, RunResult, carry_out, keep, new_folder
from frugal.lab.run.identity import named_paths
from frugal.lab.run.threads import OPENMP, cores, kernel_environment

MEMORY = 32  # a run is given 2^32 bytes, 4 GB


def most_at_once() -> int:
    """As many runs as there are cores for their threads, and 4 GB of memory for each; one at least."""
    return max(1, min(cores() // int(kernel_environment()[OPENMP]), psutil.virtual_memory().total >> MEMORY))


def finished_already(plan: Plan, reports: Path) -> Path | None:
    """The newest run that did all of this plan, with the same code, parameters and texts; None where there is none.

    A notebook that brings the results of others together is always run again.
    """
    if reads_other_runs(plan):
        return None
    wanted = ("done", plan.identity)
    for folder in sorted(reports.glob(f"runs/{plan.path.stem}/*"), reverse=True):
        about = read_status(folder)
        same = (about.get("status"), about.get("identity")) == wanted
        with contextlib.suppress(OSError):  # what cannot be looked at may have changed
            if same and not changed_since(plan, datetime.fromisoformat(about["started"])):
                return folder
    return None


def changed_since(plan: Plan, moment: datetime) -> bool:
    """Whether anything in the folders that parameters name is newer; files count by their content."""
    folders = [path for path in named_paths(plan.values) if path.is_dir()]
    inside = (each for folder in folders for each in [folder, *folder.rglob("*")])
    return any(datetime.fromtimestamp(each.stat().st_mtime, UTC) >= moment for each in inside)


def reads_other_runs(plan: Plan) -> bool:
    """Whether the notebook brings other runs' results together: then it comes after them."""
    return plan.uses("latest_records")


@dataclass
class Started:
    """A run that goes on in a process."""

    plan: Plan
    folder: Path
    process: BaseProcess
    said: Connection


class SideBySide:
    """Runs that wait, go on and have ended.

    Attributes:
        waiting: in the order in which they start; what brings the others' results together comes last, alone.
        running: at most `jobs` of them.
        results: of those that have ended, in the order in which they did.
    """

    def __init__(self, plans: list[Plan], timeout: float | None, reports: Path, jobs: int) -> None:
        self.waiting = sorted(plans, key=reads_other_runs)
        self.timeout, self.reports, self.jobs = timeout, reports, jobs
        self.running: list[Started] = []
        self.results: list[tuple[Plan, RunResult]] = []
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([__name__, "frugal.lab.run.engine", "frugal.lab.pages.report"])

    def step(self) -> None:
        """Note what has ended and start what may start.

        Raises:
            OSError: a run could not keep what it had, as on a full disk; the others are interrupted.
        """
        for run in [run for run in self.running if not run.process.is_alive()]:
            self.running.remove(run)
            self.results.append((run.plan, result_of(run)))
        while (
            self.waiting and len(self.running) < self.jobs and not (reads_other_runs(self.waiting[0]) and self.running)
        ):
            self.start(self.waiting.pop(0))

    def start(self, plan: Plan) -> None:
        folder = new_folder(plan, self.reports)
        ours, theirs = self.context.Pipe(duplex=False)
        work = (plan, self.timeout, folder, dict(os.environ), theirs)
        process = self.context.Process(target=carry_out_apart, args=work)
        process.start()
        theirs.close()
        self.running.append(Started(plan, folder, process, ours))

    def interrupt(self) -> None:
        """Let all runs keep what they have and end; nothing else is started."""
        self.waiting.clear()
        for run in self.running:
            if run.process.pid is not None and run.process.is_alive():
                os.kill(run.process.pid, signal.SIGINT)
        for run in self.running:
            run.process.join()
        self.step()

    def kill(self) -> None:
        """End all runs at once."""
        for run in self.running:
            run.process.kill()


def result_of(run: Started) -> RunResult:
    """How a run ended whose process is over."""
    try:
        said = run.said.recv()
    except (EOFError, OSError):
        code = run.process.exitcode
        return concluded(run, "killed", f"the process that carried it out ended with exit code {code}")
    if isinstance(said, KeyboardInterrupt):
        return concluded(run, "interrupted", "interrupted before its first cell or after its last")
    if isinstance(said, BaseException):
        raise said
    assert isinstance(said, RunResult)
    return said


def concluded(run: Started, status: str, error: str) -> RunResult:
    """Let a run's folder say how its process ended, which could not."""
    about = read_status(run.folder)
    try:
        notebook = read_notebook(run.folder / "notebook.ipynb")
    except InputError:
        about = {}
    if not about:
        return RunResult(run.folder, status, error, 0.0)
    if about["status"] == "running":
        seconds = (datetime.now(UTC) - datetime.fromisoformat(about["started"])).total_seconds()
        about.update(status=status, error=error, seconds=round(seconds, 1))
        about.pop("doing", None)
    keep(run.folder, notebook, about)
    return RunResult(run.folder, about["status"], about["error"], about["seconds"])


def carry_out_apart(
    plan: Plan, timeout: float | None, folder: Path, environment: dict[str, str], say: Connection
) -> None:
    """What a run's process does. Ctrl-C in the terminal reaches the process that started it, which passes it on."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    os.environ.clear()  # it is that of the moment in which the first of these processes was started
    os.environ.update(environment)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # it would repeat what the status says
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        say.send(carry_out(plan, timeout, folder=folder))
    except BaseException as error:
        say.send(error)


def end_with_parent() -> None:
    """Interrupt the run when the process that started it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGINT)
