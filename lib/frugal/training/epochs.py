"""Training in epochs, whatever the model: validate, keep the best weights, stop early, go on after an interrupt."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.optim import Optimizer
from tqdm.auto import tqdm

from frugal.errors import InputError
from frugal.training.checkpoint import keep, resume


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a model is trained. Families add what only they have, and have defaults of their own.

    Attributes:
        epochs: most passes over the training examples.
        learning_rate: the optimiser's highest.
        batch_size: examples per step.
        patience: epochs without a better score after which training stops early; None never stops it.
        seconds: most processor seconds in all; None sets no limit. The result then depends on the machine.
        seed: of the order of the examples, and of what else is drawn. What an epoch draws follows from the seed and
            the epoch's number, so that a resumed training ends as if it had never been interrupted.

    Raises:
        InputError: a value that no training can have.

    >>> Plan(epochs=3, patience=1).epochs
    3
    """

    epochs: int = 8
    learning_rate: float = 1e-3
    batch_size: int = 64
    patience: int | None = None
    seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value}: must be at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate={self.learning_rate}: must be positive; typical values: 1e-4 to 1e-2")
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"seconds={self.seconds}: must be positive; None sets no limit")


@dataclass(frozen=True, kw_only=True)
class EpochScore:
    """What came of an epoch; epoch 0 is before training. Families add measures of their own.

    Attributes:
        epoch: its number.
        training_loss: its mean while the epoch went on; NaN for epoch 0.
        validation_nats: per token of held-out text; NaN where nothing is held out.
        validation_accuracy: share of held-out tokens thought the likeliest; NaN where it is not measured.
        seconds: of processor time since the training began, validation included.

    >>> EpochScore(epoch=2, validation_nats=0.0).validation_perplexity
    1.0
    """

    epoch: int = 0
    training_loss: float = math.nan
    validation_nats: float = math.nan
    validation_accuracy: float = math.nan
    seconds: float = 0.0

    @property
    def validation_perplexity(self) -> float:
        return math.exp(self.validation_nats)


Score = TypeVar("Score", bound=EpochScore)


@dataclass(frozen=True)
class Epoch:
    """The epoch that is to be trained.

    Attributes:
        number: 1 for the first.
        plan: of the training.
        earlier: scores of the epochs before.
    """

    number: int
    plan: Plan
    earlier: Sequence[EpochScore]

    @property
    def seed(self) -> int:
        """Of what this epoch draws."""
        return self.plan.seed + self.number

    @property
    def seconds_left(self) -> float | None:
        """Of the plan's budget, in processor seconds."""
        if self.plan.seconds is None:
            return None
        return self.plan.seconds - (self.earlier[-1].seconds if self.earlier else 0.0)

    def part_of(self, schedule: Callable[[float], float]) -> Callable[[float], float]:
        """A schedule of the whole training as one of this epoch; both take the part that is done, 0..1."""
        return lambda done: schedule((self.number - 1 + done) / self.plan.epochs)


