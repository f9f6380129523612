"""Training a network over characters: recipes, what an epoch is, and how well the examples are known afterwards."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, hardshrink

from frugal.errors import InputError, check_not_negative, check_positive, check_whole
from frugal.piecewise.automaton import Automaton
from frugal.piecewise.language_model import PiecewiseLM
from frugal.piecewise.mamba import Mamba
from frugal.piecewise.networks import CODES_AT_ONCE, CharacterNetwork
from frugal.piecewise.transformer import Transformer
from frugal.piecewise.windows import Batches, Windows
from frugal.training import Epoch, EpochScore, Plan, check_plan, fit, half_cosine, run_epochs
from frugal.training.optimizers import OptimizerName, make_optimizer

NO_GRADIENT = 1e-30
"""Size below which the gradient of a logit is made zero. What a network has memorised has probabilities so near to 0
and 1 that their gradients are denormal numbers, with which processors compute ten times more slowly."""
FELL = 1e-4  # share by which a loss must fall to end a plateau


@dataclass(frozen=True, kw_only=True)
class PiecewisePlan(Plan):
    """How a network over characters is trained; see `Plan`.

    Attributes:
        learning_rate: at the start; Lion's is 3 to 10 times below Adam's, and AdaHessian's about 1.
        seconds: most in all; the last epoch may be cut short.
        optimizer: its name; sparse Lion moves only what a batch touches.
        weight_decay: decoupled where the optimiser has it so.
        accumulate: gradients per step.
        clip: largest norm of the gradient; None leaves it as it is.
        schedule: "plateau" multiplies the rate by `factor` when the loss has not fallen for `plateau` epochs,
            "exponential" by `gamma` after every epoch, "half cosine" lowers it to nothing over all epochs, step by
            step, "constant" leaves it.
        repeats: how often an example comes in an epoch.
        random_fraction: share of the input characters replaced by random ones.

    >>> PiecewisePlan(learning_rate=0.1, schedule="exponential", gamma=0.5).rate_in(2, [2.0])
    0.05
    """

    epochs: int = 100
    learning_rate: float = 1e-4
    batch_size: int = 1000
    patience: int | None = 20
    optimizer: OptimizerName = "sparse_lion"
    weight_decay: float = 0.0
    accumulate: int = 1
    clip: float | None = None
    schedule: Literal["plateau", "exponential", "half cosine", "constant"] = "plateau"
    plateau: int = 5
    factor: float = 0.1
    gamma: float = 0.9
    repeats: int = 1
    random_fraction: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(accumulate=self.accumulate, repeats=self.repeats)
        check_whole(0, plateau=self.plateau)
        for name in ("factor", "gamma"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)}: must be above 0 and at most 1")
        if not 0 <= self.random_fraction <= 1:
            raise InputError(f"random_fraction={self.random_fraction}: must be from 0 to 1; 0.1 is much")
        check_not_negative("typical values: 0 to 0.1", weight_decay=self.weight_decay)
        if self.clip is not None:
            check_positive("None leaves the gradient as it is", clip=self.clip)
        if self.clip is not None and self.optimizer == "adahessian":
            raise InputError(f"clip={self.clip}: adahessian's curvature is not clipped along; give clip=None")

    def suited_to(self, network: CharacterNetwork) -> Self:
        """This plan, but deep networks get Adam, with which they begin to learn far sooner, and fewer examples make a
        gradient where each holds many targets."""
        changes: dict[str, Any] = {}
        if isinstance(network, (Transformer, Mamba)):
            changes |= {"optimizer": "adam", "learning_rate": 3e-3}
        if network.predicts_all:
            changes |= {"batch_size": min(self.batch_size, 20)}
        return replace(self, **changes)

    def rate_in(self, epoch: int, losses: Sequence[float]) -> float:
        """The learning rate at the start of an epoch, 1 for the first, from the losses that there were before."""
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "exponential":
            return self.learning_rate * self.gamma ** (epoch - 1)
        if self.schedule == "half cosine":
            return self.learning_rate * half_cosine((epoch - 1) / self.epochs)
        rate, lowest, waited = self.learning_rate, math.inf, 0
        for loss in losses:
            fell = loss < lowest * (1 - FELL)
            lowest, waited = (loss, 0) if fell else (lowest, waited + 1)
            if waited > self.plateau:
                rate, waited = rate * self.factor, 0
        return rate


@dataclass(frozen=True, kw_only=True)
class PiecewiseScore(EpochScore):
    """What an epoch gave; see `EpochScore`. Epoch 0 was trained with no learning rate.

    Attributes:
        training_accuracy: share of targets thought the likeliest while the epoch went on.
        learning_rate: the epoch began with.
    """

    training_accuracy: float = math.nan
    learning_rate: float = 0.0


def train(
    model: PiecewiseLM | Automaton,
    windows: Windows,
    plan: PiecewisePlan | None = None,
    *,
    valid: Windows | None = None,
    folder: Path | str | None = None,
    on_epoch: Callable[[PiecewiseScore], None] | None = None,
    progress: bool = True,
) -> list[PiecewiseScore]:
    """Train the model in place, on the device it is on, on all `windows`.

    Args:
        model: a language model or an automaton.
        windows: examples of the form its network takes; an automaton takes centred ones.
        plan: how to train; by default as PiecewisePlan() says.
        valid: held-out examples. Schedule and early stopping then follow the loss on them, and the model ends with
            the weights that had the lowest. Without them it ends with the last, also where it is interrupted; with a
            folder, with those of the last whole epoch.
        folder: where the training's state is kept after each epoch; found there, it is gone on with.
        on_epoch: called with each new score, for instance to print a sample of text.
        progress: show a bar over the epochs.

    Returns:
        The scores after each epoch; with `valid`, that before training as well.

    Raises:
        InputError: examples of another form, a loss that is not finite, or `folder` is that of another training.
        UnavailableError: `folder` is damaged.

    Example:
        >>> from frugal.corpora import CharTokenizer
        >>> from frugal.piecewise import preset
        >>> model = PiecewiseLM(preset("no_hidden_layer", context_length=4, width=8), CharTokenizer("abc"))
        >>> windows = Windows.for_network(model.network, model.tokenizer, ["abcabcabcabc"])
        >>> plan = PiecewisePlan(epochs=50, learning_rate=0.02, batch_size=4)
        >>> scores = train(model, windows, plan, progress=False)
        >>> memorised(model, windows).accuracy
        1.0
    """
    for examples in (windows, *(() if valid is None else (valid,))):
        _check_form(model, examples)
    plan, network = PiecewisePlan() if plan is None else plan, model.network
    check_plan(plan, PiecewisePlan)
    batches = Batches(windows, plan.batch_size, plan.repeats, plan.random_fraction, int(windows.tokens.max()) + 1)
    optimizer = make_optimizer(plan.optimizer, network.parameters(), plan.learning_rate, plan.weight_decay)
    last = PiecewiseScore()  # of the epoch at hand

    def train_epoch(epoch: Epoch) -> float:
        nonlocal last
        hits = Hits()
        losses = [score.training_loss if valid is None else score.validation_nats for score in epoch.earlier]
        rate = plan.rate_in(epoch.number, losses)
        cosine = epoch.part_of(half_cosine) if plan.schedule == "half cosine" else None
        found = fit(
            network,
            hits.loss,
            batches,
            optimizer,
            steps=max(1, len(batches) // plan.accumulate),
            seconds=epoch.seconds_left,
            schedule=cosine or (lambda done: rate / plan.learning_rate),
            clip=plan.clip,
            accumulate=plan.accumulate,
            device=network.device.type,
            title="",
        )
        last = PiecewiseScore(training_accuracy=hits.share, learning_rate=rate)
        return sum(found) / len(found)

    def score() -> PiecewiseScore:
        if valid is None:
            return last
        known = memorised(model, valid)
        return replace(last, validation_nats=known.nats, validation_accuracy=known.accuracy)

    return run_epochs(
        network,
        optimizer,
        plan,
        train_epoch,
        score,
        title="piecewise",
        keep_best=valid is not None,
        kind=PiecewiseScore,
        folder=folder,
        given={"windows": windows, "validation": valid, "shape": model.shape},
        on_epoch=on_epoch,
        progress=progress,
    )


def _check_form(model: PiecewiseLM | Automaton, windows: Windows) -> None:
    """Raise InputError unless a model predicts the targets of such examples from their inputs."""
    length, name = model.network.context_length, type(model).__name__
    if isinstance(model, Automaton):
        fit_it, made_by = windows.have_form(length, centred=True), f"Windows.centred(.., {length})"
    elif model.network.predicts_all:
        fit_it, made_by = windows.have_form(len(windows.inputs), flat=True), "Windows.for_network(..)"
    else:
        fit_it, made_by = windows.have_form(length), f"Windows.sequence(.., {length})"
    if not fit_it:
        raise InputError(f"windows: are of another form than this {name} learns from; make them by {made_by}")


class Hits:
    """Counts, while a loss is computed, how many targets were thought the likeliest."""

    def __init__(self) -> None:
        self.count = self.of = 0

    @property
    def share(self) -> float:
        return self.count / self.of

    def loss(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean nats per target."""
        inputs, targets = batch
        logits = network(inputs).flatten(0, -2)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: hardshrink(gradient, NO_GRADIENT))
        targets = targets.flatten()
        self.count += int((logits.detach().argmax(-1) == targets).sum())
        self.of += len(targets)
        return cross_entropy(logits, targets)


class Memorised(NamedTuple):
    """How well a model knows the examples it was trained on: share of targets thought likeliest, mean nats."""

    accuracy: float
    nats: float


@torch.inference_mode()
def memorised(model: PiecewiseLM | Automaton, windows: Windows) -> Memorised:
    """Go once through all examples without training.

    Example:
        >>> from frugal.corpora import CharTokenizer
        >>> from frugal.piecewise import preset
        >>> model = PiecewiseLM(preset("no_hidden_layer", context_length=2), CharTokenizer("ab"))
        >>> 0 <= memorised(model, Windows.for_network(model.network, model.tokenizer, ["abab"])).accuracy <= 1
        True
    """
    _check_form(model, windows)
    network = model.network
    hits, nats, device = Hits(), 0.0, network.device
    batch_size = max(1, CODES_AT_ONCE // network.context_length)
    for begin in range(0, len(windows), batch_size):
        inputs, targets = (part.to(device) for part in windows[begin : begin + batch_size])
        nats += hits.loss(network, (inputs, targets)).item() * targets.numel()
    return Memorised(hits.share, nats / hits.of)
