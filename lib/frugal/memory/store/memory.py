"""An associative memory: vectors with small values, found by their neighbours."""

import contextlib
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np

from frugal.device import choose_device
from frugal.errors import InputError, UnavailableError, check_not_negative, check_whole, is_number
from frugal.memory.store import earlier, stored
from frugal.memory.store.arrays import Array, Integers, integers_of, like, one_for_each, payload_of, vectors_of
from frugal.memory.store.change import Change, Text, no_ids
from frugal.memory.store.database import NAME, Database, put_in_place
from frugal.memory.store.eviction import POLICIES, found_again
from frugal.memory.store.exact import NONE
from frugal.memory.store.interrupts import uninterrupted
from frugal.memory.store.search import Searcher, subset
from frugal.memory.store.settings import Settings
from frugal.memory.store.table import Columns, Table

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
    (`attach`, `open`), each operation is a transaction in the folder's `memory.sqlite` before it is made: an operation
    that has returned survives when the process is killed, and an operation is there as a whole or not at all, also when
    Ctrl-C interrupts it. After a power failure it is at least everything up to `checkpoint`. One memory writes to a
    folder, any number read. Copy a folder with all its files while nothing writes to it: the newest operations may
    stand in `memory.sqlite-wal` alone.

    Args:
        dim: width of the vectors.
        capacity: entries kept; what is written beyond it replaces others.
        index: "exact" (torch, on `device`), "flat" (exact, by FAISS), "ivf" (lists), "compressed" (lists of product
            codes), "graph" (HNSW), or "auto": exact while that is quick, then lists if they reach a recall of 0.95
            for vectors that they are not built from.
        metric: "l2", "cosine" or "inner_product".
        num_clusters: lists of "ivf" and "compressed"; None: by the number of entries. Until there are 39 entries for
            each list, search is exact.
        m: bytes of a product code; must divide `dim`.
        ef_construction, ef_search: candidates that a graph considers when an entry is added and when it is searched.
        nprobe: lists that a search visits.
        eviction: who goes when the memory is full: "fifo" (who came first), "lru" (whose finding or writing is longest
            ago), "least_hit" (who was found least often) or "strength" (1 and 1 more for each finding, fading).
        seed: of everything random: forgetting, clustering.
        device: where "exact" and "auto" compute: "cpu", "cuda", "mps" or "auto".

    Attributes:
        config: what the memory was made with, but for the device.
        clock: writes so far: the id, and the position unless another is given, of the next entry.
        next_text: the number that the next text gets.

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
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        given = {name: value for name, value in locals().items() if name != "self"}
        settings = Settings(**given | {"device": choose_device(device).type})
        self.dim, self.capacity, self.metric, self.eviction, self.seed = dim, capacity, metric, eviction, seed
        self.config = settings.config
        self.clock = self.next_text = 0
        self._lock = threading.RLock()
        self._table = Table(dim, capacity, metric)
        self._searcher = Searcher(self._table, settings)
        self._texts: dict[int, Text] = {}
        self._database: Database | None = None
        self._unwritten_uses: set[int] = set()

    def save(self, folder: Path | str) -> None:
        """Write everything into `folder`, in place of a memory that it may hold.

        Raises:
            UnavailableError: another memory is attached to this folder, or the disk is full; the folder is as it was.
        """
        folder = Path(folder).resolve()
        with self._lock:
            if self._database is not None and self._database.folder == folder:
                self._database.checkpoint()
                self._keep_index(self._database)
                return
            with contextlib.closing(Database(folder)) as written:
                self._write_all(written)

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu") -> Self:
        """A copy in memory of what `folder` holds now, also while another process writes there.

        Raises:
            UnavailableError: it holds no memory, or something in it is damaged; it says what.
        """
        return cls._restored(_whole(Path(folder)), device)

    @classmethod
    def open(cls, folder: Path | str, device: str = "cpu") -> Self:
        """The memory in `folder`, attached to it. A folder of an earlier version gets its `memory.sqlite` here.

        Raises:
            UnavailableError: as for `load`, or another memory is attached to this folder.
        """
        folder = Path(folder).resolve()
        if not stored.exists(folder):
            _whole(folder)  # says what is missing, and makes nothing
        opened = Database(folder)
        try:
            memory = cls._restored(_whole(folder), device)
            if not stored.exists(folder):
                memory._write_all(opened)
        except BaseException:
            opened.close()
            raise
        memory._database = opened
        return memory

    @staticmethod
    def is_in(folder: Path | str) -> bool:
        """Whether a folder holds a memory, of this version or an earlier one."""
        return stored.exists(Path(folder)) or earlier.exists(Path(folder))

    def attach(self, folder: Path | str) -> None:
        """Write this memory into `folder`, and each operation from now on.

        Raises:
            InputError: it is attached already, or the folder holds a memory.
            UnavailableError: another memory is attached to this folder.
        """
        folder = Path(folder).resolve()
        with self._lock:
            if self._database is not None:
                raise InputError(f"this memory is attached to {self._database.folder}: `close` it first")
            opened = Database(folder)
            try:
                if self.is_in(folder):
                    raise InputError(f"{folder} holds a memory: `open` that one, or give another folder")
                self._write_all(opened)
            except BaseException:
                opened.close()
                raise
            self._database = opened

    @classmethod
    def repair(cls, folder: Path | str) -> list[str]:
        """Keep what is whole of a damaged folder; what was damaged. The damaged file stays as `damaged.sqlite`.

        Raises:
            UnavailableError: too little is whole, or another memory is attached to this folder.
        """
        folder = Path(folder).resolve()
        if not folder.is_dir():
            raise InputError(f"{folder}: there is no such folder; give one that a memory was saved to")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".repaired.") as temporary:
            found = stored.read(folder)
            if found.damage:
                cls._restored(found, "cpu").save(temporary)
                put_in_place(Path(temporary), folder)
        return found.damage

    def checkpoint(self) -> None:
        """Wait until the disk has everything, so that a power failure takes nothing of it."""
        with self._lock:
            if self._database is None:
                raise InputError("this memory is attached to no folder: `attach` it, or `save` it")
            self._database.checkpoint()

    def close(self) -> None:
        """Detach from the folder, where others can then write; the memory goes on without."""
        with self._lock:
            if self._database is not None:
                with contextlib.suppress(UnavailableError):  # where there is no room, uses are lost and an index
                    if self._unwritten_uses:
                        self._commit(self.clock)
                    self._keep_index(self._database)
                self._database.close()
                self._database = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._table.size

    @property
    def index_in_use(self) -> str:
        """What the next search uses, in words."""
        with self._lock:
            return self._searcher.in_use

    @property
    def texts(self) -> dict[int, Text]:
        """The texts that entries were read from, by number."""
        with self._lock:
            return dict(self._texts)

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
        with self._lock:
            return self._of_entries(ids, self._table.current)

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

    def text_numbers(self, ids: Integers) -> Any:
        """Numbers [..] of the texts that entries were read from; -1 for none, zeros where an id is -1."""
        return self._column("texts", ids)

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
        text: Text | None = None,
    ) -> Any:
        """Write vectors [.., dim], [n, dim] or [B, T, dim], and return their ids [..].

        Args:
            values: one payload for each vector, [.., *payload], of the shape and dtype that the first ones had.
            namespaces: one for all, one for each row [B], or one for each vector.
            positions: when each was written; by default `clock` and what follows.
            text: what they were read from. It gets the next number, which none ever had.

        Raises:
            InputError: something is not as described, or a number is not finite; then nothing is changed.
        """
        rows = vectors_of(vectors, self.dim, "vectors")
        shape, count = tuple(vectors.shape[:-1]), len(rows)
        columns = {"vectors": rows, "namespaces": one_for_each(namespaces, shape, "namespaces")}
        if positions is not None:
            columns["positions"] = one_for_each(positions, shape, "positions")
        if values is not None:
            columns["values"] = payload_of(values, shape)
        with self._lock:
            self._check_values(columns.get("values"))
            self._check_directions(rows)
            ids = np.arange(self.clock, self.clock + count)
            number = NONE if text is None else self.next_text
            rest = {"ids": ids, "texts": np.full(count, number), "born": np.full(count, self._table.age)}
            columns = {"positions": ids} | columns | rest
            if count > self.capacity:  # only the last are kept
                columns = {name: column[-self.capacity :] for name, column in columns.items()}
            excess = max(0, len(self) + min(count, self.capacity) - self.capacity)
            evict = POLICIES[self.eviction]
            removed = evict(self._table, excess, self.clock, self.capacity) if excess else no_ids()
            what: dict[str, Any] = {"removed": removed, "added": columns} if count else {}
            if text is not None:
                what |= {"new_texts": {number: text}, "next_text": number + 1}
            if what:
                self._commit(self.clock + count, **what)
        return like(vectors)(ids.reshape(shape))

    def update(
        self, ids: Integers, vectors: Array, values: Array | None = None, *, positions: Integers | None = None
    ) -> None:
        """Write other vectors [n, dim], and values if given, into entries [n]; they keep their ids and namespaces.

        Their positions become `clock` and what follows, or `positions`: their contents are written now.
        """
        wanted = integers_of(ids, "ids").reshape(-1)
        rows = vectors_of(vectors, self.dim, "vectors")
        if len(rows) != len(wanted) or len(np.unique(wanted)) != len(wanted):
            raise InputError(f"{len(rows)} vectors for ids {wanted[:10]}: expected one for each, and each id once")
        columns = {"ids": wanted, "vectors": rows}
        if positions is not None:
            columns["positions"] = one_for_each(positions, (len(rows),), "positions")
        if values is not None:
            columns["values"] = payload_of(values, (len(rows),))
        with self._lock:
            slots = self._slots(wanted)
            self._check_directions(rows)
            if values is not None:
                self._check_values(columns["values"])
            if len(wanted) == 0:
                return
            clock = self.clock + len(rows)
            kept = {name: self._table[name][slots] for name in ("namespaces", "texts")}
            held = self._table.get("values")
            if held is not None:
                kept["values"] = held[slots]
            now = {"positions": np.arange(self.clock, clock), "born": np.full(len(rows), self._table.age)}
            self._commit(clock, updated=kept | now | columns)

    def remove(self, ids: Integers) -> None:
        """Remove entries; an id that no entry has is refused before anything is changed."""
        wanted = np.unique(integers_of(ids, "ids"))
        with self._lock:
            self._slots(wanted)
            self._commit(self.clock, removed=wanted)

    def remove_texts(self, numbers: Integers) -> np.ndarray:
        """Remove texts and all entries that were read from them; the ids of these.

        Raises:
            InputError: a number that no text has; then nothing is changed.
        """
        wanted = np.unique(integers_of(numbers, "numbers"))
        with self._lock:
            unknown = [number for number in wanted.tolist() if number not in self._texts]
            if unknown:
                raise InputError(f"text {unknown[0]}: there is none of this number")
            gone = np.sort(self._table["ids"][np.isin(self._table["texts"], wanted)])
            self._commit(self.clock, removed=gone, removed_texts=tuple(wanted.tolist()))
        return gone

    def search(
        self,
        queries: Array,
        k: int = 10,
        *,
        namespaces: Integers | None = None,
        before: Integers | None = None,
        since: int | None = None,
        ids: Integers | None = None,
        value: Any = None,
        count_hits: bool = True,
    ) -> tuple[Any, Any]:
        """The k nearest entries of each query [.., dim]: ids [.., k] and distances [.., k], nearest first.

        Args:
            namespaces: where each query looks: one for all, one for each row [B], one for each query; None: everywhere.
            before: only entries at positions strictly before this are seen; one for all, each row or each query.
            since: only entries at this position or a later one are seen.
            ids: only entries with these ids are seen.
            value: only entries with this value are seen.
            count_hits: whether what is found counts as used, where the eviction asks for it.

        Where there are fewer than k entries, ids are -1 and distances infinite.
        """
        rows = vectors_of(queries, self.dim, "queries")
        shape = tuple(queries.shape[:-1])
        check_whole(k=k)
        where = None if namespaces is None else one_for_each(namespaces, shape, "namespaces")
        limit = None if before is None else one_for_each(before, shape, "before")
        with self._lock:
            slots, found = self._searcher.nearest(rows, int(k), where, limit, subset(self._table, since, ids, value))
            if count_hits and self.eviction != "fifo":
                self._strengthen(slots[slots != NONE])
            entries = self._table.ids_at(slots)
        back = like(queries)
        return back(entries.reshape(*shape, k)), back(found.reshape(*shape, k))

    def recall(self, queries: Array | None = None, k: int = 10) -> float:
        """The share of each query's k nearest entries that a search finds.

        By default of a sample of the entries, each without itself: they tell less than queries of one's own.
        """
        with self._lock:
            if len(self) == 0:
                raise InputError("an empty memory has no recall: add vectors first")
            if queries is None:
                drawn = self._random().choice(len(self), min(len(self), RECALL_SAMPLES), replace=False)
                return self._searcher.recall(self._table.keys[drawn], k, self._table["ids"][drawn])
            return self._searcher.recall(vectors_of(queries, self.dim, "queries"), k)

    def age(self, decay: float = 0.999) -> None:
        """Shrink every vector by the factor `decay`."""
        if not (is_number(decay) and 0 < decay <= 1):
            raise InputError(f"decay={decay}: must lie in (0, 1]; 0.999 shrinks by a thousandth")
        with self._lock:
            self._commit(self.clock, age=self._table.age + float(np.log2(decay)))

    def forget(self, fraction: float = 0.001) -> np.ndarray:
        """Remove a random `fraction` of the entries, rounded down; their ids."""
        if not (is_number(fraction) and 0 <= fraction <= 1):
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
        check_not_negative("0 removes nothing", threshold=threshold)
        with self._lock:
            small = np.linalg.norm(self._table.current(slice(None)), axis=1) < threshold
            gone = np.sort(self._table["ids"][small])
            self._commit(self.clock, removed=gone)
        return gone

    def refresh(self) -> None:
        """Remove all entries."""
        with self._lock:
            self._commit(self.clock, removed=self.ids())

    @classmethod
    def _restored(cls, found: stored.Stored, device: str) -> Self:
        memory = cls(**found.config, device=device)
        memory.clock, memory.next_text = found.clock, found.next_text
        memory._table.adopt(found.columns)
        memory._table.grow_to_age(found.age)
        memory._texts = found.texts
        memory._searcher.restore(found.index)
        return memory

    def _write_all(self, written: Database) -> None:
        order = np.argsort(self._table["ids"])
        columns = {name: column[order] for name, column in self._table.rows().items()}
        used = self._uses((self._table["hits"] > 0) | (self._table["used"] != self._table["ids"]))
        age, texts = self._table.age, self._texts
        written.commit(Change(self.clock, self.next_text, age, used, added=columns, new_texts=texts), self.config)
        self._keep_index(written)

    def _keep_index(self, written: Database) -> None:
        arrays = self._searcher.index_arrays()
        if arrays:
            written.keep_index(arrays)

    def _column(self, name: str, ids: Integers) -> Any:
        with self._lock:
            column = self._table.get(name)
            if column is None:
                raise InputError("this memory holds no values: give them to `add`")
            return self._of_entries(ids, column.__getitem__)

    def _of_entries(self, ids: Integers, rows: Callable[[np.ndarray], np.ndarray]) -> Any:
        """Rows [.., *payload] of entries [..], of those that the table has in some slots; zeros where an id is -1."""
        wanted = integers_of(ids, "ids")
        there = wanted != NONE
        found = rows(self._slots(wanted[there]))
        filled = np.zeros(wanted.shape + found.shape[1:], found.dtype)
        filled[there] = found
        return like(ids)(filled)

    def _slots(self, ids: np.ndarray) -> np.ndarray:
        """Where entries are in the table; raises InputError for an id that no entry has."""
        slots = self._table.slots(ids)
        if (slots < 0).any():
            raise InputError(f"id {ids[slots < 0][0]}: no entry has it; it was removed, replaced or never given")
        return slots

    def _commit(self, clock: int, **what: Any) -> None:
        """Write an operation down and make it: both or neither, whatever interrupts."""
        what = {"next_text": self.next_text, "age": self._table.age} | what
        if self._unwritten_uses:
            what["used"] = self._uses(np.isin(self._table["ids"], list(self._unwritten_uses)))
        change = Change(clock, **what)
        before, keys_change = self._table.version, change.age != self._table.age and self.metric != "cosine"
        with uninterrupted():
            if self._database is not None:
                self._database.commit(change)
            change.apply(self._table)
            self.clock, self.next_text = change.clock, change.next_text
            self._texts |= change.new_texts
            for number in change.removed_texts:
                del self._texts[number]
            self._unwritten_uses.clear()
        self._searcher.follow(change, before, keys_change)

    def _uses(self, rows: np.ndarray) -> Columns:
        """How searches used the entries of some rows."""
        return {name: self._table[name][rows] for name in ("ids", "hits", "used", "strength")}

    def _random(self) -> np.random.Generator:
        """The same in each run, and another after each change."""
        return np.random.default_rng([self.seed, self.clock, len(self)])

    def _strengthen(self, slots: np.ndarray) -> None:
        """Note that entries were found, as often as they are named."""
        slots, times = np.unique(slots, return_counts=True)
        if len(slots) == 0:
            return
        with uninterrupted():
            self._table.overwrite(slots, found_again(self._table, slots, times, self.clock, self.capacity))
            if self._database is not None:
                self._unwritten_uses.update(self._table["ids"][slots].tolist())
                with contextlib.suppress(UnavailableError):  # a search needs no room: with the next transaction
                    self._commit(self.clock)

    def _check_values(self, values: np.ndarray | None) -> None:
        if len(self) == 0:
            return
        held = self._table.get("values")
        if (values is None) != (held is None):
            raise InputError("values go with every entry or with none: this memory's entries have " + _kind_of(held))
        if values is not None and held is not None and _kind_of(values) != _kind_of(held):
            raise InputError(f"values of {_kind_of(values)}: this memory's have {_kind_of(held)}")

    def _check_directions(self, rows: np.ndarray) -> None:
        if self.metric == "cosine" and not rows.any(1).all():
            raise InputError("a vector of zeros has no direction: the cosine metric cannot hold it; leave it out")


def _kind_of(values: np.ndarray | None) -> str:
    return "none" if values is None else f"dtype {values.dtype} and payload {list(values.shape[1:])}"


def _whole(folder: Path) -> stored.Stored:
    """What a folder holds, of this version or an earlier one; raises UnavailableError that says what is damaged."""
    if earlier.exists(folder) and not stored.exists(folder):
        return earlier.read(folder)
    found = stored.read(folder)
    if found.damage:
        raise UnavailableError(
            f"{folder / NAME} is damaged: {'; '.join(found.damage)}; restore it from a copy, or keep what is whole "
            f"with `frugal memory repair --folder {folder}`"
        )
    return found
