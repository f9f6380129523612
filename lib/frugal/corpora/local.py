"""A user's own file or folder of files."""

import json
from pathlib import Path

from frugal.corpora.documents import Document
from frugal.corpora.records import documents_of_records
from frugal.corpora.text import decode, documents_of
from frugal.errors import InputError

TEXT_ENDINGS = (".txt", ".text", ".md", ".rst", ".tokens", ".raw")
RECORD_ENDINGS = (".json", ".jsonl")


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
    if path.suffix not in RECORD_ENDINGS:
        return documents_of(text, path.stem)
    try:
        records = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in _lines(text)]
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is not valid {path.suffix[1:].upper()} ({error}); mend that place") from error
    if not isinstance(records, list):
        raise InputError(f"{path}: holds one {type(records).__name__}; expected a list of objects")
    return documents_of_records(records, str(path))


def read_folder(folder: Path) -> dict[Path, list[Document]]:
    """Documents of each text or JSON file in a folder and the folders below it, in the order of their paths.

    Raises:
        InputError: there is no such file, or one of them cannot be used.
    """
    endings = (*TEXT_ENDINGS, *RECORD_ENDINGS)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in endings]
    if not paths:
        raise InputError(f"{folder}: has no file ending in {', '.join(endings)}; put text files there")
    return {path: read_file(path) for path in paths}


def own_splits(files: dict[Path, list[Document]]) -> dict[str, list[Document]] | None:
    """The splits a folder comes with: one file each for train, valid and test, such as `wiki.valid.tokens`."""
    splits = {}
    for split in ("train", "valid", "test"):
        named = [documents for path, documents in files.items() if split in path.name.split(".")]
        if len(named) != 1:
            return None
        splits[split] = named[0]
    return splits


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]
