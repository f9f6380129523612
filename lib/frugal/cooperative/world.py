"""A world small enough to be listed: every sequence, every probability, every divergence exactly.

With V symbols and length T there are V^T sequences s. A distribution over them is a tensor [V^T] of log-probabilities
in the order of `every_sequence`, so that sums over the world are sums over that tensor. All values are in nats. What
has probability 0 adds nothing: 0 log 0 is 0, and KL(p || q) is infinite only where q is 0 and p is not.

Lu et al., "CoT: Cooperative Training for Generative Modeling of Discrete Data", ICML 2019, arXiv 1804.03782.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from frugal.cooperative.lstm import with_zeros
from frugal.corpora import CharTokenizer
from frugal.errors import InputError, check_whole
from frugal.language_model import LanguageModel

MOST_SEQUENCES = 2**20


def symbols(vocabulary: int) -> CharTokenizer:
    """A tokeniser of `vocabulary` symbols A, B, C, ..: tokens 0..V-1; then come its start and unknown tokens."""
    check_whole(vocabulary=vocabulary)
    if not 2 <= vocabulary <= 20_000:
        raise InputError(f"vocabulary={vocabulary}: must lie in 2 to 20000 symbols")
    return CharTokenizer("".join(chr(ord("A") + i) for i in range(vocabulary)))


def every_sequence(vocabulary: int, length: int) -> Tensor:
    """All sequences [V^T, 1 + T] in lexicographic order, each after the start token of `symbols(vocabulary)`.

    Raises:
        InputError: there are more than a million.

    Example:
        >>> every_sequence(vocabulary=2, length=2)
        tensor([[2, 0, 0],
                [2, 0, 1],
                [2, 1, 0],
                [2, 1, 1]])
    """
    check_whole(vocabulary=vocabulary, length=length)
    if vocabulary**length > MOST_SEQUENCES:
        raise InputError(
            f"vocabulary={vocabulary}, length={length}: {vocabulary}^{length} sequences cannot be listed; "
            f"make it at most {MOST_SEQUENCES:,}"
        )
    places = torch.arange(vocabulary**length)
    columns = [places // vocabulary ** (length - 1 - t) % vocabulary for t in range(length)]
    return torch.stack([torch.full_like(places, symbols(vocabulary).start_id), *columns], 1)


def log_probabilities(model: LanguageModel, sequences: Tensor) -> Tensor:
    """Log-probability [n], float64, of each of the sequences [n, 1 + T] under a model, as differentiable as it is.

    Example:
        >>> from frugal.cooperative import LSTMLanguageModel
        >>> model = LSTMLanguageModel(symbols(2), hidden=4, special=False)
        >>> round(log_probabilities(model, every_sequence(2, 3)).exp().sum().item(), 5)
        1.0
    """
    return with_zeros(model.target_log_probabilities(sequences.to(model.device))).double().sum(1)


def mixture(log_p: Tensor, log_q: Tensor) -> Tensor:
    """log((p + q) / 2): for data p and generator q, the mediator that the balanced objective has its optimum at."""
    return torch.logaddexp(log_p, log_q) - math.log(2)


def entropy(log_p: Tensor) -> Tensor:
    """H(p)."""
    return -expected(log_p, log_p)


def kullback_leibler(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q).

    >>> p, q = torch.tensor([0.5, 0.5, 0.0]).log(), torch.tensor([0.25, 0.5, 0.25]).log()
    >>> round(kullback_leibler(p, q).item(), 3), kullback_leibler(q, p).item()
    (0.347, inf)
    """
    return expected(log_p, log_p - log_q)


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    """JSD(p || q) = (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2; at most log 2."""
    return mediated(log_p, log_q, mixture(log_p, log_q))


def mediated(log_p: Tensor, log_q: Tensor, log_m: Tensor) -> Tensor:
    """(KL(p || m) + KL(q || m)) / 2 = JSD(p || q) + KL((p + q) / 2 || m): a bound for any mediator m."""
    return (kullback_leibler(log_p, log_m) + kullback_leibler(log_q, log_m)) / 2


def balanced_objective(log_p: Tensor, log_q: Tensor, log_m: Tensor) -> Tensor:
    """J_m = -(E_p log m + E_q log m) / 2 = JSD(p || q) + (H(p) + H(q)) / 2 + KL((p + q) / 2 || m).

    It is what the mediator descends, and what its monitored curve means.
    """
    return -(expected(log_p, log_m) + expected(log_q, log_m)) / 2


class Terms(NamedTuple):
    """The terms of the identities, all in nats per sequence."""

    divergence: float  # JSD(p || q)
    bound: float  # (KL(p || m) + KL(q || m)) / 2
    gap: float  # KL((p + q) / 2 || m)
    error: (
        float  # the larger of |bound - divergence - gap| and |J_m - (H(p) + H(q)) / 2 - bound|: zero but for rounding
    )


def terms(log_p: Tensor, log_q: Tensor, log_m: Tensor) -> Terms:
    """How far apart p and q are, and what a mediator m says about it.

    Example:
        >>> p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.9, 0.1]).log()
        >>> best = terms(p, q, mixture(p, q))
        >>> best.bound == best.divergence, best.gap
        (True, 0.0)
    """
    divergence, bound = jensen_shannon(log_p, log_q), mediated(log_p, log_q, log_m)
    gap = kullback_leibler(mixture(log_p, log_q), log_m)
    entropies = (entropy(log_p) + entropy(log_q)) / 2
    errors = bound - divergence - gap, balanced_objective(log_p, log_q, log_m) - entropies - bound
    return Terms(divergence.item(), bound.item(), gap.item(), max(abs(error.item()) for error in errors))


def next_symbol(log_p: Tensor, vocabulary: int) -> list[Tensor]:
    """The conditionals of a distribution [V^T]: for t = 0..T-1 a table [V^t, V], log p(symbol | t symbols before).

    After symbols that never come, nothing is likely: their row holds minus infinity alone.
    """
    length = round(math.log(len(log_p), vocabulary))
    begun = [log_p.reshape(vocabulary**t, -1).logsumexp(1) for t in range(length + 1)]  # log p of each beginning
    tables = [(row.reshape(-1, vocabulary), before.unsqueeze(1)) for before, row in pairwise(begun)]
    return [(row - before).masked_fill(row == -math.inf, -math.inf) for row, before in tables]


def expected(log_p: Tensor, values: Tensor) -> Tensor:
    """E_p of values [V^T]."""
    return weighted(log_p, values).sum()


def weighted(log_p: Tensor, values: Tensor) -> Tensor:
    """p times values, elementwise; 0 where p is 0, whatever the value is."""
    return log_p.exp() * values.masked_fill(log_p == -math.inf, 0)
