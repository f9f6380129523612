"""What comes in and goes out: NumPy or torch, checked before anything changes, returned as the caller's kind."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frugal.errors import InputError

Array = np.ndarray | Tensor
Integers = Array | Sequence[int] | int
# Squared distances of larger vectors do not fit into float32.
LARGEST_SQUARED_NORM = float(np.finfo(np.float32).max) / 8
# So many numbers stay in the processor's cache while they are scaled.
SCALED_AT_ONCE = 2**15
EXACT_IN_FLOAT32 = (torch.float32, torch.float16, torch.bfloat16)


def like(given: object) -> Callable[[np.ndarray], Any]:
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
    if isinstance(given, np.ndarray | np.integer | int | Sequence):
        return np.asarray(given)
    raise InputError(f"{name} of type {type(given).__name__}: expected a NumPy array or a torch tensor")


def vectors_of(given: Array, dim: int, name: str) -> np.ndarray:
    """Vectors [.., dim] as float32 rows [n, dim].

    Raises:
        InputError: not floats that float32 holds exactly, another width, or a number that is not finite or too large.
    """
    if isinstance(given, Tensor) and given.dtype not in EXACT_IN_FLOAT32:
        raise InputError(f"{name} of dtype {given.dtype}: expected float32, float16 or bfloat16; use .float()")
    array = plain(given, name)
    if array.dtype not in (np.float32, np.float16):
        raise InputError(f"{name} of dtype {array.dtype}: expected float32 or float16; use .astype(np.float32)")
    if array.ndim < 2 or array.shape[-1] != dim:
        raise InputError(f"{name} of shape {list(array.shape)}: expected [n, {dim}] or [B, T, {dim}]")
    rows = np.ascontiguousarray(array.reshape(-1, dim), dtype=np.float32)
    bad = np.flatnonzero(~(squared_norms(rows) <= LARGEST_SQUARED_NORM))  # also where one is not a number
    if len(bad):
        raise InputError(
            f"{name}: row {bad[0]} holds a number that is not finite, or numbers above 1e18; nothing was changed"
        )
    return rows


def squared_norms(rows: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", rows, rows)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; zeros stay zeros."""
    units = np.empty(rows.shape, np.float32)
    at_once = max(1, SCALED_AT_ONCE // rows.shape[1])
    for begin in range(0, len(rows), at_once):
        exact = rows[begin : begin + at_once].astype(np.float64)  # the squares of short ones leave float32
        lengths = np.sqrt(squared_norms(exact))
        exact *= 1 / np.where(lengths > 0, lengths, 1.0)[:, None]
        units[begin : begin + at_once] = exact
    return units


def integers_of(given: Integers, name: str) -> np.ndarray:
    """Whole numbers of any shape as int64."""
    array = plain(given, name)
    if array.size and array.dtype.kind not in "iu":
        raise InputError(f"{name} of dtype {array.dtype}: expected whole numbers")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise InputError(f"{name} of {array.max()}: must be below 2^63")
    return array.astype(np.int64)


def one_for_each(given: Integers, shape: tuple[int, ...], name: str) -> np.ndarray:
    """A whole number for each row: given once, for each of [B, T], or for each of B; flattened."""
    array = integers_of(given, name)
    if array.shape != shape[: array.ndim]:
        raise InputError(f"{name} of shape {list(array.shape)}: expected one number, or what {list(shape)} begins with")
    missing = len(shape) - array.ndim
    return np.broadcast_to(array.reshape(array.shape + (1,) * missing), shape).reshape(-1)


def payload_of(values: Array, shape: tuple[int, ...]) -> np.ndarray:
    """Values [.., *payload] for rows of `shape` [..], as [n, *payload]."""
    array = plain(values, "values")
    if array.shape[: len(shape)] != shape or array.dtype.kind not in "biuf":
        raise InputError(
            f"values of dtype {array.dtype} and shape {list(array.shape)}: expected numbers, "
            f"[{', '.join(map(str, shape))}, *payload]: one for each vector"
        )
    return array.reshape(-1, *array.shape[len(shape) :])
