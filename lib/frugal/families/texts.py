"""The texts of a training: one to learn from, one to stop by, one to score on."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter

from frugal.corpora import Document, Tokenizer, encode_each, excerpts, load_corpus
from frugal.corpora.copies import without_copies
from frugal.errors import InputError

MOST_SHARED = 0.5  # of a held-out text with the training text; phrases recur, half of a text does not
MOST_UNKNOWN = 0.5  # of the characters of a text that a kept model goes on with
PIECE, PIECES = 40, 200  # characters of a piece that is looked for, and about how many of them


@dataclass(frozen=True)
class Texts:
    """What a training reads.

    Attributes:
        train: learnt from.
        valid: never learnt from; it stops a training, and chooses its best epoch and its few settings.
        test: scored when all is done.
        characters: of the whole training text, of which `train` may be a part.
        earlier: what the model has learnt before, and does not learn again.

    A warning says where most of a held-out text stands in what is learnt too, or in the other held-out one.

    >>> Texts((Document("a", "abc"),), (), (), characters=10).learnt
    3
    """

    train: tuple[Document, ...]
    valid: tuple[Document, ...]
    test: tuple[Document, ...]
    characters: int
    earlier: tuple[Document, ...] = ()

    def __post_init__(self) -> None:
        for name, held_out, others in (
            ("test", self.test, {"training": (*self.earlier, *self.train), "validation": self.valid}),
            ("validation", self.valid, {"training": (*self.earlier, *self.train)}),
        ):
            for other, documents in others.items():
                share = _share_in(held_out, documents)
                if share > MOST_SHARED:
                    warnings.warn(
                        f"{share:.0%} of the {name} text stands in the {other} text too: scores on it are too good",
                        stacklevel=3,
                    )

    @property
    def learnt(self) -> int:
        """Characters that are learnt from."""
        return sum(len(document.text) for document in self.train)

    def going_on(self, learnt: Sequence[Document], tokenizer: Tokenizer | None) -> "Texts":
        """The same for a training that goes on with a model that has learnt these documents.

        Args:
            learnt: they stand in front of the training text where the model is made of both again, unless they are in
                it; a model that stays has learnt them.
            tokenizer: of a model that stays; None for one that is made again.

        Raises:
            InputError: the tokeniser of the model knows less than half of the training text.
        """
        _, new = without_copies(self.train, learnt)
        if tokenizer is None:
            return replace(self, train=(*new, *self.train), characters=self.characters + sum(map(_length, new)))
        if tokenizer.unknown_id is not None:
            each = (tokens[1:] == tokenizer.unknown_id for tokens in encode_each(tokenizer, self.train))
            found = [(int(part.sum()), len(part)) for part in each]
            unknown = sum(some for some, _ in found) / max(1, sum(size for _, size in found))
            if unknown > MOST_UNKNOWN:
                raise InputError(
                    f"{unknown:.0%} of the training text's characters are none that the kept model knows, and it "
                    "cannot learn new ones: train a new model on this text"
                )
        return replace(self, earlier=new)


def read_texts(
    train: str,
    valid: str = "",
    test: str = "",
    *,
    characters: int | None = None,
    held_out_characters: int = 20_000,
    seed: int = 0,
) -> Texts:
    """Read the texts of a training; each name is one that `load_corpus` knows, or a path.

    A text that is given for a part is used whole. What is not given is held out from the training text, by document;
    but with a validation text and no test text, half of that is scored.

    Args:
        characters: most of the training text that are learnt from, in excerpts; None takes all.
        held_out_characters: most of the validation text, and of the test text.
        seed: chooses what is held out.

    Raises:
        InputError: a text is not there or of no use.
        UnavailableError: it would have to be fetched and cannot be.

    Example:
        >>> texts = read_texts("topics", characters=1000, held_out_characters=500)
        >>> texts.learnt <= 1000 < texts.characters
        True
    """
    for name, value in (("characters", characters), ("held_out_characters", held_out_characters)):
        if value is not None and value < 1:
            raise InputError(f"{name}={value}: must be at least 1")
    if valid and test:
        learnt, checked, tested = (whole_text(name, seed=seed) for name in (train, valid, test))
    else:
        corpus = load_corpus(train, valid=valid, seed=seed)
        learnt, checked, tested = corpus.train, corpus.valid, corpus.test
        if test:  # what was held out for it is of use elsewhere
            learnt, tested = (*learnt, *tested), whole_text(test, seed=seed)
    return Texts(
        train=learnt if characters is None else excerpts(learnt, characters),
        valid=excerpts(checked, held_out_characters),
        test=excerpts(tested, held_out_characters),
        characters=sum(map(_length, learnt)),
    )


def whole_text(name: str, *, seed: int = 0) -> tuple[Document, ...]:
    """All documents of a text, its splits put together.

    Example:
        >>> corpus = load_corpus("topics")
        >>> len(whole_text("topics")) == len(corpus.train) + len(corpus.valid) + len(corpus.test)
        True
    """
    corpus = load_corpus(name, seed=seed)
    documents = (*corpus.train, *corpus.valid, *corpus.test)
    if not corpus.cut:
        return documents
    by_title = attrgetter("title")
    pieces = groupby(sorted(documents, key=by_title), by_title)  # stable: the pieces of one stay in order
    return tuple(Document(title, "".join(document.text for document in group)) for title, group in pieces)


def _share_in(documents: Sequence[Document], others: Sequence[Document]) -> float:
    """Share of the documents' pieces, taken at even distances, that stand word for word in the others."""
    text = "".join(document.text for document in documents)
    begins = range(0, max(len(text) - PIECE, min(1, len(text))), max(PIECE, len(text) // PIECES))
    pieces = missing = [text[begin : begin + PIECE] for begin in begins]
    for other in others:
        whole = other.text
        missing = [piece for piece in missing if piece not in whole]
    return 1 - len(missing) / len(pieces) if pieces else 0.0


def _length(document: Document) -> int:
    return len(document.text)
