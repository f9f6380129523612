"""Training examples for networks over characters: inputs at any distances from a place, cut when they are asked for.

`corpora.windows` serves models of any tokens: it cuts a document for scoring, and gives runs of tokens whose targets
are the same run one token later. Here an example can also be a window with one target, after it or in its middle.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from frugal.corpora import Document, Tokenizer, encode_each, encode_in_a_row
from frugal.corpora.disk import MOST_TOKENS, row_of_tokens
from frugal.errors import InputError, check_whole, is_number
from frugal.piecewise.layers.basis import middles
from frugal.piecewise.networks import CharacterNetwork
from frugal.tensors import number_tensor

RUN, RUNS_AT_ONCE = 1 << 16, 64  # of a large text: examples in a row, and runs that are mixed


class Windows:
    """Examples (inputs, targets) around places of a text: the tokens at fixed distances from each place.

    Args:
        tokens: the text [N].
        places: [examples], where in the text.
        inputs: distances of the input tokens from a place; the inputs are [examples, len(inputs)].
        targets: distances of the target tokens; one gives targets [examples], more [examples, len(targets)].
        most: only the first examples, if there are more.

    Raises:
        InputError: there is no example.

    >>> from frugal.corpora import CharTokenizer
    >>> tokenizer = CharTokenizer("abc")
    >>> inputs, targets = Windows.sequence(tokenizer, ["abcab"], context_length=2)[2:]
    >>> [(tokenizer.decode(row), tokenizer.decode(target[None])) for row, target in zip(inputs, targets)]
    [('ab', 'c'), ('bc', 'a'), ('ca', 'b')]
    """

    def __init__(
        self, tokens: Tensor, places: Tensor, inputs: Sequence[int], targets: Sequence[int], most: int | None = None
    ) -> None:
        check_whole(most=1 if most is None else most)
        if not len(places):
            raise InputError("there are no examples: the text is empty or shorter than a window; give a longer text")
        self.tokens, self.places = tokens, places[:most]
        self.inputs, self.targets = torch.tensor(inputs), torch.tensor(targets)

    @classmethod
    def sequence(
        cls, tokenizer: Tokenizer, documents: Iterable[Document | str], context_length: int, most: int | None = None
    ) -> Self:
        """Each character and the `context_length` characters before it; document starts stand before the first."""
        check_whole(context_length=context_length)
        tokens, places = _padded(tokenizer, documents, before=context_length, after=0)
        return cls(tokens, places, *distances(context_length), most)

    @classmethod
    def centred(
        cls, tokenizer: Tokenizer, documents: Iterable[Document | str], context_length: int, most: int | None = None
    ) -> Self:
        """Each character and the `context_length` characters around it, one more on its left if that is odd."""
        check_whole(context_length=context_length)
        inputs, targets = distances(context_length, centred=True)
        tokens, places = _padded(tokenizer, documents, before=-inputs[0], after=max(0, inputs[-1]))
        return cls(tokens, places, inputs, targets, most)

    @classmethod
    def flat(
        cls,
        tokenizer: Tokenizer,
        documents: Iterable[Document | str],
        context_length: int,
        most: int | None = None,
        stride: int = 1,
    ) -> Self:
        """Runs of `context_length` characters, one every `stride`, and as targets the characters after each of them.

        Runs cross from one document into the next, over the document start between them.
        """
        check_whole(context_length=context_length, stride=stride)
        tokens = encode_in_a_row(tokenizer, documents)
        places = torch.arange(0, max(0, len(tokens) - context_length), stride)
        return cls(tokens, places, *distances(context_length, flat=True), most)

    @classmethod
    def for_network(
        cls,
        network: CharacterNetwork,
        tokenizer: Tokenizer,
        documents: Iterable[Document | str],
        most: int | None = None,
    ) -> Self:
        """The examples a causal network learns from: windows, or half-overlapping runs if it predicts all along."""
        length = network.context_length
        if network.predicts_all:
            return cls.flat(tokenizer, documents, length, most, stride=max(1, length // 2))
        return cls.sequence(tokenizer, documents, length, most)

    def have_form(self, context_length: int, *, centred: bool = False, flat: bool = False) -> bool:
        """Whether these are windows of a length as `sequence` gives them, or `centred`, or `flat`."""
        inputs, targets = map(torch.tensor, distances(context_length, centred=centred, flat=flat))
        # Wherever the place is among them, from which distances are counted.
        pairs = (self.inputs - self.inputs[0], inputs - inputs[0]), (self.targets - self.inputs[0], targets - inputs[0])
        return all(torch.equal(*pair) for pair in pairs)

    @property
    def identity(self) -> tuple[Tensor, ...]:
        """What a training on them follows from; see `frugal.training.checkpoint.fingerprint`."""
        return self.tokens, self.places, self.inputs, self.targets

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, chosen: "Tensor | slice") -> tuple[Tensor, Tensor]:
        """Inputs and targets of the chosen examples."""
        places = self.places[chosen].long().unsqueeze(-1)
        return self.tokens[places + self.inputs].long(), self.tokens[places + self.targets].long().squeeze(-1)


def distances(length: int, *, centred: bool = False, flat: bool = False) -> tuple[list[int], list[int]]:
    """Those of `length` inputs and of the targets from a place: before it, around it, or all from it on.

    >>> distances(3), distances(3, centred=True), distances(3, flat=True)
    (([-3, -2, -1], [0]), ([-2, -1, 1], [0]), ([0, 1, 2], [1, 2, 3]))
    """
    if flat:
        return [*range(length)], [*range(1, length + 1)]
    left = (length + 1) // 2 if centred else length
    return [*range(-left, 0), *range(1, length - left + 1)], [0]


@dataclass(frozen=True)
class Batches:
    """All examples in an order that is drawn again each time, in batches.

    Attributes:
        windows: the examples.
        size: examples in a batch.
        repeats: how often each example comes.
        random_fraction: share of the input characters that are replaced by random ones, in new places each time.
        characters: how many there are to draw from.

    >>> from frugal.corpora import CharTokenizer
    >>> windows = Windows.sequence(CharTokenizer("abc"), ["abcab"], context_length=2)
    >>> [tuple(inputs.shape) for inputs, targets in Batches(windows, size=3)]
    [(3, 2), (2, 2)]
    """

    windows: Windows
    size: int
    repeats: int = 1
    random_fraction: float = 0.0
    characters: int = 128

    def __post_init__(self) -> None:
        check_whole(size=self.size, repeats=self.repeats, characters=self.characters)
        if not (is_number(self.random_fraction) and 0 <= self.random_fraction <= 1):
            raise InputError(f"random_fraction={self.random_fraction}: must be from 0 to 1; 0.1 is much")

    def __len__(self) -> int:
        return -(-len(self.windows) * self.repeats // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in self._order():
            inputs, targets = self.windows[chosen]
            yield randomised(inputs, self.random_fraction, self.characters), targets

    def _order(self) -> Iterator[Tensor]:
        """The examples of each batch. Where they are many, runs of them are mixed with a few other runs."""
        if len(self.windows) <= MOST_TOKENS:
            yield from torch.cat([torch.randperm(len(self.windows)) for _ in range(self.repeats)]).split(self.size)
            return
        begins = torch.arange(0, len(self.windows), RUN)
        for _ in range(self.repeats):
            for some in begins[torch.randperm(len(begins))].split(RUNS_AT_ONCE):
                mixed = torch.cat([torch.arange(begin, min(begin + RUN, len(self.windows))) for begin in some.tolist()])
                yield from mixed[torch.randperm(len(mixed))].split(self.size)


def randomised(inputs: Tensor, fraction: float, characters: int) -> Tensor:
    """Codes of which each is replaced by a random one with the probability `fraction`."""
    if fraction == 0:
        return inputs
    return torch.where(torch.rand(inputs.shape) < fraction, torch.randint(characters, inputs.shape), inputs)


def as_numbers(inputs: Tensor, characters: int = 128, axis: Literal["none", "channel", "character"] = "none") -> Tensor:
    """Codes [B, T] as numbers in [-1, 1], for networks of your own.

    With an axis for channels, [B, 1, T], they fit a convolution; with one for what is known of a character, [B, T, 1],
    a network that sees characters one by one.

    >>> as_numbers(torch.tensor([[0, 127]]))
    tensor([[-0.9922,  0.9922]])
    """
    check_whole(characters=characters)
    if axis not in ("none", "channel", "character"):
        raise InputError(f"axis={axis!r}: must be one of none, channel, character")
    numbers = middles(number_tensor("inputs", inputs), characters, torch.float32)
    if axis == "none":
        return numbers
    if numbers.ndim != 2:
        raise InputError(f"inputs of shape {tuple(numbers.shape)}: an axis={axis!r} stands in rows of codes, [B, T]")
    return numbers.unsqueeze(1 if axis == "channel" else 2)


class BayesLimit(NamedTuple):
    """The highest accuracy and the lowest loss [nats per character] of any model with this context on this text."""

    accuracy: float
    nats: float


def bayes_limit(windows: Windows) -> BayesLimit:
    """Return the best accuracy and loss that any model which sees only the inputs can reach on these examples.

    This is the Bayes-optimal classifier of the examples' own distribution: the share of targets that are the most
    frequent after their inputs, and the conditional entropy. Two examples with the same inputs and different targets
    cannot both be predicted, which bounds what can be memorised. Needs one target per example; holds all windows in
    memory at once.

    >>> from frugal.corpora import CharTokenizer
    >>> bayes_limit(Windows.sequence(CharTokenizer("ab"), ["abab"], context_length=1))
    BayesLimit(accuracy=1.0, nats=0.0)
    >>> bayes_limit(Windows.sequence(CharTokenizer("ab"), ["abaa"], context_length=1)).accuracy  # b or a follows a
    0.75
    """
    inputs, targets = (part.numpy() for part in windows[:])
    if targets.ndim > 1:
        raise InputError(f"windows: {targets.shape[1]} targets an example; give Windows.sequence(..), which has one")
    _, context = np.unique(inputs, axis=0, return_inverse=True)
    pairs, counts = np.unique(np.stack([context.ravel(), targets]), axis=1, return_counts=True)
    totals = np.bincount(pairs[0], weights=counts)
    best = np.zeros(len(totals))
    np.maximum.at(best, pairs[0], counts)
    nats = (counts * np.log(totals[pairs[0]] / counts)).sum()
    return BayesLimit(float(best.sum() / len(targets)), float(nats / len(targets)))


def _padded(
    tokenizer: Tokenizer, documents: Iterable[Document | str], before: int, after: int
) -> tuple[Tensor, Tensor]:
    """All documents in one row with document starts around each, and the places of their characters."""
    start = tokenizer.start_id
    tokens = row_of_tokens(
        torch.cat([torch.full((before - 1,), start), tokens, torch.full((after,), start)])
        for tokens in encode_each(tokenizer, documents)  # a document start stands in front already
    )
    if not len(tokens):
        raise InputError("documents: there are none; give at least one text")
    pieces = zip(count(0, MOST_TOKENS), tokens.split(MOST_TOKENS))
    return tokens, row_of_tokens((piece != start).nonzero().squeeze(1) + begin for begin, piece in pieces)
