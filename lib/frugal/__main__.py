"""The command `frugal`, also as `python -m frugal`."""

import contextlib
import os
import sys

from frugal.interrupts import ends_at_once

INTERRUPTED = 130


def main() -> None:
    """Carry out a command."""
    with ends_at_once():
        from frugal.lab.live.cli import main as command
    try:
        command()
    except SystemExit as end:
        if end.code == INTERRUPTED:  # all is kept, and Python's own tidying takes longer than that did
            with contextlib.suppress(OSError):  # whoever was reading may be gone
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(INTERRUPTED)
        raise


if __name__ == "__main__":
    main()
