"""Reading a memory's entries by their ids."""

from typing import Any

import numpy as np

from frugal.errors import InputError
from frugal.memory.store.arrays import Integers, integers_of, like
from frugal.memory.store.exact import NONE
from frugal.memory.store.kept import KeptMemory


class ReadableMemory(KeptMemory):
    """A memory whose entries are read by their ids."""

    def __len__(self) -> int:
        return self._table.size

    @property
    def clock(self) -> int:
        """Writes so far: the id, and the position unless another is given, of the next entry."""
        return self._clock

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
        return like(ids)(self._column("vectors", ids))

    def __getitem__(self, entry: int) -> Any:
        return self.get([entry])[0]

    def values(self, ids: Integers) -> Any:
        """Values [.., *payload] of entries; zeros where an id is -1."""
        return like(ids)(self._column("values", ids))

    def positions(self, ids: Integers) -> Any:
        """Positions [..] of entries; zeros where an id is -1."""
        return like(ids)(self._column("positions", ids))

    def namespaces(self, ids: Integers) -> Any:
        """Namespaces [..] of entries; zeros where an id is -1."""
        return like(ids)(self._column("namespaces", ids))

    def all_embeddings(self) -> np.ndarray:
        """All vectors [n, dim], in the order of `ids()`."""
        with self._lock:
            return self.get(self.ids())

    def _column(self, name: str, ids: Integers) -> np.ndarray:
        wanted = integers_of(ids, "ids")
        with self._lock:
            column = self._table.get(name)
            if column is None:
                raise InputError("this memory holds no values: give them to `add`")
            missing = wanted == NONE
            self._slots(wanted[~missing])
            rows = (
                column[self._table.slots(wanted)]
                if len(self)
                else np.zeros(wanted.shape + column.shape[1:], column.dtype)
            )
            rows[missing] = 0
        return rows

    def _slots(self, ids: np.ndarray) -> np.ndarray:
        """Where entries are.

        Raises:
            InputError: an id that no entry has.
        """
        slots = self._table.slots(ids)
        if (slots < 0).any():
            raise InputError(f"id {ids[slots < 0][0]}: no entry has it; it was removed, replaced or never given")
        return slots
