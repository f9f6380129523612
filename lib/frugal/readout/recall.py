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

from frugal.baselines.cache import earlier_in_document
from frugal.corpora import Document, Tokenizer, encode_documents, words_and_space
from frugal.errors import InputError, check_whole
from frugal.language_model import LanguageModel
from frugal.readout.probes import Probe
from frugal.tensors import number_tensor

NAMES = ("Anna", "Tom", "Mary", "Paul", "Lucy", "Mark", "Emma", "Jack")
COLOURS = (" red", " green", " blue", " white", " black", " yellow", " brown", " pink")


@dataclass(frozen=True)
class RecallTask(Probe):
    """Documents, each with one colour to remember, whose number in COLOURS is the label; the answer stands at the end.

    Attributes:
        asked: the row of each document's states before the answer.
        first_ids: the token that each colour begins with, [8].

    Example:
        >>> from frugal.corpora import CharTokenizer
        >>> source = [Document("filler", "words that say nothing of any colour")]
        >>> task = RecallTask.make(CharTokenizer.ascii(), source, count=8, filler_words=3, seed=0)
        >>> task.texts[0].endswith(COLOURS[task.labels[0]]), task.until_asked(0).shape == (1, task.asked[0] + 1)
        (True, True)
    """

    asked: tuple[int, ...]
    first_ids: Tensor

    @classmethod
    def make(cls, tokenizer: Tokenizer, source: Sequence[Document], count: int, filler_words: int, seed: int) -> Self:
        """`count` documents with fillers of `filler_words` words, begun anywhere in the text of `source`.

        A source that is shorter than a filler is repeated.

        Raises:
            InputError: too few documents for three parts, no filler words, or no words in the source.
        """
        check_whole(8, count=count)  # for three parts
        check_whole(filler_words=filler_words)
        check_whole(0, seed=seed)
        words, space = words_and_space(" ".join(document.text for document in source))
        if not words:
            raise InputError("source: must have words in it, which the fillers are made of")
        words *= filler_words // len(words) + 1
        random = np.random.default_rng(seed)
        texts, colours, said, asked = [], [], [], []
        ids = [tokenizer.encode(colour) for colour in COLOURS]
        for _ in range(count):
            name, colour = random.choice(NAMES), int(random.integers(len(COLOURS)))
            begin = int(random.integers(len(words) - filler_words))
            told = f"The ball in {name}'s box is{COLOURS[colour]}"
            texts.append(f"{told}. {space.join(words[begin : begin + filler_words])}. {told}")
            colours.append(colour)
            said.append(len(tokenizer.encode(told)))
            asked.append(len(tokenizer.encode(texts[-1])) - len(ids[colour]))
        tokens = tuple(encode_documents(tokenizer, texts))
        first_ids = torch.stack([tokens[0] for tokens in ids])
        return cls(
            tuple(texts), tokens, tuple(colours), tuple(said), len(COLOURS), asked=tuple(asked), first_ids=first_ids
        )

    def until_asked(self, number: int) -> Tensor:
        """Document `number` up to its question, [1, T]."""
        return self.tokens[number][None, : self.asked[number] + 1]

    def follows_most_similar(self, keys: Tensor, number: int, theta: float = 20.0) -> bool:
        """Whether of all colours document `number` holds the right one followed the states most like the last.

        `keys` [T, D] are compared by the cosine; theta is the inverse temperature.
        """
        asked = self.asked[number]
        rows, following = number_tensor("keys", keys)[: asked + 1], self.tokens[number][1 : asked + 1]
        unit = normalize(rows if rows.is_floating_point() else rows.float(), dim=-1)
        past = earlier_in_document(unit, following, asked, asked + 1)
        found = [past.probability(token, theta).item() for token in self.first_ids.split(1)]
        return int(np.argmax(found)) == self.labels[number]

    @torch.inference_mode()
    def share_named(self, model: LanguageModel, numbers: Sequence[int]) -> float:
        """Share of these documents whose colour a model ranks above the others, after reading up to the question."""
        asked = ((n, self.until_asked(n).to(model.device)) for n in numbers)
        return float(np.mean([self.names_colour(model.log_probabilities(read)[0, -1].cpu(), n) for n, read in asked]))

    def names_colour(self, logits: Tensor, number: int) -> bool:
        """Whether logits [V] after the question rank the right colour of document `number` above the others."""
        return int(logits[self.first_ids].argmax()) == self.labels[number]
