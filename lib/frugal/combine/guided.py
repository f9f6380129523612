"""Guide text: a language model that leans towards what it would say after reading another text first.

    log p(w | tokens) = (1 - weight) * log p(w | tokens) + weight * log p(w | guide, tokens) - log Z

Whatever takes a language model takes a guided one.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from frugal.errors import InputError, is_number
from frugal.language_model import LanguageModel, check_model


class GuidedState(NamedTuple):
    """States of the model's two streams: with the tokens alone, and with the guide read before them."""

    alone: Any
    guided: Any


class Guided(LanguageModel):
    """A model mixed, in log-probabilities, with itself after reading a guide text. Each token costs twice.

    In the guided stream a line end stands for the start of a document, so that the guide is not forgotten there.
    A model with a limited context forgets it when it slides out of view.

    Args:
        model: any language model.
        guide: the text to be read first.
        weight: of the guided stream, 0 to 1; 0 is the model itself.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> model = NGram(3, CharTokenizer("abc\\n")).fit(["abcabc", "acbacb"])
        >>> guided = Guided(model, "acb", weight=0.5)
        >>> guided.log_probabilities(torch.tensor([[model.tokenizer.start_id, 0]])).exp().sum(-1).round(decimals=4)
        tensor([[1., 1.]])
    """

    def __init__(self, model: LanguageModel, guide: str, *, weight: float = 0.5) -> None:
        check_model(model)
        if not (isinstance(guide, str) and guide.strip()):
            raise InputError(f"guide={guide!r}: must hold some text; leave the guide out to have none")
        if not (is_number(weight) and 0 <= weight <= 1):
            raise InputError(f"weight={weight}: must be from 0 to 1; typical values lie in 0.2 to 0.8")
        self.model, self.weight = model, weight
        self.tokenizer, self.vocabulary_size, self.device = model.tokenizer, model.vocabulary_size, model.device
        text = self.tokenizer.encode(f"{guide.rstrip()}\n").to(self.device)
        self.line_end = text[-1]
        self.guide = torch.cat([text.new_tensor([self.tokenizer.start_id]), text])  # [G]
        if model.context_length is not None:
            self.context_length = model.context_length - len(self.guide)
            if self.context_length < 1:
                raise InputError(
                    f"the guide has {len(text)} tokens: must have fewer than the model's context of "
                    f"{model.context_length}; shorten it"
                )

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        guide = self.guide.expand(len(tokens), -1)
        guided = self.model.log_probabilities(torch.cat([guide, self._guided(tokens)], 1))[:, len(self.guide) :]
        return self._mixture(self.model.log_probabilities(tokens), guided)

    def start(self, batch_size: int) -> GuidedState:
        start = self.model.start(batch_size)
        _, guided = self.model.feed(self.guide.expand(batch_size, -1), start)
        return GuidedState(start, guided)

    def step(self, tokens: Tensor, state: GuidedState) -> tuple[Tensor, GuidedState]:
        return self.feed(tokens.unsqueeze(1), state)

    def feed(self, tokens: Tensor, state: GuidedState) -> tuple[Tensor, GuidedState]:
        logits, alone = self.model.feed(tokens, state.alone)
        guided_logits, guided = self.model.feed(self._guided(tokens), state.guided)
        return self._mixture(logits, guided_logits), GuidedState(alone, guided)

    def advance(self, tokens: Tensor, state: GuidedState) -> tuple[Tensor, GuidedState]:
        rows, alone = self.model.advance(tokens, state.alone)
        guided_rows, guided = self.model.advance(self._guided(tokens), state.guided)
        return self._mixture(rows, guided_rows), GuidedState(alone, guided)

    def _guided(self, tokens: Tensor) -> Tensor:
        return tokens.where(tokens != self.tokenizer.start_id, self.line_end)

    def _mixture(self, logits: Tensor, guided: Tensor) -> Tensor:
        """Log-probabilities [.., V] of two rows of logits [.., V]."""
        lowest = torch.finfo(logits.dtype).min  # zero times minus infinity would be no number
        alone, guided = (row.log_softmax(-1).clamp_min(lowest) for row in (logits, guided))
        return ((1 - self.weight) * alone + self.weight * guided).log_softmax(-1)
