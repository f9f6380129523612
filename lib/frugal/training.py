"""Gradient training for all families: seeds, and one loop on Lightning Fabric.

Fabric does devices, precision and clipping. Lightning's Trainer is not used: on an interrupt it leaves the process
with `sys.exit`, having made the kernel deaf to further ones.
"""

import math
import random
import time
from collections.abc import Callable, Iterable
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from frugal.errors import InputError

WARM_UP = 0.1
DECAY = 0.2


def seed_everything(seed: int) -> None:
    """Make the random draws of Python, numpy and torch (all devices) repeatable."""
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
    clip: float = 1.0,
    device: str = "cpu",
    title: str = "training",
) -> list[float]:
    """Train `model` in place until the budget of steps or seconds is spent; the first to run out ends it.

    Args:
        model: is moved to `device` and left there.
        loss: `loss(model, batch)` gives the scalar to descend.
        batches: such as a DataLoader; begun again whenever it ends.
        optimizer: of the model's parameters; its learning rate is the highest that `schedule` reaches.
        steps: budget in optimiser steps: the same seed gives the same model.
        seconds: budget in wall-clock time: the result depends on the machine.
        schedule: factor of the learning rate by the part of the budget that is spent, 0..1.
        clip: largest norm of the gradient.
        device: "cpu" or "cuda".
        title: what the progress bar says.

    Returns:
        The loss of each step.

    Raises:
        InputError: no budget, no batches, or a loss that is not finite.
    """
    from lightning.fabric import Fabric  # here, because it takes seconds to import

    if steps is None and seconds is None:
        raise InputError("steps=None, seconds=None: training needs a budget; give one of them")
    if iter(batches) is batches:
        raise InputError("batches: can be gone through only once; give a DataLoader or a list")
    if next(iter(batches), None) is None:
        raise InputError("batches: there are none; give a text that fills at least one")
    fabric = Fabric(accelerator=device, devices=1)
    model, optimizer = fabric.setup(model.train(), optimizer)
    rates = [group["lr"] for group in optimizer.param_groups]
    losses: list[float] = []
    begin = time.monotonic()
    with tqdm(desc=title, total=steps, unit=" steps") as bar:
        for batch in chain.from_iterable(repeat(batches)):
            done = max(
                0.0 if steps is None else (len(losses) + 0.5) / steps,
                0.0 if seconds is None else (time.monotonic() - begin) / seconds,
            )
            if done >= 1:
                break
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * schedule(done)
            optimizer.zero_grad()
            value = loss(model, fabric.to_device(batch))
            losses.append(value.item())
            if not math.isfinite(losses[-1]):
                raise InputError(f"{title}: the loss is {losses[-1]} at step {len(losses)}; lower the learning rate")
            fabric.backward(value)
            fabric.clip_gradients(model, optimizer, max_norm=clip, error_if_nonfinite=False)  # the next loss tells
            optimizer.step()
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            bar.update()
    return losses
