"""What a memory consists of, and how it is kept in a folder."""

import threading
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import numpy as np

from frugal.errors import InputError, UnavailableError
from frugal.memory.store.change import Change
from frugal.memory.store.folder import Stored, Writer, generation_in, read
from frugal.memory.store.search import Searcher
from frugal.memory.store.table import Table

USES_AT_ONCE = 256


class KeptMemory(ABC):
    """Entries, their searcher and a clock; changed by one `Change` after the other.

    While it is attached to a folder, each change is in the folder's journal before it is made. Whenever the process
    ends, killed or not, the folder then holds every operation that has returned; an operation is there as a whole or
    not at all. After a power failure it is those that the disk had got: at least everything up to `checkpoint`.
    """

    _table: Table
    _searcher: Searcher
    config: dict[str, Any]

    def __init__(self) -> None:
        self._clock = 0
        self._lock = threading.RLock()
        self._writer: Writer | None = None
        self._used_since: list[np.ndarray] = []  # ids whose use the journal does not know yet

    def save(self, folder: Path | str) -> None:
        """Write everything into `folder`, in place of a memory that it may hold."""
        folder = Path(folder).resolve()
        with self._lock:
            if self._writer is not None and self._writer.folder == folder:
                self.checkpoint()
                return
            with Writer(folder) as writer:
                self._snapshot(writer)

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
        folder = Path(folder).resolve()
        if generation_in(folder) is None:
            read(folder)  # says what is missing, and makes nothing
        writer = Writer(folder)
        try:
            stored = read(folder)
            memory = cls._restored(stored, device)
            writer.go_on(stored)
        except BaseException:
            writer.close()
            raise
        memory._writer = writer
        return memory

    def attach(self, folder: Path | str) -> None:
        """Keep this memory in `folder` from now on: a snapshot, and a journal of every operation.

        Raises:
            InputError: it is attached already, or the folder holds a memory.
            UnavailableError: another memory is attached to this folder.
        """
        folder = Path(folder).resolve()
        with self._lock:
            if self._writer is not None:
                raise InputError(f"this memory is attached to {self._writer.folder}: `close` it first")
            writer = Writer(folder)
            try:
                if generation_in(folder) is not None:
                    raise InputError(f"{folder} holds a memory: `open` that one, or give another folder")
                self._snapshot(writer)
            except BaseException:
                writer.close()
                raise
            self._writer = writer

    def checkpoint(self) -> None:
        """Write a snapshot in place of the journal so far; it is on the disk when this returns."""
        with self._lock:
            if self._writer is None:
                raise InputError("this memory is attached to no folder: `attach` it, or `save` it")
            self._snapshot(self._writer)
            self._used_since.clear()

    def close(self) -> None:
        """Detach from the folder, where others can then write; the memory goes on without."""
        with self._lock:
            if self._writer is not None:
                if self._used_since:
                    self._commit(self._clock)
                self._writer.close()
                self._writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    @abstractmethod
    def _made(cls, config: dict[str, Any], device: str) -> Self:
        """An empty memory of this configuration."""

    @classmethod
    def _restored(cls, stored: Stored, device: str) -> Self:
        memory = cls._made(stored.config, device)
        if len(stored.columns["ids"]):
            order = np.argsort(stored.columns["ids"])
            memory._table.append({name: column[order] for name, column in stored.columns.items()})
        memory._clock = stored.clock
        memory._searcher.restore(stored.index)
        for change in stored.changes:
            change.apply(memory._table)
            memory._searcher.follow(change)
            memory._clock = change.clock
        return memory

    def _snapshot(self, writer: Writer) -> None:
        writer.snapshot(self.config, self._clock, self._table.rows(), self._searcher.index_arrays())

    def _commit(self, clock: int, **what: Any) -> None:
        """Make a change: in the journal first, then in the entries and the index."""
        change = Change(clock, used=self._usage(), **what)
        if self._writer is not None:
            self._writer.append(change)
        self._used_since.clear()
        change.apply(self._table)
        self._searcher.follow(change)
        self._clock = clock
        if self._writer is not None and self._writer.is_long(sum(c.nbytes for c in self._table.rows().values())):
            try:
                self.checkpoint()
            except UnavailableError as error:  # the change is made and in the journal, which can go on
                warnings.warn(str(error), stacklevel=2)

    def _note_use(self, ids: np.ndarray) -> None:
        """Have the use of entries written with the next change, or now if much has gathered."""
        if self._writer is not None:
            self._used_since.append(ids)
            if len(self._used_since) >= USES_AT_ONCE:
                self._commit(self._clock)

    def _usage(self) -> dict[str, np.ndarray]:
        """How entries were used since the last change."""
        if not self._used_since:
            return {}
        ids = np.unique(np.concatenate(self._used_since))
        slots = self._table.slots(ids)
        return {"ids": ids} | {name: self._table[name][slots] for name in ("hits", "used", "strength")}
