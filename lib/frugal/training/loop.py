"""Gradient training for all families: seeds, schedules of the learning rate, and one loop of steps."""

import math
import random
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm.auto import tqdm

from frugal.device import choose_device
from frugal.errors import DivergedError, InputError, check_positive, check_whole

# The cycle it warns of is cut: gradients are dropped before every step and after the last.
warnings.filterwarnings("ignore", message=r"Using backward\(\) with create_graph=True")

WARM_UP = 0.1
DECAY = 0.2


def seed_everything(seed: int) -> None:
    """Make the random draws of Python, numpy and torch (all devices) repeatable.

    Raises:
        InputError: numpy takes no such seed.

    >>> seed_everything(1)
    >>> first = random.random()
    >>> seed_everything(1)
    >>> random.random() == first
    True
    """
    check_whole(0, seed=seed)
    if seed >= 2**32:
        raise InputError(f"seed={seed}: must lie in 0 to {2**32 - 1}")
    random.seed(int(seed))
    np.random.seed(seed)
    torch.manual_seed(int(seed))


def warm_up_and_decay(done: float) -> float:
    """Factor of the learning rate after the part `done` of the training, 0..1.

    It rises over the first tenth and falls to nothing over the last fifth, where most of the gain of a short
    training is made.
    """
    return min(1.0, done / WARM_UP, (1 - done) / DECAY)


def half_cosine(done: float) -> float:
    """Factor of the learning rate after the part `done` of the training, 0..1: from one to nothing."""
    return (1 + math.cos(math.pi * done)) / 2


def fit(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    batches: Iterable[Any],
    optimizer: Optimizer,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    schedule: Callable[[float], float] = warm_up_and_decay,
    clip: float | None = 1.0,
    accumulate: int = 1,
    device: str = "cpu",
    title: str = "training",
    leave: bool = True,
) -> list[float]:
    """Train `model` in place until the budget of steps or seconds is spent; the first to run out ends it.

    Args:
        model: is moved to `device` and left there.
        loss: `loss(model, batch)` gives the scalar to descend.
        batches: such as a DataLoader, of tensors or of tuples or lists of them; begun again whenever it ends.
        optimizer: of the model's parameters; its learning rate is the highest that `schedule` reaches. For one of
            second order the gradients are made such that they can be differentiated again.
        device: "cpu", "cuda", "mps" or "auto".
        steps, seconds, schedule, clip, accumulate, title, leave: see `take_steps`.

    Returns:
        The loss of each step; fewer than `steps` where the seconds ended the training.

    Raises:
        InputError: no budget, no batches, batches that cannot be begun again, an optimiser of other weights than the
            loss follows from, or a gradient to be clipped whose curvature would not be clipped with it.
        DivergedError: a loss, a gradient or a weight is not finite.

    >>> layer, batches = nn.Linear(1, 1), [torch.tensor([[1.0]])]
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    >>> losses = fit(layer, lambda layer, x: (layer(x) - 3).square().mean(), batches, optimizer, steps=50, title="")
    >>> losses[-1] < losses[0]
    True
    """
    second_order = getattr(optimizer, "second_order", False)
    if second_order and clip is not None:
        raise InputError(f"clip={clip}: the curvature is not clipped along with the gradient; give clip=None")
    place = choose_device(device)
    model.to(place).train()

    def set_gradients(batch: Any) -> float:
        value = loss(model, _moved(batch, place)) / accumulate
        if value.requires_grad:  # or else no weight gets a gradient, which is refused below
            value.backward(create_graph=second_order)
        return value.item()

    return take_steps(
        set_gradients,
        batches,
        optimizer,
        steps=steps,
        seconds=seconds,
        schedule=schedule,
        clip=clip,
        accumulate=accumulate,
        title=title,
        leave=leave,
    )


