"""How a run is doing while it goes on, so that a sweep can stop one that has no prospects."""

import json
import os
import sys
from pathlib import Path

from frugal.errors import InputError

FOLDER_VARIABLE = "FRUGAL_PROGRESS"  # set by sweeps to the run's folder
PROGRESS, STOP = "progress.jsonl", "stop"


class RunStopped(Exception):
    """The sweep has stopped this run: others did better at the same step."""


def report_progress(step: int, value: float) -> None:
    """Tell the sweep the objective's value so far; nothing happens outside sweeps.

    Args:
        step: grows from call to call, such as the epoch.
        value: of what the sweep minimises or maximises.

    Raises:
        RunStopped: the sweep has seen enough of this run; what was shown so far is kept.
        InputError: the value is no number, or the step no whole number from 0.

    Example:
        >>> for epoch, loss in enumerate([2.0, 1.5]):
        ...     report_progress(epoch, loss)
    """
    if not isinstance(value, int | float) or (isinstance(value, int) and abs(value) > sys.float_info.max):
        raise InputError(f"value={repr(value)[:40]}: must be a number, of what the sweep minimises or maximises")
    if not isinstance(step, int) or step < 0:
        raise InputError(f"step={step!r}: must be a whole number from 0, such as the epoch")
    if FOLDER_VARIABLE not in os.environ:
        return
    folder = Path(os.environ[FOLDER_VARIABLE])
    with open(folder / PROGRESS, "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "value": value}) + "\n")
    if (folder / STOP).exists():
        raise RunStopped(f"stopped after step {step}: other runs of the sweep did better by then")


def read_progress(folder: Path) -> list[tuple[int, float]]:
    """What a run has reported so far; a line that is still being written is left out."""
    try:
        lines = (folder / PROGRESS).read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(row["step"], row["value"]) for row in rows]
