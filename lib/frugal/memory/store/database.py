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
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import filelock
import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from frugal.errors import UnavailableError
from frugal.files import appearing
from frugal.memory.store.change import Change, Text
from frugal.memory.store.table import Columns

NAME, INDEX, LOCK = "memory.sqlite", "index.safetensors", "writer.lock"
FORMAT = 2
ROWS_AT_ONCE = 2_000
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


class Kind(NamedTuple):
    """What values are: NumPy's name of their dtype, and the shape of one."""

    dtype: str
    payload: tuple[int, ...]

    @classmethod
    def of(cls, values: np.ndarray | None) -> "Kind | None":
        return None if values is None else cls(values.dtype.str, values.shape[1:])

    @property
    def is_plain(self) -> bool:
        """Whether SQLite shows such a value as a number."""
        return not self.payload and self.dtype[1] in "iu" and self.dtype[1:] != "u8"


@dataclass
class Stored:
    """What a file holds, and what of it is damaged."""

    config: dict[str, Any]
    clock: int
    next_text: int
    age: float
    columns: dict[str, np.ndarray]
    texts: dict[int, Text]
    index: dict[str, np.ndarray]
    damage: list[str]


class Database:
    """The only writer of a folder's file, until it is closed.

    Raises:
        UnavailableError: there is another writer, or no room.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / NAME
        with _one_sentence(self.path):
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def holds_a_memory(self) -> bool:
        return self._connection.execute("SELECT count(*) FROM settings").fetchone()[0] > 0

    def commit(self, change: Change, kind: Kind | None) -> None:
        """Write a change down in one transaction; `kind` is that of the values of all entries afterwards.

        Raises:
            UnavailableError: the disk is full, the folder is gone, or this process is a fork; nothing was changed.
        """
        with self._transaction() as connection:
            removed = [(entry,) for entry in change.removed.tolist()]
            connection.executemany("DELETE FROM entries WHERE id = ?", removed)
            connection.executemany("DELETE FROM uses WHERE id = ?", removed)
            for columns in (change.updated, change.added):
                if columns:
                    connection.executemany("INSERT OR REPLACE INTO entries VALUES (?,?,?,?,?,?,?,?)", _rows(columns))
            if change.used:
                names = ("ids", "hits", "used", "strength")
                uses = zip(*(change.used[name].tolist() for name in names), strict=True)
                connection.executemany("INSERT OR REPLACE INTO uses VALUES (?,?,?,?)", uses)
            for number, text in change.new_texts.items():
                connection.execute("INSERT INTO texts VALUES (?,?,?,?,?,?)", _text_row(number, text))
            connection.executemany("DELETE FROM texts WHERE number = ?", [(n,) for n in change.removed_texts])
            if change.added:
                connection.execute("INSERT OR REPLACE INTO settings VALUES ('values', ?)", [json.dumps(kind)])
            clock = (change.clock, change.next_text, change.age)
            connection.execute("UPDATE clock SET clock = ?, next_text = ?, age = ?, version = version + 1", clock)

    def replace(self, config: dict[str, Any], columns: Columns, change: Change) -> None:
        """Put a whole memory in place of what is there, in one transaction."""
        with self._transaction() as connection:
            for table in ("entries", "uses", "texts", "settings"):
                connection.execute(f"DELETE FROM {table}")
            settings = {"format": FORMAT, "config": config, "values": Kind.of(columns.get("values"))}
            connection.executemany(
                "INSERT INTO settings VALUES (?,?)", [(n, json.dumps(v)) for n, v in settings.items()]
            )
            count = len(columns["ids"])
            for begin in range(0, count, ROWS_AT_ONCE):
                piece = {name: column[begin : begin + ROWS_AT_ONCE] for name, column in columns.items()}
                connection.executemany("INSERT INTO entries VALUES (?,?,?,?,?,?,?,?)", _rows(piece))
            found = np.flatnonzero((columns["hits"] > 0) | (columns["used"] != columns["ids"]))
            uses = zip(*(columns[n][found].tolist() for n in ("ids", "hits", "used", "strength")), strict=True)
            connection.executemany("INSERT INTO uses VALUES (?,?,?,?)", uses)
            texts = [_text_row(number, text) for number, text in change.new_texts.items()]
            connection.executemany("INSERT INTO texts VALUES (?,?,?,?,?,?)", texts)
            clock = (change.clock, change.next_text, change.age)
            connection.execute("UPDATE clock SET clock = ?, next_text = ?, age = ?, version = version + 1", clock)

    def checkpoint(self) -> None:
        """Wait until the disk has everything."""
        self._check()
        with _one_sentence(self.path):
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.execute("PRAGMA synchronous = NORMAL")

    def keep_index(self, arrays: dict[str, np.ndarray]) -> None:
        """Lay the index beside the file; without room for it, it is built again when it is needed."""
        if os.getpid() != self._owner or _identity(self.path) != self._file:
            return
        version = self._connection.execute("SELECT version FROM clock").fetchone()[0]
        about = {"version": str(version), "checksum": _checksum_of(arrays)}
        with contextlib.suppress(OSError, SafetensorError), appearing(self.folder / INDEX) as temporary:
            save_file(arrays, temporary, about)

    def close(self) -> None:
        self._let_go()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._check()
        with _one_sentence(self.path):
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
    with _one_sentence(folder / NAME), Database(folder):
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{folder / NAME}{suffix}").replace(f"{folder / 'damaged.sqlite'}{suffix}")
        (folder / NAME).replace(folder / "damaged.sqlite")
        (repaired / NAME).replace(folder / NAME)


def exists(folder: Path) -> bool:
    """Whether there is a file of a memory, be it damaged."""
    path = folder / NAME
    if not path.is_file():
        return False
    try:
        with contextlib.closing(_reader(path)) as connection:
            return bool(connection.execute("SELECT count(*) FROM settings").fetchone()[0])
    except sqlite3.OperationalError as error:
        return "no such table" not in str(error)  # which an interrupted beginning leaves
    except sqlite3.DatabaseError:
        return True


def read(folder: Path) -> Stored:
    """What a folder's file holds now, also while another process writes there; damage is listed, not raised.

    Raises:
        UnavailableError: there is no memory, or so much damage that nothing can be read.
    """
    path = folder / NAME
    if not exists(folder):
        raise UnavailableError(f"{folder} holds no memory: `save` or `attach` makes one")
    with _one_sentence(path), contextlib.closing(_reader(path)) as connection:
        connection.execute("BEGIN")
        settings = {name: json.loads(value) for name, value in connection.execute("SELECT * FROM settings")}
        if settings.get("format", FORMAT) != FORMAT:
            raise UnavailableError(f"{path} has format {settings['format']}; this version reads {FORMAT}: update it")
        if "config" not in settings:
            raise UnavailableError(f"{folder} holds no memory: `save` or `attach` makes one")
        clock, next_text, age, version = connection.execute("SELECT * FROM clock").fetchone()
        damage = [line for (line,) in connection.execute("PRAGMA quick_check(3)") if line != "ok"]
        kind = Kind(settings["values"][0], tuple(settings["values"][1])) if settings["values"] else None
        columns, bad = _entries(connection, settings["config"]["dim"], clock, kind)
        texts, bad_texts = _texts(connection, next_text)
        damage += [f"{what} {_some(which)}" for what, which in (("entries", bad), ("texts", bad_texts)) if which]
        return Stored(settings["config"], clock, next_text, age, columns, texts, _index(folder, version), damage)


def _reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads, also from a folder that cannot be written to."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=60)
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        if Path(f"{path}-wal").exists() or os.access(path.parent, os.W_OK):
            raise
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True, isolation_level=None)
    return connection


def _entries(
    connection: sqlite3.Connection, dim: int, clock: int, kind: Kind | None
) -> tuple[dict[str, np.ndarray], list[int]]:
    """All whole entries as columns, in ascending order of ids, and the ids of damaged ones."""
    pieces: list[dict[str, np.ndarray]] = []
    bad: list[int] = []
    at = -1
    while at < clock:
        try:
            rows = connection.execute(
                "SELECT * FROM entries WHERE id > ? ORDER BY id LIMIT ?", (at, ROWS_AT_ONCE)
            ).fetchall()
        except sqlite3.DatabaseError:
            rows, lost, at = _one_by_one(connection, "entries", "id", at + 1, min(at + 1 + ROWS_AT_ONCE, clock))
            bad += lost
        else:
            if not rows:
                break
            at = rows[-1][0]
        piece, damaged = _columns(rows, dim, kind)
        bad += damaged
        if piece:
            pieces.append(piece)
    names = pieces[0] if pieces else _columns([], dim, kind)[0]
    columns = {name: np.concatenate([piece[name] for piece in pieces]) if pieces else names[name] for name in names}
    ids = columns["ids"]
    columns |= {"hits": np.zeros(len(ids), np.int64), "used": ids.copy(), "strength": np.ones(len(ids), np.float32)}
    with contextlib.suppress(sqlite3.DatabaseError):  # damaged uses are taken for none
        uses = np.array(connection.execute("SELECT * FROM uses ORDER BY id").fetchall(), np.float64).reshape(-1, 4)
        uses = uses[np.isin(uses[:, 0], ids)]
        slots = np.searchsorted(ids, uses[:, 0].astype(np.int64))
        for name, column in zip(("hits", "used", "strength"), uses.T[1:], strict=True):
            columns[name][slots] = column
    return columns, bad


def _one_by_one(
    connection: sqlite3.Connection, table: str, key: str, begin: int, end: int
) -> tuple[list[Any], list[int], int]:
    """The rows with keys from `begin` to before `end` that can be read, the keys of those that cannot, and the last."""
    rows, lost = [], []
    for number in range(begin, end):
        try:
            rows += connection.execute(f"SELECT * FROM {table} WHERE {key} = ?", (number,)).fetchall()
        except sqlite3.DatabaseError:
            lost.append(number)
    return rows, lost, max(begin, end - 1)


def _columns(rows: list[Any], dim: int, kind: Kind | None) -> tuple[dict[str, np.ndarray], list[int]]:
    """Whole rows as columns, and the ids of the others."""
    dtype, payload = (np.dtype(kind.dtype), kind.payload) if kind else (None, ())
    size = 0 if dtype is None else dtype.itemsize * int(np.prod(payload))
    plain = kind is not None and kind.is_plain
    types = (int, (int if plain else bytes) if kind else type(None), int, int, int, float, bytes, int)

    def fits(row: Any) -> bool:
        right = all(isinstance(value, t) for value, t in zip(row, types, strict=True)) and len(row[6]) == 4 * dim
        return right and (plain or kind is None or len(row[1]) == size)

    good = [row for row in rows if fits(row)]
    ids, values, namespaces, positions, texts, born, vectors, checksums = zip(*good, strict=True) if good else [()] * 8
    count = len(good)
    columns: dict[str, np.ndarray] = {
        "ids": np.array(ids, np.int64),
        "vectors": np.frombuffer(b"".join(vectors), np.float32).reshape(count, dim),
        "namespaces": np.array(namespaces, np.int64),
        "positions": np.array(positions, np.int64),
        "texts": np.array(texts, np.int64),
        "born": np.array(born, np.float64),
    }
    if dtype is not None:
        flat = np.array(values, dtype) if plain else np.frombuffer(b"".join(values), dtype)
        columns["values"] = flat.reshape(count, *payload)
    whole = np.array(_checksums(columns), np.int64) == np.array(checksums, np.int64)
    damaged = sorted({row[0] for row in rows if isinstance(row[0], int)} - set(columns["ids"][whole].tolist()))
    return (columns if whole.all() else {name: column[whole] for name, column in columns.items()}), damaged


def _rows(columns: Columns) -> Iterator[tuple[Any, ...]]:
    """Rows of the table of entries."""
    values = columns.get("values")
    kind = Kind.of(values)
    if values is None or kind is None:
        shown: list[Any] = [None] * len(columns["ids"])
    else:
        shown = values.tolist() if kind.is_plain else [row.tobytes() for row in values]
    numbers = [columns[name].tolist() for name in ("namespaces", "positions", "texts", "born")]
    vectors = iter(np.ascontiguousarray(columns["vectors"]))
    return zip(columns["ids"].tolist(), shown, *numbers, vectors, _checksums(columns), strict=True)


def _checksums(columns: Columns) -> list[int]:
    """One for each entry, of all that is in its row."""
    names = ("ids", "namespaces", "positions", "texts", "born", "vectors", "values")
    count = len(columns["ids"])
    if count == 0:
        return []
    parts = [np.ascontiguousarray(columns[name]).reshape(count, -1) for name in names if name in columns]
    packed = np.concatenate([part.view(np.uint8) for part in parts if part.shape[1]], 1)
    return [xxhash.xxh3_64_intdigest(row) - 2**63 for row in packed]


def _text_row(number: int, text: Text) -> tuple[Any, ...]:
    tokens = np.ascontiguousarray(text.tokens, np.int64).tobytes()
    row = (number, text.text, text.title, text.added, tokens)
    return (*row, _text_checksum(row))


def _text_checksum(row: tuple[Any, ...]) -> int:
    number, text, title, added, tokens = row
    return xxhash.xxh3_64_intdigest(json.dumps([number, text, title, added]).encode() + tokens) - 2**63


def _texts(connection: sqlite3.Connection, next_text: int) -> tuple[dict[int, Text], list[int]]:
    """All whole texts by number, and the numbers of damaged ones."""
    lost: list[int] = []
    try:
        rows = connection.execute("SELECT * FROM texts ORDER BY number").fetchall()
    except sqlite3.DatabaseError:
        rows, lost, _ = _one_by_one(connection, "texts", "number", 0, next_text)
    texts = {}
    for *row, checksum in rows:
        if isinstance(row[4], bytes) and len(row[4]) % 8 == 0 and checksum == _text_checksum(tuple(row)):
            texts[row[0]] = Text(np.frombuffer(row[4], np.int64), *row[1:4])
        else:
            lost.append(row[0])
    return texts, lost


def _index(folder: Path, version: int) -> dict[str, np.ndarray]:
    """The index's arrays, if they are those of this version of the entries; else none."""
    path = folder / INDEX
    if not path.is_file():
        return {}
    try:
        with safe_open(path, "np") as file:
            about = file.metadata()
            if about["version"] != str(version):
                return {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dictionary
        if about["checksum"] == _checksum_of(arrays):
            return arrays
    except (OSError, SafetensorError, KeyError, TypeError):
        pass
    warnings.warn(f"{path} is damaged: the index is built again from the entries", stacklevel=2)
    return {}


def _checksum_of(arrays: Columns) -> str:
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


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")


@contextlib.contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
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
