"""How noisy an estimate of the generator's gradient is: the exact sum over the vocabulary against REINFORCE."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from frugal.cooperative.baselines import ReinforceTrainer
from frugal.cooperative.trainer import CooperativePlan, CooperativeTrainer
from frugal.errors import check_whole
from frugal.language_model import LanguageModel

AnyTrainer = TypeVar("AnyTrainer", bound=CooperativeTrainer)


@dataclass(frozen=True)
class GradientNoise:
    """Of an estimate from one batch of samples.

    Attributes:
        variance: trace of its covariance over fresh batches.
        squared_mean: squared length of its mean, corrected for the number of batches.
    """

    variance: float
    squared_mean: float

    @property
    def ratio(self) -> float:
        """Noise over signal; the number of batches to average for a gradient as large as its error."""
        return self.variance / max(self.squared_mean, 1e-30)


def gradient_noise(
    generator: LanguageModel,
    mediator: LanguageModel,
    data: Tensor,
    *,
    samples: int = 64,
    batches: int = 32,
    seed: int = 0,
) -> dict[str, GradientNoise]:
    """Noise of three estimates of the gradient of KL(G || M) per token, each from that many samples of the generator.

    "exact sum" is what cooperative training descends, "with prefix term" adds what it drops, "REINFORCE" has both from
    the rewards of whole samples alone. The last two estimate the same gradient, the first a part of it.

    Raises:
        InputError: fewer than two batches, or fewer than two samples in them.

    Example:
        >>> from frugal.cooperative import Oracle
        >>> oracle = Oracle(vocabulary=3, length=4, hidden=8)
        >>> models = oracle.learner(hidden=4), oracle.learner(hidden=4, seed=1)
        >>> noise = gradient_noise(*models, oracle.sequences(16), samples=8, batches=4)
        >>> noise["exact sum"].variance < noise["REINFORCE"].variance
        True
    """
    check_whole(2, samples=samples, batches=batches)
    plan = CooperativePlan(batch_size=2 * samples, prefixes="own", seed=seed)

    def trainer(kind: Callable[..., AnyTrainer], plan: CooperativePlan) -> AnyTrainer:
        return kind(generator, mediator, data, data, plan)

    return {
        "exact sum": _noise(trainer(CooperativeTrainer, plan), batches),
        "with prefix term": _noise(trainer(CooperativeTrainer, replace(plan, prefix_term=True)), batches),
        "REINFORCE": _noise(trainer(ReinforceTrainer, plan), batches),
    }


def _noise(trainer: CooperativeTrainer, batches: int) -> GradientNoise:
    weights = list(trainer.parts["generator"].parameters())
    gradients = []
    for _ in range(batches):
        loss = trainer.step(1.0)["generator"]
        gradients.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)]))
    rows = torch.stack(gradients).double()
    variance = rows.var(0).sum().item()
    return GradientNoise(variance, rows.mean(0).square().sum().item() - variance / batches)
