"""Searching a table: by its index where there is one and it suffices, exactly everywhere else."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from frugal.errors import InputError
from frugal.memory.store.arrays import Integers, integers_of, one_for_each, plain, unit
from frugal.memory.store.change import Change, no_ids
from frugal.memory.store.exact import NONE, Searched, crowded, exact_search, ranked
from frugal.memory.store.index import Index, IndexMismatchError, InvertedLists, build, restored, smallest_size
from frugal.memory.store.settings import Settings
from frugal.memory.store.table import Columns, Table

# Namespaces up to this size are searched exactly: that is quicker than filtering what an index finds.
SMALL_NAMESPACE = 20_000
# "auto" thinks of an approximate index from this size on, and wants this recall of the 10 nearest.
AUTO_FROM = 50_000
AUTO_RECALL = 0.95
AUTO_SAMPLES = 128
# Smaller cosine distances are computed from differences: 1 - u v is off by up to 4e-7.
NEAR = 2**-5


class Searcher:
    """Finds nearest rows of `table`.

    Its index is a copy that is in step with one version of the table; at another version it is built again. So
    whatever interrupts its building or a change of it, no search sees it half done.
    """

    def __init__(self, table: Table, settings: Settings) -> None:
        self._table, self._settings = table, settings
        self._kind, self._metric, self._device = settings.index, settings.metric, settings.device
        self._index: Index | None = None
        self._version = -1  # of the table that the index is in step with
        self._try_from = AUTO_FROM if settings.index == "auto" else smallest_size(settings)
        self._stated = ""

    @property
    def in_use(self) -> str:
        """What the next search will use."""
        self._prepare()
        if self._index is None:
            return "exact" if self._by_torch else "flat"
        if isinstance(self._index, InvertedLists):
            name = "ivf" if self._kind == "auto" else self._kind
            return f"{name}, {self._index.nprobe} of {self._index.num_clusters} lists visited{self._stated}"
        return self._kind

    @property
    def _by_torch(self) -> bool:
        return self._kind == "exact" or self._device != "cpu"

    def index_arrays(self) -> dict[str, np.ndarray]:
        """The index as arrays; none where there is no index in step."""
        return {} if self._index is None or self._version != self._table.version else self._index.arrays()

    def restore(self, arrays: Columns) -> None:
        """Take the index of the same entries from what `index_arrays` gave."""
        index = restored(arrays, self._settings) if arrays else None
        if index is not None and len(index) == self._table.size:
            self._index, self._version = index, self._table.version

    def follow(self, change: Change, before: int, keys_change: bool) -> None:
        """Bring the index in step after `change` was applied to the table of version `before`."""
        index = self._index
        if index is None or self._version != before or keys_change or self._table.size == 0:
            return
        try:
            moved = change.updated.get("ids", no_ids())
            index.remove(np.concatenate([change.removed, moved]))
            entered = np.concatenate([moved, change.added.get("ids", no_ids())])
            if len(entered):
                index.add(entered, self._table.keys[self._table.slots(entered)])
            self._version = self._table.version
        except IndexMismatchError as error:
            warnings.warn(f"{error}: building it again from the entries", stacklevel=2)

    def nearest(
        self,
        queries: np.ndarray,
        k: int,
        namespaces: np.ndarray | None = None,
        before: np.ndarray | None = None,
        among: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Slots and distances [Q, k] of the nearest rows, in the query's namespace and at a position before its own.

        With `among`, bools over the rows, only those are seen.
        """
        slots, distances = np.full((len(queries), k), NONE), np.full((len(queries), k), np.inf, np.float32)
        if self._table.size == 0:
            return slots, distances
        self._prepare()
        queries = self._as_keys(queries)
        for group in [None] if namespaces is None else np.unique(namespaces):
            mine = slice(None) if group is None else np.flatnonzero(namespaces == group)
            limit = None if before is None else before[mine]
            slots[mine], distances[mine] = self._in_group(queries[mine], k, self._rows_of(group, among), limit)
        return slots, distances

    def recall(self, queries: np.ndarray, k: int, itself: np.ndarray | None = None) -> float:
        """The share of the k nearest rows that a search finds; entries with the ids `itself` do not find themselves."""
        self._prepare()
        queries, k = self._as_keys(queries), min(k + (itself is not None), self._table.size)
        found, exact = self._in_group(queries, k, None, None), self._exactly(queries, k, None, None)
        if itself is not None and k > 1:
            found, exact = (self._others(*each, itself) for each in (found, exact))
        return _share(found[1], exact[1])

    def _as_keys(self, queries: np.ndarray) -> np.ndarray:
        return unit(queries) if self._metric == "cosine" else queries

    def _rows_of(self, namespace: int | None, among: np.ndarray | None) -> np.ndarray | None:
        """The rows of a namespace, of those in `among`; None for all rows."""
        mine = np.ones(self._table.size, bool) if among is None else among
        if namespace is not None:
            mine = mine & (self._table["namespaces"] == namespace)
        return None if mine.all() else np.flatnonzero(mine)

    def _in_group(
        self, queries: np.ndarray, k: int, rows: np.ndarray | None, before: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Slots and distances [Q, k] among `rows`, or all."""
        if self._index is None or (rows is not None and len(rows) <= SMALL_NAMESPACE):
            return self._exactly(queries, k, rows, before)
        slots, distances = self._by_index(self._index, queries, k, rows, before)
        # An index may miss, restrictions hide, and products not tell what lies nearly in the same direction.
        short = np.flatnonzero((slots == NONE).any(1) | crowded(distances[:, -1], self._metric, queries.shape[1]))
        if len(short):
            limit = None if before is None else before[short]
            slots[short], distances[short] = self._exactly(queries[short], k, rows, limit)
        return slots, distances

    def _by_index(
        self, index: Index, queries: np.ndarray, k: int, rows: np.ndarray | None, before: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `_in_group`, of what the index finds: more than k where some will be hidden, or were compared roughly."""
        enough = index.exact and rows is None and before is None and k <= self._table.size
        found, measured = index.search(queries, k if enough else min(4 * k + 32, self._table.size))
        slots = self._table.slots(found)
        if enough and self._metric == "cosine":
            return self._by_products(queries, slots, measured)
        if enough:
            return slots, measured if self._metric == "l2" else -measured
        if rows is not None:
            inside = np.zeros(self._table.size, bool)
            inside[rows] = True
            slots[~inside[slots]] = NONE
        if before is not None:
            slots[self._table["positions"][slots] >= before[:, None]] = NONE
        slots = np.pad(slots, ((0, 0), (0, max(0, k - slots.shape[1]))), constant_values=NONE)
        return ranked(self._table.keys, self._table["ids"], queries, slots, k, self._metric)

    def _by_products(
        self, queries: np.ndarray, slots: np.ndarray, products: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Slots and distances [Q, k] of unit vectors with these inner products, exact also where they are small."""
        distances = 1 - products
        near = np.flatnonzero(distances[:, 0] < NEAR)
        if len(near):
            keys, ids, k = self._table.keys, self._table["ids"], slots.shape[1]
            slots[near], distances[near] = ranked(keys, ids, queries[near], slots[near], k, self._metric)
        return slots, distances

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
        if self._index is not None and (self._version != self._table.version or self._index.stale):
            self._index = None
        if self._index is not None or self._kind in ("exact", "flat") or self._table.size < self._try_from:
            return
        version = self._table.version
        ids, keys = self._table["ids"], self._table.keys
        index = self._chosen(ids, keys) if self._kind == "auto" else build(ids, keys, self._settings)
        self._index, self._version = index, version

    def _chosen(self, ids: np.ndarray, keys: np.ndarray) -> Index | None:
        """Lists, if visiting few of them reaches the wanted recall; else none until the size has doubled.

        The recall is that of entries that the lists are not built from, nor hold yet.
        """
        if self._device == "cpu":
            drawn, rng = np.zeros(len(ids), bool), np.random.default_rng(self._settings.seed)
            drawn[rng.choice(len(ids), AUTO_SAMPLES, replace=False)] = True
            lists = InvertedLists.built(ids[~drawn], keys[~drawn], replace(self._settings, nprobe=1))
            queries, k = keys[drawn], min(10, len(ids) - AUTO_SAMPLES)
            exact = self._exactly(queries, k, np.flatnonzero(~drawn), None)[1]
            while lists.nprobe <= lists.num_clusters // 8:
                recall = _share(self._by_index(lists, queries, k, None, None)[1], exact)
                if recall >= AUTO_RECALL:
                    self._stated = f", recall {recall:.2f} for vectors it was not built from"
                    lists.add(ids[drawn], queries)
                    return lists
                lists.nprobe *= 2
        self._try_from = 2 * len(ids)
        return None

    def _others(self, slots: np.ndarray, distances: np.ndarray, itself: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Without the query's own entry, or else without the last, [Q, k - 1]."""
        own = self._table.ids_at(slots) == itself[:, None]
        own[~own.any(1), -1] = True
        return tuple(each[~own].reshape(len(slots), -1) for each in (slots, distances))


def subset(table: Table, since: int | None, ids: Integers | None, value: Any) -> np.ndarray | None:
    """Which rows a search sees, as bools: those at a position, of these ids, with this value; None for all.

    Raises:
        InputError: entries have no values, or of another shape.
    """
    if since is None and ids is None and value is None:
        return None
    seen = np.ones(table.size, bool)
    if since is not None:
        seen &= table["positions"] >= one_for_each(since, (), "since")
    if ids is not None:
        seen &= np.isin(table["ids"], integers_of(ids, "ids"))
    if value is not None and table.size:
        held = table.get("values")
        if held is None:
            raise InputError("this memory holds no values: give them to `add`")
        wanted = plain(value, "value") if isinstance(value, Tensor) else np.asarray(value)
        if wanted.shape != held.shape[1:]:
            raise InputError(f"value of shape {list(wanted.shape)}: expected {list(held.shape[1:])}, as entries have")
        seen &= (held == wanted).all(axis=tuple(range(1, held.ndim)))
    return seen


def _share(found: np.ndarray, exact: np.ndarray) -> float:
    """Of the nearest, by distance: of entries at equal distances, up to rounding, any is right."""
    last = exact[:, -1:]
    return float((found <= last + 1e-5 * np.abs(last)).mean())
