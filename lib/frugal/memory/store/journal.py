"""The journal: changes appended to a file with checksums, so that a cut leaves a prefix of them and damage is seen.

A record is a head (magic, lengths of what follows, number, checksum of what follows, checksum of the head itself),
a description as JSON, and the arrays' bytes. A process that is killed while it writes leaves the beginning of a
record at the end of the file: that change was never acknowledged, and is ignored. Anything else that does not fit is
damage.
"""

import errno
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from frugal.errors import UnavailableError
from frugal.memory.store.change import Change

HEAD = struct.Struct("<4sIQQQ")  # magic, length of the description, of the arrays, number, checksum of both
CHECK = struct.Struct("<Q")
MAGIC = b"FMJ1"
HEAD_SIZE = HEAD.size + CHECK.size
GROUPS = ("used", "updated", "added")


class Journal:
    """The end of a journal file, where changes are appended.

    Args:
        path: a file, made if it is not there; what follows byte `end` is cut off.
        end: where whole records end.
        number: of the next record.
    """

    def __init__(self, path: Path, end: int = 0, number: int = 0) -> None:
        self.path, self.size, self._number = path, end, number
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self._file, end)
        os.lseek(self._file, end, os.SEEK_SET)

    def append(self, change: Change) -> None:
        """Hand a record to the operating system, which keeps it even if this process is killed right after.

        Raises:
            UnavailableError: the disk is full; the file is as it was.
        """
        buffers = _record(change, self._number)
        try:
            _write(self._file, buffers)
        except OSError as error:
            os.ftruncate(self._file, self.size)
            os.lseek(self._file, self.size, os.SEEK_SET)
            if error.errno != errno.ENOSPC:
                raise
            raise UnavailableError(f"the disk of {self.path} is full: nothing was changed; make room") from error
        self.size += sum(buffer.nbytes for buffer in buffers)
        self._number += 1

    def sync(self) -> None:
        """Wait until the disk has everything."""
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


@dataclass(frozen=True)
class Record:
    change: Change
    end: int


def records(path: Path) -> Iterator[Record]:
    """The whole records of a journal.

    Raises:
        UnavailableError: a record is damaged; it says which, and where.
    """
    with path.open("rb") as file:
        number, at = 0, 0
        while len(head := file.read(HEAD_SIZE)) == HEAD_SIZE:
            magic, described, length, its_number, checksum = HEAD.unpack(head[: HEAD.size])
            intact = magic == MAGIC and CHECK.unpack(head[HEAD.size :])[0] == _checksum(head[: HEAD.size])
            if not intact or its_number != number:
                raise _damaged(path, number, at)
            body = file.read(described + length)
            if len(body) < described + length:
                return
            if _checksum(body) != checksum:
                raise _damaged(path, number, at)
            at += HEAD_SIZE + len(body)
            yield Record(_change(json.loads(body[:described]), memoryview(body)[described:]), at)
            number += 1


def _damaged(path: Path, number: int, at: int) -> UnavailableError:
    return UnavailableError(
        f"{path}: record {number}, at byte {at}, is damaged; restore the file from a copy, "
        f"or cut it to {at} bytes to keep the {number} operations before"
    )


def _record(change: Change, number: int) -> list[memoryview]:
    arrays = {f"{group}/{name}": array for group in GROUPS for name, array in getattr(change, group).items()}
    if len(change.removed):
        arrays["removed"] = change.removed
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    kinds = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
    description = json.dumps({"clock": change.clock, "scale": change.scale, "arrays": kinds}).encode()
    data = [memoryview(array).cast("B") for array in arrays.values() if array.nbytes]
    checksum = _checksum(description, *data)
    head = HEAD.pack(MAGIC, len(description), sum(buffer.nbytes for buffer in data), number, checksum)
    return [memoryview(head + CHECK.pack(_checksum(head)) + description), *data]


def _change(description: dict[str, Any], data: memoryview) -> Change:
    groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in (*GROUPS, "removed")}
    at = 0
    for name, dtype, shape in description["arrays"]:
        count = int(np.prod(shape))
        array = np.frombuffer(data, dtype, count, at).reshape(shape) if count else np.empty(shape, dtype)
        group, _, column = name.partition("/")
        groups[group][column] = array
        at += array.nbytes
    removed = groups.pop("removed").get("", np.empty(0, np.int64))
    return Change(description["clock"], removed=removed, scale=description["scale"], **groups)


def _write(file: int, buffers: list[memoryview]) -> None:
    """All of `buffers`, however many calls that takes."""
    while buffers:
        written = os.writev(file, buffers[:64])
        while buffers and written >= buffers[0].nbytes:
            written -= buffers[0].nbytes
            buffers = buffers[1:]
        if buffers and written:
            buffers = [buffers[0][written:], *buffers[1:]]


def _checksum(*buffers: bytes | memoryview) -> int:
    state = xxhash.xxh3_64()
    for buffer in buffers:
        state.update(buffer)
    return state.intdigest()
