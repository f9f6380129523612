"""How many threads a run computes with: one, unless somebody asks for more.

Threads that wait for each other, as those of matrix products do, collapse when another process takes a core:
notebook 03 at its smallest took 380 s with two threads beside busy processes, and 41 s with one.
"""

import os
import sys

OPENMP, NUMBA = "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"  # PyTorch, NumPy and FAISS go by the first


def cores() -> int:
    """How many this process may compute on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def kernel_environment() -> dict[str, str]:
    """This process's environment, with as many threads as $OMP_NUM_THREADS says, or one."""
    threads = os.environ.get(OPENMP, "1")
    return {NUMBA: threads, **os.environ, OPENMP: threads}


def ask_for_threads(count: int) -> None:
    """Let the runs that this process starts from now on compute with so many threads."""
    os.environ[OPENMP] = os.environ[NUMBA] = str(count)
