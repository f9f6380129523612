"""How long a piece of work takes."""

import time
from collections.abc import Callable
from statistics import median


def median_seconds(
    work: Callable[[], object], repeats: int = 5, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Median time of a few repetitions, after one that does not count.

    Args:
        work: called without arguments.
        repeats: how often it is timed.
        clock: `time.process_time` counts processor time, which other work on the machine disturbs less.

    Example:
        >>> 0 < median_seconds(lambda: sum(range(1000))) < 1
        True
    """
    work()
    times = []
    for _ in range(repeats):
        begin = clock()
        work()
        times.append(clock() - begin)
    return median(times)
