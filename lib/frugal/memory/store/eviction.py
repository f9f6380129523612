"""Which entries make room when a memory is full."""

from collections.abc import Callable

import numpy as np

from frugal.memory.store.table import Columns, Table


def fifo(table: Table, count: int, clock: int, capacity: int) -> np.ndarray:
    """The entries that came first."""
    return table.oldest(count)


def least_recently_used(table: Table, count: int, clock: int, capacity: int) -> np.ndarray:
    """The entries whose writing or last finding is longest ago."""
    return _smallest(table["used"], table["ids"], count)


def least_hit(table: Table, count: int, clock: int, capacity: int) -> np.ndarray:
    """The entries that searches found least often."""
    return _smallest(table["hits"], table["ids"], count)


def weakest(table: Table, count: int, clock: int, capacity: int) -> np.ndarray:
    """The entries of least strength."""
    return _smallest(strength(table, slice(None), clock, capacity), table["ids"], count)


def strength(table: Table, slots: np.ndarray | slice, clock: int, capacity: int) -> np.ndarray:
    """Strength now: 1 when written, 1 more for each finding, halved in the time in which the memory is rewritten."""
    age = clock - table["used"][slots]
    return (table["strength"][slots] * np.exp2(-age / capacity)).astype(np.float32)


def found_again(table: Table, slots: np.ndarray, times: np.ndarray, clock: int, capacity: int) -> Columns:
    """How entries were used, after searches found each of them so many times."""
    return {
        "hits": table["hits"][slots] + times,
        "strength": strength(table, slots, clock, capacity) + times,
        "used": np.full(len(slots), clock),
    }


Policy = Callable[[Table, int, int, int], np.ndarray]
POLICIES: dict[str, Policy] = {
    "fifo": fifo,
    "lru": least_recently_used,
    "least_hit": least_hit,
    "strength": weakest,
}


def _smallest(scores: np.ndarray, ids: np.ndarray, count: int) -> np.ndarray:
    """The ids of the `count` smallest scores, of equal ones the oldest, without sorting all of them."""
    if count >= len(ids):
        return ids.copy()
    limit = np.partition(scores, count - 1)[count - 1]
    below, equal = ids[scores < limit], ids[scores == limit]
    return np.concatenate([below, np.sort(equal)[: count - len(below)]])
