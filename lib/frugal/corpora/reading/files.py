"""A user's own file, folder of files or archive of files."""

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from stat import S_ISREG

from frugal.corpora.disk import LARGE
from frugal.corpora.documents import Document
from frugal.corpora.reading.formats import (
    CONVERT,
    JSON,
    READERS,
    documents_in,
    documents_of_files,
    is_hidden,
    read_archive,
)
from frugal.corpora.reading.large import read_large_rows, read_large_text
from frugal.errors import InputError, UnavailableError

SPLITS = {
    "train": "train", "training": "train",
    "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid", "development": "valid",
    "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip


def read_file(path: Path) -> list[Document]:
    """Documents of one file: rows, pages, books and archives by its ending, else text.

    Raises:
        InputError: the file cannot be read, is empty, binary, damaged, or has rows of no known kind.
        UnavailableError: it needs a package that is not installed.
    """
    ending = path.suffix.lower()
    with _opening(path):
        if path.stat().st_size > LARGE:
            if ending not in CONVERT and ending not in READERS:
                return read_large_text(path)
            if ending in JSON and (documents := read_large_rows(path)) is not None:
                return documents
        return documents_in(path.read_bytes(), path, str(path))


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    try:
        yield
    except UnavailableError:  # an OSError too
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def read_parts(path: Path) -> dict[str, list[Document]]:
    """Documents of a file, a folder or an archive: by the splits that it comes with, or all under "all".

    Raises:
        InputError: there is nothing of use in it.
        UnavailableError: a single file needs a package that is not installed.
    """
    if not path.is_file():
        files = read_folder(path)
    elif path.suffix.lower() == ".zip":
        with _opening(path):
            files = read_archive(path.read_bytes(), str(path))
    else:
        return {"all": read_file(path)}
    return own_splits(files, str(path)) or {"all": [each for documents in files.values() for each in documents]}


def read_folder(folder: Path) -> dict[PurePath, list[Document]]:
    """Documents of each file of a folder and the folders below it, by its path in there; see `documents_of_files`.

    Raises:
        InputError: the folder cannot be entered, or nothing of use is in there.
    """
    sizes, locked = _files(folder)
    return documents_of_files(sizes, lambda path: read_file(folder / path), str(folder), locked)


def _files(folder: Path) -> tuple[dict[PurePath, int], list[InputError]]:
    """The files of a folder with their sizes, none being known of those that are locked; and the locked folders."""
    sizes: dict[PurePath, int] = {}
    locked: list[InputError] = []

    def refuse(error: OSError) -> None:
        refusal = InputError(f"{error.filename}: cannot be entered ({error.strerror}); check its permissions")
        if Path(error.filename) == folder:
            raise refusal from error
        locked.append(refusal)
        sizes[PurePath(error.filename).relative_to(folder)] = 0

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not is_hidden(PurePath(name))]
        for path in (Path(place, name) for name in files):
            try:
                status = path.stat()
            except FileNotFoundError:  # a link to nothing
                continue
            except OSError:  # reading it says why
                sizes[path.relative_to(folder)] = 0
            else:
                if S_ISREG(status.st_mode):
                    sizes[path.relative_to(folder)] = status.st_size
    return sizes, locked


def own_splits(
    parts: Mapping[PurePath, Sequence[Document]] | Mapping[str, Sequence[Document]], origin: str
) -> dict[str, list[Document]] | None:
    """The splits that a text comes with: parts named train, valid and test, or two of these, in any case.

    The words count that stand between other characters, as in `wiki.valid.tokens`, `train_sft` or `Test/1.txt`.
    Where most parts are named otherwise, such words are titles: notes on a training and on a test.
    """
    splits: dict[str, list[Document]] = {}
    others = []
    for name, documents in parts.items():
        words = re.split(r"[^a-z]+", str(name).lower())
        named = {SPLITS[word] for word in words if word in SPLITS}
        if len(named) == 1:
            splits.setdefault(named.pop(), []).extend(documents)
        else:
            others.append(str(name))
    if len(splits) < 2 or "train" not in splits or 2 * len(others) > len(parts):
        return None
    if others:
        warnings.warn(f"{origin}: its parts are named by split; {', '.join(others)} are left out", stacklevel=2)
    return splits
