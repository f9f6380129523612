"""Options that several commands of `frugal` have."""

from pathlib import Path

import click

from frugal.files import reports_folder
from frugal.lab.run.threads import ask_for_threads

device_option = click.option(
    "--device", default="auto", show_default=True, help="Where to compute: cpu, cuda, mps or auto."
)
reports_option = click.option(
    "--reports",
    type=click.Path(path_type=Path, file_okay=False),
    default=reports_folder,
    help="Where runs are kept [default: reports/].",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    expose_value=False,
    callback=lambda _context, _option, count: None if count is None else ask_for_threads(count),
    help="That a run computes with [default: $OMP_NUM_THREADS, or 1].",
)
