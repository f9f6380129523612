"""Training a generator of sequences, whatever its objective: what a step, a part and a score of it are."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from frugal.cooperative.lstm import with_zeros
from frugal.cooperative.samples import Samples, draw, trained_part
from frugal.errors import InputError, is_number
from frugal.language_model import HiddenStateModel, LanguageModel, check_vocabulary
from frugal.training import Epoch, EpochScore, Plan, check_plan, run_epochs, take_steps, warm_up_and_decay

BETAS = (0.9, 0.95)  # as in the code of the CoT paper
SCORED = 256  # sequences drawn, and held-out ones, for a score


@dataclass(frozen=True, kw_only=True)
class SequencePlan(Plan):
    """How a generator is trained; see `Plan`. Its batches are drawn, so that an epoch is a part of the steps.

    Attributes:
        steps: optimiser steps in all.
        epochs: parts that the steps are divided into; each ends with a score and a checkpoint.
        batch_size: sequences per step.
        learning_rate: highest of the generator's Adam; it rises at first and falls to nothing at the end.

    >>> SequencePlan(steps=100, epochs=4).steps_until(3)
    75
    """

    steps: int = 2000
    epochs: int = 10
    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 2:
            raise InputError(f"batch_size={self.batch_size}: must be at least 2")
        if self.steps < self.epochs:
            raise InputError(f"steps={self.steps}: must be at least 1 for each of {self.epochs} epochs")
        check_rate("learning_rate", self.learning_rate)

    def steps_until(self, epoch: int) -> int:
        """Steps that have been taken when an epoch ends."""
        return epoch * self.steps // self.epochs


@dataclass(frozen=True, kw_only=True)
class SequenceScore(EpochScore):
    """What a part of the training gave; see `EpochScore`. Nats are per token unless said otherwise.

    Attributes:
        training_loss: the sum of `losses`.
        validation_nats: negative log-likelihood under the generator of the first 256 held-out sequences.
        step: how many have been taken.
        losses: mean of each loss.
        entropy: of the generator, estimated from its own samples.
        jsd_low, jsd_high: bounds on the Jensen-Shannon divergence of whole sequences, in nats per sequence, as the
            mediator sees them; None where there is no mediator, or for the upper one where the entropy of the data
            is not known.
    """

    step: int
    losses: dict[str, float]
    entropy: float
    jsd_low: float | None = None
    jsd_high: float | None = None


class SequenceTrainer(ABC):
    """Trains a generator on sequences of one length.

    Subclasses say what a step is. The models end with the last weights: held-out likelihood is not what all of these
    objectives descend. Interrupted, a training with a `folder` goes on from its last epoch when it is built again in
    the same way, and ends where it would have ended.

    Args:
        generator: any language model that `trained_part` finds something to train in.
        data: sequences [n, 1 + T], each beginning with the start token.
        held_out: others of the same kind.
        plan: how to train.
        folder: where the training's state is kept after each epoch; None for none.

    Raises:
        InputError: the data are no such sequences, nothing can be trained, or `folder` is of another training.
        UnavailableError: the folder is damaged.
    """

    def __init__(
        self,
        generator: LanguageModel,
        data: Tensor,
        held_out: Tensor,
        plan: SequencePlan,
        folder: Path | str | None = None,
    ) -> None:
        check_plan(plan, SequencePlan)
        for name, sequences in (("data", data), ("held_out", held_out)):
            check_sequences(name, sequences, generator)
        if data.shape[1] != held_out.shape[1]:
            lengths = data.shape[1] - 1, held_out.shape[1] - 1
            raise InputError(f"data of {lengths[0]} tokens, held_out of {lengths[1]}: must be of one length")
        self.data, self.held_out = (sequences.to(torch.int64, copy=True) for sequences in (data, held_out))
        with torch.no_grad():
            first = generator.log_probabilities(self.data[:1, :1].to(generator.device))[0, 0]
        never = (with_zeros(first) == -math.inf).nonzero().flatten().cpu()  # whatever comes before
        for name, sequences in (("data", self.data), ("held_out", self.held_out)):
            if torch.isin(sequences[:, 1:].cpu(), never).any():
                raise InputError(f"{name}: holds a token that the generator never writes, such as that of the start")
        self.generator, self.plan, self.folder = generator, plan, folder
        self.parts = nn.ModuleDict({"generator": trained_part(generator)})
        self.rates = {"generator": plan.learning_rate}
        self.random = torch.Generator().manual_seed(plan.seed)

    @abstractmethod
    def step(self, done: float) -> dict[str, Tensor]:
        """The losses of one batch after the part `done` of the training, 0..1.

        Their sum is descended: give each trained model a loss that depends on no other model's weights.
        """

    def train(self, on_epoch: Callable[[SequenceScore], None] | None = None) -> list[SequenceScore]:
        """Train; the scores after each epoch.

        `on_epoch` is called with each new score; the models then have that epoch's weights.
        """
        groups = [{"params": list(self.parts[name].parameters()), "lr": rate} for name, rate in self.rates.items()]
        optimizer, plan = Adam(groups, betas=BETAS), self.plan
        losses: dict[str, float] = {}  # of the epoch at hand, and the steps until its end
        step = 0

        def train_epoch(epoch: Epoch) -> float:
            nonlocal losses, step
            first, step = plan.steps_until(epoch.number - 1), plan.steps_until(epoch.number)
            self.random.manual_seed(epoch.seed)
            summed: Counter[str] = Counter()

            def set_gradients(place: int) -> float:
                found = self.step((place + 0.5) / plan.steps)
                summed.update({name: loss.item() for name, loss in found.items()})
                total = torch.stack(list(found.values())).sum()
                total.backward()
                return total.item()

            taken = take_steps(
                set_gradients,
                range(first, step),
                optimizer,
                steps=step - first,
                seconds=epoch.seconds_left,
                schedule=lambda done: warm_up_and_decay((first + done * (step - first)) / plan.steps),
                title=f"steps to {step}",
                leave=False,
            )
            losses = {name: loss / len(taken) for name, loss in summed.items()}
            return sum(taken) / len(taken)

        return run_epochs(
            self.parts,
            optimizer,
            plan,
            train_epoch,
            lambda: self._score(step, losses),
            title=type(self).__name__,
            keep_best=False,
            kind=SequenceScore,
            folder=self.folder,
            given=self.given(),
            on_epoch=on_epoch,
        )

    def given(self) -> dict[str, Any]:
        """What the training follows from beside its plan."""
        return {"data": self.data, "held_out": self.held_out, "generator": settings_of(self.generator)}

    def batch(self, size: int) -> Tensor:
        """Some of the data, [size, 1 + T]."""
        places = torch.randint(len(self.data), (size,), generator=self.random)
        return self.data[places].to(self.generator.device)

    def samples(self, size: int) -> Samples:
        """Fresh samples of the generator, of the data's length."""
        return draw(self.generator, size, self.data.shape[1] - 1, generator=self.random)

    def bounds(self, held_out: Tensor, samples: Tensor) -> tuple[float | None, float | None]:
        """Bounds on the Jensen-Shannon divergence, where there is something to estimate it with."""
        return None, None

    @torch.no_grad()
    def _score(self, step: int, losses: dict[str, float]) -> SequenceScore:
        held_out = self.held_out[:SCORED].to(self.generator.device)
        tokens = self.samples(len(held_out)).tokens
        nats, entropy = (-self.generator.target_log_probabilities(some).mean().item() for some in (held_out, tokens))
        low, high = self.bounds(held_out, tokens)
        return SequenceScore(
            step=step, losses=losses, validation_nats=nats, entropy=entropy, jsd_low=low, jsd_high=high
        )


