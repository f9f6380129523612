"""A smaller text that still speaks for all of its documents."""

import re
from collections.abc import Sequence
from dataclasses import replace

from frugal.corpora.documents import Document
from frugal.errors import InputError


def excerpts(documents: Sequence[Document], characters: int) -> tuple[Document, ...]:
    """The first part of each document, of equal length, with at most `characters` characters in all.

    Documents shorter than their share stay whole and leave the rest of it to the others; longer ones end between
    two words. Dialogues lose their `turns` with their end.

    Raises:
        InputError: there are no documents, or `characters` leaves less than one character for each.

    Example:
        >>> documents = [Document("long", "one two three four"), Document("short", "five")]
        >>> [document.text for document in excerpts(documents, characters=12)]
        ['one two', 'five']
    """
    if not documents:
        raise InputError("there are no documents to take excerpts from: ask for at least one")
    if characters < len(documents):
        raise InputError(f"characters={characters}: must be at least one for each of {len(documents)} documents")
    share = _share(sorted(len(document.text) for document in documents), characters)
    return tuple(document if len(document.text) <= share else _beginning(document, share) for document in documents)


def _share(lengths: Sequence[int], characters: int) -> int:
    """The longest that a document may be so that all fit; `lengths` ascend."""
    for place, length in enumerate(lengths):
        share = characters // (len(lengths) - place)
        if length > share:
            return share
        characters -= length
    return max(lengths, default=0)


def _beginning(document: Document, length: int) -> Document:
    words = re.match(r".*(?=\s)", document.text[: length + 1], re.DOTALL)
    text = words[0] if words and words[0].strip() else document.text[:length]
    return replace(document, text=text, turns=())
