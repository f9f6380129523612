"""Searching a table: by its index where there is one and it suffices, exactly everywhere else."""

import warnings
from dataclasses import replace

import numpy as np

from frugal.memory.store.arrays import unit
from frugal.memory.store.change import Change
from frugal.memory.store.exact import NONE, Searched, exact_search, from_faiss, ranked
from frugal.memory.store.index import (
    Graph,
    Index,
    IndexMismatchError,
    IndexSettings,
    InvertedLists,
    build,
    restored,
    smallest_size,
)
from frugal.memory.store.table import Columns, Table

KINDS = ("auto", "exact", "flat", "ivf", "compressed", "graph")
# Namespaces up to this size are searched exactly: that is quicker than filtering what an index finds.
SMALL_NAMESPACE = 20_000
# "auto" thinks of an approximate index from this size on, and wants this recall of the 10 nearest.
AUTO_FROM = 50_000
AUTO_RECALL = 0.95
AUTO_SAMPLES = 128


class Searcher:
    """Finds nearest rows of `table`, and keeps the index in step with it."""

    def __init__(self, table: Table, kind: str, metric: str, settings: IndexSettings, seed: int, device: str) -> None:
        self._table, self._kind, self._metric = table, kind, metric
        self._settings, self._seed, self._device = settings, seed, device
        self._index: Index | None = None
        self._try_from = AUTO_FROM if kind == "auto" else smallest_size(kind, settings)

    @property
    def in_use(self) -> str:
        """What the next search will use."""
        self._prepare()
        if self._index is None:
            return "exact" if self._by_torch else "flat"
        if isinstance(self._index, InvertedLists):
            name = "ivf" if self._kind == "auto" else self._kind
            return f"{name}, {self._index.nprobe} of {self._index.num_clusters} lists visited"
        return self._kind

    @property
    def _by_torch(self) -> bool:
        return self._kind == "exact" or self._device != "cpu"

    def reset(self) -> None:
        """Drop the index; it is built again when it is needed."""
        self._index = None

    def index_arrays(self) -> dict[str, np.ndarray]:
        """The index as arrays; none where there is no index."""
        return {} if self._index is None else self._index.arrays()

    def restore(self, arrays: Columns) -> None:
        """Take the index of the same entries from what `index_arrays` gave."""
        index = restored(self._kind, arrays, self._settings) if arrays else None
        if index is not None and len(index) == self._table.size:
            self._index = index

    def follow(self, change: Change) -> None:
        """Bring the index in step after `change` was applied to the table."""
        if self._index is None:
            return
        if change.scale != 1.0 or self._table.size == 0:
            self.reset()
            return
        try:
            moved = change.updated["ids"] if "vectors" in change.updated else change.removed[:0]
            self._index.remove(np.concatenate([change.removed, moved]))
            entered = np.concatenate([moved, change.added_ids])
            if len(entered):
                self._index.add(entered, self._table.keys[self._table.slots(entered)])
        except IndexMismatchError as error:
            warnings.warn(f"{error}: building it again from the entries", stacklevel=2)
            self.reset()

    def nearest(
        self, queries: np.ndarray, k: int, namespaces: np.ndarray | None = None, before: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Slots and distances [Q, k] of the nearest rows, in the query's namespace and at a position before its own."""
        slots, distances = np.full((len(queries), k), NONE), np.full((len(queries), k), np.inf, np.float32)
        if self._table.size == 0:
            return slots, distances
        self._prepare()
        queries = self._as_keys(queries)
        for group in [None] if namespaces is None else np.unique(namespaces):
            mine = slice(None) if group is None else np.flatnonzero(namespaces == group)
            rows = None if group is None else self._rows_of(group)
            limit = None if before is None else before[mine]
            slots[mine], distances[mine] = self._in_group(queries[mine], k, rows, limit)
        return slots, distances

    def recall(self, queries: np.ndarray, k: int) -> float:
        """The share of the k nearest rows that a search finds."""
        self._prepare()
        return self._recall(self._as_keys(queries), k)

    def _as_keys(self, queries: np.ndarray) -> np.ndarray:
        return unit(queries) if self._metric == "cosine" else queries

    def _rows_of(self, namespace: int) -> np.ndarray | None:
        """The rows of a namespace; None for all of them."""
        rows = np.flatnonzero(self._table["namespaces"] == namespace)
        return None if len(rows) == self._table.size else rows

    def _in_group(
        self, queries: np.ndarray, k: int, rows: np.ndarray | None, before: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Slots and distances [Q, k] among `rows`, or all."""
        if self._index is None or (rows is not None and len(rows) <= SMALL_NAMESPACE):
            return self._exactly(queries, k, rows, before)
        slots, distances = self._by_index(self._index, queries, k, rows, before)
        short = np.flatnonzero((slots == NONE).any(1))  # an index may miss, and restrictions hide: look thoroughly
        if len(short):
            limit = None if before is None else before[short]
            slots[short], distances[short] = self._exactly(queries[short], k, rows, limit)
        return slots, distances

    def _by_index(
        self, index: Index, queries: np.ndarray, k: int, rows: np.ndarray | None, before: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `_in_group`, of what the index finds: more than k where some will be hidden, or were compared by codes."""
        enough = index.exact and rows is None and before is None and k <= self._table.size
        found, measured = index.search(queries, min(k if enough else 4 * k + 32, self._table.size))
        slots = self._table.slots(found)
        if enough:
            return slots, from_faiss(measured, self._metric)
        if rows is not None:
            inside = np.zeros(self._table.size, bool)
            inside[rows] = True
            slots[~inside[slots]] = NONE
        if before is not None:
            slots[self._table["positions"][slots] >= before[:, None]] = NONE
        slots = np.pad(slots, ((0, 0), (0, max(0, k - slots.shape[1]))), constant_values=NONE)
        return ranked(self._table.keys, self._table["ids"], queries, slots, k, self._metric)

    def _exactly(
        self, queries: np.ndarray, k: int, picked: np.ndarray | None, before: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `_in_group`, without the index."""
        if picked is not None and len(picked) == 0:
            return np.full((len(queries), k), NONE), np.full((len(queries), k), np.inf, np.float32)
        part = slice(None) if picked is None else picked
        rows = Searched(self._table.keys[part], self._table["ids"][part], self._table["positions"][part])
        found, distances = exact_search(
            rows, queries, k, self._metric, before, by_torch=self._by_torch, device=self._device
        )
        return found if picked is None else np.where(found == NONE, NONE, picked[found]), distances

    def _prepare(self) -> None:
        """Build the index if it is due."""
        if self._index is not None and self._index.stale:
            self.reset()
        if self._index is not None or self._kind in ("exact", "flat") or self._table.size < self._try_from:
            return
        if self._kind == "auto":
            self._choose()
        else:
            self._index = self._built(self._kind, self._settings)

    def _built(self, kind: str, settings: IndexSettings) -> InvertedLists | Graph:
        return build(kind, self._table["ids"], self._table.keys, self._metric, settings, self._seed)

    def _choose(self) -> None:
        """Lists, if visiting few of them reaches the wanted recall; else exact search until the size has doubled."""
        if self._device == "cpu":
            lists = self._built("ivf", replace(self._settings, nprobe=1))
            assert isinstance(lists, InvertedLists)
            self._index = lists
            drawn = np.random.default_rng(self._seed).choice(self._table.size, AUTO_SAMPLES, replace=False)
            while lists.nprobe <= lists.num_clusters // 8:
                if self._recall(self._table.keys[drawn], k=10) >= AUTO_RECALL:
                    return
                lists.nprobe *= 2
            self.reset()
        self._try_from = 2 * self._table.size

    def _recall(self, queries: np.ndarray, k: int) -> float:
        k = min(k, self._table.size)
        found = self._in_group(queries, k, None, None)[1]
        exact = self._exactly(queries, k, None, None)[1]
        last = exact[:, -1:]
        # By distance: of entries at equal distances, up to rounding, any is right.
        return float((found <= last + 1e-5 * np.abs(last)).mean())
