"""Training in epochs, whatever the model: validate, keep the best weights, stop early, go on after an interrupt."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer
from tqdm.auto import tqdm

from frugal.errors import DivergedError, InputError
from frugal.training.checkpoint import Identity, keep, resume
from frugal.training.plan import Plan, check_plan

MOST_NATS = math.log(sys.float_info.max)  # that have a perplexity
SMALLEST_BUDGET = 1e-9  # seconds: what is left for an epoch that is begun, which takes one step in any case


@dataclass(frozen=True, kw_only=True)
class EpochScore:
    """What came of an epoch; epoch 0 is before training. Families add measures of their own.

    Attributes:
        epoch: its number.
        training_loss: its mean while the epoch went on; NaN for epoch 0.
        validation_nats: per token of held-out text; NaN where nothing is held out.
        validation_accuracy: share of held-out tokens thought the likeliest; NaN where it is not measured.
        seconds: of processor time since the training began, validation included.
        out_of_time: the plan's seconds are spent. The training ended here, and this epoch may have been cut short, so
            that another machine would have come further or less far.

    >>> EpochScore(epoch=2, validation_nats=0.0).validation_perplexity
    1.0
    """

    epoch: int = 0
    training_loss: float = math.nan
    validation_nats: float = math.nan
    validation_accuracy: float = math.nan
    seconds: float = 0.0
    out_of_time: bool = False

    @property
    def validation_perplexity(self) -> float:
        return math.inf if self.validation_nats > MOST_NATS else math.exp(self.validation_nats)


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
        return max(SMALLEST_BUDGET, self.plan.seconds - (self.earlier[-1].seconds if self.earlier else 0.0))

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
    folder: Path | str | None = None,
    given: Mapping[str, Any] | None = None,
    on_epoch: Callable[[Score], None] | None = None,
    progress: bool = True,
) -> list[Score]:
    """Train `network` in place until the plan, its patience or its budget is at an end.

    It ends with the weights that had the lowest `validation_nats`, those it came with among them; so it does if it is
    interrupted, or fails. With `keep_best=False` it ends with the last weights, and patience follows the training
    loss; if it fails, or is interrupted and has a folder, it ends with those before the epoch in which it did.

    Args:
        network: all that is trained.
        optimizer: of its parameters, with their highest learning rates.
        plan: how to train.
        train_epoch: trains one epoch and gives its mean loss. What its last step did to the weights is its own to
            look at, as `fit` and `take_steps` do.
        score: measures the network as it is; number, loss and seconds are filled in here.
        title: what is trained: on the progress bar, and in the folder.
        keep_best: score the network before training, and end with the best weights.
        kind: of the scores.
        folder: where the training's state is kept after each epoch; found there, it is gone on with.
        given: by name what else the training follows from: its data, and the settings of what is trained. A training
            that was given something else is not gone on with. For what it may hold see `fingerprint`.
        on_epoch: called with each new score, that of the start among them; the network then has its weights.
        progress: show a bar over the epochs.

    Returns:
        The scores: before training, if the best weights are kept, and after each epoch.

    Raises:
        InputError: `folder` is that of another training, or no folder, or `plan` is none.
        DivergedError: a loss, a gradient, a weight or a validation is not finite.
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
    check_plan(plan, Plan)
    folder = None if folder is None else _free(folder)
    identity = None if folder is None else Identity.of(title, plan, {} if given is None else given, network)
    scores: list[Score] = []
    best = None
    if identity is not None and folder is not None and folder.is_dir():
        identity, scores, best = resume(folder, identity, network, optimizer, kind, keep_best)
    elif keep_best:
        network.eval()
        scores, best = [replace(score(), seconds=time.process_time() - begun)], _copy(network)
        _check_validation(title, scores[0])
        if on_epoch is not None:
            on_epoch(scores[0])
    good = _copy(network) if best is None else best  # what a training that fails ends with
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
                out_of_time = plan.seconds is not None and spent >= plan.seconds
                found = replace(found, epoch=number, training_loss=loss, seconds=spent, out_of_time=out_of_time)
                if keep_best:
                    _check_validation(title, found)
                scores.append(found)
                if not keep_best:
                    good = _copy(network)
                elif _best(scores, keep_best) is found:
                    good = best = _copy(network)
                if identity is not None and folder is not None:
                    keep(folder, identity, network, optimizer, scores, best)
                validation = {"validation": f"{found.validation_nats:.3f}"} if keep_best else {}
                bar.set_postfix({"loss": f"{loss:.3f}", **validation}, refresh=False)
                bar.update()
                if on_epoch is not None:
                    on_epoch(found)
        except InputError:
            network.load_state_dict(good)
            raise
        finally:  # also when it is interrupted
            if best is not None or folder is not None:  # a folder is gone on with from the end of an epoch
                network.load_state_dict(good if best is None else best)
            network.eval()
    return scores


def _free(folder: Path | str) -> Path:
    """A folder that is there, or can be made."""
    try:
        there = next(path for path in (Path(folder), *Path(folder).absolute().parents) if path.exists())
    except (TypeError, ValueError) as error:
        raise InputError(f"folder={folder!r}: must be a path ({error})") from error
    if not there.is_dir():
        raise InputError(f"folder={str(folder)!r}: {there} is a file; give a folder, or one that is not there yet")
    return Path(folder)


def _check_validation(title: str, score: EpochScore) -> None:
    if not math.isfinite(score.validation_nats):
        raise DivergedError(
            f"{title}: validation gave {score.validation_nats} nats after epoch {score.epoch}: check the held-out data "
            "for numbers that are not finite, or lower the learning rate"
        )


def _finished(scores: Sequence[EpochScore], plan: Plan, keep_best: bool) -> bool:
    if not scores:
        return False
    last = scores[-1]
    if last.out_of_time:
        return True
    waited = last.epoch - _best(scores, keep_best).epoch
    return last.epoch >= plan.epochs or (plan.patience is not None and waited >= plan.patience)


def _best(scores: Sequence[Score], by_validation: bool) -> Score:
    """The first of the best."""
    return min(scores, key=lambda score: score.validation_nats if by_validation else score.training_loss)


def _copy(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: values.detach().clone() for name, values in network.state_dict().items()}
