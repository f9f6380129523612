"""Cooperative training: a generator follows a mediator, which learns from data and generator alike.

    mediator   min  J_m = -(E_{s~P} log M(s) + E_{s~G} log M(s)) / 2          likelihood, half data, half samples
    generator  min  sum_t KL(G(. | s_<t) || M(. | s_<t))   over prefixes s_<t, summed exactly over the vocabulary

Both descend: there is no adversary, no reward and no pre-training. At the mediator's optimum, M = (P + G) / 2, half the
gradient of KL(G || M) at fixed M is that of JSD(P || G), since there M's own dependence on G contributes nothing.

Lu et al., "CoT: Cooperative Training for Generative Modeling of Discrete Data", ICML 2019, arXiv 1804.03782.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from frugal.combine.pair import Pair
from frugal.cooperative import world
from frugal.cooperative.lstm import with_zeros
from frugal.cooperative.samples import trained_part
from frugal.cooperative.training import SequencePlan, SequenceTrainer, check_rate, settings_of
from frugal.errors import InputError, is_number
from frugal.language_model import LanguageModel
from frugal.training import check_plan

Prefixes = Literal["own", "mixed"]
# The mediator's verdict on whether a sequence is data is kept this far from certainty when a divergence is estimated.
DOUBT = 0.01


@dataclass(frozen=True, kw_only=True)
class CooperativePlan(SequencePlan):
    """How generator and mediator are trained; see `SequencePlan`.

    Attributes:
        batch_size: sequences per step, half of them data and half fresh samples. The mediator learns from all.
        mediator_rate: highest learning rate of the mediator's Adam, which should learn faster than the generator.
        prefixes: where the generator follows the mediator: on its "own" samples, as in the paper, or on the "mixed"
            batch. There the two agree at the same optimum; but once whole sequences can be told apart, M is G on the
            generator's own prefixes and has nothing to teach there, while on the data's it is P.
        prefix_term: add the part of the gradient that the paper drops: the choice of a token also decides which
            prefixes come later, and so what is to be paid there. Estimated by REINFORCE, hence noisy; it takes at
            least two samples a step, and so a batch of 4.

    >>> CooperativePlan(steps=100, epochs=4, prefix_term=True).prefixes
    'mixed'
    """

    mediator_rate: float = 1e-2
    prefixes: Prefixes = "mixed"
    prefix_term: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate("mediator_rate", self.mediator_rate)
        if self.prefix_term:
            check_two_samples(self.batch_size)


class CooperativeTrainer(SequenceTrainer):
    """Trains a generator and a mediator, any two language models over one vocabulary, together.

    Args:
        generator: what is wanted.
        mediator: what it follows, best larger. Two readouts on one frozen reservoir share its states.
        data, held_out, plan, folder: see SequenceTrainer.
        data_entropy: H(P) in nats per sequence, where it is known: scores then have an upper bound on the divergence.

    Example:
        >>> from frugal.cooperative import Oracle
        >>> oracle = Oracle(vocabulary=3, length=4, hidden=8)
        >>> models = oracle.learner(hidden=4), oracle.learner(hidden=8, seed=1)
        >>> plan = CooperativePlan(steps=6, epochs=2, batch_size=8)
        >>> trainer = CooperativeTrainer(*models, oracle.sequences(40), oracle.sequences(20, seed=1), plan)
        >>> [score.step for score in trainer.train()]
        [3, 6]
    """

    plan: CooperativePlan

    def __init__(
        self,
        generator: LanguageModel,
        mediator: LanguageModel,
        data: Tensor,
        held_out: Tensor,
        plan: CooperativePlan | None = None,
        *,
        folder: Path | str | None = None,
        data_entropy: float | None = None,
    ) -> None:
        plan = CooperativePlan() if plan is None else plan
        check_plan(plan, CooperativePlan)
        if data_entropy is not None and not (is_number(data_entropy) and 0 <= data_entropy < math.inf):
            raise InputError(f"data_entropy={data_entropy}: must be nats per sequence, not negative; None if not known")
        super().__init__(generator, data, held_out, plan, folder)
        self.pair, self.mediator, self.data_entropy = Pair(generator, mediator), mediator, data_entropy
        self.parts["mediator"], self.rates["mediator"] = trained_part(mediator), plan.mediator_rate
        if set(self.parts["mediator"].parameters()) & set(self.parts["generator"].parameters()):
            raise InputError(
                "generator and mediator have weights in common that are trained: give each its own readout"
            )
        with torch.no_grad():
            first = self.data[:1, :1].to(generator.device)
            log_g, log_m = (with_zeros(model.log_probabilities(first)) for model in (generator, mediator))
        if ((log_m == -math.inf) & (log_g > -math.inf)).any():
            raise InputError(
                "the generator writes tokens that the mediator never expects, so that KL(G || M) is infinite: build "
                "both with the same `special`"
            )

    def given(self) -> dict[str, Any]:
        return {**super().given(), "mediator": settings_of(self.mediator), "data_entropy": self.data_entropy}

    def step(self, done: float) -> dict[str, Tensor]:
        half = self.plan.batch_size // 2
        samples, data = self.samples(half), self.batch(half)
        tokens = torch.cat([samples.tokens, data])  # [2 half, 1 + T]
        hidden = None
        if self.pair.shared and samples.hidden is not None:  # known for the samples
            hidden = torch.cat([samples.hidden, self.pair.hidden(data[:, :-1])])
        log_m = self.pair.log_probabilities(self.mediator, tokens[:, :-1], hidden)
        followed = slice(half if self.plan.prefixes == "own" else None)
        hidden = hidden if hidden is None else hidden[followed]
        log_g = self.pair.log_probabilities(self.generator, tokens[followed, :-1], hidden)
        return {
            "generator": self.generator_loss(log_g, log_m[followed].detach(), tokens[followed]),
            "mediator": -log_m.gather(-1, tokens[:, 1:, None]).mean(),
        }

    def generator_loss(self, log_g: Tensor, log_m: Tensor, tokens: Tensor) -> Tensor:
        """Mean over prefixes of KL(G || M), from log-probabilities [B, T, V] on tokens [B, 1 + T]."""
        divergences = world.weighted(log_g, log_g - log_m).sum(-1)  # [B, T]
        loss = divergences.mean()
        return loss + self.prefix_loss(log_g, divergences, tokens) if self.plan.prefix_term else loss

    def prefix_loss(self, log_g: Tensor, divergences: Tensor, tokens: Tensor) -> Tensor:
        """A loss whose gradient is that through the choice of prefixes, of which only samples have one."""
        own = self.plan.batch_size // 2
        paid = divergences[:own].detach()
        still_to_pay = paid.flip(1).cumsum(1).flip(1) - paid  # [own, T]: after token t has been chosen
        chosen = log_g[:own].gather(-1, tokens[:own, 1:, None]).squeeze(-1)
        return (less_others(still_to_pay) * chosen).sum() / divergences.numel()

    def bounds(self, held_out: Tensor, samples: Tensor) -> tuple[float | None, float | None]:
        return divergence_bounds(self.pair, held_out, samples, self.data_entropy)


def less_others(values: Tensor) -> Tensor:
    """Each of n samples' values [n, ..] less the mean of the others': with its own in the mean, the gradient would come
    out as (n - 1) / n of what it is."""
    return (values - values.mean(0)) * (len(values) / (len(values) - 1))


def check_two_samples(batch_size: int) -> None:
    if batch_size < 4:
        raise InputError(f"batch_size={batch_size}: must be at least 4, for two samples to be compared with each other")


@torch.no_grad()
def divergence_bounds(
    pair: Pair, data: Tensor, samples: Tensor, data_entropy: float | None = None
) -> tuple[float, float | None]:
    """The mediator's estimate of JSD(P || G) for whole sequences, in nats: a lower and an upper bound, up to chance.

    The lower one takes 1 - G / (2 M) for the probability that a sequence is data: whatever classifier D is,
    JSD >= log 2 + (E_P log D + E_G log(1 - D)) / 2. The upper one is J_m - (H(P) + H(G)) / 2 = JSD + KL((P+G)/2 || M).

    Args:
        pair: generator and mediator.
        data: held-out sequences [n, 1 + T].
        samples: of the generator, [n, 1 + T].
        data_entropy: H(P) per sequence; without it there is no upper bound.
    """
    scored = []
    for tokens in (data, samples):
        log_g, log_m = (rows.gather(-1, tokens[:, 1:, None]).squeeze(-1).sum(1) for rows in pair.scores(tokens[:, :-1]))
        scored.append((log_g, log_m, (1 - (log_g - log_m).exp() / 2).clamp(DOUBT, 1 - DOUBT)))
    (_, log_m_data, data_is_data), (log_g, log_m, samples_are_data) = scored
    low = math.log(2) + (data_is_data.log().mean() + (1 - samples_are_data).log().mean()).item() / 2
    if data_entropy is None:
        return low, None
    objective = -(log_m_data.mean() + log_m.mean()).item() / 2
    return low, objective - (data_entropy - log_g.mean().item()) / 2
