"""The entries of a memory as columns. This is the truth; every index can be built from it."""

from collections.abc import Mapping

import numpy as np

from frugal.memory.store.arrays import unit

# Of each entry: what it is called, what it holds as it was written, where it belongs, when it was written, log2 of all
# decays before that, and how it was used.
COLUMNS = {
    "ids": np.int64,
    "vectors": np.float32,
    "namespaces": np.int64,
    "positions": np.int64,
    "texts": np.int64,
    "born": np.float64,
    "hits": np.int64,
    "used": np.int64,
    "strength": np.float32,
}
Columns = Mapping[str, np.ndarray]
# Room is made for this many numbers at first: memory that is not written to is not taken.
FIRST_NUMBERS = 2**26
FIRST_IDS = 2**16


class Table:
    """Rows 0 to `size` - 1 in no particular order and without holes.

    Columns are read as `table["positions"]`, an array over the rows; `slots` are row numbers, which removals change.
    Vectors stay as they were written; an entry's vector now is smaller by the decays since, `age` - `born`. `version`
    counts the changes.
    """

    def __init__(self, dim: int, capacity: int, metric: str) -> None:
        self.size = self.version = 0
        self.age = 0.0  # log2 of all decays so far
        self._first_room = min(capacity, max(1, FIRST_NUMBERS // dim))
        self._by_direction = metric == "cosine"
        self._columns = {name: np.empty((0, dim) if name == "vectors" else 0, t) for name, t in COLUMNS.items()}
        if self._by_direction:
            self._columns["keys"] = np.empty((0, dim), np.float32)
        self._directory = Directory()

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name][: self.size]

    def get(self, name: str) -> np.ndarray | None:
        """A column, or None: "values" is there only if entries have them."""
        return self[name] if name in self._columns else None

    def ids_at(self, slots: np.ndarray) -> np.ndarray:
        """The ids in rows of any shape; -1 for -1."""
        return np.where(slots < 0, -1, self["ids"][slots]) if self.size else slots

    @property
    def keys(self) -> np.ndarray:
        """What is searched: the vectors as they are now, or for the cosine at unit length."""
        return self["keys" if "keys" in self._columns else "vectors"]

    def current(self, slots: np.ndarray | slice) -> np.ndarray:
        """Vectors as they are now."""
        return _aged(self["vectors"][slots], self.age - self["born"][slots])

    def grow_to_age(self, age: float) -> None:
        """Shrink every vector to what it is at this age."""
        if age != self.age:
            self.age = age
            if not self._by_direction:
                self._columns["keys"] = _aged(self["vectors"], age - self["born"])

    def rows(self) -> dict[str, np.ndarray]:
        """All columns that follow from no other, as views."""
        return {name: self[name] for name in self._columns if name != "keys"}

    def slots(self, ids: np.ndarray) -> np.ndarray:
        """The rows of `ids`, of any shape; -1 where there is none."""
        return self._directory.slots(ids)

    def oldest(self, count: int) -> np.ndarray:
        """The `count` smallest ids, or as many as there are."""
        return self._directory.oldest(count)

    def append(self, rows: Columns) -> None:
        """Add rows whose ids are larger than any before. The first of an empty table say whether there are "values"."""
        count = len(rows["ids"])
        if self.size == 0:
            self._columns.pop("values", None)
        unused = {"hits": np.zeros(1), "used": rows["ids"], "strength": np.ones(1)}
        for name, values in self._with_keys(unused | dict(rows)).items():
            if name not in self._columns:
                self._columns[name] = np.empty((0, *values.shape[1:]), values.dtype)
            self._columns[name] = _with_room(self._columns[name], self.size, self.size + count, self._first_room)
            self._columns[name][self.size : self.size + count] = values
        self._know(rows["ids"])

    def adopt(self, rows: Columns) -> None:
        """Fill an empty table with arrays that nobody else holds; copying them would take as long as reading them."""
        self._columns.pop("values", None)
        for name, values in self._with_keys(rows).items():
            dtype = self._columns[name].dtype if name in self._columns else values.dtype
            self._columns[name] = np.require(values, dtype, ["C_CONTIGUOUS", "WRITEABLE"])
        self._know(rows["ids"])

    def _know(self, ids: np.ndarray) -> None:
        self._directory.append(ids, np.arange(self.size, self.size + len(ids)))
        self.size += len(ids)

    def overwrite(self, slots: np.ndarray, rows: Columns) -> None:
        """Put other contents into rows; their ids stay."""
        for name, values in self._with_keys(rows).items():
            if name != "ids":
                self._columns[name][slots] = values

    def _with_keys(self, rows: Columns) -> Columns:
        if "keys" not in self._columns or "vectors" not in rows:
            return rows
        vectors = rows["vectors"]
        return {**rows, "keys": unit(vectors) if self._by_direction else _aged(vectors, self.age - rows["born"])}

    def remove(self, slots: np.ndarray) -> None:
        """Take rows out; the last ones move into their places."""
        ids, left = self["ids"], self.size - len(slots)
        self._directory.drop(ids[slots])
        stays = np.ones(len(slots), bool)
        stays[slots[slots >= left] - left] = False
        movers, holes = left + np.flatnonzero(stays), slots[slots < left]
        self._directory.move(ids[movers], holes)
        for column in self._columns.values():
            column[holes] = column[movers]
        self.size = left


class Directory:
    """Where each id is: ids in ascending order and their slots, -1 once dropped.

    Ids only grow, so that new ones are appended; dropped ones are squeezed out when the room is used up.
    """

    def __init__(self) -> None:
        self._ids, self._slots = np.empty(0, np.int64), np.empty(0, np.int64)
        self._begin = self._end = 0

    def slots(self, ids: np.ndarray) -> np.ndarray:
        known, slots = self._ids[self._begin : self._end], self._slots[self._begin : self._end]
        if len(known) == 0:
            return np.full(ids.shape, -1)
        at = self._at(ids)
        return np.where(known.take(at, mode="clip") == ids, slots.take(at, mode="clip"), -1)

    def _at(self, ids: np.ndarray) -> np.ndarray:
        """Where `ids` stand, counted from the beginning; anything where they do not."""
        known = self._ids[self._begin : self._end]
        if known[-1] - known[0] == len(known) - 1:  # none is missing: no need to look for them
            return ids - known[0]
        return np.searchsorted(known, ids)

    def oldest(self, count: int) -> np.ndarray:
        width = count
        while True:
            live = self._begin + np.flatnonzero(self._slots[self._begin : min(self._begin + width, self._end)] >= 0)
            if len(live) >= count or self._begin + width >= self._end:
                return self._ids[live[:count]]
            width *= 2

    def append(self, ids: np.ndarray, slots: np.ndarray) -> None:
        if self._end + len(ids) > len(self._ids):
            live = self._begin + np.flatnonzero(self._slots[self._begin : self._end] >= 0)
            kept_ids, kept_slots = self._ids[live], self._slots[live]
            self._begin, self._end = 0, len(live)
            self._ids = _with_room(kept_ids, self._end, self._end + len(ids), FIRST_IDS)
            self._slots = _with_room(kept_slots, self._end, self._end + len(ids), FIRST_IDS)
        self._ids[self._end : self._end + len(ids)] = ids
        self._slots[self._end : self._end + len(ids)] = slots
        self._end += len(ids)

    def move(self, ids: np.ndarray, slots: np.ndarray) -> None:
        """Note other slots of known ids."""
        if len(ids):
            self._slots[self._begin + self._at(ids)] = slots

    def drop(self, ids: np.ndarray) -> None:
        self.move(ids, np.full(len(ids), -1))
        oldest = self.oldest(1)
        self._begin = self._end if len(oldest) == 0 else self._begin + int(self._at(oldest)[0])


def _aged(vectors: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Vectors [n, d] after decays whose log2 are [n]."""
    return (vectors * np.exp2(by)[:, None]).astype(np.float32) if by.any() else vectors.copy()


def _with_room(column: np.ndarray, used: int, needed: int, at_first: int) -> np.ndarray:
    """`column`, or a copy of its used part with room for at least `needed` rows, twice as many as before."""
    if needed <= len(column):
        return column
    larger = np.empty((max(needed, 2 * len(column), at_first), *column.shape[1:]), column.dtype)
    larger[:used] = column[:used]
    return larger
