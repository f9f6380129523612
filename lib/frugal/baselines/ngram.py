"""Interpolated modified Kneser-Ney n-grams over any tokeniser.

Chen and Goodman, "An empirical study of smoothing techniques for language modeling", 1998, section 4.1.6:

    p_k(w | h) = max(c(hw) - D(c(hw)), 0) / C(h) + [sum_v D(c(hv))] / C(h) * p_{k-1}(w | h without its first token)

with p_0 uniform over the vocabulary, counts c of the k-gram hw for the highest order, and for lower orders the number
of distinct tokens seen before hw. Three discounts D per order come from the counts of counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugal.corpora import Document, Tokenizer, encode_documents
from frugal.errors import InputError
from frugal.language_model import (
    LOGITS_AT_ONCE,
    LanguageModel,
    TargetScores,
    check_on_cpu,
    gather_targets,
    read_model,
    save_model,
)

Integers = NDArray[np.int64]
ABSENT = -1  # node of a sequence that the training text does not hold
SMALLEST = float(np.finfo(np.float32).tiny)
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


class NGram(LanguageModel):
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
        if order < 1:
            raise InputError(f"order={order}: must be at least 1; typical values are 3 for words, 6 for characters")
        self.order = order
        self.tokenizer = tokenizer
        self.vocabulary_size = tokenizer.vocabulary_size
        self.levels: list[Level] = []

    def fit(self, documents: Iterable[Document | str]) -> Self:
        """Count the n-grams of `documents`; a document's first tokens follow `order - 1` document starts."""
        tokens = self._padded(encode_documents(self.tokenizer, documents))
        keys, nodes = self._trie(tokens)
        predicted = tokens != self.tokenizer.start_id  # the document start is given, never predicted
        counts = np.bincount(nodes[-1][predicted], minlength=len(keys[-1]))
        all_counts = [counts]
        for k in range(self.order - 1, 0, -1):
            # Every distinct (k+1)-gram counts once for the k-gram that it ends with.
            _, place = np.unique(nodes[k + 1], return_index=True)
            place = place[predicted[place]]
            all_counts.insert(0, np.bincount(nodes[k][place], minlength=len(keys[k - 1])))
        self._set_counts(keys, all_counts)
        return self

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        return self.advance(tokens, self.start(len(tokens)))[0]

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
        return rows.view(*tokens.shape, -1), read[:, tokens.shape[1] :]

    def target_scores(self, tokens: Tensor) -> TargetScores:
        """As the protocol's, in bounded memory for rows of any length: an n-gram needs only the last few tokens."""
        length = max(1, LOGITS_AT_ONCE // (self.vocabulary_size * len(tokens)))
        pieces = []
        for begin in range(0, tokens.shape[1] - 1, length):
            history = min(begin, max(0, begin - self.order + 2))
            inputs = tokens[:, history : min(begin + length, tokens.shape[1] - 1)]
            pieces.append(
                gather_targets(
                    self.log_probabilities(inputs)[:, begin - history :], tokens[:, begin + 1 : begin + length + 1]
                )
            )
        return TargetScores(*(torch.cat(column, 1) for column in zip(*pieces, strict=True)))

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

    def _padded(self, documents: list[Tensor]) -> Integers:
        """All documents in one row, each after `order - 1` document starts (one comes with the document)."""
        start = self.tokenizer.start_id
        padding = torch.full((max(0, self.order - 2),), start)
        parts = [part for document in documents for part in (padding, document[1 if self.order == 1 else 0 :])]
        tokens = torch.cat(parts).numpy() if parts else np.empty(0, np.int64)
        if not (tokens != start).any():
            raise InputError("nothing to count: the training text is empty; give some text")
        return tokens

    def _trie(self, tokens: Integers) -> tuple[list[Integers], list[Integers]]:
        """Keys of every level, and per length k the node [T] of the k-gram that ends at each token.

        The first k - 1 places have no k-gram of their own; they are document starts, whose node is used nowhere.
        """
        keys: list[Integers] = []
        nodes = [np.full(len(tokens), ROOT)]
        for _ in range(self.order):
            parents = np.concatenate([nodes[-1][:1], nodes[-1][:-1]]) if keys else nodes[-1]
            level, node = np.unique(parents * self.vocabulary_size + tokens, return_inverse=True)
            keys.append(level)
            nodes.append(node)
        return keys, nodes

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
