"""Documents, and corpora that keep them apart."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from frugal.errors import InputError

TURN_MARKERS = {"user": "<|user|>", "assistant": "<|assistant|>"}


class Turn(NamedTuple):
    """One message of a dialogue; `speaker` is "user" (who opened it) or "assistant"."""

    speaker: str
    text: str


@dataclass(frozen=True)
class Document:
    """A text with a title; `turns` is empty unless it is a dialogue, whose text then holds turn markers."""

    title: str
    text: str
    turns: tuple[Turn, ...] = ()

    @classmethod
    def dialogue(cls, title: str, turns: Iterable[Turn]) -> Self:
        """A dialogue, its text written by `dialogue_text`."""
        turns = tuple(turns)
        return cls(title, dialogue_text(turns), turns)

    def as_values(self) -> list[Any]:
        """The document as JSON can hold it, for `from_values`."""
        return [self.title, self.turns or self.text]

    @classmethod
    def from_values(cls, values: Sequence[Any]) -> "Document":
        """The document that these values were made of.

        Example:
            >>> Document.from_values(["greeting", [["user", "Hi"], ["assistant", "Hello"]]]).turns[1].text
            'Hello'
        """
        title, content = values
        if isinstance(content, str):
            return Document(title, content)
        return Document.dialogue(title, (Turn(*turn) for turn in content))


def separate(texts: Iterable[Document | str] | Document | str) -> Iterable[Document | str]:
    """Documents as they are; a single text as one document.

    Raises:
        InputError: this is neither.
    """
    if isinstance(texts, str | Document):
        return [texts]
    if not isinstance(texts, Iterable):
        raise InputError(f"a text of type {type(texts).__name__}: expected a string, a Document, or several of them")
    return texts


def text_of(document: Document | str) -> str:
    """The text of a document, or the text that it is.

    Raises:
        InputError: it is no text, or holds half of a character, which cannot be written down.
    """
    text = document.text if isinstance(document, Document) else document
    if not isinstance(text, str):
        raise InputError(f"a text of type {type(text).__name__}: expected a string or a Document")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text holds half of a character ({text[error.start]!r} at {error.start}): "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace') mends it"
        ) from error
    return text


def dialogue_text(turns: Iterable[Turn]) -> str:
    """Turns as text: each begins with its speaker's marker and ends with a line end."""
    return "".join(f"{TURN_MARKERS[turn.speaker]}{turn.text}\n" for turn in turns)


@dataclass(frozen=True)
class Corpus:
    """Documents in three splits, with what they are and where they come from.

    `cut` says that there were too few documents to split: a document was cut, in order and between paragraphs.
    """

    name: str
    train: tuple[Document, ...]
    valid: tuple[Document, ...]
    test: tuple[Document, ...]
    description: str
    licence: str
    source: str
    cut: bool = False
