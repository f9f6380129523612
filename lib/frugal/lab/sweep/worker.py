"""What a worker does, on this machine or another: one run."""

import os
from pathlib import Path
from typing import Any


def execute_run(
    path: str, given: dict[str, Any], profile: str, timeout: float | None, warm: bool, folder: str, progress: str
) -> str:
    """Run a notebook; its folder appears when the run is over, in place of an earlier one. Gives the status.

    A `warm` run gets its kernel from this worker's process that has done the notebook's first imports.

    Arguments and result are plain, so that they can travel to another machine with the same checkout.

    Raises:
        UnavailableError: a driver has given this attempt up; what another attempt made stays.
    """
    from frugal.errors import UnavailableError
    from frugal.files import appearing
    from frugal.lab.run.execution import carry_out, plan_run
    from frugal.lab.run.progress import FOLDER_VARIABLE

    plan = plan_run(Path(path), given, profile)
    os.environ[FOLDER_VARIABLE] = progress
    with appearing(Path(folder)) as temporary:
        # Whoever gives the attempt up moves the mark away; folders that the run may make again have none.
        mark = temporary.with_name("attempt")
        mark.touch()
        status = carry_out(plan, timeout, folder=temporary, warm=warm).status
        if not mark.exists():
            raise UnavailableError(f"{folder}: this attempt was given up, for it seemed dead")
    return status
