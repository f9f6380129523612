"""What cooperative training is compared with: likelihood, scheduled sampling, and policy gradient."""

from typing import Any

import torch
from torch import Tensor

from frugal.cooperative.samples import chosen
from frugal.cooperative.trainer import CooperativeTrainer, check_two_samples, less_others
from frugal.cooperative.training import SequenceTrainer
from frugal.errors import InputError


class LikelihoodTrainer(SequenceTrainer):
    """Maximum likelihood (MLE): the generator predicts the data, token by token.

    Example:
        >>> from frugal.cooperative import Oracle, SequencePlan
        >>> oracle = Oracle(vocabulary=3, length=4, hidden=8)
        >>> plan = SequencePlan(steps=6, epochs=2, batch_size=8)
        >>> data, held_out = oracle.sequences(40), oracle.sequences(20, seed=1)
        >>> trainer = LikelihoodTrainer(oracle.learner(hidden=4), data, held_out, plan)
        >>> sorted(trainer.train()[-1].losses)
        ['generator']
    """

    def step(self, done: float) -> dict[str, Tensor]:
        return {"generator": likelihood_loss(self)}


class ScheduledSamplingTrainer(SequenceTrainer):
    """Maximum likelihood on inputs some of which are the generator's own guesses, more and more of them.

    The share of guesses rises linearly to `most`. All of a batch's guesses are drawn at once from the predictions on
    the true inputs, so that it costs two forward passes instead of one per token.

    Bengio et al., "Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks", NIPS 2015; in parallel:
    Mihaylova and Martins, "Scheduled Sampling for Transformers", ACL Student Research Workshop, 2019.

    Example:
        >>> from frugal.cooperative import Oracle, SequencePlan
        >>> oracle = Oracle(vocabulary=3, length=4, hidden=8)
        >>> plan = SequencePlan(steps=6, epochs=2, batch_size=8)
        >>> data, held_out = oracle.sequences(40), oracle.sequences(20, seed=1)
        >>> trainer = ScheduledSamplingTrainer(oracle.learner(hidden=4), data, held_out, plan)
        >>> sorted(trainer.train()[-1].losses)
        ['generator']
    """

    most = 0.5

    def given(self) -> dict[str, Any]:
        return {**super().given(), "most": self.most}

    def step(self, done: float) -> dict[str, Tensor]:
        tokens = self.batch(self.plan.batch_size)
        inputs = tokens[:, :-1].clone()
        with torch.no_grad():
            guesses = chosen(self.generator.log_probabilities(inputs[:, :-1]), self.random)
        guessed = torch.rand(guesses.shape, generator=self.random) < self.most * done
        inputs[:, 1:] = torch.where(guessed.to(inputs.device), guesses, inputs[:, 1:])
        scores = self.generator.log_probabilities(inputs)
        return {"generator": -scores.gather(-1, tokens[:, 1:, None]).mean()}


class ReinforceTrainer(CooperativeTrainer):
    """The same cooperation by REINFORCE: whole samples are rewarded with log M(s) - log G(s).

    The reward grows with M's verdict on whether a sample is data, P / (P + G) = 1 - G / (2 M), as a discriminator's
    does in SeqGAN (Yu et al., AAAI 2017); a sample's baseline is the mean reward of the batch's other samples, which
    leaves the gradient's expectation as it is. As there, the generator first learns by likelihood, for `pretraining`
    of the steps.

    Raises:
        InputError: fewer than two samples in a batch, or what CooperativeTrainer raises.

    Example:
        >>> from frugal.cooperative import CooperativePlan, Oracle
        >>> oracle = Oracle(vocabulary=3, length=4, hidden=8)
        >>> plan = CooperativePlan(steps=6, epochs=2, batch_size=8)
        >>> data, held_out = oracle.sequences(40), oracle.sequences(20, seed=1)
        >>> trainer = ReinforceTrainer(oracle.learner(hidden=4), oracle.learner(hidden=8, seed=1), data, held_out, plan)
        >>> sorted(trainer.train()[-1].losses)
        ['generator', 'mediator']
    """

    pretraining = 0.5

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        check_two_samples(self.plan.batch_size)
        if self.plan.prefix_term:
            raise InputError("prefix_term=True: rewards of whole samples hold all later costs already; leave it out")

    def given(self) -> dict[str, Any]:
        return {**super().given(), "pretraining": self.pretraining}

    def step(self, done: float) -> dict[str, Tensor]:
        losses = super().step(done)
        return {**losses, "generator": likelihood_loss(self)} if done < self.pretraining else losses

    def generator_loss(self, log_g: Tensor, log_m: Tensor, tokens: Tensor) -> Tensor:
        own = tokens[: self.plan.batch_size // 2, 1:, None]  # data were not this policy's choice
        chosen_g, chosen_m = (rows[: len(own)].gather(-1, own).squeeze(-1).sum(1) for rows in (log_g, log_m))
        reward = (chosen_m - chosen_g).detach()
        return -(less_others(reward) * chosen_g).mean() / own.shape[1]


def likelihood_loss(trainer: SequenceTrainer) -> Tensor:
    """Negative log-likelihood per token of a batch of data."""
    return -trainer.generator.target_log_probabilities(trainer.batch(trainer.plan.batch_size)).mean()
