"""Where a memory is kept: the folder that it is attached to, if any, and what is written there."""

import warnings
from pathlib import Path
from typing import Self

import numpy as np

from frugal.errors import InputError, UnavailableError
from frugal.memory.store.change import Change
from frugal.memory.store.contents import Contents
from frugal.memory.store.folder import FolderWriter, Stored, generation_in, read

USES_AT_ONCE = 256


class Files:
    """The folder of a memory whose contents these are; attached to none at first.

    While there is a folder, each change is in its journal before it is made.
    """

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._writer: FolderWriter | None = None
        self._used_since: list[np.ndarray] = []  # ids whose use the journal does not know yet

    @classmethod
    def opened(cls, folder: Path) -> tuple[FolderWriter, Stored]:
        """Become the only writer of a folder that holds a memory; what it holds.

        Raises:
            UnavailableError: it holds no memory, something in it is damaged, or another memory is attached to it.
        """
        if generation_in(folder) is None:
            read(folder)  # says what is missing, and makes nothing
        writer = FolderWriter(folder)
        try:
            stored = read(folder)
            writer.go_on(stored)
        except BaseException:
            writer.close()
            raise
        return writer, stored

    @property
    def are_attached(self) -> bool:
        return self._writer is not None

    def go_on(self, writer: FolderWriter) -> Self:
        """Write to an opened folder from now on."""
        self._writer = writer
        return self

    def save(self, folder: Path) -> None:
        """Write everything into `folder`, which may be the one that is attached."""
        if self._writer is not None and self._writer.folder == folder:
            self.checkpoint()
            return
        with FolderWriter(folder) as writer:
            self._snapshot(writer)

    def attach(self, folder: Path) -> None:
        """Write everything into `folder`, and each change from now on."""
        if self._writer is not None:
            raise InputError(f"this memory is attached to {self._writer.folder}: `close` it first")
        writer = FolderWriter(folder)
        try:
            if generation_in(folder) is not None:
                raise InputError(f"{folder} holds a memory: `open` that one, or give another folder")
            self._snapshot(writer)
        except BaseException:
            writer.close()
            raise
        self._writer = writer

    def checkpoint(self) -> None:
        """Write a snapshot in place of the journal so far."""
        if self._writer is None:
            raise InputError("this memory is attached to no folder: `attach` it, or `save` it")
        self._snapshot(self._writer)
        self._used_since.clear()

    def commit(self, change: Change) -> None:
        """Write a change down, then make it."""
        if self._writer is not None:
            self._writer.append(change)
        self._used_since.clear()
        self._contents.apply(change)
        size = sum(column.nbytes for column in self._contents.table.rows().values())
        if self._writer is not None and self._writer.is_long(size):
            try:
                self.checkpoint()
            except UnavailableError as error:  # the change is made and in the journal, which can go on
                warnings.warn(str(error), stacklevel=2)

    def note_use(self, ids: np.ndarray) -> None:
        """Have the use of entries written with the next change, or now if much has gathered."""
        if self._writer is not None:
            self._used_since.append(ids)
            if len(self._used_since) >= USES_AT_ONCE:
                self.commit(Change(self._contents.clock, used=self.usage()))

    def usage(self) -> dict[str, np.ndarray]:
        """How entries were used since the last change, as the next one is to say."""
        if not self._used_since:
            return {}
        ids = np.unique(np.concatenate(self._used_since))
        table = self._contents.table
        slots = table.slots(ids)
        return {"ids": ids} | {name: table[name][slots] for name in ("hits", "used", "strength")}

    def close(self) -> None:
        """Let the folder go, where others can then write."""
        if self._writer is not None:
            if self._used_since:
                self.commit(Change(self._contents.clock, used=self.usage()))
            self._writer.close()
            self._writer = None

    def _snapshot(self, writer: FolderWriter) -> None:
        contents = self._contents
        writer.snapshot(contents.config, contents.clock, contents.table.rows(), contents.searcher.index_arrays())
