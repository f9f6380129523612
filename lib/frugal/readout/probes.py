"""What states hold, read by ridge readouts: what was said, what was read k tokens ago, which article goes on.

A half of a probe's documents is for fitting, an eighth for choosing the penalty, the rest is scored.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor

from frugal.corpora import Document, Tokenizer, encode_documents, words_and_space
from frugal.errors import InputError, check_list, check_whole
from frugal.readout.ridge import RidgeReadout
from frugal.ridge.statistics import RidgeStatistics
from frugal.tensors import number_tensor, token_tensor

Labelled = list[tuple[Tensor, Tensor]]


def parts_of(count: int) -> tuple[range, range, range]:
    """Numbers of the documents for fitting, for choosing and to score."""
    half, more = count // 2, count * 5 // 8
    return range(half), range(half, more), range(more, count)


def ridge_hits(fitting: Labelled, choosing: Labelled, scoring: Labelled, classes: int) -> list[Tensor]:
    """Whether a ridge readout names the class of each row; pairs are (states [n, D], classes [n])."""
    fitted = RidgeStatistics.collect(fitting, classes)
    readout = RidgeReadout.fit(fitted, validation=RidgeStatistics.collect(choosing, classes))
    return [readout.values(rows).argmax(1) == labels for rows, labels in scoring]


@dataclass(frozen=True)
class Probe:
    """Documents that each have something to know, from some token on.

    Attributes:
        texts: the documents; tokens: of each, [1 + T], with the start token in front.
        labels: what is to be known of each, numbers of `classes`.
        said: the row of each document's states from which on it can be known.

    Example:
        >>> from frugal.corpora import CharTokenizer
        >>> articles = [Document(name, f"{name} " * 40) for name in ("apple", "pear")]
        >>> shift = Probe.topic_shift(CharTokenizer.ascii(), articles, count=16, words=3, seed=0, topics=2)
        >>> shift.texts[0], shift.labels[0]
        ('pear pear pear apple apple apple', 0)
        >>> perfect = [torch.eye(2)[[label] * len(tokens)] for label, tokens in zip(shift.labels, shift.tokens)]
        >>> shift.share_known(shift.known(perfect, shift.parts[2]), after=0)
        1.0
    """

    texts: tuple[str, ...]
    tokens: tuple[Tensor, ...]
    labels: tuple[int, ...]
    said: tuple[int, ...]
    classes: int

    @property
    def parts(self) -> tuple[range, range, range]:
        """Numbers of the documents for fitting, for choosing and to score."""
        return parts_of(len(self.texts))

    def known(self, states: Sequence[Tensor], score: range) -> list[Tensor]:
        """Whether a ridge readout of states [T, D] names the label, at each token since it was said.

        The readout is fitted to all states since then of the first part, and its penalty chosen on the second;
        `score` says which documents are asked.
        """
        states = [number_tensor("states", rows) for rows in states]
        pieces = [(rows[said:], label) for rows, said, label in zip(states, self.said, self.labels, strict=True)]
        pairs = [(rows, torch.full((len(rows),), label)) for rows, label in pieces]
        fitting, choosing, _ = ([pairs[i] for i in part] for part in self.parts)
        return ridge_hits(fitting, choosing, [pairs[i] for i in score], self.classes)

    @staticmethod
    def share_known(known: Sequence[Tensor], after: int) -> float:
        """Share of `known` that holds, from `after` tokens after the statements on.

        Raises:
            InputError: no document is so long.
        """
        check_whole(0, after=after)
        hits = torch.cat([torch.zeros(0), *(hits[after:] for hits in known)])
        if not len(hits):
            raise InputError(f"after={after}: no document goes on for so long; take fewer tokens")
        return hits.float().mean().item()

    @classmethod
    def topic_shift(
        cls, tokenizer: Tokenizer, source: Sequence[Document], count: int, words: int, seed: int, topics: int = 8
    ) -> Self:
        """`count` documents of `words` words of one article and as many of another, which is to be named.

        The articles are the longest of `source`, or where too few are long enough, parts of its text of equal length.
        The documents to be scored come from their ends, which no readout is fitted to. Of articles too short even so,
        fewer words are taken, with a warning.

        Raises:
            InputError: too few documents for three parts, or next to no words.
        """
        check_whole(8, count=count)  # for three parts
        check_whole(words=words)
        check_whole(0, seed=seed)
        check_whole(2, topics=topics)
        given = [words_and_space(document.text) for document in source]
        articles = sorted((words for words, _ in given), key=len, reverse=True)[:topics]
        fitted = 5 / 8  # of the documents, and so of each article
        if len(articles) < topics or len(articles[-1]) * (1 - fitted) <= words:
            text = [word for words, _ in given for word in words]
            articles = [text[part * len(text) // topics : (part + 1) * len(text) // topics] for part in range(topics)]
        shortest = min(map(len, articles))
        if shortest < 8:
            raise InputError(f"source: {topics} topics need a text of {8 * topics} words or more")
        most = math.ceil(shortest * (1 - fitted)) - 1
        if words > most:
            warnings.warn(f"the text is short: {most} words of either article are taken, not {words}", stacklevel=2)
            words = most
        space = given[0][1]
        random, texts, said, labels = np.random.default_rng(seed), [], [], []
        for number in range(count):
            after = number % topics  # so that every topic is as frequent as any other in each part
            before = (after + int(random.integers(1, topics))) % topics
            halves = []
            for article in (articles[before], articles[after]):
                border, fits = int(len(article) * fitted), number < parts_of(count)[2].start
                first, last = (0, border - words) if fits else (border, len(article) - words)
                begin = int(random.integers(first, last))
                halves.append(space.join(article[begin : begin + words]))
            texts.append(space.join(halves))
            said.append(len(tokenizer.encode(halves[0])) + 1)
            labels.append(after)
        return cls(tuple(texts), tuple(encode_documents(tokenizer, texts)), tuple(labels), tuple(said), topics)


def copied_share(
    states: Sequence[Tensor], tokens: Sequence[Tensor], delays: Sequence[int], classes: int = 64
) -> dict[int, float]:
    """Delayed copy: how often a ridge readout of the states names the token that was read `delay` tokens ago.

    Args:
        states: [T, D] of each document; row t is that after token t.
        tokens: of each document, at least T.
        delays: 0 asks for the token just read.
        classes: so many of the most common tokens are asked for, the others are passed over.

    Raises:
        InputError: too few documents for three parts, no delays, or one that is negative or that none of them is
            longer than.

    Example:
        >>> tokens = [torch.randint(4, (100,), generator=torch.Generator().manual_seed(seed)) for seed in range(8)]
        >>> found = copied_share([torch.eye(4)[document] for document in tokens], tokens, delays=[0, 1])
        >>> found[0], found[1] < 0.5  # such states hold the token just read and nothing before it
        (1.0, True)
    """
    check_list(partial(check_whole, 0), delays=delays)
    check_whole(classes=classes)
    if len(states) < 4:
        raise InputError(f"{len(states)} documents: needs at least 4, to fit, to choose and to score")
    states = [number_tensor("states", rows) for rows in states]
    tokens = [token_tensor("tokens", document) for document in tokens]
    common = torch.cat([document.cpu() for document in tokens]).bincount().argsort(descending=True)[:classes]
    found = {}
    for delay in delays:
        pairs: Labelled = []
        for rows, document in zip(states, tokens, strict=True):
            same = document[: max(0, len(rows) - delay), None].cpu() == common  # [T - delay, classes]
            asked, labels = same.nonzero(as_tuple=True)
            pairs.append((rows[asked + delay], labels))
        fitting, choosing, scoring = ([pairs[i] for i in part] for part in parts_of(len(pairs)))
        if not all(sum(len(labels) for _, labels in part) for part in (fitting, choosing, scoring)):
            raise InputError(f"delay={delay}: too long for these documents; give shorter delays or longer documents")
        found[delay] = torch.cat(ridge_hits(fitting, choosing, scoring, len(common))).float().mean().item()
    return found
