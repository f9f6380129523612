"""Documents, and corpora that keep them apart."""

from dataclasses import dataclass
from typing import NamedTuple


class Turn(NamedTuple):
    """One message of a dialogue."""

    speaker: str
    text: str


@dataclass(frozen=True)
class Document:
    """A text with a title; `turns` is empty unless it is a dialogue, whose `text` then holds turn markers."""

    title: str
    text: str
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """Documents in three splits, with where they come from.

    `cut` says that the one document there was has been cut in order into three.
    """

    name: str
    train: tuple[Document, ...]
    valid: tuple[Document, ...]
    test: tuple[Document, ...]
    description: str
    licence: str
    source: str
    cut: bool = False
