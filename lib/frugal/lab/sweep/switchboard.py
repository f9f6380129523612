"""Parsl's interchange, which stands between a driver and its workers, made to end with the driver.

    python -m frugal.lab.sweep.switchboard DRIVER    Parsl starts it so, with its settings on standard input

Parsl's own goes on for ever when the driver is killed, and keeps all workers with it. Workers that it no longer answers
end by themselves.
"""

import os
import runpy
import sys
import threading
import time


def end_with(parent: int) -> None:
    """End this process at once when its parent is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    runpy.run_module("parsl.executors.high_throughput.interchange", run_name="__main__")
