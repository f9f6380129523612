"""Reading a memory's file: all that is whole, and a list of what is damaged."""

import contextlib
import json
import os
import sqlite3
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from frugal.errors import UnavailableError
from frugal.memory.store.change import Text
from frugal.memory.store.database import FORMAT, INDEX, NAME, checksum_of, one_sentence
from frugal.memory.store.rows import ROWS_AT_ONCE, Kind, entry_columns, whole_text
from frugal.memory.store.settings import Settings


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
        raise UnavailableError(f"{folder} holds no memory: `frugal memory add`, or saving one, makes it")
    with one_sentence(path), contextlib.closing(_reader(path)) as connection:
        connection.execute("BEGIN")
        try:
            config, kind = _settings(connection, path)
            damage = [line for (line,) in connection.execute("PRAGMA quick_check(3)") if line != "ok"]
            clock, next_text, age, version, sound = _clock(connection)
            columns, bad = _entries(connection, config["dim"], clock, kind)
            texts, bad_texts = _texts(connection, next_text)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise UnavailableError(f"{path} is damaged ({error}): restore it from a copy") from error
    damage += [] if sound else ["the clock"]
    damage += [f"{what} {_some(which)}" for what, which in (("entries", bad), ("texts", bad_texts)) if which]
    return Stored(config, clock, next_text, age, columns, texts, _index(folder, version), damage)


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


def _settings(connection: sqlite3.Connection, path: Path) -> tuple[dict[str, Any], Kind | None]:
    """What the memory was made with, and the kind of its values."""
    settings = {name: json.loads(value) for name, value in connection.execute("SELECT * FROM settings")}
    if settings["format"] != FORMAT:
        raise UnavailableError(f"{path} has format {settings['format']}; this version reads {FORMAT}: update it")
    Settings(**settings["config"])  # refuses what no memory can be made with
    values = settings["values"]
    return settings["config"], None if values is None else Kind(np.dtype(values[0]).str, tuple(values[1]))


def _clock(connection: sqlite3.Connection) -> tuple[int, int, float, int, bool]:
    """Clock, number of the next text, age, version, and whether they are those of these entries and texts."""
    [(largest,)] = connection.execute("SELECT max(id) FROM entries")
    [(last,)] = connection.execute("SELECT max(number) FROM texts")
    least = [0 if number is None else number + 1 for number in (largest, last)]
    match connection.execute("SELECT * FROM clock").fetchall():
        case [(int(clock), int(next_text), float(age), int(version))] if -sys.float_info.max <= age <= 0:
            if clock >= least[0] and next_text >= least[1]:
                return clock, next_text, age, version, True
    return least[0], least[1], 0.0, -1, False


def _entries(
    connection: sqlite3.Connection, dim: int, clock: int, kind: Kind | None
) -> tuple[dict[str, np.ndarray], list[int]]:
    """All whole entries as columns, in ascending order of ids, and the ids of damaged ones."""
    nothing, bad = entry_columns([], dim, kind)
    pieces = [nothing]
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
        piece, damaged = entry_columns(rows, dim, kind)
        bad += damaged
        pieces.append(piece)
    columns = {name: np.concatenate([piece[name] for piece in pieces]) for name in nothing}
    ids = columns["ids"]
    columns |= {"hits": np.zeros(len(ids), np.int64), "used": ids.copy(), "strength": np.ones(len(ids), np.float32)}
    with contextlib.suppress(sqlite3.DatabaseError, ValueError, TypeError):  # damaged uses are taken for none
        uses = np.array(connection.execute("SELECT * FROM uses ORDER BY id").fetchall(), np.float64).reshape(-1, 4)
        uses = uses[np.isin(uses[:, 0], ids) & np.isfinite(uses).all(1)]
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


def _texts(connection: sqlite3.Connection, next_text: int) -> tuple[dict[int, Text], list[int]]:
    """All whole texts by number, and the numbers of damaged ones."""
    lost: list[int] = []
    try:
        rows = connection.execute("SELECT * FROM texts ORDER BY number").fetchall()
    except sqlite3.DatabaseError:
        rows, lost, _ = _one_by_one(connection, "texts", "number", 0, next_text)
    texts = {}
    for row in rows:
        text = whole_text(row)
        if text is None:
            lost.append(row[0])
        else:
            texts[row[0]] = text
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
        if about["checksum"] == checksum_of(arrays):
            return arrays
    except (OSError, SafetensorError, KeyError, TypeError):
        pass
    warnings.warn(f"{path} is damaged: the index is built again from the entries", stacklevel=2)
    return {}


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")
