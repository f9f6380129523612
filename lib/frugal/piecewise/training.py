"""Training a network over characters, epoch by epoch, as the recipes of the original do."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, hardshrink
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau
from tqdm.auto import tqdm

from frugal.errors import InputError
from frugal.piecewise.mamba import Mamba
from frugal.piecewise.networks import CODES_AT_ONCE, CharacterNetwork
from frugal.piecewise.transformer import Transformer
from frugal.piecewise.windows import Batches, Windows
from frugal.training import fit
from frugal.training.optimizers import OptimizerName, make_optimizer

NO_GRADIENT = 1e-30
"""Size below which the gradient of a logit is made zero. What a network knows by heart has probabilities so near to 0
and 1 that their gradients are denormal numbers, with which processors compute ten times more slowly."""


@dataclass(frozen=True)
class Recipe:
    """How to train a network.

    Attributes:
        epochs: most passes over the examples.
        optimizer: its name; sparse Lion moves only what a batch touches.
        learning_rate: at the start; Lion's is 3 to 10 times below Adam's, and AdaHessian's about 1.
        weight_decay: decoupled where the optimiser has it so.
        batch_size: examples per gradient.
        accumulate: gradients per step.
        clip: largest norm of the gradient; None leaves it as it is.
        schedule: "plateau" multiplies the rate by `factor` when the loss has not fallen for `patience` epochs,
            "exponential" by `gamma` after every epoch, "constant" leaves it.
        stop_after: epochs without a lower loss that end the training.
        seconds: most in all; the last epoch may be cut short.
        repeats: how often an example comes in an epoch.
        random_fraction: share of the input characters replaced by random ones.
    """

    epochs: int = 100
    optimizer: OptimizerName = "sparse_lion"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    batch_size: int = 1000
    accumulate: int = 1
    clip: float | None = None
    schedule: Literal["plateau", "exponential", "constant"] = "plateau"
    patience: int = 5
    factor: float = 0.1
    gamma: float = 0.9
    stop_after: int = 20
    seconds: float | None = None
    repeats: int = 1
    random_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.accumulate < 1:
            raise InputError(f"epochs={self.epochs}, accumulate={self.accumulate}: must both be at least 1")
        if self.schedule not in ("plateau", "exponential", "constant"):
            raise InputError(f"schedule={self.schedule!r}: must be plateau, exponential or constant")

    def suited_to(self, network: CharacterNetwork) -> Self:
        """This recipe, but deep networks get Adam, with which they begin to learn far sooner, and fewer examples make
        a gradient where each holds many targets."""
        changes: dict[str, Any] = {}
        if isinstance(network, (Transformer, Mamba)):
            changes |= {"optimizer": "adam", "learning_rate": 3e-3}
        if network.predicts_all:
            changes |= {"batch_size": min(self.batch_size, 20)}
        return replace(self, **changes)


class EpochScore(NamedTuple):
    """Of one epoch, while it was trained: mean loss in nats, share of targets thought likeliest; seconds since the
    start, the learning rate it was trained with, and the mean loss on held-out examples after it."""

    epoch: int
    nats: float
    accuracy: float
    seconds: float
    learning_rate: float
    valid_nats: float | None = None

    @property
    def loss(self) -> float:
        """What the training is steered by: the held-out loss where there is one."""
        return self.nats if self.valid_nats is None else self.valid_nats


def train(
    network: CharacterNetwork,
    windows: Windows,
    recipe: Recipe | None = None,
    *,
    valid: Windows | None = None,
    after_epoch: Callable[[EpochScore], None] | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> list[EpochScore]:
    """Train `network` in place on all `windows`; return a score for each epoch.

    An interrupt leaves the network as it is at that moment.

    Args:
        network: any network over characters.
        windows: examples of the form it takes; a centred network takes centred ones.
        recipe: how to train; by default as Recipe() says.
        valid: held-out examples. Schedule and early stopping then follow the loss on them, and the network ends with
            the weights of the epoch that had the lowest.
        after_epoch: called with each new score, for instance to print a sample of text.
        device: "cpu" or "cuda"; the network stays there.
        progress: show a bar over the epochs.
    """
    recipe = recipe or Recipe()
    batches = Batches(windows, recipe.batch_size, recipe.repeats, recipe.random_fraction, int(windows.tokens.max()) + 1)
    optimizer = make_optimizer(
        recipe.optimizer, network.to(device).parameters(), recipe.learning_rate, recipe.weight_decay
    )
    adjust = _schedule(recipe, optimizer)
    steps = max(1, len(batches) // recipe.accumulate)
    scores: list[EpochScore] = []
    lowest, best, best_weights = math.inf, 0, network.state_dict()
    begin = time.monotonic()
    with tqdm(total=recipe.epochs, unit=" epochs", disable=not progress) as bar:
        for epoch in range(1, recipe.epochs + 1):
            hits = Hits()
            rate = optimizer.param_groups[0]["lr"]
            left = None if recipe.seconds is None else recipe.seconds - (time.monotonic() - begin)
            losses = fit(
                network,
                hits.loss,
                batches,
                optimizer,
                steps=steps,
                seconds=left,
                schedule=lambda done: 1.0,
                clip=recipe.clip,
                accumulate=recipe.accumulate,
                create_graph=recipe.optimizer == "adahessian",
                device=device,
                title="",
            )
            held_out = None if valid is None else memorised(network, valid).nats
            elapsed = time.monotonic() - begin
            scores.append(EpochScore(epoch, sum(losses) / len(losses), hits.share, elapsed, rate, held_out))
            bar.set_postfix(nats=f"{scores[-1].nats:.3f}", accuracy=f"{scores[-1].accuracy:.3f}", refresh=False)
            bar.update()
            if after_epoch is not None:
                after_epoch(scores[-1])
            adjust(scores[-1].loss)
            if scores[-1].loss < lowest:
                lowest, best = scores[-1].loss, epoch
                if valid is not None:
                    best_weights = copy.deepcopy(network.state_dict())
            if epoch - best >= recipe.stop_after or elapsed >= (recipe.seconds or math.inf):
                break
    if valid is not None:
        network.load_state_dict(best_weights)
    return scores


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
    """How well a network knows the examples it was trained on: share of targets thought likeliest, mean nats."""

    accuracy: float
    nats: float


@torch.inference_mode()
def memorised(network: CharacterNetwork, windows: Windows) -> Memorised:
    """Go once through all examples without training."""
    hits, nats, device = Hits(), 0.0, network.device
    batch_size = max(1, CODES_AT_ONCE // network.context_length)
    for begin in range(0, len(windows), batch_size):
        inputs, targets = (part.to(device) for part in windows[begin : begin + batch_size])
        nats += hits.loss(network, (inputs, targets)).item() * targets.numel()
    return Memorised(hits.share, nats / hits.of)


def _schedule(recipe: Recipe, optimizer: torch.optim.Optimizer) -> Callable[[float], None]:
    """A function of an epoch's loss that sets the next epoch's learning rate."""
    if recipe.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, factor=recipe.factor, patience=recipe.patience).step
    if recipe.schedule == "exponential":
        exponential = ExponentialLR(optimizer, recipe.gamma)
        return lambda loss: exponential.step()
    return lambda loss: None
