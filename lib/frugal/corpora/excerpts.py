"""A smaller text that still speaks for the whole, and the sentence that says how much smaller."""

import random
import re
from collections.abc import Mapping, Sequence

from frugal.corpora.documents import Corpus, Document
from frugal.errors import InputError

LEAST = 100  # bytes of a document, or all of it; of many documents, fewer are taken rather than less of each
LONG_WORD = 20  # characters, on average: what stands between white space is then no word


def excerpts(documents: Sequence[Document], characters: int) -> tuple[Document, ...]:
    """The first part of each document, of equal length, with at most `characters` characters in all.

    A character counts as its bytes in UTF-8, so that a text takes about as long in every script: one for ASCII, two for
    most other letters, three for Chinese, Japanese and Korean. Documents shorter than their share stay whole and leave
    the rest of it to the others; longer ones end between two words. Dialogues lose their `turns` with their end.
    Where there is less than 100 for each, some of the documents are drawn, always the same ones, in their order.

    Raises:
        InputError: there are no documents, or `characters` is less than 1.

    Example:
        >>> documents = [Document("long", "one two three four " * 50), Document("short", "five")]
        >>> [len(document.text) for document in excerpts(documents, characters=400)]
        [393, 4]
        >>> len(excerpts(documents[:1] * 50, characters=400))
        4
    """
    if not documents:
        raise InputError("there are no documents to take excerpts from: ask for at least one")
    if characters < 1:
        raise InputError(f"characters={characters}: must be at least 1")
    drawn = _drawn(documents, characters)
    share = _share(sorted(_size(document.text) for document in drawn), characters)
    return tuple(document if _size(document.text) <= share else _beginning(document, share) for document in drawn)


def portions(
    corpus: Corpus, documents: int | None = None, *, train: int, valid: int, test: int
) -> dict[str, tuple[Document, ...]]:
    """Excerpts of a corpus's three parts, of at most so many documents each and so many characters.

    Example:
        >>> whole = Corpus("tales", *[(Document("a", "one two three"), Document("b", "four five"))] * 3, "", "", "")
        >>> chosen = portions(whole, 1, train=9, valid=9, test=4)
        >>> {part: documents[0].text for part, documents in chosen.items()}
        {'train': 'one two', 'valid': 'one two', 'test': 'one'}
    """
    sizes = {"train": train, "valid": valid, "test": test}
    return {part: excerpts(getattr(corpus, part)[:documents], size) for part, size in sizes.items()}


def usage(corpus: Corpus, used: Mapping[str, Sequence[Document]]) -> str:
    """A sentence for a report: how much of a text's parts is used, and of how many documents.

    Example:
        >>> whole = Corpus("tale", *[(Document("a", "one two three"),)] * 3, "", "", "")
        >>> usage(whole, {"train": excerpts(whole.train, 8), "test": whole.test})
        'Of tale: 7 of 13 characters of train, all 13 of test.'
    """
    parts: list[str] = []
    for name, documents in used.items():
        whole = getattr(corpus, name)
        some, of = (sum(len(document.text) for document in each) for each in (documents, whole))
        amount = f"all {of:,}" if some == of else f"{some:,} of {of:,}"
        fewer = f" ({len(documents):,} of {len(whole):,} documents)" if len(documents) < len(whole) else ""
        parts.append(f"{amount}{'' if parts else ' characters'} of {name}{fewer}")
    return f"Of {corpus.name}: {', '.join(parts)}."


def words_and_space(text: str) -> tuple[list[str], str]:
    """A text's words and the space that joins them again; of a script without spaces, its characters and nothing.

    Example:
        >>> words_and_space("one  two\\n")
        (['one', 'two'], ' ')
        >>> words_and_space("天地玄黃宇宙洪荒日月盈昃辰宿列張寒來暑往秋收冬藏")[0][:3]
        ['天', '地', '玄']
    """
    words = text.split()
    characters = [character for word in words for character in word]
    spaced = len(characters) <= LONG_WORD * len(words)
    return (words, " ") if spaced else (characters, "")


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _drawn(documents: Sequence[Document], characters: int) -> list[Document]:
    """As many of the documents as there is room for, in their order."""
    places: list[int] = []
    for place in random.Random(0).sample(range(len(documents)), len(documents)):
        characters -= min(LEAST, _size(documents[place].text))
        if characters < 0 and places:
            break
        places.append(place)
    return [documents[place] for place in sorted(places)]


def _share(lengths: Sequence[int], characters: int) -> int:
    """The longest that a document may be so that all fit; `lengths` ascend."""
    for place, length in enumerate(lengths):
        share = characters // (len(lengths) - place)
        if length > share:
            return share
        characters -= length
    return max(lengths, default=0)


def _beginning(document: Document, length: int) -> Document:
    """The document's beginning of at most so many bytes, or its first character."""
    fitting = max(1, len(document.text[:length].encode("utf-8", "replace")[:length].decode("utf-8", "ignore")))
    words = re.match(r".*(?=\s)", document.text[: fitting + 1], re.DOTALL)
    text = words[0] if words and words[0].strip() else document.text[:fitting]
    return Document(document.title, text)
