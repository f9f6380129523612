"""A user's own file or folder of files."""

import json
import os
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from frugal.corpora.documents import Document
from frugal.corpora.records import documents_of_records
from frugal.corpora.text import decode, documents_of
from frugal.errors import InputError

TEXT_ENDINGS = (".txt", ".text", ".md", ".rst", ".tokens", ".raw")
RECORD_ENDINGS = (".json", ".jsonl", ".ndjson")
NO_TEXTS = {"__pycache__", "node_modules"}  # folders; hidden ones are no texts either
ABOUT = {"readme", "license", "licence", "copying", "changelog"}  # files about the others
SPLITS = {
    "train": "train", "training": "train",
    "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid", "development": "valid",
    "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip


def read_file(path: Path) -> list[Document]:
    """Documents of one file: JSON by its ending, else text, which is recognised as WikiText where it is that.

    Raises:
        InputError: the file cannot be read, is empty, binary, or JSON of no known kind.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    text = decode(raw, str(path))
    if path.suffix.lower() not in RECORD_ENDINGS:
        return documents_of(text, path.stem)
    records = _json(text, path)
    if isinstance(records, dict):
        lists = [value for value in records.values() if isinstance(value, list)]
        if path.suffix.lower() != ".json":  # lines, of which there is one
            records = [records]
        elif len(lists) == 1:  # {"data": [...]}
            records = lists[0]
    if not isinstance(records, list):
        raise InputError(f"{path}: holds one {type(records).__name__}; expected a list of objects")
    return documents_of_records(records, str(path))


def _json(text: str, path: Path) -> Any:
    """One value, or a list of one value a line: which of the two, the content says and not the file's name."""
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            if len(lines) < 2 or (path.suffix.lower() == ".json" and not _is_json(lines[0])):
                raise error
            return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is not valid {path.suffix[1:].upper()} ({error}); mend that place") from error
    except RecursionError as error:
        raise InputError(f"{path}: is nested too deep to be rows of text; expected a list of objects") from error


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True


def read_folder(folder: Path) -> dict[Path, list[Document]]:
    """Documents of each text or JSON file in a folder and the folders below it, in the order of their paths.

    Hidden files and folders are left out in silence. Files of other kinds, files that hold no usable text, and files
    about the others, such as a README, are left out with a warning that counts and names them.

    Raises:
        InputError: a folder cannot be entered, or nothing of use is in there.
    """
    endings = (*TEXT_ENDINGS, *RECORD_ENDINGS)
    seen = _files(folder)
    chosen = [path for path in seen if path.suffix.lower() in endings]
    if len(chosen) > 1:
        chosen = [path for path in chosen if path.stem.lower() not in ABOUT] or chosen
    found, unusable = {}, []
    for path in chosen:
        try:
            found[path] = read_file(path)
        except InputError as error:
            unusable.append(error)
    if not found and unusable:
        raise unusable[0]
    if not found:
        raise InputError(f"{folder}: has no file ending in {', '.join(endings)}; put text files there")
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
