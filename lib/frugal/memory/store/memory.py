"""An associative memory: vectors with small values, found by their neighbours."""

import threading
from pathlib import Path
from typing import Any, Self

import numpy as np

from frugal.device import choose_device
from frugal.errors import InputError
from frugal.memory.store.arrays import (
    Array,
    Integers,
    integers_of,
    like,
    one_for_each,
    payload_of,
    squared_norms,
    vectors_of,
)
from frugal.memory.store.change import Change, no_ids
from frugal.memory.store.checks import check_settings
from frugal.memory.store.contents import Contents
from frugal.memory.store.duplicates import Gate
from frugal.memory.store.eviction import POLICIES, strength
from frugal.memory.store.exact import NONE
from frugal.memory.store.files import Files
from frugal.memory.store.folder import Stored, read
from frugal.memory.store.table import Table

RECALL_SAMPLES = 256


class AssociativeMemory:
    """Up to `capacity` vectors of width `dim`, each with an id, a value, a namespace and a position.

    Ids are 64-bit, stay with their entry and are never given again. NumPy arrays and torch tensors go in; the same
    kind, on the same device, comes out. A namespace holds a row of a batch, a document or a stream; one search looks
    into one namespace for each query. A position says when an entry was written (by default: by counting writes), so
    that a query can be restricted to what was written before it. The capacity is that of all namespaces together.

    Distances are smaller for what is nearer: squared Euclidean ("l2"), 1 - cosine ("cosine"), or the negative inner
    product ("inner_product"). They are exact for every index, which only says what to compare.

    A memory lives in main memory. `save` and `load` copy it to a folder and back. While it is attached to a folder
    (`attach`, `open`), each change is in the folder's journal before it is made: whenever the process ends, killed or
    not, the folder then holds every operation that has returned, and an operation is there as a whole or not at all.
    After a power failure it is those that the disk had got: at least everything up to `checkpoint`.

    Args:
        dim: width of the vectors.
        capacity: entries kept; what is written beyond it replaces others.
        index: "exact" (torch, on `device`), "flat" (exact, by FAISS), "ivf" (lists), "compressed" (lists of product
            codes), "graph" (HNSW), or "auto": exact while that is quick, then lists if they reach a recall of 0.95.
        metric: "l2", "cosine" or "inner_product".
        num_clusters: lists of "ivf" and "compressed"; None: by the number of entries. Until there are 39 entries for
            each list, search is exact.
        m: bytes of a product code; must divide `dim`.
        ef_construction, ef_search: candidates that a graph considers when an entry is added and when it is searched.
        nprobe: lists that a search visits.
        eviction: who goes when the memory is full: "fifo" (who came first), "lru" (whose finding or writing is longest
            ago), "least_hit" (who was found least often) or "strength" (1 and 1 more for each finding, fading).
        novelty_distance: a vector that has an entry of its namespace this near is not written; its id is -1.
        merge_distance: a vector that has an entry this near with an equal value strengthens that entry instead of being
            written; the entry's id is returned.
        seed: of everything random: forgetting, clustering.
        device: where "exact" and "auto" compute: "cpu", "cuda", "mps" or "auto".

    Raises:
        InputError: a value outside its range.
        UnavailableError: there is no such device.

    Examples:
        >>> memory = AssociativeMemory(2, capacity=100)
        >>> memory.add(np.eye(2, dtype=np.float32), np.array([7, 8]))
        array([0, 1])
        >>> ids, distances = memory.search(np.array([[0.9, 0.0]], np.float32), k=1)
        >>> memory.values(ids), distances.round(2)
        (array([[7]]), array([[0.01]], dtype=float32))
        >>> memory.remove([0])
        >>> memory.ids()
        array([1])
    """

    def __init__(
        self,
        dim: int,
        capacity: int,
        *,
        index: str = "auto",
        metric: str = "l2",
        num_clusters: int | None = None,
        m: int = 8,
        ef_construction: int = 100,
        ef_search: int = 64,
        nprobe: int = 16,
        eviction: str = "fifo",
        novelty_distance: float | None = None,
        merge_distance: float | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        config = {name: value for name, value in locals().items() if name not in ("self", "device")}
        device = choose_device(device).type
        check_settings(**config, device=device)
        self.dim, self.capacity, self.metric, self.eviction, self.seed = dim, capacity, metric, eviction, seed
        self._lock = threading.RLock()
        self._contents = Contents(config, device)
        self._files = Files(self._contents)
        self._gate = Gate(novelty_distance, merge_distance)

    def save(self, folder: Path | str) -> None:
        """Write everything into `folder`, in place of a memory that it may hold."""
        with self._lock:
            self._files.save(Path(folder).resolve())

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu") -> Self:
        """A copy in memory of what `folder` holds now, also while another process writes there.

        Raises:
            UnavailableError: it holds no memory, or something in it is damaged; it says what.
        """
        return cls._restored(read(Path(folder)), device)

    @classmethod
    def open(cls, folder: Path | str, device: str = "cpu") -> Self:
        """The memory in `folder`, attached to it.

        Raises:
            UnavailableError: as for `load`, or another memory is attached to this folder.
        """
        writer, stored = Files.opened(Path(folder).resolve())
        try:
            memory = cls._restored(stored, device)
        except BaseException:
            writer.close()
            raise
        memory._files.go_on(writer)
        return memory

    def attach(self, folder: Path | str) -> None:
        """Keep this memory in `folder` from now on: a snapshot, and a journal of every operation.

        Raises:
            InputError: it is attached already, or the folder holds a memory.
            UnavailableError: another memory is attached to this folder.
        """
        with self._lock:
            self._files.attach(Path(folder).resolve())

    def checkpoint(self) -> None:
        """Write a snapshot in place of the journal so far; it is on the disk when this returns."""
        with self._lock:
            self._files.checkpoint()

    def close(self) -> None:
        """Detach from the folder, where others can then write; the memory goes on without."""
        with self._lock:
            self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._contents)

    @property
    def config(self) -> dict[str, Any]:
        """What the memory was made with, but for the device."""
        return self._contents.config

    @property
    def clock(self) -> int:
        """Writes so far: the id, and the position unless another is given, of the next entry."""
        return self._contents.clock

    @property
    def index_in_use(self) -> str:
        """What the next search uses, in words."""
        with self._lock:
            return self._contents.searcher.in_use

    def ids(self, namespace: int | None = None) -> np.ndarray:
        """The ids of all entries, or of a namespace's, in ascending order."""
        with self._lock:
            ids = self._table["ids"]
            return np.sort(ids if namespace is None else ids[self._table["namespaces"] == namespace])

    def get(self, ids: Integers) -> Any:
        """Vectors [.., dim] of entries; zeros where an id is -1, as a search gives it for no entry.

        Raises:
            InputError: an id that no entry has.
        """
        return self._column("vectors", ids)

    def __getitem__(self, entry: int) -> Any:
        return self.get([entry])[0]

    def values(self, ids: Integers) -> Any:
        """Values [.., *payload] of entries; zeros where an id is -1."""
        return self._column("values", ids)

    def positions(self, ids: Integers) -> Any:
        """Positions [..] of entries; zeros where an id is -1."""
        return self._column("positions", ids)

    def namespaces(self, ids: Integers) -> Any:
        """Namespaces [..] of entries; zeros where an id is -1."""
        return self._column("namespaces", ids)

    def all_embeddings(self) -> np.ndarray:
        """All vectors [n, dim], in the order of `ids()`."""
        with self._lock:
            return self.get(self.ids())

    def add(
        self,
        vectors: Array,
        values: Array | None = None,
        *,
        namespaces: Integers = 0,
        positions: Integers | None = None,
        mask: Array | None = None,
    ) -> Any:
        """Write vectors [.., dim], [n, dim] or [B, T, dim], and return their ids [..].

        Args:
            values: one payload for each vector, [.., *payload], of the shape and dtype that the first ones had.
            namespaces: one for all, one for each row [B], or one for each vector.
            positions: when each was written; by default `clock` and what follows.
            mask: where False, nothing is written and the id is -1: padding of ragged rows.

        Raises:
            InputError: something is not as described, or a number is not finite; then nothing is changed.
        """
        rows, counts = vectors_of(vectors, self.dim, "vectors", mask)
        shape = tuple(vectors.shape[:-1])
        columns = {"vectors": rows, "namespaces": one_for_each(namespaces, shape, "namespaces")}
        if positions is not None:
            columns["positions"] = one_for_each(positions, shape, "positions")
        if values is not None:
            columns["values"] = payload_of(values, shape)
        with self._lock:
            self._check_values(columns.get("values"))
            self._check_directions(rows, counts)
            if not counts.all():
                columns = {name: column[counts] for name, column in columns.items()}
            ids = np.full(len(rows), NONE)
            ids[counts] = self._write_new(columns)
        return like(vectors)(ids.reshape(shape))

    def update(
        self, ids: Integers, vectors: Array, values: Array | None = None, *, positions: Integers | None = None
    ) -> None:
        """Write other vectors [n, dim], and values if given, into entries [n]; they keep their ids and namespaces.

        Their positions become `clock` and what follows, or `positions`: their contents are written now.
        """
        wanted = integers_of(ids, "ids").reshape(-1)
        rows, _ = vectors_of(vectors, self.dim, "vectors", None)
        if len(rows) != len(wanted) or len(np.unique(wanted)) != len(wanted):
            raise InputError(f"{len(rows)} vectors for ids {wanted[:10]}: expected one for each, and each id once")
        columns = {"ids": wanted, "vectors": rows}
        if positions is not None:
            columns["positions"] = one_for_each(positions, (len(rows),), "positions")
        if values is not None:
            columns["values"] = payload_of(values, (len(rows),))
        with self._lock:
            self._contents.slots(wanted)
            self._check_directions(rows)
            if values is not None:
                self._check_values(columns["values"])
            clock = self.clock + len(rows)
            self._commit(clock, updated={"positions": np.arange(self.clock, clock)} | columns)

    def remove(self, ids: Integers) -> None:
        """Remove entries; an id that no entry has is refused before anything is changed."""
        wanted = np.unique(integers_of(ids, "ids"))
        with self._lock:
            self._contents.slots(wanted)
            self._commit(self.clock, removed=wanted)

    def search(
        self,
        queries: Array,
        k: int = 10,
        *,
        namespaces: Integers | None = None,
        before: Integers | None = None,
        count_hits: bool = True,
    ) -> tuple[Any, Any]:
        """The k nearest entries of each query [.., dim]: ids [.., k] and distances [.., k], nearest first.

        Args:
            namespaces: where each query looks: one for all, one for each row [B], one for each query; None: everywhere.
            before: only entries at positions strictly before this are seen; one for all, each row or each query.
            count_hits: whether what is found counts as used, where the eviction asks for it.

        Where there are fewer than k entries, ids are -1 and distances infinite.
        """
        rows, _ = vectors_of(queries, self.dim, "queries", None)
        shape = tuple(queries.shape[:-1])
        if k < 1:
            raise InputError(f"k={k}: must be a positive whole number")
        where = None if namespaces is None else one_for_each(namespaces, shape, "namespaces")
        limit = None if before is None else one_for_each(before, shape, "before")
        with self._lock:
            slots, distances = self._contents.searcher.nearest(rows, k, where, limit)
            if count_hits and self.eviction != "fifo":
                self._strengthen(slots[slots != NONE])
            ids = self._table.ids_at(slots)
        back = like(queries)
        return back(ids.reshape(*shape, k)), back(distances.reshape(*shape, k))

    def recall(self, queries: Array | None = None, k: int = 10) -> float:
        """The share of each query's k nearest entries that a search finds; of a sample of the entries by default."""
        with self._lock:
            if len(self) == 0:
                raise InputError("an empty memory has no recall: add vectors first")
            if queries is None:
                drawn = self._random().choice(len(self), min(len(self), RECALL_SAMPLES), replace=False)
                rows = self._table["vectors"][drawn]
            else:
                rows, _ = vectors_of(queries, self.dim, "queries", None)
            return self._contents.searcher.recall(rows, k)

    def age(self, decay: float = 0.999) -> None:
        """Shrink every vector by the factor `decay`."""
        if not 0 < decay <= 1:
            raise InputError(f"decay={decay}: must lie in (0, 1]; 0.999 shrinks by a thousandth")
        with self._lock:
            self._commit(self.clock, scale=decay)

    def forget(self, fraction: float = 0.001) -> np.ndarray:
        """Remove a random `fraction` of the entries, rounded down; their ids."""
        if not 0 <= fraction <= 1:
            raise InputError(f"fraction={fraction}: must lie in 0 to 1")
        with self._lock:
            gone = np.sort(self._random().choice(self.ids(), int(fraction * len(self)), replace=False))
            self._commit(self.clock, removed=gone)
        return gone

    def collect_garbage(self, threshold: float = 1e-6) -> np.ndarray:
        """Remove entries whose vectors' Euclidean length is below `threshold`; their ids.

        Example:
            >>> memory = AssociativeMemory(2, capacity=100)
            >>> ids = memory.add(np.array([[1, 0], [1e-9, 0]], np.float32))
            >>> memory.collect_garbage()
            array([1])
        """
        if not threshold >= 0:
            raise InputError(f"threshold={threshold}: must not be negative")
        with self._lock:
            small = np.linalg.norm(self._table["vectors"], axis=1) < threshold
            gone = np.sort(self._table["ids"][small])
            self._commit(self.clock, removed=gone)
        return gone

    def refresh(self) -> None:
        """Remove all entries."""
        with self._lock:
            self._commit(self.clock, removed=self.ids())

    @classmethod
    def _restored(cls, stored: Stored, device: str) -> Self:
        memory = cls(**stored.config, device=device)
        memory._contents.take(stored)
        return memory

    @property
    def _table(self) -> Table:
        return self._contents.table

    def _column(self, name: str, ids: Integers) -> Any:
        with self._lock:
            return like(ids)(self._contents.column(name, ids))

    def _commit(self, clock: int, **what: Any) -> None:
        self._files.commit(Change(clock, used=self._files.usage(), **what))

    def _random(self) -> np.random.Generator:
        """The same in each run, and another after each change."""
        return np.random.default_rng([self.seed, self.clock, len(self)])

    def _write_new(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        """Write rows that the gate lets in, and make room for them; ids of all."""
        count = len(columns["vectors"])
        if count == 0:
            return np.full(0, NONE)
        if self._gate.is_open:
            ids = np.arange(self.clock, self.clock + count)
            self._insert(columns)
            return ids
        verdict = self._gate.judge(
            columns["vectors"],
            columns["namespaces"],
            columns.get("values"),
            self._table,
            self._contents.searcher,
            self.metric,
        )
        ids = verdict.entry.copy()
        new, merged = np.flatnonzero(verdict.new), verdict.row != NONE
        ids[new] = np.arange(self.clock, self.clock + len(new))
        ids[merged] = ids[verdict.row[merged]]
        self._strengthen(self._table.slots(verdict.entry[verdict.entry != NONE]))
        stands_for = np.bincount(verdict.row[merged], minlength=count)
        self._insert({name: c[new] for name, c in columns.items()} | {"strength": 1 + stands_for[new]})
        return ids

    def _insert(self, columns: dict[str, np.ndarray]) -> None:
        """Append new entries, the last `capacity` of them, in place of those that the eviction names."""
        count = len(columns["vectors"])
        kept = min(count, self.capacity)
        if kept < count:
            columns = {name: column[count - kept :] for name, column in columns.items()}
        excess = max(0, len(self) + kept - self.capacity)
        if (columns["namespaces"] == columns["namespaces"][:1]).all():
            columns["namespaces"] = columns["namespaces"][:1]
        evict = POLICIES[self.eviction]
        removed = evict(self._table, excess, self.clock, self.capacity) if excess else no_ids()
        self._commit(self.clock + count, removed=removed, added=columns)

    def _strengthen(self, slots: np.ndarray) -> None:
        """Note that entries were found, as often as they are named."""
        slots, times = np.unique(slots, return_counts=True)
        self._table.overwrite(
            slots,
            {
                "hits": self._table["hits"][slots] + times,
                "strength": strength(self._table, slots, self.clock, self.capacity) + times,
                "used": np.full(len(slots), self.clock),
            },
        )
        self._files.note_use(self._table["ids"][slots])

    def _check_values(self, values: np.ndarray | None) -> None:
        if len(self) == 0:
            return
        held = self._table.get("values")
        if (values is None) != (held is None):
            raise InputError("values go with every entry or with none: this memory's entries have " + _kind_of(held))
        if values is not None and held is not None and _kind_of(values) != _kind_of(held):
            raise InputError(f"values of {_kind_of(values)}: this memory's have {_kind_of(held)}")

    def _check_directions(self, rows: np.ndarray, counts: np.ndarray | slice = slice(None)) -> None:
        if self.metric == "cosine" and not squared_norms(rows)[counts].all():
            raise InputError("a vector of zeros has no direction: the cosine metric cannot hold it; mask it out")


def _kind_of(values: np.ndarray | None) -> str:
    return "none" if values is None else f"dtype {values.dtype} and payload {list(values.shape[1:])}"
