"""Runs as the terminal shows them while they go on, and the index of reports, which follows them."""

import shutil
import sys
import time

import click

from frugal.lab.pages.index import write_index
from frugal.lab.pages.run_facts import Now, read_status
from frugal.lab.run.together import SideBySide

STEP_SECONDS = 0.25
INDEX_SECONDS = 5.0
LOG_SECONDS = 10.0


def watch(runs: SideBySide) -> list[str]:
    """Carry the runs out and show how they are doing; gives how they ended.

    On a terminal one line changes in place; elsewhere lines follow each other.

    Raises:
        KeyboardInterrupt: after the runs have kept what they had; a second one kills them.
    """
    told, show, index = 0, Terminal() if sys.stderr.isatty() else Log(), Index(runs)
    click.echo(f"index: {(runs.reports / 'index.html').as_uri()}")
    try:
        while runs.waiting or runs.running:
            runs.step()
            told = tell_ended(runs, told, show)
            show.update({run.plan.path.stem: Now.read(read_status(run.folder)) for run in runs.running})
            index.follow(runs)
            time.sleep(STEP_SECONDS)
    except BaseException:
        show.clear()
        click.echo("stopping: the runs keep what they have; Ctrl-C kills them at once", err=True)
        try:
            runs.interrupt()
        except KeyboardInterrupt:
            runs.kill()
        tell_ended(runs, told, show)
        raise
    finally:
        index.write(runs)
    click.echo(f"index: {(runs.reports / 'index.html').as_uri()}")
    return [result.status for _, result in runs.results]


def tell_ended(runs: SideBySide, told: int, show: "Terminal | Log") -> int:
    """A line for each run that has ended and was not told of yet; how many are told of now."""
    for plan, result in runs.results[told:]:
        show.clear()
        click.echo(f"{plan.path.stem}: {result.status} in {result.seconds:.0f} s: {result.report}")
        if result.error:
            click.echo(f"{plan.path.stem}: {result.error}", err=True)
    return len(runs.results)


class Index:
    """The index, written again while runs go on; the more it holds, the more seldom."""

    def __init__(self, runs: SideBySide) -> None:
        self.cost, self.written = 0.0, 0.0
        self.write(runs)

    def follow(self, runs: SideBySide) -> None:
        if time.monotonic() - self.written > max(INDEX_SECONDS, 20 * self.cost):
            self.write(runs)

    def write(self, runs: SideBySide) -> None:
        begun = time.monotonic()
        write_index(runs.reports, [plan.path.stem for plan in runs.waiting])
        self.written = time.monotonic()
        self.cost = self.written - begun


class Terminal:
    """One line for all runs, which changes in place."""

    def update(self, runs: dict[str, Now | None]) -> None:
        width = shutil.get_terminal_size().columns // max(1, len(runs)) - 3
        said = [f"{name}: {present.words if present else 'starting or ending'}" for name, present in runs.items()]
        click.echo("\r\x1b[K" + " | ".join(words[:width].ljust(width) for words in said), nl=False, err=True)

    def clear(self) -> None:
        click.echo("\r\x1b[K", nl=False, err=True)


class Log:
    """A line for each section of a run, and now and then for what it prints."""

    def __init__(self) -> None:
        self.said: dict[str, tuple[Now | None, float]] = {}

    def update(self, runs: dict[str, Now | None]) -> None:
        for name, present in runs.items():
            earlier, moment = self.said.get(name, (None, 0.0))
            if present is None:
                continue
            due = time.monotonic() - moment > LOG_SECONDS and present.line != (earlier.line if earlier else "")
            if earlier is None or present.section != earlier.section or due:
                self.said[name] = present, time.monotonic()
                click.echo(f"{name}: {present.words}", err=True)

    def clear(self) -> None:
        """Nothing is to be taken back."""
