"""One operation on a memory, as what it does to the entries: this is applied, and this is what the journal keeps."""

from dataclasses import dataclass, field

import numpy as np

from frugal.memory.store.table import Columns, Table


def no_ids() -> np.ndarray:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Change:
    """What happens, in this order.

    Attributes:
        clock: the memory's clock afterwards.
        used: "ids" and the columns "hits", "used" and "strength" that searches changed before this operation.
        removed: ids that go.
        updated: "ids" and the columns that get new contents.
        added: columns of new entries; their ids are the last ones before `clock`. A column of one row is for all.
        scale: every vector is multiplied by this.
    """

    clock: int
    used: Columns = field(default_factory=dict)
    removed: np.ndarray = field(default_factory=no_ids)
    updated: Columns = field(default_factory=dict)
    added: Columns = field(default_factory=dict)
    scale: float = 1.0

    @property
    def added_ids(self) -> np.ndarray:
        count = len(self.added["vectors"]) if self.added else 0
        return np.arange(self.clock - count, self.clock)

    def apply(self, table: Table) -> None:
        for columns in (self.used, {"ids": self.removed}, self.updated):
            if columns and len(columns["ids"]) and (table.slots(columns["ids"]) < 0).any():
                raise ValueError("a change of entries that are not there")
        for columns in (self.used, self.updated):
            if columns:
                table.overwrite(table.slots(columns["ids"]), columns)
        if len(self.removed):
            table.remove(table.slots(self.removed))
        if self.added:
            ids = self.added_ids
            start = {"ids": ids, "positions": ids, "used": ids, "hits": np.zeros(1), "strength": np.ones(1)}
            table.append(start | dict(self.added))
        if self.scale != 1.0:
            table.scale(self.scale)
