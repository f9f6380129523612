"""The `frugal` command: run notebooks with checked parameters, singly and in sweeps, show results, chat, remember.

Exit codes: 0 all well, 1 a run failed, 2 the request could not be carried out, 130 interrupted.
"""

import errno
import logging
import signal
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from frugal.errors import FrugalError, InputError
from frugal.files import CHECKOUT, write_text
from frugal.interrupts import ends_at_once
from frugal.lab.live.memory import memory
from frugal.lab.live.models import WithSampling, generate, models, score, train
from frugal.lab.live.options import device_option, reports_option, threads_option
from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.run.parameters import PROFILES, aligned, read_parameters, read_values_file, set_again, tabulate

ADVICE: dict[int | None, str] = {
    errno.ENOSPC: ": make room, or name folders on another disk with --reports and FRUGAL_DATA",
    errno.EROFS: ": name folders that can be written to with --reports and FRUGAL_DATA",
}


class Commands(click.Group):
    """Shows an error that is meant for the user as one sentence."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (FrugalError, OSError) as error:
            advice = ADVICE.get(error.errno, "") if isinstance(error, OSError) else ""
            click.echo(f"frugal: error: {error}{advice}", err=True)
            context.exit(2)
        except KeyboardInterrupt:
            click.echo("frugal: interrupted", err=True)
            context.exit(130)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="frugal")
def main() -> None:
    """Research workbench for language models that learn without training a transformer end to end."""
    # A batch system ends jobs with SIGTERM: treat it as Ctrl-C, which keeps what a run has.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # it would repeat what the status says
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of a kernel that was interrupted while it started
    warnings.showwarning = lambda message, *_about: click.echo(f"frugal: {message}", err=True)  # not the line of code


@main.command()
@click.argument("notebooks", nargs=-1, required=True, metavar="NOTEBOOK...")
@click.option("-p", "--parameter", "pairs", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter.")
@click.option("-f", "--file", "values_file", type=click.Path(path_type=Path), help="YAML file of parameters.")
@click.option("--profile", type=click.Choice(PROFILES), default="default", show_default=True, help="Size of the run.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="MINUTES", help="Limit for each run.")
@threads_option
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="Runs at once [default: what cores and memory allow].")
@click.option("--resume", is_flag=True, help="Leave out what is done: same code, parameters and texts.")
@reports_option
def run(
    notebooks: tuple[str, ...],
    pairs: tuple[tuple[str, str], ...],
    values_file: Path | None,
    profile: str,
    timeout: float | None,
    jobs: int | None,
    resume: bool,
    reports: Path,
) -> None:
    """Run notebooks side by side, write a report of each and keep the index up to date.

    NOTEBOOK is a path, or the beginning of a name in notebooks/, such as 01. A parameter given with -p has
    precedence over the file's, and that over the profile's. A notebook that brings the results of others together
    comes after them.
    """
    with ends_at_once():
        from frugal.lab.live.watching import watch
        from frugal.lab.run.execution import plan_run
        from frugal.lab.run.together import SideBySide, finished_already, most_at_once

    given = {**({} if values_file is None else read_values_file(values_file)), **dict(pairs)}
    plans = [plan_run(find_notebook(name), given, profile) for name in notebooks]
    for plan in plans:
        for name in set_again(plan.notebook, plan.given):
            click.echo(f"{plan.path.stem}: {name}: a later cell tagged parameters sets it again, and holds", err=True)
    reports = reports.resolve()
    for plan in list(plans) if resume else []:
        if (done := finished_already(plan, reports)) is not None:
            click.echo(f"{plan.path.stem}: done already, with this code, these parameters and texts: {done}")
            plans.remove(plan)
    statuses = watch(SideBySide(plans, timeout, reports, most_at_once() if jobs is None else jobs))
    raise SystemExit(0 if set(statuses) <= {"done"} else 1)


@main.command()
@reports_option
def index(reports: Path) -> None:
    """Rebuild the index of all reports from the executed notebooks."""
    rebuild_index(reports)


@main.command()
@click.argument("name", default="", metavar="[NOTEBOOK]")
@click.option("--csv", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write everything there instead.")
@reports_option
def results(name: str, file: Path | None, reports: Path) -> None:
    """Show what runs recorded, one row a run.

    NOTEBOOK is the beginning of a notebook's or a sweep's name [default: all]. The CSV file has all parameters and
    all results, as pandas.read_csv reads it; recorded tables stand in it as JSON. Here only single results are shown,
    and the parameters in which the runs differ.
    """
    from frugal.lab.pages.results import as_columns, as_csv, result_rows

    rows = result_rows(reports.resolve(), name)
    if file is None:
        click.echo(aligned(as_columns(rows)))
    else:
        write_text(file, as_csv(rows))
        click.echo(f"results: {len(rows)} runs: {file}")


@main.command()
@reports_option
def gallery(reports: Path) -> None:
    """Write docs/gallery, pages of the newest finished run of each notebook for readers of the repository."""
    from frugal.lab.pages.gallery import write_gallery

    click.echo(f"gallery: {write_gallery(reports, CHECKOUT / 'docs' / 'gallery')}")


@main.command()
@reports_option
def minutes(reports: Path) -> None:
    """Write into README.md how many minutes the newest finished run of each notebook took, and on which machine."""
    from frugal.lab.pages.minutes import write_minutes

    written = write_minutes(reports, CHECKOUT / "README.md")
    click.echo(f"minutes: README.md: {', '.join(written)}")


@main.command()
@click.argument("notebook")
def parameters(notebook: str) -> None:
    """Show a notebook's parameters and what the profiles set them to."""
    path = find_notebook(notebook)
    try:
        click.echo(tabulate(read_parameters(read_notebook(path))))
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error


