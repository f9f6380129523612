"""Training, validation and test texts: whole documents, chosen by seed."""

import random
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from frugal.corpora.documents import Document
from frugal.errors import InputError

HELD_OUT = 0.05  # share of the characters that validation gets, and that test gets
SHORTEST = 100  # characters; below this there is nothing to learn, let alone to test on
# Where a document may be cut, best first: between paragraphs, lines, words.
SEAMS = (r"\n\s*\n", r"\n", r"\s")


class Splits(NamedTuple):
    """Documents for training, validation and test; `cut` says that one had to be cut."""

    train: tuple[Document, ...]
    valid: tuple[Document, ...]
    test: tuple[Document, ...]
    cut: bool


def split_documents(documents: Sequence[Document], seed: int) -> Splits:
    """Split at random by document, about 90 / 5 / 5 by characters.

    Each split gets whole documents, and at least one; those too long for a twentieth stay in training where that
    is possible. Of two documents the shorter is the test text, and the end of the longer the validation text.
    A single document is cut in order into training, validation and test.

    Raises:
        InputError: the documents are too short.
    """
    size = sum(len(document.text) for document in documents)
    if size < SHORTEST:
        raise InputError(f"the text has {size} characters: at least {SHORTEST} are needed; give a longer text")
    if len(documents) == 1:
        beginning, middle, end = _cut(documents[0], [1 - 2 * HELD_OUT, HELD_OUT, HELD_OUT])
        return Splits((beginning,), (middle,), (end,), cut=True)
    if len(documents) == 2:
        shorter, longer = sorted(documents, key=lambda document: len(document.text))
        beginning, end = _cut(longer, [1 - HELD_OUT, HELD_OUT])
        return Splits((beginning,), (end,), (shorter,), cut=True)
    shuffled = random.Random(seed).sample(documents, len(documents))
    test, rest = _take(HELD_OUT * size, shuffled)
    valid, train = _take(HELD_OUT * size, rest)
    return Splits(tuple(train), tuple(valid), tuple(test), cut=False)


def _take(characters: float, documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """Take the first documents that fit into about this many characters, else the shortest; give also the rest."""
    taken: set[int] = set()
    room = 1.1 * characters
    for index, document in enumerate(documents):
        if len(document.text) <= room:
            taken.add(index)
            room -= len(document.text)
        if room < 0.2 * characters:  # at least 0.9 of what was asked for
            break
    if not taken:
        taken.add(min(range(len(documents)), key=lambda index: len(documents[index].text)))
    chosen = [document for index, document in enumerate(documents) if index in taken]
    return chosen, [document for index, document in enumerate(documents) if index not in taken]


def _cut(document: Document, shares: Sequence[float]) -> Iterator[Document]:
    """Cut one document in order into pieces of about these shares, at the best seams that separate them all."""
    text = document.text
    last = len(text.rstrip())
    wanted = [share * len(text) for share in accumulate(shares[:-1])]
    for seam in SEAMS:
        ends = [match.end() for match in re.finditer(seam, text) if match.end() < last]
        places = [min(ends, key=lambda end: abs(end - place)) for place in wanted] if ends else []
        if len(set(places)) == len(wanted) and text[: places[0]].strip():
            borders = zip([0, *places], [*places, len(text)], strict=True)
            return (Document(document.title, text[begin:end]) for begin, end in borders)
    raise InputError(f"{document.title!r} cannot be cut into {len(shares)} texts: it has too few words; give more text")
