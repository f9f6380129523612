"""Interpolated modified Kneser-Ney n-grams over any tokeniser.

Chen and Goodman, "An empirical study of smoothing techniques for language modeling", 1998, section 4.1.6:

    p_k(w | h) = max(c(hw) - D(c(hw)), 0) / C(h) + [sum_v D(c(hv))] / C(h) * p_{k-1}(w | h without its first token)

with p_0 uniform over the vocabulary, counts c of the k-gram hw for the highest order, and for lower orders the number
of distinct tokens seen before hw. Three discounts D per order come from the counts of counts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugal.corpora import Document, Tokenizer, encode_each
from frugal.errors import InputError, check_whole
from frugal.language_model import AdvancingModel, check_on_cpu, read_model, save_model

Integers = NDArray[np.int64]
ABSENT = -1  # node of a sequence that the training text does not hold
SMALLEST = float(np.finfo(np.float32).tiny)
TOKENS_AT_ONCE = 1 << 22  # that are counted
ROOT = 0  # node of the empty sequence


@dataclass(frozen=True)
class Level:
    """All k-grams of one length, a level of a trie: the k-gram with node i has key parent_node * V + last_token.

    The keys are sorted, so the tokens seen after one parent lie side by side.
    """

    keys: Integers  # [nodes]
    discounted: NDArray[np.float32]  # [nodes], (c - D(c)) / C(parent)
    backoff: NDArray[np.float32]  # [parents], the weight of the next lower order; 1 where nothing was seen
    first_child: Integers  # [parents + 1], children of parent p are first_child[p] .. first_child[p + 1]


class Trie(NamedTuple):
    """The k-grams of every length, as the keys of `Level`, and how often the longest stand in the text."""

    keys: list[Integers]
    counts: Integers


class NGram(AdvancingModel):
    """Modified Kneser-Ney n-gram; `order=1` is a unigram.

    Args:
        order: longest n-gram counted; predictions look back on `order - 1` tokens.
        tokenizer: any tokeniser.

    >>> from frugal.corpora import CharTokenizer
    >>> model = NGram(3, CharTokenizer.ascii()).fit(["the cat sat on the mat"])
    >>> tokens = model.tokenizer.encode("th")[None]
    >>> model.tokenizer.decode(model.log_probabilities(tokens)[0, -1].argmax()[None])  # after "th"
    'e'
    """

    def __init__(self, order: int, tokenizer: Tokenizer) -> None:
        check_whole(order=order)
        self.order = order
        self.tokenizer = tokenizer
        self.vocabulary_size = tokenizer.vocabulary_size
        self.levels: list[Level] = []

    def fit(self, documents: Iterable[Document | str]) -> Self:
        """Count the n-grams of `documents`; a document's first tokens follow `order - 1` document starts.

        Memory holds the distinct n-grams, and a few million tokens at a time.
        """
        tries: list[Trie] = []
        for tokens in self._pieces(documents):
            trie = self._trie(tokens)
            while tries and len(tries[-1].counts) < 2 * len(trie.counts):  # so that each is merged a few times only
                trie = self._merged(tries.pop(), trie)
            tries.append(trie)
        while len(tries) > 1:
            tries.append(self._merged(tries.pop(), tries.pop()))
        if not tries or not tries[0].counts.any():
            raise InputError("nothing to count: the training text is empty; give some text")
        self._set_counts(tries[0].keys, self._all_counts(tries.pop()))
        return self

    def start(self, batch_size: int) -> Tensor:
        """The state is the last `order - 1` tokens, [B, order - 1]."""
        return torch.full((batch_size, self.order - 1), self.tokenizer.start_id)

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.cat([state, tokens.unsqueeze(1)], 1)[:, 1:]
        return self._log_probabilities(state), state

    def advance(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        read = torch.cat([state, tokens], 1)
        histories = read.unfold(1, self.order, 1)[..., 1:]  # [B, T, order - 1], the tokens before each target
        rows = self._log_probabilities(histories.flatten(0, 1))
        return rows.view(*tokens.shape, self.vocabulary_size), read[:, tokens.shape[1] :]

    def save(self, folder: Path | str) -> None:
        self._check_fitted()
        weights = {f"keys.{k}": torch.from_numpy(level.keys) for k, level in enumerate(self.levels, 1)}
        weights |= {f"counts.{k}": torch.from_numpy(counts) for k, counts in enumerate(self.counts, 1)}
        card = f"# Modified Kneser-Ney {self.order}-gram\n\n{len(self.levels[-1].keys):,} distinct {self.order}-grams."
        save_model(folder, self, weights, {"order": self.order}, card)

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "cpu") -> Self:
        check_on_cpu(cls, device)
        weights, config, tokenizer = read_model(folder, cls)
        model = cls(config["order"], tokenizer)
        orders = range(1, model.order + 1)
        model._set_counts(
            [weights[f"keys.{k}"].numpy() for k in orders], [weights[f"counts.{k}"].numpy() for k in orders]
        )
        return model

    def _pieces(self, documents: Iterable[Document | str]) -> Iterator[Integers]:
        """All documents in rows, each after `order - 1` document starts; a row repeats the end of the one before."""
        history = self.order - 1
        padding = np.full(max(0, history - 1), self.tokenizer.start_id)  # one start comes with the document
        row, size = [], 0
        for document in encode_each(self.tokenizer, documents):
            tokens = document[0 if history else 1 :].numpy()
            row += [padding, tokens]
            size += len(tokens)
            if size >= TOKENS_AT_ONCE:
                joined = np.concatenate(row)
                yield joined
                row, size = [joined[len(joined) - history :]], 0
        if size:
            yield np.concatenate(row)

    def _trie(self, tokens: Integers) -> Trie:
        """All k-grams of a row; those that end in a document start are never counted: it is given, not predicted."""
        keys: list[Integers] = []
        parents = np.full(len(tokens), ROOT)
        for k in range(self.order):
            level, nodes = np.unique(parents * self.vocabulary_size + tokens[k:], return_inverse=True)
            keys.append(level)
            parents = nodes[:-1]
        predicted = tokens[self.order - 1 :] != self.tokenizer.start_id
        return Trie(keys, np.bincount(nodes[predicted], minlength=len(level)))

    def _merged(self, one: Trie, other: Trie) -> Trie:
        keys: list[Integers] = []
        first = second = np.array([ROOT])  # the nodes that either's nodes become
        for one_level, other_level in zip(one.keys, other.keys, strict=True):
            one_moved, other_moved = self._under(first, one_level), self._under(second, other_level)
            level = np.union1d(one_moved, other_moved)
            first, second = np.searchsorted(level, one_moved), np.searchsorted(level, other_moved)
            keys.append(level)
        counts = np.zeros(len(level), np.int64)
        counts[first] += one.counts
        counts[second] += other.counts
        return Trie(keys, counts)

    def _under(self, new: Integers, level: Integers) -> Integers:
        """The keys of a level whose parents have new nodes."""
        parent, token = np.divmod(level, self.vocabulary_size)
        return new[parent] * self.vocabulary_size + token

    def _all_counts(self, trie: Trie) -> list[Integers]:
        """The counts of every length: below the longest, how many distinct (k+1)-grams end with a k-gram."""
        counts = []
        ending = np.full(len(trie.keys[0]), ROOT)  # for each k-gram, the node of what follows its first token
        for shorter, longer in pairwise(trie.keys):
            ending = np.searchsorted(shorter, self._under(ending, longer))
            predicted = longer % self.vocabulary_size != self.tokenizer.start_id
            counts.append(np.bincount(ending[predicted], minlength=len(shorter)))
        return [*counts, trie.counts]

    def _set_counts(self, keys: list[Integers], counts: list[Integers]) -> None:
        self.counts = counts
        self.levels = []
        parents = 1
        for level_keys, level_counts in zip(keys, counts, strict=True):
            self.levels.append(_level(level_keys, level_counts, parents, self.vocabulary_size))
            parents = len(level_keys)

    def _check_fitted(self) -> None:
        if not self.levels:
            raise InputError("this n-gram has counted nothing yet: call `fit` first")

    def _nodes(self, histories: Integers) -> Integers:
        """Nodes [R] of token rows [R, L] in the trie, `ABSENT` where the text does not hold them."""
        nodes = np.full(len(histories), ROOT)
        for column, level in zip(histories.T, self.levels, strict=False):
            wanted = nodes * self.vocabulary_size + column
            found = np.minimum(np.searchsorted(level.keys, wanted), len(level.keys) - 1)
            nodes = np.where((nodes != ABSENT) & (level.keys[found] == wanted), found, ABSENT)
        return nodes

    def _log_probabilities(self, histories: Tensor) -> Tensor:
        """Log-probabilities [R, V] after histories [R, order - 1]."""
        self._check_fitted()
        rows = histories.numpy()
        probabilities = np.full((len(rows), self.vocabulary_size), 1 / self.vocabulary_size, dtype=np.float32)
        for k, level in enumerate(self.levels, 1):
            nodes = self._nodes(rows[:, self.order - k :])  # of the last k - 1 tokens
            known = np.flatnonzero(nodes != ABSENT)
            parents = nodes[known]
            probabilities[known] *= level.backoff[parents, None]
            sizes = level.first_child[parents + 1] - level.first_child[parents]
            children = np.repeat(level.first_child[parents] - (sizes.cumsum() - sizes), sizes) + np.arange(sizes.sum())
            token = level.keys[children] % self.vocabulary_size
            probabilities[np.repeat(known, sizes), token] += level.discounted[children]
        return torch.from_numpy(probabilities).clamp_min_(SMALLEST).log()  # hundreds of backoffs leave float32


def _level(keys: Integers, counts: Integers, parents: int, vocabulary_size: int) -> Level:
    parent = keys // vocabulary_size
    discount = _discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(parent, weights=counts, minlength=parents)
    taken = np.bincount(parent, weights=discount, minlength=parents)
    seen = np.maximum(total, 1)
    return Level(
        keys=keys,
        discounted=((counts - discount) / seen[parent]).astype(np.float32),
        backoff=np.where(total > 0, taken / seen, 1).astype(np.float32),
        first_child=np.searchsorted(parent, np.arange(parents + 1)),
    )


def _discounts(counts: Integers) -> NDArray[np.float64]:
    """What is taken from counts of 0, 1, 2 and 3 or more (Chen and Goodman, equation 26)."""
    n1, n2, n3, n4 = np.bincount(counts, minlength=5)[1:5]
    if min(n1, n2, n3, n4) == 0:
        # Too small a text for the estimate: the middle of the range that a discount of a count of 1 can take.
        return np.array([0, 0.5, 0.5, 0.5])
    y = n1 / (n1 + 2 * n2)
    estimate = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    return np.array([0, *np.clip(estimate, [0.01, 0.01, 0.01], [0.99, 1.99, 2.99])])