def take_steps(
    set_gradients: Callable[[Any], float],
    batches: Iterable[Any],
    optimizer: Optimizer,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    schedule: Callable[[float], float] = warm_up_and_decay,
    clip: float | None = None,
    accumulate: int = 1,
    title: str = "training",
    leave: bool = True,
) -> list[float]:
    """Take steps with gradients that may come from anywhere; `fit` is the case where one loss gives all of them.

    A step whose loss or gradient is not finite is not taken: the weights stay as they were before it. What the last
    step did to them is looked at too.

    Args:
        set_gradients: sets or adds to the gradients of the optimiser's weights for a batch, and gives its loss.
        batches: begun again whenever they end.
        optimizer: its learning rates are the highest that `schedule` reaches; afterwards they are as before.
        steps: budget in optimiser steps: the same seed gives the same model.
        seconds: budget in processor seconds: the result depends on the machine.
        schedule: factor of the learning rate by the part of the budget that is spent, 0..1.
        clip: largest norm of the gradient; None leaves it as it is.
        accumulate: batches that make one step.
        title: what the progress bar says; empty for no bar.
        leave: leave the bar when it is full.

    Returns:
        The loss of each step; fewer than `steps` where the seconds ended the training.

    Raises:
        InputError: no budget, no batches, batches that cannot be begun again, or a step in which none of the weights
            gets a gradient.
        DivergedError: a loss, a gradient or a weight is not finite.

    >>> weight = nn.Parameter(torch.tensor([4.0]))
    >>> def set_gradients(target):
    ...     weight.grad = weight.detach() - target
    ...     return (weight - target).abs().item()
    >>> losses = take_steps(set_gradients, torch.zeros(1, 1), torch.optim.SGD([weight], lr=0.5), steps=20, title="")
    >>> losses[-1] < 0.01 * losses[0]
    True
    """
    if steps is None and seconds is None:
        raise InputError("steps=None, seconds=None: training needs a budget; give one of them")
    check_whole(accumulate=accumulate, **({} if steps is None else {"steps": steps}))
    if seconds is not None:
        check_positive("None sets no limit", seconds=seconds)
    if clip is not None:
        check_positive("None leaves the gradient as it is", clip=clip)
    if iter(batches) is batches:
        raise InputError("batches: can be gone through only once; give a DataLoader or a list")
    if next(iter(batches), None) is None:
        raise InputError("batches: there are none; give a text that fills at least one")
    rates = [group["lr"] for group in optimizer.param_groups]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    losses: list[float] = []
    begin = time.process_time()
    stream = _again_and_again(batches)
    try:
        with tqdm(desc=title, total=steps, unit=" steps", disable=not title, leave=leave) as bar:
            while True:
                done = max(
                    0.0 if steps is None else (len(losses) + 0.5) / steps,
                    0.0 if seconds is None else (time.process_time() - begin) / seconds,
                )
                if losses and done >= 1:  # one step in any case
                    check_weights(title, weights)
                    return losses
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * schedule(min(done, 1.0))
                optimizer.zero_grad()
                value = sum(set_gradients(batch) for batch in islice(stream, accumulate))
                losses.append(value)
                gradient = _clipped(weights, clip)
                for name, found in (("loss", value), ("gradient", gradient)):
                    if not math.isfinite(found):
                        raise DivergedError(
                            f"{title or 'training'}: the {name} is {found} at step {len(losses)}: check the inputs for "
                            "numbers that are not finite, or lower the learning rate"
                        )
                if all(weight.grad is None for weight in weights):
                    raise InputError(
                        f"optimizer: none of its weights has a gradient at step {len(losses)}; give it the parameters "
                        "of the very model that is trained"
                    )
                optimizer.step()
                bar.set_postfix(loss=f"{value:.3f}", refresh=False)
                bar.update()
    finally:
        optimizer.zero_grad()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def check_weights(title: str, weights: Iterable[Tensor]) -> None:
    """Raise DivergedError where a last step has spoilt a weight: no loss and no gradient has told of it yet."""
    if not all(weight.isfinite().all() for weight in weights):
        raise DivergedError(
            f"{title or 'training'}: a weight is not finite after the last step: lower the learning rate"
        )


def _again_and_again(batches: Iterable[Any]) -> Iterator[Any]:
    """All batches, then all of them again, without end."""
    found = True
    while found:
        found = False
        for batch in batches:
            found = True
            yield batch
    raise InputError("batches: can be gone through only once; give a DataLoader of a data set that can be begun again")


def _clipped(weights: list[nn.Parameter], clip: float | None) -> float:
    """The gradient's norm, before it is cut to `clip`.

    Infinite as well where its squares are, in which all optimisers but Lion would lose it without a word.
    """
    if clip is not None:
        return nn.utils.clip_grad_norm_(weights, clip).item()
    gradients = [weight.grad.flatten() for weight in weights if weight.grad is not None]
    return math.sqrt(sum(torch.dot(gradient, gradient).item() for gradient in gradients))


def _moved(batch: Any, device: torch.device) -> Any:
    """A tensor, or a tuple or list of tensors, on this device."""
    if isinstance(batch, (tuple, list)):
        return [_moved(part, device) for part in batch]
    return batch.to(device)
