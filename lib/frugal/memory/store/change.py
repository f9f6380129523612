"""One operation on a memory, as what it does to the entries and texts: this is written down, and this is applied."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from frugal.memory.store.table import Columns, Table


class Text(NamedTuple):
    """A text that entries were read from.

    Attributes:
        tokens: int64 [n], what a model read.
        text: what a person reads.
        title: its name.
        added: when it came, as ISO 8601 has it.
    """

    tokens: np.ndarray
    text: str = ""
    title: str = ""
    added: str = ""


def no_ids() -> np.ndarray:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Change:
    """What happens, in this order.

    Attributes:
        clock: the memory's clock afterwards.
        next_text: the number that the next text gets, afterwards.
        age: log2 of all decays so far, afterwards.
        used: "ids", "hits", "used" and "strength" of entries that searches found.
        removed: ids that go.
        updated: "ids" and all columns of entries that get new contents.
        added: all columns of new entries, ids in ascending order.
        new_texts: by number.
        removed_texts: their numbers.
    """

    clock: int
    next_text: int
    age: float
    used: Columns = field(default_factory=dict)
    removed: np.ndarray = field(default_factory=no_ids)
    updated: Columns = field(default_factory=dict)
    added: Columns = field(default_factory=dict)
    new_texts: dict[int, Text] = field(default_factory=dict)
    removed_texts: tuple[int, ...] = ()

    def apply(self, table: Table) -> None:
        for columns in (self.used, self.updated):
            if columns:
                table.overwrite(table.slots(columns["ids"]), columns)
        if len(self.removed):
            table.remove(table.slots(self.removed))
        if self.added:
            table.append(self.added)
        table.grow_to_age(self.age)
        table.version += 1