def settings_of(model: LanguageModel) -> tuple[Any, ...]:
    """What a model was built with, but for the weights that a training changes."""
    trunk = model.trunk if isinstance(model, HiddenStateModel) else None
    part = model if isinstance(model, nn.Module) else getattr(model, "readout", None)
    settings = getattr(part, "settings", None)
    return type(model).__name__, trunk, getattr(model, "join", None), settings() if callable(settings) else settings


def check_rate(name: str, rate: float) -> None:
    if not (is_number(rate) and 0 < rate < 1):
        raise InputError(f"{name}={rate}: must lie between 0 and 1; typical values lie in 1e-3 to 2e-2")


def check_sequences(name: str, sequences: Tensor, model: LanguageModel) -> None:
    """Raise InputError unless these are sequences [n, 1 + T] of the model's tokens after its start token."""
    if not isinstance(sequences, Tensor) or sequences.is_floating_point() or sequences.dtype == torch.bool:
        kind = sequences.dtype if hasattr(sequences, "dtype") else type(sequences).__name__
        raise InputError(f"{name} of type {kind}: must be a tensor of whole numbers")
    if sequences.ndim != 2 or not len(sequences) or sequences.shape[1] < 2:
        raise InputError(
            f"{name} of shape {list(sequences.shape)}: expected sequences [n, 1 + T] of at least one token"
        )
    if not (sequences[:, 0] == model.tokenizer.start_id).all():
        raise InputError(f"{name}: every sequence must begin with the start token, {model.tokenizer.start_id}")
    check_vocabulary(sequences, model.vocabulary_size)
    if model.context_length is not None and sequences.shape[1] - 1 > model.context_length:
        raise InputError(
            f"{name} of {sequences.shape[1] - 1} tokens: the model takes at most {model.context_length}; shorten them"
        )
