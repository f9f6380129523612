"""What a memory holds: entries, the index that finds them, and the clock; changed by one `Change` after the other."""

from typing import Any, Self

import numpy as np

from frugal.errors import InputError
from frugal.memory.store.arrays import Integers, integers_of
from frugal.memory.store.change import Change
from frugal.memory.store.exact import NONE
from frugal.memory.store.folder import Stored
from frugal.memory.store.index import IndexSettings
from frugal.memory.store.search import Searcher
from frugal.memory.store.table import Table


class Contents:
    """The entries in `table`, found by `searcher`, and the `clock`: how many were written so far.

    Args:
        config: settings of the memory, as AssociativeMemory takes them.
        device: where exact search computes.
    """

    def __init__(self, config: dict[str, Any], device: str) -> None:
        self.config, self.clock = config, 0
        self.table = Table(config["dim"], config["capacity"], config["metric"])
        names = ("num_clusters", "m", "ef_construction", "ef_search", "nprobe")
        settings = IndexSettings(*(config[name] for name in names))
        self.searcher = Searcher(self.table, config["index"], config["metric"], settings, config["seed"], device)

    def __len__(self) -> int:
        return self.table.size

    def take(self, stored: Stored) -> Self:
        """Fill these contents, still empty, with what a folder holds."""
        if len(stored.columns["ids"]):
            order = np.argsort(stored.columns["ids"])
            self.table.append({name: column[order] for name, column in stored.columns.items()})
        self.clock = stored.clock
        self.searcher.restore(stored.index)
        for change in stored.changes:
            self.apply(change)
        return self

    def apply(self, change: Change) -> None:
        """Make a change, in the entries and in the index."""
        change.apply(self.table)
        self.searcher.follow(change)
        self.clock = change.clock

    def column(self, name: str, ids: Integers) -> np.ndarray:
        """A column's rows [.., *payload] of entries [..]; zeros where an id is -1.

        Raises:
            InputError: an id that no entry has, or no such column.
        """
        wanted = integers_of(ids, "ids")
        column = self.table.get(name)
        if column is None:
            raise InputError("this memory holds no values: give them to `add`")
        missing = wanted == NONE
        self.slots(wanted[~missing])
        if len(self):
            rows = column[self.table.slots(wanted)]
        else:
            rows = np.zeros(wanted.shape + column.shape[1:], column.dtype)
        rows[missing] = 0
        return rows

    def slots(self, ids: np.ndarray) -> np.ndarray:
        """Where entries are in the table.

        Raises:
            InputError: an id that no entry has.
        """
        slots = self.table.slots(ids)
        if (slots < 0).any():
            raise InputError(f"id {ids[slots < 0][0]}: no entry has it; it was removed, replaced or never given")
        return slots
