"""What users give as numbers, of whatever kind, as tensors."""

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frugal.errors import InputError


def number_tensor(name: str, given: Any) -> Tensor:
    """Real numbers as a tensor, which may share their memory: a tensor, an array of NumPy, or lists of numbers.

    Raises:
        InputError: they are no numbers, or complex ones.

    >>> number_tensor("inputs", [[1, 2.5]])
    tensor([[1.0000, 2.5000]], dtype=torch.float64)
    """
    if isinstance(given, Tensor):
        _check_real(name, given.is_complex(), given.dtype)
        if given.layout is not torch.strided:
            raise InputError(f"{name}: a sparse tensor must become dense first; give its `to_dense()`")
        return given
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # lists of different lengths, or of tensors with a graph
        raise InputError(f"{name}: {type(given).__name__} must hold numbers, in rows of one length") from error
    _check_real(name, array.dtype.kind == "c", array.dtype)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise InputError(f"{name}: {type(given).__name__} of {array.dtype} must hold numbers, of at most 64 bits each")
    if not array.dtype.isnative or min(array.strides, default=0) < 0:  # which torch does not take
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes to it
        return torch.from_numpy(array)


def token_tensor(name: str, given: Any, size: int | None = None) -> Tensor:
    """Tokens of any whole-number type in int64, which may share their memory; all below `size` if it is given.

    Raises:
        InputError: they are no whole numbers from 0, or too large.

    >>> token_tensor("tokens", np.array([2, 0], dtype=np.uint16))
    tensor([2, 0])
    """
    tokens = number_tensor(name, given)
    if tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise InputError(f"{name} of {tokens.dtype}: must be tokens, whole numbers from 0")
    tokens = tokens.long()
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < (2**63 if size is None else size):
        most = "" if size is None else f" to {size - 1}"
        raise InputError(f"{name}: tokens must lie in 0{most}; use the model's own tokeniser")
    return tokens


def row_pairs(rows: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Pieces of rows, (inputs, targets) each; raises InputError where they are none, or one pair alone."""
    for pair in rows if isinstance(rows, Iterable) else [None]:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError("rows: must be a list of pairs (inputs, targets); of one pair give [(inputs, targets)]")
        yield pair[0], pair[1]


def like_given(values: Tensor, given: Any) -> Any:
    """A result in the kind in which the numbers came: an array for an array, of float32 in place of bfloat16."""
    if not isinstance(given, np.ndarray):
        return values
    return (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().numpy()


def _check_real(name: str, is_complex: bool, dtype: Any) -> None:
    if is_complex:
        raise InputError(f"{name} of {dtype}: must be real; give real and imaginary part as two numbers")
