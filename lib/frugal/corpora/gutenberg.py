"""Books of Project Gutenberg by number: one request a book, kept for ever after."""

import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from frugal.corpora.documents import Document
from frugal.corpora.fetching import INSTEAD
from frugal.corpora.reading import decode, strip_gutenberg
from frugal.errors import InputError, UnavailableError
from frugal.files import appearing

ADDRESS = "https://www.gutenberg.org/cache/epub/{number}/pg{number}.txt"
USER_AGENT = "frugal (a text workbench; one request per book, kept in a cache)"
TIMEOUT = 10  # seconds without an answer
PAUSE = 2  # seconds between requests, as the site asks of programs
TITLE = re.compile(r"^Title: *(.+)$", re.MULTILINE)


def read_books(numbers: str, folder: Path) -> list[Document]:
    """The books with these comma-separated numbers, fetched into `folder` where they are not there yet.

    Raises:
        InputError: a number is none, or there is no such book.
        UnavailableError: the site cannot be reached or refused, or the disk is full.
    """
    wanted = list(dict.fromkeys(number.strip() for number in numbers.split(",")))
    for number in wanted:
        if not (number.isascii() and number.isdigit()):
            raise InputError(
                f"gutenberg:{numbers}: {number!r} is no book number; give numbers, as in gutenberg:84,50133"
            )
    missing = [number for number in wanted if not (folder / f"{number}.txt").exists()]
    for count, number in enumerate(missing):
        if count:
            time.sleep(PAUSE)
        _fetch(number, folder / f"{number}.txt")
    return [_book(number, folder / f"{number}.txt") for number in wanted]


def _fetch(number: str, destination: Path) -> None:
    print(f"Fetching Project Gutenberg's book {number} (once) ...", file=sys.stderr)
    request = urllib.request.Request(ADDRESS.format(number=number), headers={"User-Agent": USER_AGENT})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            raw = answer.read()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise InputError(
                f"gutenberg:{number}: Project Gutenberg has no such book; look the number up there"
            ) from error
        raise UnavailableError(f"gutenberg:{number}: was refused ({error}); repeat later, or {INSTEAD}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UnavailableError(
            f"gutenberg:{number}: Project Gutenberg cannot be reached ({reason}); go online and repeat, or {INSTEAD}"
        ) from error
    if b"PROJECT GUTENBERG" not in raw.upper():  # a page that asks for a login, for instance
        raise UnavailableError(
            f"gutenberg:{number}: something else than a book was answered; repeat later, or {INSTEAD}"
        )
    try:
        with appearing(destination) as temporary:
            temporary.write_bytes(raw)
    except OSError as error:
        raise UnavailableError(f"{destination} cannot be written ({error.strerror}); make room and repeat") from error


def _book(number: str, path: Path) -> Document:
    text = decode(path.read_bytes(), f"gutenberg:{number}")
    title = TITLE.search(text)
    return Document(title[1].strip() if title else f"book {number}", strip_gutenberg(text))
