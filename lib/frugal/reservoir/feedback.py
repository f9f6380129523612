"""Feedback: outputs that a reservoir reads beside its inputs, one step later.

The feedback weights are the last columns of W_in: a reservoir for d inputs and K outputs is one of d + K inputs, whose
`input_scale` scales each column. While a readout is fitted, the targets stand where its outputs will be (teacher
forcing); afterwards it goes on by its own outputs (a closed loop).

Source: Jaeger, "The echo state approach to analysing and training recurrent neural networks", GMD report 148, 2001.
"""

from collections.abc import Callable
from typing import overload

import numpy as np
import torch
from torch import Tensor

from frugal.errors import DivergedError, InputError
from frugal.reservoir.collector import StateCollector
from frugal.tensors import like_given, number_tensor


@overload
def teacher_forced(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray: ...


@overload
def teacher_forced(inputs: Tensor, targets: Tensor) -> Tensor: ...


def teacher_forced(inputs: Tensor | np.ndarray, targets: Tensor | np.ndarray) -> Tensor | np.ndarray:
    """What a reservoir with feedback reads while its readout is fitted, [.., T, d + K].

    Args:
        inputs: [.., T, d]; with d = 0 the outputs alone drive the reservoir.
        targets: [.., T, K]; that of the step before stands beside an input, zeros beside the first.

    Raises:
        InputError: inputs and targets differ in length.

    >>> teacher_forced(np.array([[1.0], [2.0], [3.0]]), np.array([[7.0], [8.0], [9.0]])).tolist()
    [[1.0, 0.0], [2.0, 7.0], [3.0, 8.0]]
    """
    x, y = number_tensor("inputs", inputs), number_tensor("targets", targets)
    if x.ndim < 2 or x.shape[:-1] != y.shape[:-1]:
        raise InputError(f"inputs {list(x.shape)} and targets {list(y.shape)}: must be [.., T, d] and [.., T, K]")
    before = torch.cat([torch.zeros_like(y[..., :1, :]), y[..., :-1, :]], -2)
    return like_given(torch.cat([x, before.to(x.device)], -1), inputs)


@overload
def closed_loop(
    reservoir: StateCollector,
    readout: Callable[[Tensor], Tensor],
    inputs: np.ndarray,
    state: np.ndarray | Tensor | None = None,
    output: np.ndarray | Tensor | None = None,
) -> tuple[np.ndarray, np.ndarray]: ...


@overload
def closed_loop(
    reservoir: StateCollector,
    readout: Callable[[Tensor], Tensor],
    inputs: Tensor,
    state: Tensor | None = None,
    output: Tensor | None = None,
) -> tuple[Tensor, Tensor]: ...


@torch.no_grad()
def closed_loop(
    reservoir: StateCollector,
    readout: Callable[[Tensor], Tensor],
    inputs: Tensor | np.ndarray,
    state: Tensor | np.ndarray | None = None,
    output: Tensor | np.ndarray | None = None,
) -> tuple[Tensor | np.ndarray, Tensor | np.ndarray]:
    """The outputs [B, T, K] of a readout that is fed back, and the state [B, S] to go on from.

    Args:
        reservoir: of d + K inputs.
        readout: gives the outputs [B, K] of states [B, N], such as a `LinearMap`.
        inputs: [B, T, d]; with d = 0 the outputs alone drive the reservoir, for T steps.
        state: [B, S] before the first step; zeros by default.
        output: [B, K] of the step before the first, such as the last value that is known; zeros by default.

    Raises:
        InputError: shapes that do not fit, or outputs that are no numbers any more, the last of all included.

    Example:
        >>> from frugal.reservoir import Reservoir
        >>> from frugal.ridge import LinearMap
        >>> wave = torch.sin(torch.arange(400) / 5).double().view(1, -1, 1)
        >>> reservoir = Reservoir(1, 50, leak=0.5, dtype=torch.float64)
        >>> states, last = reservoir.run(wave[:, :300])
        >>> readout = LinearMap.fit(states[0, 100:], wave[0, 101:301], ridge=1e-9)
        >>> free, _ = closed_loop(reservoir, readout, torch.empty(1, 50, 0), last, wave[:, 300])
        >>> bool((free - wave[:, 301:351]).abs().max() < 1e-2)
        True
    """
    x = number_tensor("inputs", inputs)
    if x.ndim != 3 or x.shape[2] >= reservoir.input_size:
        raise InputError(
            f"inputs of shape {list(x.shape)}: expected [B, T, d], with d less than the reservoir's "
            f"{reservoir.input_size} inputs, the rest of which are for the outputs"
        )
    outputs = reservoir.like.new_zeros(*x.shape[:2], reservoir.input_size - x.shape[2])
    last = reservoir.start(len(x)) if state is None else number_tensor("state", state)
    expected = [len(x), outputs.shape[2]]
    fed_back = outputs.new_zeros(expected) if output is None else number_tensor("output", output)
    if list(fed_back.shape) != expected:
        raise InputError(f"output of shape {list(fed_back.shape)}: expected {expected}, the last known of each stream")
    for t in range(x.shape[1]):
        states, last = reservoir.step(torch.cat([x[:, t].to(outputs), fed_back.to(outputs)], 1), last)
        fed_back = number_tensor("outputs", readout(states))
        if list(fed_back.shape) != expected:
            raise InputError(f"outputs {list(fed_back.shape)} of the readout: the reservoir takes {expected}")
        outputs[:, t] = fed_back
    if not outputs[:, -1:].isfinite().all():  # those before are read by the reservoir, which refuses them
        raise DivergedError(f"outputs of the readout: hold NaN or infinity, or numbers beyond {outputs.dtype}")
    return like_given(outputs, inputs), like_given(last, inputs)
