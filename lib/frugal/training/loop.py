"""Gradient training for all families: seeds, and one loop of steps."""

import math
import random
import time
import warnings
from collections.abc import Callable, Iterable
from itertools import chain, islice, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from frugal.device import choose_device
from frugal.errors import InputError

# The cycle it warns of is cut: gradients are dropped before every step and after the last.
warnings.filterwarnings("ignore", message=r"Using backward\(\) with create_graph=True")

WARM_UP = 0.1
DECAY = 0.2


def seed_everything(seed: int) -> None:
    """Make the random draws of Python, numpy and torch (all devices) repeatable.

    Raises:
        InputError: numpy takes no such seed.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed={seed}: must lie in 0 to {2**32 - 1}")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def warm_up_and_decay(done: float) -> float:
    """Factor of the learning rate after the part `done` of the training, 0..1.

    It rises over the first tenth and falls to nothing over the last fifth, where most of the gain of a short
    training is made.
    """
    return min(1.0, done / WARM_UP, (1 - done) / DECAY)


def fit(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    batches: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    schedule: Callable[[float], float] = warm_up_and_decay,
    clip: float | None = 1.0,
    accumulate: int = 1,
    create_graph: bool = False,
    device: str = "cpu",
    title: str = "training",
) -> list[float]:
    """Train `model` in place until the budget of steps or seconds is spent; the first to run out ends it.

    Args:
        model: is moved to `device` and left there.
        loss: `loss(model, batch)` gives the scalar to descend.
        batches: such as a DataLoader, of tensors or of tuples or lists of them; begun again whenever it ends.
        optimizer: of the model's parameters; its learning rate is the highest that `schedule` reaches.
        steps: budget in optimiser steps: the same seed gives the same model.
        seconds: budget in wall-clock time: the result depends on the machine.
        schedule: factor of the learning rate by the part of the budget that is spent, 0..1.
        clip: largest norm of the gradient; None leaves it as it is.
        accumulate: batches whose mean gradient makes one step.
        create_graph: let the gradient be differentiated again, which second-order optimisers need.
        device: "cpu", "cuda", "mps" or "auto".
        title: what the progress bar says; empty for no bar.

    Returns:
        The loss of each step.

    Raises:
        InputError: no budget, no batches, or a loss that is not finite.
    """
    if steps is None and seconds is None:
        raise InputError("steps=None, seconds=None: training needs a budget; give one of them")
    if steps is not None and steps < 1:
        raise InputError(f"steps={steps}: must be at least 1")
    if iter(batches) is batches:
        raise InputError("batches: can be gone through only once; give a DataLoader or a list")
    if next(iter(batches), None) is None:
        raise InputError("batches: there are none; give a text that fills at least one")
    place = choose_device(device)
    model.to(place).train()
    rates = [group["lr"] for group in optimizer.param_groups]
    losses: list[float] = []
    begin = time.monotonic()
    stream = chain.from_iterable(repeat(batches))

    def descend(batch: Any) -> float:
        value = loss(model, _moved(batch, place)) / accumulate
        value.backward(create_graph=create_graph)
        return value.item()

    with tqdm(desc=title, total=steps, unit=" steps", disable=not title) as bar:
        while True:
            done = max(
                0.0 if steps is None else (len(losses) + 0.5) / steps,
                0.0 if seconds is None else (time.monotonic() - begin) / seconds,
            )
            if losses and done >= 1:  # one step in any case
                break
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * schedule(done)
            optimizer.zero_grad()
            losses.append(sum(descend(batch) for batch in islice(stream, accumulate)))
            if not math.isfinite(losses[-1]):
                where = title or "training"
                raise InputError(f"{where}: the loss is {losses[-1]} at step {len(losses)}; lower the learning rate")
            if clip is not None:  # a gradient that is not finite is left to the next loss to tell
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            bar.update()
    optimizer.zero_grad()
    return losses


def _moved(batch: Any, device: torch.device) -> Any:
    """A tensor, or a tuple or list of tensors, on this device."""
    if isinstance(batch, (tuple, list)):
        return [_moved(part, device) for part in batch]
    return batch.to(device)
