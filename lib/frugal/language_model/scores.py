"""How well tokens were predicted, out of log-probabilities of the whole vocabulary."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Nobody holds [tokens, V] for a whole text: logits are made and used in pieces of about this many numbers.
LOGITS_AT_ONCE = 2**25


class TargetScores(NamedTuple):
    """How well each token was predicted from those before it; row t is about token t + 1.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> model = NGram(2, CharTokenizer("ab")).fit(["abababab"])
        >>> scores = model.target_scores(torch.tensor([[2, 0, 1, 1]]))  # the start, then "abb"
        >>> scores.ranks
        tensor([[0, 0, 1]])
    """

    log_probabilities: Tensor  # [B, T-1], natural logarithm
    ranks: Tensor  # [B, T-1], how many tokens were ranked before it; 0 is a top-1 hit
    likeliest: Tensor  # [B, T-1], the token that was ranked first

    @classmethod
    def joined(cls, pieces: Sequence["TargetScores"], dim: int = 0) -> "TargetScores":
        """Pieces of scores one after the other."""
        return cls(*(torch.cat(column, dim) for column in zip(*pieces, strict=True)))

    def cpu(self) -> "TargetScores":
        """The same in main memory."""
        return TargetScores(*(column.cpu() for column in self))


def gather_targets(log_probabilities: Tensor, targets: Tensor) -> TargetScores:
    """Pick the targets' log-probabilities and ranks out of [.., V] for targets [..], and the likeliest tokens."""
    targets = targets.unsqueeze(-1)
    chosen = log_probabilities.gather(-1, targets)  # [.., 1]
    # Of equally likely tokens the first goes first, as in argmax: a model that knows nothing must not look all-knowing.
    token = torch.arange(log_probabilities.shape[-1], device=targets.device)
    ahead = (log_probabilities > chosen) | ((log_probabilities == chosen) & (token < targets))
    return TargetScores(chosen.squeeze(-1), ahead.sum(-1), log_probabilities.argmax(-1))


def log_mixed(mixed: Tensor, share: Tensor, log_model: Tensor) -> Tensor:
    """The logarithm of share * exp(log_model) + more, where `mixed` [..] is that sum, as float32 has it.

    Where a model is so sure that exp(log_model) is no number of float32 any more, its logarithm is known all the same.

    >>> log_model = torch.tensor([0.0, -200.0])
    >>> log_mixed(0.5 * log_model.exp(), torch.tensor(0.5), log_model)
    tensor([  -0.6931, -200.6931])
    """
    smallest = torch.finfo(mixed.dtype).tiny
    return mixed.clamp_min(smallest).log().where(mixed >= smallest, share.log() + log_model)
