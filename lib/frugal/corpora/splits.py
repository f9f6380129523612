"""Training, validation and test texts: whole documents, chosen by seed."""

import random
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from frugal.corpora.documents import Document
from frugal.errors import InputError

HELD_OUT = 0.05  # share of the characters that validation gets, and that test gets
SHORTEST = 100  # characters; below this there is nothing to learn, let alone to test on
FEWEST = 0.2  # of that share; less is no text to test on
# Where a document may be cut, best first: between paragraphs, lines, words, sentences of scripts without spaces.
SEAMS = (r"\n\s*\n", r"\n", r"\s", r"[\u3002\uff01\uff1f\u0964\u104b]")


class Splits(NamedTuple):
    """Documents for training, validation and test; `cut` says that one had to be cut."""

    train: tuple[Document, ...]
    valid: tuple[Document, ...]
    test: tuple[Document, ...]
    cut: bool


def split_documents(documents: Sequence[Document], seed: int) -> Splits:
    """Split at random by document, about 90 / 5 / 5 by characters.

    Each split gets whole documents, and at least one. A document's chance to be held out does not depend on its length,
    except that those too long for a twentieth stay in training where that is possible. Documents shorter than a
    hundredth of the text are never alone in a split. Where fewer than three are longer, documents are cut: a single one
    in order into training, validation and test; of two the shorter is the test text, and the end of the longer the
    validation text.

    Raises:
        InputError: the documents are too short.

    Example:
        >>> parts = split_documents([Document(str(n), f"text {n} " * 20) for n in range(40)], seed=0)
        >>> len(parts.train), len(parts.valid), len(parts.test), parts.cut
        (36, 2, 2, False)
    """
    size = sum(len(document.text) for document in documents)
    if size < SHORTEST:
        raise InputError(f"the text has {size} characters: at least {SHORTEST} are needed; give a longer text")
    share = HELD_OUT * size
    shuffled = random.Random(seed).sample(documents, len(documents))
    long = sorted((document for document in documents if len(document.text) >= FEWEST * share), key=_length)
    short = tuple(document for document in documents if len(document.text) < FEWEST * share)
    if len(long) == 1 and sum(map(_length, short)) < share:
        beginning, middle, end = _cut(long[0], [1 - 2 * HELD_OUT, HELD_OUT, HELD_OUT])
        return Splits((beginning, *short), (middle,), (end,), cut=True)
    if len(long) == 2 and sum(map(_length, short)) < share:
        beginning, end = _cut(long[1], [1 - HELD_OUT, HELD_OUT])
        return Splits((beginning, *short), (end,), (long[0],), cut=True)
    test, rest = _take(share, shuffled)
    valid, train = _take(share, rest)
    return Splits(tuple(train), tuple(valid), tuple(test), cut=False)


def split_groups(groups: Sequence[Sequence[Document]], seed: int) -> Splits:
    """As `split_documents`, but documents of a group stand in one part together.

    Where documents have to be cut, only the longest of each group is kept: another one holds what is held out.

    Example:
        >>> pairs = [[Document(f"{number}{half}", f"text {number} " * 20) for half in "ab"] for number in range(40)]
        >>> parts = split_groups(pairs, seed=0)
        >>> len(parts.test), parts.test[0].title[:-1] == parts.test[1].title[:-1]
        (4, True)
    """
    joined = [group[0] if len(group) == 1 else Document("", "".join(each.text for each in group)) for group in groups]
    parts = split_documents(joined, seed)
    if parts.cut:
        return split_documents([max(group, key=_length) for group in groups], seed)
    apart = dict(zip(map(id, joined), groups, strict=True))
    train, valid, test = (tuple(each for one in part for each in apart[id(one)]) for part in parts[:3])
    return Splits(train, valid, test, cut=False)


def split_in_two(documents: Sequence[Document]) -> tuple[tuple[Document, ...], tuple[Document, ...], bool]:
    """Two halves of about equal length, in order; a single document is cut, which the third value says."""
    if len(documents) == 1:
        first, second = _cut(documents[0], [0.5, 0.5])
        return (first,), (second,), True
    sums = list(accumulate(map(_length, documents)))
    place = min(range(1, len(documents)), key=lambda place: abs(sums[place - 1] - sums[-1] / 2))
    return tuple(documents[:place]), tuple(documents[place:]), False


def _length(document: Document) -> int:
    return len(document.text)


def _take(characters: float, documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """Take about this many characters of documents that are not too long, in order; give also the rest.

    The last one is taken if that comes nearer. Where all are too long, or too short together, one of the least long
    is taken: of those up to twice as long as the shortest of them, the first.
    """
    taken: set[int] = set()
    size = 0
    for index, document in enumerate(documents):
        length = len(document.text)
        if length > 1.1 * characters:
            continue
        if abs(size + length - characters) > abs(size - characters):
            break
        taken.add(index)
        size += length
    if size < FEWEST * characters or len(taken) == len(documents):
        long = [index for index, document in enumerate(documents) if len(document.text) >= FEWEST * characters]
        least = min((len(documents[index].text) for index in long), default=0)
        taken = {next((index for index in long if len(documents[index].text) <= 2 * least), 0)}
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
        if _separates(places, text, shares, least=0.5):
            break
    else:
        places = [_between_letters(text, round(place)) for place in wanted]
        if not _separates(places, text, shares, least=0):
            raise InputError(
                f"{document.title!r} cannot be cut into {len(shares)} texts: it is too short; give more text"
            )
    borders = zip([0, *places], [*places, len(text)], strict=True)
    return (Document(document.title, text[begin:end]) for begin, end in borders)


def _separates(places: list[int], text: str, shares: Sequence[float], *, least: float) -> bool:
    """Whether cuts at these places leave each piece more of the text than this part of its share."""
    pieces = [text[begin:end].strip() for begin, end in pairwise([0, *places, len(text)])]
    return len(pieces) == len(shares) and all(
        len(piece) > least * share * len(text) for piece, share in zip(pieces, shares, strict=True)
    )


def _between_letters(text: str, place: int) -> int:
    """The next place that parts no letter from its marks and no symbol from what joins it."""
    while place < len(text) and (
        unicodedata.combining(text[place]) or "\N{ZERO WIDTH JOINER}" in text[place - 1 : place + 1]
    ):
        place += 1
    return place
