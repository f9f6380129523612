"""The sequence-level mixture of two language models: what a mediator converges to, known exactly.

    M(s) = (P(s) + G(s)) / 2,    M(v | s) = a(s) P(v | s) + (1 - a(s)) G(v | s),    a(s) = P(s) / (P(s) + G(s))

Mixing sequences is not mixing next-token distributions with equal weights: the weight a(s) is the probability that the
prefix s came from P, and it moves as s grows.
"""

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from frugal.combine.pair import Pair
from frugal.language_model import AdvancingModel, LanguageModel


class RatioState(NamedTuple):
    """State of two models side by side, and how much likelier the first has found what was read."""

    pair: Any
    log_ratio: Tensor  # [B]; 0 at the start
    last: tuple[Tensor, Tensor] | None  # log-probabilities [B, V] of the next token by both; None at the start


class TwoModels(AdvancingModel):
    """A language model made of two others, which decide token by token with the likelihood ratio of what was read.

    Nothing in it is learned: save the two models instead.
    """

    def __init__(self, first: LanguageModel, second: LanguageModel) -> None:
        self.pair = Pair(first, second)
        self.tokenizer, self.vocabulary_size, self.device = first.tokenizer, first.vocabulary_size, first.device
        limits = [model.context_length for model in (first, second) if model.context_length is not None]
        self.context_length = min(limits, default=None)

    @abstractmethod
    def combine(self, log_first: Tensor, log_second: Tensor, log_ratio: Tensor) -> Tensor:
        """Log-probabilities [.., V] from those of the two models and the log of their ratio so far, [..]."""

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        nothing = torch.zeros(len(tokens), device=self.device)
        return self._combined(*self.pair.scores(tokens), tokens, nothing, None)[0]

    def start(self, batch_size: int) -> RatioState:
        return RatioState(self.pair.start(batch_size), torch.zeros(batch_size, device=self.device), None)

    def advance(self, tokens: Tensor, state: RatioState) -> tuple[Tensor, RatioState]:
        first, second, inner = self.pair.advance(tokens, state.pair)
        rows, log_ratio = self._combined(first, second, tokens, state.log_ratio, state.last)
        return rows, RatioState(inner, log_ratio[:, -1], (first[:, -1], second[:, -1]))

    def _combined(
        self,
        first: Tensor,
        second: Tensor,
        tokens: Tensor,
        log_ratio: Tensor,
        last: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities [B, T, V] after tokens [B, T], and the log ratios [B, T] by then.

        Args:
            first, second: log-probabilities [B, T, V] by the two models.
            log_ratio, last: before these tokens, as in the state.
        """
        before = [rows[:, :-1] for rows in (first, second)]
        if last is not None:
            before = [torch.cat([row.unsqueeze(1), rows], 1) for row, rows in zip(last, before, strict=True)]
        read = tokens[:, tokens.shape[1] - before[0].shape[1] :, None]
        by_first, by_second = (rows.gather(2, read).squeeze(2) for rows in before)
        # A token that neither ever writes tells nothing. So do one that only the first writes and one that only the
        # second writes together: infinity less infinity is made zero where the ratio is used.
        gains = (by_first - by_second).masked_fill((by_first == -math.inf) & (by_second == -math.inf), 0)
        log_ratios = torch.cat([log_ratio.unsqueeze(1), gains], 1).cumsum(1)[:, -tokens.shape[1] :]
        return self.combine(first, second, log_ratios.nan_to_num(0, math.inf, -math.inf)), log_ratios


class Mixture(TwoModels):
    """Half the sequences of one model and half of another: for data P and generator G the perfect mediator.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> first, second = (NGram(2, CharTokenizer("ab")).fit([text]) for text in ("aaaa", "bbbb"))
        >>> sequence = torch.tensor([[2, 0, 1]])  # the start, then "ab"
        >>> mixed = Mixture(first, second).target_log_probabilities(sequence).sum().exp()
        >>> halves = [model.target_log_probabilities(sequence).sum().exp() / 2 for model in (first, second)]
        >>> torch.allclose(mixed, sum(halves))
        True
    """

    def combine(self, log_first: Tensor, log_second: Tensor, log_ratio: Tensor) -> Tensor:
        from_first, from_second = logsigmoid(log_ratio).unsqueeze(-1), logsigmoid(-log_ratio).unsqueeze(-1)
        return torch.logaddexp(from_first + log_first, from_second + log_second)
