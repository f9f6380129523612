"""What comes in and goes out: NumPy or torch, checked before anything changes, returned as the caller's kind."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frugal.errors import InputError

Array = np.ndarray | Tensor
Back = Callable[[np.ndarray], Any]
# Squared distances of larger vectors do not fit into float32.
LARGEST_SQUARED_NORM = float(np.finfo(np.float32).max) / 8
EXACT_IN_FLOAT32 = (torch.float32, torch.float16, torch.bfloat16)


def like(given: object) -> Back:
    """A function that turns a NumPy array into the kind, and puts it on the device, of `given`."""
    if isinstance(given, Tensor):
        device = given.device
        return lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(device)
    return lambda array: array


def plain(given: object, name: str) -> np.ndarray:
    """`given` as a NumPy array; tensors are detached and brought to main memory, without a copy where possible."""
    if isinstance(given, Tensor):
        tensor = given.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if isinstance(given, np.ndarray | int | np.integer | Sequence):
        return np.asarray(given)
    raise InputError(f"{name} of type {type(given).__name__}: expected a NumPy array or a torch tensor")


def vectors_of(given: Array, dim: int, name: str) -> np.ndarray:
    """Vectors [.., dim] as float32 rows [n, dim].

    Raises:
        InputError: not floats that float32 holds exactly, another width, a number that is not finite or too large.
    """
    if isinstance(given, Tensor) and given.dtype not in EXACT_IN_FLOAT32:
        raise InputError(f"{name} of dtype {given.dtype}: expected float32, float16 or bfloat16; use .float()")
    array = plain(given, name)
    if array.dtype not in (np.float32, np.float16):
        raise InputError(f"{name} of dtype {array.dtype}: expected float32 or float16; use .astype(np.float32)")
    if array.ndim < 2 or array.shape[-1] != dim:
        raise InputError(f"{name} of shape {list(array.shape)}: expected [n, {dim}] or [B, T, {dim}]")
    rows = np.ascontiguousarray(array.reshape(-1, dim), dtype=np.float32)
    sizes = squared_norms(rows)
    if not (sizes <= LARGEST_SQUARED_NORM).all():  # also where one is not a number
        bad = int(np.flatnonzero(~(sizes <= LARGEST_SQUARED_NORM))[0])
        raise InputError(f"{name}: row {bad} holds a number that is not finite, or above 1e18; nothing was changed")
    return rows


def squared_norms(rows: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", rows, rows)


def integers_of(given: Array | Sequence[int] | int, name: str) -> np.ndarray:
    """Whole numbers of any shape as int64."""
    array = plain(given, name)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise InputError(f"{name} of dtype {array.dtype}: expected whole numbers")
    return array.astype(np.int64)


def one_for_each(given: Array | Sequence[int] | int, shape: tuple[int, ...], name: str) -> np.ndarray:
    """A whole number for each of `shape`'s rows: one for all, one for each [B, T], or one for each of B, flattened."""
    array = integers_of(given, name)
    if array.shape != shape[: array.ndim]:
        raise InputError(
            f"{name} of shape {list(array.shape)}: expected one number, or a shape that {list(shape)} begins with"
        )
    missing = len(shape) - array.ndim
    return np.broadcast_to(array.reshape(array.shape + (1,) * missing), shape).reshape(-1)
