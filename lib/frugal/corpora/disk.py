"""Texts and tokens that memory does not hold: they lie in unnamed files, which go with the last that reads them.

Plain files serve, because documents are read one after another and tokens are numbers: Arrow, which `datasets` brings,
would be a package more for a file and a row of offsets.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from frugal.corpora.documents import Document, Turn
from frugal.errors import UnavailableError
from frugal.files import data_folder

LARGE = 1 << 25  # bytes of a text; what is larger lies on disk
MOST_TOKENS = 1 << 24  # in memory; more lie on disk
DELAY = 2  # seconds until progress is shown


class _OnDisk(Document):
    """A document that is read from a file each time it is asked for something."""

    __slots__ = ("_begin", "_file", "_size")
    _file: IO[bytes]
    _begin: int
    _size: int

    def __init__(self, file: IO[bytes], begin: int, size: int) -> None:
        for name, value in (("_file", file), ("_begin", begin), ("_size", size)):
            object.__setattr__(self, name, value)

    def _read(self) -> Document:
        return Document.from_values(json.loads(os.pread(self._file.fileno(), self._size, self._begin)))

    @property
    def title(self) -> str:
        return self._read().title

    @property
    def text(self) -> str:
        return self._read().text

    @property
    def turns(self) -> tuple[Turn, ...]:
        return self._read().turns


def on_disk(documents: Iterable[Document], name: str, size: int) -> list[Document]:
    """The documents, laid on disk one by one; each is read from there whenever it is asked for something.

    `name` and `size`, about how many bytes there will be, are for the bar that shows progress.

    Raises:
        UnavailableError: the disk is full, or cannot be written to.

    Example:
        >>> on_disk([Document("first", "some text"), Document("second", "text")], "two", 13)[1].text
        'text'
    """
    kept: list[Document] = []
    with _unnamed_file() as file, tqdm(desc=name, total=size, unit="B", unit_scale=True, delay=DELAY) as bar:
        for document in documents:
            raw = json.dumps(document.as_values(), ensure_ascii=False).encode("utf-8", "replace")
            kept.append(_OnDisk(file, file.tell(), len(raw)))
            file.write(raw)
            bar.update(len(raw))
        file.flush()
    return kept


def lie_on_disk(documents: Iterable[Document]) -> bool:
    """Whether any of the documents does: what needs them all in memory is then left out."""
    return any(isinstance(document, _OnDisk) for document in documents)


def row_of_tokens(parts: Iterable[Tensor]) -> Tensor:
    """All tokens in one row [T]: int64 in memory or, where there are many, int32 memory-mapped on disk.

    Raises:
        UnavailableError: the disk is full, or cannot be written to.

    Example:
        >>> row_of_tokens([torch.tensor([1, 2]), torch.tensor([3])])
        tensor([1, 2, 3])
    """
    parts, few, size = iter(parts), [], 0
    for part in parts:
        few.append(part)
        size += len(part)
        if size > MOST_TOKENS:
            break
    else:
        return torch.cat(few) if few else torch.empty(0, dtype=torch.int64)
    with _unnamed_file() as file:
        for part in chain(few, parts):
            part.numpy().astype(np.int32).tofile(file)
        file.flush()
        return torch.from_numpy(np.memmap(file, np.int32, mode="r+"))


@contextmanager
def _unnamed_file() -> Iterator[IO[bytes]]:
    folder = data_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # it is closed with what reads it
    except OSError as error:
        raise UnavailableError(
            f"{folder}: cannot hold a copy of a large text ({error.strerror}); make room, or set FRUGAL_DATA"
        ) from error