@main.command()
@click.argument("definition", type=click.Path(path_type=Path), metavar="FILE")
@click.option(
    "--site", type=click.Path(path_type=Path), help="YAML file of where runs are carried out [default: here]."
)
@click.option("--workers", type=click.IntRange(min=1), help="Runs at once here [default: one per core].")
@reports_option
def sweep(definition: Path, site: Path | None, workers: int | None, reports: Path) -> None:
    """Run a notebook many times, as a sweep's YAML file says; started again, it goes on.

    The sweep's folder, reports/sweeps/NAME, holds every run and a report of all of them.
    """
    if site is not None and workers is not None:
        raise click.UsageError("--workers is part of a site file: leave it out with --site")
    with ends_at_once():
        from frugal.lab.sweep import Site, best_point, read_site, read_sweep, run_sweep, write_sweep_report

        asked = read_sweep(definition, find_notebook)
        place = Site(workers=workers) if site is None else read_site(site)
    folder = run_sweep(asked, reports, place)
    try:
        click.echo(f"{asked.name}: {write_sweep_report(folder)}")
    finally:
        rebuild_index(reports)
    best = best_point(folder)
    if best is None:
        click.echo(f"{asked.name}: no point succeeded; the report says why each failed", err=True)
        raise SystemExit(1)
    values = ", ".join(f"{name}={value}" for name, value in best["values"].items())
    click.echo(f"{asked.name}: best {best['value']:.4g} at {values}")


@main.command(cls=WithSampling)
@click.argument("model", default="smollm2")
@click.option("--system", metavar="TEXT", help="Instructions that the model reads first.")
@click.option("--guide", metavar="TEXT", help="Text that the answers should lean towards.")
@click.option("--guide-weight", type=float, default=0.5, show_default=True, help="How far: 0 not at all, to 1.")
@click.option("--markers", is_flag=True, help="Mark turns as in frugal's dialogues even with a chat template.")
@click.option("--learn", is_flag=True, help="Learn from the conversation as it goes on, for as long as it lasts.")
@device_option
@click.option("--load", type=click.Path(path_type=Path), metavar="FOLDER", help="Go on with a saved conversation.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FOLDER", help="Save the conversation as it grows.")
def chat(
    model: str,
    system: str | None,
    guide: str | None,
    guide_weight: float,
    markers: bool,
    learn: bool,
    device: str,
    load: Path | None,
    save: Path | None,
    **sampling: Any,
) -> None:
    """Talk with a language model.

    MODEL is the name of a kept model (`frugal models` lists them), smollm2 (the default), tiny-gpt2, a hub id, or the
    folder of a Hugging Face model or of a model that this library saved.
    """
    if load is not None and (system is not None or markers):
        raise click.UsageError("--system and --markers are part of a saved conversation: leave them out with --load")
    from frugal.combine import Guided
    from frugal.generate import CHAT_SAMPLING, ChatSession
    from frugal.lab.live.terminal import converse, model_called
    from frugal.readout import OnlineResidual

    given = {name: value for name, value in sampling.items() if value not in (None, ())}
    chosen = replace(CHAT_SAMPLING, **given)  # before the model is loaded, so that a wrong value is refused at once
    click.echo(f"loading {model}", err=True)
    speaker = model_called(model, device)
    if learn:
        speaker = OnlineResidual.over(speaker)
    if guide is not None:
        speaker = Guided(speaker, guide, weight=guide_weight)
    if load is None:
        session = ChatSession(speaker, sampling=chosen, system=system, markers=markers)
    else:
        session = ChatSession.load(load, speaker)
        session.sampling = replace(session.sampling, **given)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Ctrl-C it would only stop an answer
    converse(session, save)


for command in (train, score, generate, models, memory):
    main.add_command(command)


def rebuild_index(reports: Path) -> None:
    from frugal.lab.pages.index import write_index

    click.echo(f"index: {write_index(reports).resolve().as_uri()}")


def find_notebook(name: str) -> Path:
    """The notebook at a path, or the only one in notebooks/ whose name begins like this."""
    path = Path(name)
    if path.exists():
        return path
    known = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
    found = [path for path in known if path.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.stem for path in found or known) or "no notebooks"
    problem = "begins the names of several notebooks" if found else "no such notebook; notebooks/ holds"
    raise InputError(f"{name}: {problem}: {names}")
