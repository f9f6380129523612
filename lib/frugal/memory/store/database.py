"""A memory's file, `memory.sqlite`: the truth, of which arrays and indexes are copies that are quicker to search.

SQLite's write-ahead log keeps each transaction whole: https://www.sqlite.org/wal.html. A commit is with the operating
system when it returns, so a killed process loses nothing; `checkpoint` waits for the disk itself.

    entries   id, value, namespace, position, text, born (log2 of all decays before it), vector, checksum
    uses      how searches used an entry; an entry that none has found has no row
    texts     number, text, title, added, tokens, checksum
    clock     ids and text numbers given so far, log2 of all decays so far, number of the transaction
    settings  of the memory, as JSON

Beside it lies `index.safetensors`, the index as it was when the memory was closed, so that it need not be built again.
"""

import contextlib
import json
import os
import sqlite3
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import xxhash
from safetensors import SafetensorError
from safetensors.numpy import save_file

from frugal.errors import UnavailableError
from frugal.files import appearing, plain
from frugal.memory.store.change import Change
from frugal.memory.store.rows import Kind, entry_rows, text_row
from frugal.memory.store.table import Columns

NAME, INDEX, LOCK = "memory.sqlite", "index.safetensors", "writer.lock"
FORMAT = 2
LOG_PAGES = 4_000  # of the write-ahead log, until it is copied into the file
SCHEMA = """
PRAGMA page_size = 16384;
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE clock (clock INTEGER NOT NULL, next_text INTEGER NOT NULL, age REAL NOT NULL, version INTEGER NOT NULL);
CREATE TABLE texts (number INTEGER PRIMARY KEY, text TEXT, title TEXT, added TEXT, tokens BLOB, checksum INTEGER);
CREATE TABLE entries (id INTEGER PRIMARY KEY, value, namespace INTEGER, position INTEGER, text INTEGER, born REAL,
    vector BLOB, checksum INTEGER);
CREATE TABLE uses (id INTEGER PRIMARY KEY, hits INTEGER, used INTEGER, strength REAL);
INSERT INTO clock VALUES (0, 0, 0.0, 0);
COMMIT;
"""
# What a forked child got of its parent: never closed there, since that would let go of the parent's locks.
INHERITED: list[Any] = []


class Database:
    """The only writer of a folder's file, until it is closed.

    Raises:
        UnavailableError: there is another writer, or no room.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / NAME
        with one_sentence(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(folder / LOCK)
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout as error:
                raise UnavailableError(
                    f"{folder}: another memory writes here; close it first, or `load` a copy to read"
                ) from error
            try:
                self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
                if not self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                    self._connection.executescript(SCHEMA)
                self._connection.execute("PRAGMA synchronous = NORMAL")
                self._connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
                self._file = _identity(self.path)
            except BaseException:
                lock.release()
                raise
        self._owner = os.getpid()
        self._let_go = weakref.finalize(self, _let_go, self._connection, lock, self._owner)

    def commit(self, change: Change, config: dict[str, Any] | None = None) -> None:
        """Write a change down in one transaction. With a memory's `config`, the change is all there is to it: a whole
        memory takes the place of what was there.

        Raises:
            UnavailableError: the disk is full, the folder is gone, or this process is a fork; nothing was changed.
        """
        with self._transaction() as connection:
            if config is not None:
                for table in ("entries", "uses", "texts", "settings"):
                    connection.execute(f"DELETE FROM {table}")
                settings = {"format": FORMAT, "config": config, "values": None}
                rows = [(name, json.dumps(value, default=plain)) for name, value in settings.items()]
                connection.executemany("INSERT INTO settings VALUES (?,?)", rows)
            removed = [(entry,) for entry in change.removed.tolist()]
            connection.executemany("DELETE FROM entries WHERE id = ?", removed)
            connection.executemany("DELETE FROM uses WHERE id = ?", removed)
            for columns in (change.updated, change.added):
                connection.executemany("INSERT OR REPLACE INTO entries VALUES (?,?,?,?,?,?,?,?)", entry_rows(columns))
            uses = zip(*(column.tolist() for column in change.used.values()), strict=True)
            connection.executemany("INSERT OR REPLACE INTO uses VALUES (?,?,?,?)", uses)
            texts = [text_row(number, text) for number, text in change.new_texts.items()]
            connection.executemany("INSERT INTO texts VALUES (?,?,?,?,?,?)", texts)
            connection.executemany("DELETE FROM texts WHERE number = ?", [(n,) for n in change.removed_texts])
            if change.added:
                kind = json.dumps(Kind.of(change.added.get("values")))
                connection.execute("INSERT OR REPLACE INTO settings VALUES ('values', ?)", [kind])
            clock = (change.clock, change.next_text, change.age)
            connection.execute("UPDATE clock SET clock = ?, next_text = ?, age = ?, version = version + 1", clock)

    def checkpoint(self) -> None:
        """Wait until the disk has everything."""
        self._check()
        with one_sentence(self.path):
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.execute("PRAGMA synchronous = NORMAL")

    def keep_index(self, arrays: dict[str, np.ndarray]) -> None:
        """Lay the index beside the file; without room for it, it is built again when it is needed."""
        if os.getpid() != self._owner or _identity(self.path) != self._file:
            return
        with one_sentence(self.path):
            version = self._connection.execute("SELECT version FROM clock").fetchone()[0]
        about = {"version": str(version), "checksum": checksum_of(arrays)}
        with contextlib.suppress(OSError, SafetensorError), appearing(self.folder / INDEX) as temporary:
            save_file(arrays, temporary, about)

    def close(self) -> None:
        self._let_go()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._check()
        with one_sentence(self.path):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _check(self) -> None:
        if os.getpid() != self._owner:
            raise UnavailableError(
                f"{self.folder} is open in the process that this one was forked from: `load` a copy here"
            )
        if _identity(self.path) != self._file:
            raise UnavailableError(
                f"{self.path} was moved or deleted: nothing was changed; `close` this memory, and `open` it where it "
                "is now or `save` it to another folder"
            )


def put_in_place(repaired: Path, folder: Path) -> None:
    """Move a repaired file to where the damaged one is, which is then `damaged.sqlite`."""
    with one_sentence(folder / NAME), contextlib.closing(Database(folder)):
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{folder / NAME}{suffix}").replace(f"{folder / 'damaged.sqlite'}{suffix}")
        (folder / NAME).replace(folder / "damaged.sqlite")
        (repaired / NAME).replace(folder / NAME)


def checksum_of(arrays: Columns) -> str:
    state = xxhash.xxh3_64()
    for name in sorted(arrays):
        state.update(name.encode())
        state.update(np.ascontiguousarray(arrays[name]).data)
    return state.hexdigest()


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file is at a path."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _let_go(connection: sqlite3.Connection, lock: filelock.BaseFileLock, owner: int) -> None:
    if os.getpid() != owner:
        INHERITED.append((connection, lock))
        return
    try:
        with contextlib.suppress(sqlite3.Error):
            connection.close()
    finally:
        lock.release()


@contextlib.contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """SQLite's errors as the user is to read them."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise UnavailableError(f"the disk of {path} is full: nothing was changed; make room") from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise UnavailableError(
                f"{path} is damaged ({error}): restore it from a copy, or keep what is whole with "
                "`frugal memory repair`"
            ) from error
        raise UnavailableError(f"{path}: {error}; nothing was changed") from error