def run_epochs(
    network: nn.Module,
    optimizer: Optimizer,
    plan: Plan,
    train_epoch: Callable[[Epoch], float],
    score: Callable[[], Score],
    *,
    title: str,
    keep_best: bool = True,
    kind: type[Score] = EpochScore,  # type: ignore[assignment]  # which is what Score is by default
    folder: Path | None = None,
    on_epoch: Callable[[Score], None] | None = None,
    progress: bool = True,
) -> list[Score]:
    """Train `network` in place until the plan, its patience or its budget is at an end.

    It ends with the weights that had the lowest `validation_nats`, those it came with among them; so it does if it is
    interrupted. With `keep_best=False` it ends with the last weights, and patience follows the training loss.

    Args:
        network: all that is trained.
        optimizer: of its parameters, with their highest learning rates.
        plan: how to train.
        train_epoch: trains one epoch and gives its mean loss.
        score: measures the network as it is; number, loss and seconds are filled in here.
        title: what is trained: on the progress bar, and in the folder.
        keep_best: score the network before training, and end with the best weights.
        kind: of the scores.
        folder: where the training's state is kept after each epoch; found there, it is gone on with.
        on_epoch: called with each new score; the network then has that epoch's weights.
        progress: show a bar over the epochs.

    Returns:
        The scores: before training, if the best weights are kept, and after each epoch.

    Raises:
        InputError: `folder` is that of another training, or no epoch's validation was a number.
        UnavailableError: `folder` is damaged, or of an earlier version.

    Example:
        >>> from frugal.training import fit
        >>> layer, x = nn.Linear(1, 1), torch.tensor([[1.0]])
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> def error(layer, x):
        ...     return (layer(x) - 3).square().mean()
        >>> def train_epoch(epoch):
        ...     return fit(layer, error, [x], optimizer, steps=10, title="")[-1]
        >>> def score():
        ...     return EpochScore(validation_nats=error(layer, x).item())
        >>> plan = Plan(epochs=5, patience=2)
        >>> scores = run_epochs(layer, optimizer, plan, train_epoch, score, title="line", progress=False)
        >>> [score.epoch for score in scores], scores[5].validation_nats < scores[0].validation_nats
        ([0, 1, 2, 3, 4, 5], True)
    """
    begun = time.process_time()
    scores: list[Score] = []
    best = None
    if folder is not None and folder.is_dir():
        kept, best = resume(folder, title, plan, network, optimizer)
        scores = [kind(**values) for values in kept]
        if (best is not None) != keep_best:
            raise InputError(f"{folder} holds a training {'without' if keep_best else 'with'} validation: remove it")
    elif keep_best:
        network.eval()
        scores, best = [replace(score(), seconds=time.process_time() - begun)], _copy(network)
    begun = time.process_time() - (scores[-1].seconds if scores else 0.0)
    with tqdm(desc=title, total=plan.epochs, unit=" epochs", disable=not progress) as bar:
        bar.update(scores[-1].epoch if scores else 0)
        try:
            while not _finished(scores, plan, keep_best):
                number = scores[-1].epoch + 1 if scores else 1
                network.train()
                with torch.random.fork_rng():
                    torch.manual_seed(plan.seed + number)
                    loss = train_epoch(Epoch(number, plan, tuple(scores)))
                network.eval()
                found, spent = score(), time.process_time() - begun
                scores.append(replace(found, epoch=number, training_loss=loss, seconds=spent))
                if keep_best and _best(scores, keep_best) is scores[-1]:
                    best = _copy(network)
                if folder is not None:
                    keep(folder, title, plan, network, optimizer, scores, best)
                bar.set_postfix(loss=f"{loss:.3f}", validation=f"{found.validation_nats:.3f}", refresh=False)
                bar.update()
                if on_epoch is not None:
                    on_epoch(scores[-1])
        finally:  # also when it is interrupted
            if best is not None:
                network.load_state_dict(best)
            network.eval()
    if keep_best and all(math.isnan(score.validation_nats) for score in scores[1:]):
        raise InputError(f"{title}: validation was no number after any epoch, the training failed; lower learning_rate")
    return scores


def _finished(scores: Sequence[EpochScore], plan: Plan, keep_best: bool) -> bool:
    if not scores:
        return False
    last = scores[-1]
    if last.epoch > 0 and plan.seconds is not None and last.seconds >= plan.seconds:
        return True
    waited = last.epoch - _best(scores, keep_best).epoch
    return last.epoch >= plan.epochs or (plan.patience is not None and waited >= plan.patience)


def _best(scores: Sequence[Score], by_validation: bool) -> Score:
    """The first of the best; a score that is not a number is the worst."""

    def value(score: EpochScore) -> float:
        found = score.validation_nats if by_validation else score.training_loss
        return math.inf if math.isnan(found) else found

    return min(scores, key=value)


def _copy(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: values.detach().clone() for name, values in network.state_dict().items()}
