"""A memory on disk: a snapshot and the journal of what happened since, both named by one pointer.

    CURRENT              the generation, and the checksum of its manifest; replaced in one step
    snapshot-N/          manifest.json, entries.safetensors and perhaps index.safetensors, never changed once there
    journal-N            the changes since
    writer.lock          held by the process that writes

A reader follows the pointer and reads; it needs no lock. The index is only there to save time: the entries are enough.
"""

import hashlib
import json
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import filelock
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from frugal.errors import UnavailableError
from frugal.files import appearing, write_text
from frugal.memory.store.change import Change
from frugal.memory.store.journal import Journal, records

FORMAT = 1
LONG_JOURNAL = 2**26  # bytes
ENTRIES, INDEX, MANIFEST = "entries.safetensors", "index.safetensors", "manifest.json"


@dataclass(frozen=True)
class Stored:
    """What a folder holds: a snapshot, with its index if it has one, and the changes since with where they end."""

    generation: int
    config: dict[str, Any]
    clock: int
    columns: dict[str, np.ndarray]
    index: dict[str, np.ndarray]
    changes: list[Change]
    journal_end: int


class FolderWriter:
    """The only writer of a folder, until it is closed.

    Raises:
        UnavailableError: there is another.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(folder / "writer.lock")
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise UnavailableError(
                f"{folder}: another memory writes here; close it first, or `load` a copy to read"
            ) from error
        self._journal: Journal | None = None
        self._generation: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def go_on(self, stored: "Stored") -> None:
        """Append to the journal of what was read."""
        self._take(stored.generation, stored.journal_end, len(stored.changes))

    def snapshot(
        self, config: dict[str, Any], clock: int, columns: dict[str, np.ndarray], index: dict[str, np.ndarray]
    ) -> None:
        """Write everything again, with an empty journal. It is on the disk when this returns.

        Raises:
            UnavailableError: the disk is full or fails; what was there is kept.
        """
        try:
            _write_snapshot(self.folder, config, clock, columns, index)
        except (OSError, SafetensorError) as error:
            raise UnavailableError(f"{self.folder}: no snapshot could be written ({error}); make room") from error
        finally:  # an error may have come before or after the switch
            generation = generation_in(self.folder)
            if generation is not None and generation != self._generation:
                self._take(generation, end=0, number=0)

    def _take(self, generation: int, end: int, number: int) -> None:
        self._close_journal()
        self._journal = Journal(_journal_path(self.folder, generation), end, number)
        self._generation = generation

    def append(self, change: Change) -> None:
        assert self._journal is not None, "go_on or snapshot comes first"
        self._journal.append(change)

    def is_long(self, size: int) -> bool:
        """Whether the journal has outgrown entries of `size` bytes, so that a snapshot saves room."""
        return self._journal is not None and self._journal.size > max(LONG_JOURNAL, 2 * size)

    def close(self) -> None:
        self._close_journal()
        self._lock.release()

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def generation_in(folder: Path) -> int | None:
    """The generation that is current; None where there is no memory."""
    try:
        return _pointer(folder)[0]
    except FileNotFoundError:
        return None


def _journal_path(folder: Path, generation: int) -> Path:
    return folder / f"journal-{generation:06}"


def _write_snapshot(
    folder: Path, config: dict[str, Any], clock: int, columns: dict[str, np.ndarray], index: dict[str, np.ndarray]
) -> int:
    """Write a new generation, beginning with an empty journal, and switch to it; the new generation.

    The caller is the only writer. Everything is on the disk when this returns.
    """
    old = generation_in(folder)
    generation = 0 if old is None else old + 1
    with appearing(_snapshot_path(folder, generation)) as temporary:
        temporary.mkdir()
        save_file({name: np.ascontiguousarray(column) for name, column in columns.items()}, temporary / ENTRIES)
        manifest = {"format": FORMAT, "config": config, "clock": clock, "sha256": _sha256(temporary / ENTRIES)}
        if index:
            save_file(index, temporary / INDEX)
            manifest["index_sha256"] = _sha256(temporary / INDEX)
        write_text(temporary / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        for path in (*temporary.iterdir(), temporary):
            _sync(path)
    _journal_path(folder, generation).write_bytes(b"")
    _sync(folder)
    checksum = _sha256(_snapshot_path(folder, generation) / MANIFEST)
    with appearing(folder / "CURRENT") as temporary:
        temporary.write_text(f"{generation} {checksum}\n", encoding="ascii")
        _sync(temporary)
    _sync(folder)
    _remove_other_generations(folder, generation)
    return generation


def read(folder: Path) -> Stored:
    """What a folder holds now.

    Raises:
        UnavailableError: there is no memory, or something in it is damaged; it says what.
    """
    while True:
        generation, checksum = _current(folder)
        try:
            return _read_generation(folder, generation, checksum)
        except FileNotFoundError as error:
            # A writer may have switched and removed what the pointer named.
            if _current(folder)[0] == generation:
                raise UnavailableError(f"{error.filename} is missing: restore it from a copy") from error


def _read_generation(folder: Path, generation: int, checksum: str) -> Stored:
    snapshot = _snapshot_path(folder, generation)
    if _sha256(snapshot / MANIFEST) != checksum:
        raise _damaged(snapshot / MANIFEST)
    manifest = json.loads((snapshot / MANIFEST).read_text(encoding="utf-8"))
    if manifest["format"] != FORMAT:
        raise UnavailableError(f"{folder} has format {manifest['format']}; this version reads {FORMAT}: update it")
    if _sha256(snapshot / ENTRIES) != manifest["sha256"]:
        raise _damaged(snapshot / ENTRIES)
    since = list(records(_journal_path(folder, generation)))
    return Stored(
        generation,
        manifest["config"],
        manifest["clock"],
        load_file(snapshot / ENTRIES),
        _read_index(snapshot / INDEX, manifest.get("index_sha256")),
        [record.change for record in since],
        since[-1].end if since else 0,
    )


def _read_index(path: Path, checksum: str | None) -> dict[str, np.ndarray]:
    """The index's arrays; none if there is no index, or not the one that was written."""
    if checksum is None:
        return {}
    if not path.is_file() or _sha256(path) != checksum:
        warnings.warn(f"{path} is missing or damaged: the index is built again from the entries", stacklevel=2)
        return {}
    return load_file(path)


def _current(folder: Path) -> tuple[int, str]:
    try:
        return _pointer(folder)
    except FileNotFoundError as error:
        raise UnavailableError(f"{folder} holds no memory: `save` or `attach` makes one") from error
    except ValueError as error:
        raise _damaged(folder / "CURRENT") from error


def _pointer(folder: Path) -> tuple[int, str]:
    generation, checksum = (folder / "CURRENT").read_text(encoding="ascii").split()
    return int(generation), checksum


def _damaged(path: Path) -> UnavailableError:
    return UnavailableError(f"{path} is damaged: its checksum is another; restore it from a copy")


def _snapshot_path(folder: Path, generation: int) -> Path:
    return folder / f"snapshot-{generation:06}"


def _remove_other_generations(folder: Path, generation: int) -> None:
    kept = {_snapshot_path(folder, generation), _journal_path(folder, generation)}
    for path in [*folder.glob("snapshot-*"), *folder.glob("journal-*"), *folder.glob(".snapshot-*")]:
        if path.is_dir() and path not in kept:
            shutil.rmtree(path, ignore_errors=True)
        elif path not in kept:
            path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until the disk has a file's contents, or a folder's names."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
