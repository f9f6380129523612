"""Hidden states on disk: a float16 array that grows batch by batch and survives interruptions.

A folder holds `features.npy`, written in place, and `progress.json`: how many windows are done and the checksum of
their rows. Rows reach the disk before the mark that counts them, so what is counted is there.
"""

import errno
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from frugal.corpora import Window
from frugal.corpora.windows import in_batches
from frugal.errors import InputError, UnavailableError
from frugal.files import appearing, write_text
from frugal.foundation.lock import only_one_makes

LARGEST = float(np.finfo(np.float16).max)


def collect_features(
    hidden: Callable[[Tensor], np.ndarray],
    tokens: Tensor,
    *,
    windows: list[Window],
    width: int,
    batch_size: int,
    folder: Path,
) -> np.ndarray:
    """Rows `hidden(tokens [B, T]) -> [B, T, width]` of all windows over `tokens`, kept in `folder`.

    Returns:
        A memory-mapped, read-only float16 array [len(tokens), width].

    Raises:
        InputError: a row holds a number that float16 cannot.
        UnavailableError: the disk is too full.
    """
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: must be positive; 8 suits a processor, 64 a GPU")
    ordered = sorted(windows, key=lambda window: window.begin - window.end)  # longest first, so that equals meet
    with only_one_makes(folder):
        done, checksum = _progress(folder, (len(tokens), width), ordered)
        if done < len(ordered):
            _compute(hidden, tokens, ordered, done, checksum, batch_size, folder)
    return np.load(folder / "features.npy", mmap_mode="r")


def _progress(folder: Path, shape: tuple[int, int], ordered: list[Window]) -> tuple[int, int]:
    """Windows done and their rows' checksum; makes an empty array where there is none or a damaged one."""
    if folder.is_dir():
        try:
            marks = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
            array = np.load(folder / "features.npy", mmap_mode="r")
            done, checksum = marks["windows"], marks["checksum"]
            if array.shape == shape and checksum == _checksum(array, ordered[:done]):
                return done, checksum
        except (OSError, ValueError, KeyError, TypeError):
            pass
        warnings.warn(f"the cached features in {folder} are damaged: computing them again", stacklevel=2)
    _create(folder, shape)
    return 0, 0


def _checksum(array: np.ndarray, windows: list[Window]) -> int:
    checksum = 0
    for window in windows:
        checksum = zlib.crc32(array[window.keep : window.end].data, checksum)
    return checksum


def _create(folder: Path, shape: tuple[int, int]) -> None:
    size = shape[0] * shape[1] * 2
    free = shutil.disk_usage(folder.parent).free
    if size > free:
        raise UnavailableError(
            f"features need {size / 1e6:,.0f} MB in {folder.parent}, where {free / 1e6:,.0f} MB are free: "
            "make room, or keep the data elsewhere with FRUGAL_DATA"
        )
    with appearing(folder) as temporary:
        temporary.mkdir()
        np.lib.format.open_memmap(temporary / "features.npy", mode="w+", dtype=np.float16, shape=shape).flush()
        _mark(temporary, 0, 0)


def _compute(
    hidden: Callable[[Tensor], np.ndarray],
    tokens: Tensor,
    ordered: list[Window],
    done: int,
    checksum: int,
    batch_size: int,
    folder: Path,
) -> None:
    """Fill in the windows from number `done` on."""
    array = np.load(folder / "features.npy", mmap_mode="r")
    known = sum(window.end - window.keep for window in ordered[:done])
    try:
        with (
            (folder / "features.npy").open("r+b") as file,
            tqdm(desc="features", unit=" tokens", total=len(tokens), initial=known) as bar,
        ):
            for batch in in_batches(ordered[done:], batch_size):
                states = hidden(torch.stack([tokens[window.begin : window.end] for window in batch]))
                for window, state in zip(batch, states, strict=True):
                    rows = _as_float16(state[window.keep - window.begin :])
                    file.seek(array.offset + window.keep * array.strides[0])
                    file.write(rows.data)
                    checksum = zlib.crc32(rows.data, checksum)
                    bar.update(len(rows))
                file.flush()
                os.fsync(file.fileno())
                done += len(batch)
                _mark(folder, done, checksum)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UnavailableError(
            f"the disk of {folder.parent} is full: make room and run again; what is computed is kept"
        ) from error


def _as_float16(rows: np.ndarray) -> np.ndarray:
    largest = np.abs(rows).max()
    if not largest <= LARGEST:  # also where it is not a number
        raise InputError(
            f"hidden states reach {largest:.3g}, float16 ends at {LARGEST:.0f}: this model's features cannot be "
            "cached; use `hidden` on windows of the text"
        )
    return np.ascontiguousarray(rows, dtype=np.float16)


def _mark(folder: Path, done: int, checksum: int) -> None:
    write_text(folder / "progress.json", json.dumps({"windows": done, "checksum": checksum}) + "\n")
