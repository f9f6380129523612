"""Writes that bring nothing new: refused by a novelty gate, or merged into the entry that is there."""

from dataclasses import dataclass

import numpy as np

from frugal.memory.store.arrays import unit
from frugal.memory.store.exact import NONE, Searched, distances_to, exact_search
from frugal.memory.store.search import Searcher
from frugal.memory.store.table import Table

NEIGHBOURS = 8  # that are looked at for one with the same value


@dataclass(frozen=True)
class Verdict:
    """For each of n vectors: whether it is `new`; if not, the `entry`'s id or the earlier new `row` that stands for it.

    Both are -1 for a vector that is refused.
    """

    new: np.ndarray
    entry: np.ndarray
    row: np.ndarray


@dataclass(frozen=True)
class Gate:
    """Nearer than `merge_distance` with the same value: merged. Else, nearer than `novelty_distance`: refused.

    Only entries of the same namespace count. None: no such rule.
    """

    novelty_distance: float | None
    merge_distance: float | None

    @property
    def is_open(self) -> bool:
        return self.novelty_distance is None and self.merge_distance is None

    def judge(
        self,
        vectors: np.ndarray,
        namespaces: np.ndarray,
        values: np.ndarray | None,
        table: Table,
        searcher: Searcher,
        metric: str,
    ) -> Verdict:
        """Compare vectors [n, d] with the entries, and then with the new ones before them."""
        count = len(vectors)
        keys = unit(vectors) if metric == "cosine" else vectors
        verdict = Verdict(np.ones(count, bool), np.full(count, NONE), np.full(count, NONE))
        self._compare_with_entries(verdict, vectors, namespaces, values, table, searcher)
        near = np.flatnonzero(verdict.new & self._has_near(keys, metric))
        kept: list[int] = []
        for row in near:
            others = np.array([other for other in kept if namespaces[other] == namespaces[row]], int)
            distances = distances_to(keys[None, others], keys[row, None], metric)[0]
            same = np.ones(len(others), bool) if values is None else _whole(values[others] == values[row], 1)
            mergers = others[self._merges(distances) & same]
            if len(mergers):
                verdict.new[row], verdict.row[row] = False, mergers[0]
            elif self._refuses(distances).any():
                verdict.new[row] = False
            else:
                kept.append(int(row))
        return verdict

    def _compare_with_entries(
        self,
        verdict: Verdict,
        vectors: np.ndarray,
        namespaces: np.ndarray,
        values: np.ndarray | None,
        table: Table,
        searcher: Searcher,
    ) -> None:
        slots, distances = searcher.nearest(vectors, NEIGHBOURS, namespaces)
        if table.size == 0:
            return
        merges = self._merges(distances)
        if values is not None:
            merges &= _whole(table["values"][slots] == values[:, None], 2)
        merged, first = merges.any(1), merges.argmax(1)
        verdict.entry[merged] = table["ids"][slots[merged, first[merged]]]
        verdict.new[merged | self._refuses(distances).any(1)] = False

    def _merges(self, distances: np.ndarray) -> np.ndarray:
        return distances <= (-np.inf if self.merge_distance is None else self.merge_distance)

    def _refuses(self, distances: np.ndarray) -> np.ndarray:
        return distances <= (-np.inf if self.novelty_distance is None else self.novelty_distance)

    def _has_near(self, keys: np.ndarray, metric: str) -> np.ndarray:
        """Whether another vector of the same write is near enough to matter."""
        if len(keys) < 2:
            return np.zeros(len(keys), bool)
        numbers = np.arange(len(keys))
        rows = Searched(keys, numbers, numbers)
        distances = exact_search(rows, keys, 2, metric, None, by_torch=False, device="cpu")[1][:, 1]  # [:, 0]: itself
        return self._merges(distances) | self._refuses(distances)


def _whole(equal: np.ndarray, leading: int) -> np.ndarray:
    """Whether all numbers of a payload are equal, for arrays with so many leading dimensions."""
    return np.all(equal, axis=tuple(range(leading, equal.ndim)))
