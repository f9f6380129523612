"""Reading folders of earlier versions: a snapshot named by `CURRENT`, and a journal of what happened since.

CURRENT         the generation, and the checksum of its manifest
snapshot-N/     manifest.json, entries.safetensors
journal-N       records: a head (magic, lengths, number, checksum of what follows, checksum of the head), a
                description as JSON, and the arrays' bytes. A record that is cut at the end was never acknowledged.

A memory of texts had them beside this folder, in `texts.safetensors`, and values (token, text, place).
"""

import json
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from safetensors import SafetensorError
from safetensors.numpy import load_file

from frugal.errors import UnavailableError
from frugal.files import checksum
from frugal.memory.store.change import Text
from frugal.memory.store.stored import Stored

HEAD = struct.Struct("<4sIQQQ")
HEAD_SIZE = HEAD.size + 8
GONE = ("novelty_distance", "merge_distance")  # settings that are no more


def exists(folder: Path) -> bool:
    return (folder / "CURRENT").is_file()


def read(folder: Path) -> Stored:
    """What such a folder holds.

    Raises:
        UnavailableError: something in it is damaged or missing.
    """
    try:
        generation, manifest_checksum = (folder / "CURRENT").read_text(encoding="ascii").split()
        snapshot = folder / f"snapshot-{int(generation):06}"
        _check(snapshot / "manifest.json", manifest_checksum)
        manifest = json.loads((snapshot / "manifest.json").read_text(encoding="utf-8"))
        _check(snapshot / "entries.safetensors", manifest["sha256"])
        columns, clock = load_file(snapshot / "entries.safetensors"), manifest["clock"]
        for description, groups in _records(folder / f"journal-{int(generation):06}"):
            clock, columns = description["clock"], _changed(columns, description, groups)
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise UnavailableError(
            f"{folder}, of an earlier version, is damaged ({error}): restore it from a copy"
        ) from error
    order = np.argsort(columns["ids"])
    columns = {name: column[order] for name, column in columns.items()}
    columns |= {"texts": np.full(len(order), -1), "born": np.zeros(len(order))}
    config = {name: value for name, value in manifest["config"].items() if name not in GONE}
    texts = _texts(folder.parent / "texts.safetensors")
    if texts:
        columns = _read_from(texts, columns, folder)
    return Stored(config, clock, 1 + max(texts, default=-1), 0.0, columns, texts, {}, [])


def _texts(path: Path) -> dict[int, Text]:
    """Those of a memory of texts, by number; none where it is a memory of anything else."""
    if not path.is_file():
        return {}
    try:
        return {int(number): Text(tokens) for number, tokens in sorted(load_file(path).items())}
    except (OSError, SafetensorError) as error:
        raise UnavailableError(f"{path} is damaged ({error}): restore a copy") from error


def _read_from(texts: dict[int, Text], columns: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """Entries that know the text and the place that they were read at as today's do."""
    tokens, numbers, places = columns["values"].reshape(-1, 3).T
    known = np.isin(numbers, list(texts))
    if not known.all():
        warnings.warn(f"{folder}: {(~known).sum()} entries of texts that are not there are left out", stacklevel=2)
    columns = columns | {"values": tokens, "texts": numbers, "positions": places}
    return {name: column[known] for name, column in columns.items()}


def _check(path: Path, expected: str) -> None:
    if checksum(path) != expected:
        raise ValueError(f"{path.name} has another checksum")


def _records(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]]:
    data, at, number = path.read_bytes(), 0, 0
    while at + HEAD_SIZE <= len(data):
        head = data[at : at + HEAD.size]
        magic, described, length, its_number, of_body = HEAD.unpack(head)
        sound = xxhash.xxh3_64_intdigest(head) == int.from_bytes(data[at + HEAD.size : at + HEAD_SIZE], "little")
        body = data[at + HEAD_SIZE : at + HEAD_SIZE + described + length]
        if not sound or magic != b"FMJ1" or its_number != number:
            raise ValueError(f"{path.name}, byte {at}")
        if len(body) < described + length:
            return
        if xxhash.xxh3_64_intdigest(body) != of_body:
            raise ValueError(f"{path.name}, byte {at}")
        description, offset = json.loads(body[:described]), described
        groups: dict[str, dict[str, np.ndarray]] = {}
        for name, dtype, shape in description["arrays"]:
            array = np.frombuffer(body, dtype, int(np.prod(shape)), offset).reshape(shape)
            offset += array.nbytes
            group, _, column = name.partition("/")
            groups.setdefault(group, {})[column] = array
        yield description, groups
        at, number = at + HEAD_SIZE + len(body), number + 1


def _changed(
    columns: dict[str, np.ndarray], description: dict[str, Any], groups: dict[str, dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Entries after a record: used and updated columns are overwritten, some go, some come, all shrink."""
    columns = {name: column.copy() for name, column in columns.items()}
    order = np.argsort(columns["ids"])
    for group in ("used", "updated"):
        if group in groups:
            slots = order[np.searchsorted(columns["ids"], groups[group]["ids"], sorter=order)]
            for name, values in groups[group].items():
                columns[name][slots] = values
    if "removed" in groups:
        stays = ~np.isin(columns["ids"], groups["removed"][""])
        columns = {name: column[stays] for name, column in columns.items()}
    if "added" in groups:
        added = groups["added"]
        count = len(added["vectors"])
        ids = np.arange(description["clock"] - count, description["clock"])
        rows = {"ids": ids, "positions": ids, "used": ids, "hits": np.zeros(1, np.int64)}
        rows |= {"strength": np.ones(1, np.float32)} | added
        if len(columns["ids"]) == 0:
            columns = {name: np.empty((0, *column.shape[1:]), column.dtype) for name, column in rows.items()}
        for name, column in columns.items():
            new = np.broadcast_to(rows[name], (count, *rows[name].shape[1:])).astype(column.dtype)
            columns[name] = np.concatenate([column, new])
    columns["vectors"] = columns["vectors"] * np.float32(description["scale"])
    return columns
