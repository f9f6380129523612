"""A continuous cache over states that were computed before: any key can be tried in seconds.

The mixture is that of `ContinuousCache`; here the model's own log-probabilities and the keys are given.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

THETAS = (0.0, 5.0, 10.0, 20.0, 40.0, 80.0)
WEIGHTS = (0.02, 0.05, 0.1, 0.2, 0.3)


def cache_probabilities(keys: Tensor, following: Tensor, theta: float) -> Tensor:
    """The cache's probability [T] of each token that followed a key, `keys` [T, D] being those of one document.

    NaN for the first token: there is no past yet.
    """
    unit = normalize(keys, dim=-1)
    later = torch.ones(len(unit), len(unit), dtype=torch.bool).triu()
    attention = (theta * unit @ unit.T).masked_fill(later, -torch.inf).softmax(-1).nan_to_num()
    found = (attention * (following.unsqueeze(1) == following)).sum(1)
    found[0] = torch.nan
    return found


def mix(own: Tensor, cached: Tensor, weight: float) -> Tensor:
    """Log-probabilities of model and cache together; `own` are the model's."""
    return torch.where(cached.isnan(), own, ((1 - weight) * own.exp() + weight * cached).log())


def tuned_cache(valid: tuple[Sequence[Tensor], ...], test: tuple[Sequence[Tensor], ...]) -> tuple[Tensor, float, float]:
    """Log-probabilities [tokens] of the test documents with a cache that predicts the validation documents best.

    Args:
        valid, test: the model's own log-probabilities, the keys, and the tokens that followed, of each document.

    Returns:
        The log-probabilities, theta and weight.
    """
    best = (float("inf"), 0.0, 0.0)
    for theta in THETAS:
        cached = [cache_probabilities(keys, following, theta) for _, keys, following in zip(*valid, strict=True)]
        for weight in WEIGHTS:
            nats = -sum(mix(own, found, weight).sum().item() for own, found in zip(valid[0], cached, strict=True))
            best = min(best, (nats, theta, weight))
    _, theta, weight = best
    mixed = [mix(own, cache_probabilities(keys, y, theta), weight) for own, keys, y in zip(*test, strict=True)]
    return torch.cat(mixed), theta, weight
