"""A task that cannot be solved without memory: recall what was said before the window began.

    The ball in Mary's box is green. <filler> The ball in Mary's box is ...

The filler pushes the statement out of a short window, so that only a state that was carried on knows the colour.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from frugal.corpora import Document, Tokenizer, encode_documents
from frugal.errors import InputError
from frugal.readout.ridge import RidgeReadout
from frugal.readout.statistics import RidgeStatistics

NAMES = ("Anna", "Tom", "Mary", "Paul", "Lucy", "Mark", "Emma", "Jack")
COLOURS = (" red", " green", " blue", " white", " black", " yellow", " brown", " pink")


@dataclass(frozen=True)
class RecallTask:
    """Documents, each with one colour to remember; a half is for fitting, an eighth for choosing, the rest to score.

    Attributes:
        texts: the documents; tokens: of each, [1 + T], with the start token in front and the answer at the end.
        colours: the right answers, numbers of COLOURS.
        said: the row of each document's states after which its colour is known; asked: the row before the answer.
        first_ids: the token that each colour begins with, [8].
    """

    texts: tuple[str, ...]
    tokens: tuple[Tensor, ...]
    colours: tuple[int, ...]
    said: tuple[int, ...]
    asked: tuple[int, ...]
    first_ids: Tensor

    @classmethod
    def make(cls, tokenizer: Tokenizer, source: Sequence[Document], count: int, filler_words: int, seed: int) -> Self:
        """`count` documents with fillers of `filler_words` words, begun anywhere in the text of `source`.

        Raises:
            InputError: too few documents for three parts, or too short a source.
        """
        words = " ".join(document.text for document in source).split()
        if count < 8 or not 1 <= filler_words < len(words):
            raise InputError(
                f"count={count}, filler_words={filler_words}: needs at least 8 documents, and 1 to {len(words) - 1} "
                "words of this source"
            )
        random = np.random.default_rng(seed)
        texts, colours, said, asked = [], [], [], []
        ids = [tokenizer.encode(colour) for colour in COLOURS]
        for _ in range(count):
            name, colour = random.choice(NAMES), int(random.integers(len(COLOURS)))
            begin = int(random.integers(len(words) - filler_words))
            told = f"The ball in {name}'s box is{COLOURS[colour]}"
            texts.append(f"{told}. {' '.join(words[begin : begin + filler_words])}. {told}")
            colours.append(colour)
            said.append(len(tokenizer.encode(told)))
            asked.append(len(tokenizer.encode(texts[-1])) - len(ids[colour]))
        tokens = tuple(encode_documents(tokenizer, texts))
        first_ids = torch.stack([tokens[0] for tokens in ids])
        return cls(tuple(texts), tokens, tuple(colours), tuple(said), tuple(asked), first_ids)

    @property
    def parts(self) -> tuple[range, range, range]:
        """Numbers of the documents for fitting, for choosing and to score."""
        half, more = len(self.texts) // 2, len(self.texts) * 5 // 8
        return range(half), range(half, more), range(more, len(self.texts))

    def known(self, states: Sequence[Tensor], score: range) -> list[Tensor]:
        """Whether a ridge readout of states [T, D] names the colour, after each token since it was said.

        The readout is fitted to all states after the statements of the first part, and its penalty chosen on the
        second; `score` says which documents are asked.
        """
        fitting, choosing, _ = self.parts
        fitted = RidgeStatistics.collect(self._after_statements(states, fitting), len(COLOURS))
        chosen = RidgeStatistics.collect(self._after_statements(states, choosing), len(COLOURS))
        readout = RidgeReadout.fit(fitted, validation=chosen)
        return [readout.values(x).argmax(1) == y for x, y in self._after_statements(states, score)]

    def until_asked(self, number: int) -> Tensor:
        """Document `number` up to its question, [1, T]."""
        return self.tokens[number][None, : self.asked[number] + 1]

    @staticmethod
    def share_known(known: Sequence[Tensor], after: int) -> float:
        """Share of `known` that holds, from `after` tokens after the statements on."""
        return torch.cat([hits[after:] for hits in known]).float().mean().item()

    def follows_most_similar(self, keys: Tensor, number: int, theta: float = 20.0) -> bool:
        """Whether of all colours document `number` holds the right one followed the states most like the last.

        `keys` [T, D] are compared by the cosine; theta is the inverse temperature.
        """
        asked = self.asked[number]
        unit, following = normalize(keys[: asked + 1], dim=-1), self.tokens[number][1 : asked + 1]
        attention = (theta * unit[-1] @ unit[:-1].T).softmax(0)  # [asked]
        found = (attention.unsqueeze(1) * (following.unsqueeze(1) == self.first_ids)).sum(0)
        return int(found.argmax()) == self.colours[number]

    def names_colour(self, logits: Tensor, number: int) -> bool:
        """Whether logits [V] after the question rank the right colour of document `number` above the others."""
        return int(logits[self.first_ids].argmax()) == self.colours[number]

    def _after_statements(self, states: Sequence[Tensor], chosen: range) -> list[tuple[Tensor, Tensor]]:
        pieces = [(states[i][self.said[i] :], self.colours[i]) for i in chosen]
        return [(rows, torch.full((len(rows),), colour)) for rows, colour in pieces]
