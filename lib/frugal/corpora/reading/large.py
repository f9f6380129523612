"""Files that memory need not hold: a text in pieces, and JSON lines row by row, each laid on disk as it is read."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frugal.corpora.disk import on_disk
from frugal.corpora.documents import Document
from frugal.corpora.reading.records import each_document
from frugal.corpora.reading.text import REPLACEMENT, WIKITEXT_TITLE, clean, documents_of, encoding_of
from frugal.errors import InputError

PIECE = 1 << 18  # characters; tokenisers slow down where texts are longer
SEAMS = ("\n\n", "\n", " ")  # where a piece ends, best first


def read_large_text(path: Path) -> list[Document]:
    """Documents of a large text, which lie on disk.

    WikiText's articles are documents. Another text is cut between paragraphs into pieces of about 250,000 characters,
    which a warning says.

    Raises:
        InputError: it is not UTF-8, or UTF-16 or UTF-32 with its mark.
        UnavailableError: the disk has no room for a copy.
    """
    return on_disk(_pieces(path, _encoding(path)), path.name, path.stat().st_size)


def read_large_rows(path: Path) -> list[Document] | None:
    """Documents of large JSON lines, which lie on disk; None where the first line is no object.

    Raises:
        InputError: it is not UTF-8, a line is no JSON, or a row is of no known kind.
        UnavailableError: the disk has no room for a copy.
    """
    rows = _Rows(path, _encoding(path))
    try:
        if not isinstance(next(iter(rows), None), dict):
            return None
    except InputError:
        return None
    return on_disk(each_document(rows, str(path)), path.name, path.stat().st_size)


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        encoding = encoding_of(file.read(PIECE))
    if encoding is None:
        raise InputError(f"{path}: is large and no UTF-8; run iconv -f ENCODING -t UTF-8 FILE first")
    return encoding


@dataclass(frozen=True)
class _Rows:
    """The values of JSON lines, read again each time they are gone through."""

    path: Path
    encoding: str

    def __iter__(self) -> Iterator[Any]:
        with self.path.open(encoding=self.encoding, errors="replace") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    yield json.loads(line)
                except (json.JSONDecodeError, RecursionError) as error:
                    raise InputError(
                        f"{self.path}: line {number} is not valid JSON ({error}); mend that place"
                    ) from error


def _pieces(path: Path, encoding: str) -> Iterator[Document]:
    rest, number, damaged = "", 0, 0
    with path.open(encoding=encoding, errors="replace") as file:
        while block := file.read(PIECE):
            damaged += block.count(REPLACEMENT) + block.count("\0")
            rest += clean(block.replace("\0", ""))
            end = _end(rest)
            for document in _documents(rest[:end], path.stem, number):
                yield document
                number += 1
            rest = rest[end:]
    yield from _documents(rest, path.stem, number)
    if damaged:
        warnings.warn(f"{path}: holds {damaged} damaged places", stacklevel=2)
    if not WIKITEXT_TITLE.match(rest):
        warnings.warn(f"{path}: is large, and read as {number + 1} documents, which are pieces of it", stacklevel=2)


def _documents(text: str, title: str, number: int) -> Iterator[Document]:
    if WIKITEXT_TITLE.match(text):
        yield from documents_of(text, title)
    elif text.strip():
        yield Document(f"{title}, piece {number + 1}", text)


def _end(text: str) -> int:
    """Where the whole articles of WikiText end; else the last seam, in the second half."""
    if WIKITEXT_TITLE.match(text):
        return max(title.start() for title in WIKITEXT_TITLE.finditer(text))
    ends = (text.rfind(seam, len(text) // 2) + len(seam) for seam in SEAMS)
    return next((end for end in ends if end > len(text) // 2), len(text))
