"""A user's own file or folder of files."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from frugal.corpora.disk import LARGE, on_disk
from frugal.corpora.documents import Document
from frugal.corpora.reading.formats import CONVERT, ENDINGS, JSON, READERS, documents_in
from frugal.corpora.reading.large import read_large_rows, read_large_text
from frugal.errors import InputError, UnavailableError

NO_TEXTS = {"__pycache__", "node_modules"}  # folders; hidden ones are no texts either
ABOUT = {"readme", "license", "licence", "copying", "changelog"}  # files about the others
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
    try:
        if path.stat().st_size > LARGE:
            if ending not in CONVERT and ending not in READERS:
                return read_large_text(path)
            if ending in JSON and (documents := read_large_rows(path)) is not None:
                return documents
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    return documents_in(raw, path, str(path))


def read_folder(folder: Path) -> dict[Path, list[Document]]:
    """Documents of each file of a known kind in a folder and the folders below it, in the order of their paths.

    Hidden files and folders are left out in silence. Files of other kinds, files that hold no usable text, and files
    about the others, such as a README, are left out with a warning that counts and names them.

    Raises:
        InputError: a folder cannot be entered, or nothing of use is in there.
    """
    seen = _files(folder)
    chosen = [path for path in seen if path.suffix.lower() in ENDINGS]
    if len(chosen) > 1:
        chosen = [path for path in chosen if path.name.lower().partition(".")[0] not in ABOUT] or chosen
    counts: dict[Path, int] = {}
    unusable = []

    def each() -> Iterator[Document]:
        for path in chosen:
            try:
                documents = read_file(path)
            except (InputError, UnavailableError) as error:
                unusable.append(error)
            else:
                counts[path] = len(documents)
                yield from documents

    size = sum(path.stat().st_size for path in chosen)
    documents = iter(on_disk(each(), folder.name, size) if size > LARGE else list(each()))
    found = {path: list(islice(documents, count)) for path, count in counts.items()}
    if not found and unusable:
        raise unusable[0]
    if not found:
        raise InputError(f"{folder}: has no file ending in {', '.join(ENDINGS)}; put text files there")
    others = [path for path in seen if path not in found]
    if others:
        kinds = Counter(path.suffix.lower() or "no ending" for path in others)
        named = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        reasons = f"; {unusable[0]}" if unusable else ""
        warnings.warn(f"{folder}: {len(others)} files are left out ({named}){reasons}", stacklevel=2)
    return found


def _files(folder: Path) -> list[Path]:
    found = []

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be entered ({error.strerror}); check its permissions") from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in NO_TEXTS]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def own_splits(files: dict[Path, list[Document]], folder: Path) -> dict[str, list[Document]] | None:
    """The splits a folder comes with: files or folders named train, valid and test, or two of these, in any case.

    The words count that stand between other characters, as in `wiki.valid.tokens`, `en_dev.jsonl` or `Test/1.txt`.
    Where most files are named otherwise, such words are titles: notes on a training and on a test.
    """
    splits: dict[str, list[Document]] = {}
    others = []
    for path, documents in files.items():
        words = re.split(r"[^a-z]+", str(path.relative_to(folder)).lower())
        named = {SPLITS[word] for word in words if word in SPLITS}
        if len(named) == 1:
            splits.setdefault(named.pop(), []).extend(documents)
        else:
            others.append(path.name)
    if len(splits) < 2 or "train" not in splits or 2 * len(others) > len(files):
        return None
    if others:
        warnings.warn(f"{folder}: its files are named by split; {', '.join(others)} are left out", stacklevel=2)
    return splits
