"""Entries and texts as rows of a memory's file, each with a checksum, and back."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import xxhash

from frugal.memory.store.change import Text
from frugal.memory.store.table import Columns

ROWS_AT_ONCE = 2_000


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


def entry_rows(columns: Columns) -> Iterator[tuple[Any, ...]]:
    """Rows of the table of entries."""
    for begin in range(0, len(columns.get("ids", ())), ROWS_AT_ONCE):
        piece = {name: column[begin : begin + ROWS_AT_ONCE] for name, column in columns.items()}
        values, vectors = piece.get("values"), iter(np.ascontiguousarray(piece["vectors"]))
        kind = Kind.of(values)
        if values is None or kind is None:
            shown: list[Any] = [None] * len(piece["ids"])
        else:
            shown = values.tolist() if kind.is_plain else [row.tobytes() for row in values]
        numbers = [piece[name].tolist() for name in ("namespaces", "positions", "texts", "born")]
        yield from zip(piece["ids"].tolist(), shown, *numbers, vectors, _checksums(piece), strict=True)


def entry_columns(rows: list[Any], dim: int, kind: Kind | None) -> tuple[dict[str, np.ndarray], list[int]]:
    """Whole rows as columns, and the ids of the others."""
    dtype, payload = (None, ()) if kind is None else (np.dtype(kind.dtype), kind.payload)
    size = 0 if dtype is None else dtype.itemsize * int(np.prod(payload))
    plain = kind is not None and kind.is_plain
    types = (int, type(None) if kind is None else int if plain else bytes, int, int, int, float, bytes, int)

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


def _checksums(columns: Columns) -> list[int]:
    """One for each entry, of all that is in its row."""
    names = ("ids", "namespaces", "positions", "texts", "born", "vectors", "values")
    count = len(columns["ids"])
    if count == 0:
        return []
    parts = [np.ascontiguousarray(columns[name]).reshape(count, -1) for name in names if name in columns]
    packed = np.concatenate([part.view(np.uint8) for part in parts if part.shape[1]], 1)
    return [xxhash.xxh3_64_intdigest(row) - 2**63 for row in packed]


def text_row(number: int, text: Text) -> tuple[Any, ...]:
    tokens = np.ascontiguousarray(text.tokens, np.int64).tobytes()
    row = (number, text.text, text.title, text.added, tokens)
    return (*row, _text_checksum(row))


def _text_checksum(row: tuple[Any, ...]) -> int:
    number, text, title, added, tokens = row
    return xxhash.xxh3_64_intdigest(json.dumps([number, text, title, added]).encode() + tokens) - 2**63


def whole_text(row: tuple[Any, ...]) -> Text | None:
    """A row's text; None if it is damaged."""
    _, text, title, added, tokens, checksum = row
    types = zip(row, (int, str, str, str, bytes, int), strict=True)
    if not all(isinstance(value, kind) for value, kind in types) or len(tokens) % 8:
        return None
    if checksum != _text_checksum(row[:-1]):
        return None
    return Text(np.frombuffer(tokens, np.int64), text, title, added)
