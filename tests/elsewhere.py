"""A device that no machine has: it computes what the processor does, and like a GPU it mixes with nothing else.

Its tensors are seen as torch's "meta" device; each holds one on the processor, on which every operation runs. What a
GPU refuses is refused: tensors of two devices in one operation, a processor's random numbers drawn into its tensors,
NumPy. So a model that forgets to say where a tensor is to be fails here as it would there.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import frugal.device
import models
from models import set_everywhere

THERE, HERE = torch.device("meta"), torch.device("cpu")
MOVES = {"aten::copy_", "aten::_to_copy"}  # the operations that go from one device to another
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}  # places may be anywhere
OF_ONE_KIND = {"aten::cat", "aten::stack"}  # numbers without dimensions may come from the processor, but not to these


class Elsewhere(Tensor):
    """A tensor of that device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Elsewhere":
        shape: dict[str, Any] = {"dtype": held.dtype}
        if held.layout == torch.strided:
            shape |= {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made: Elsewhere = Tensor._make_wrapper_subclass(cls, held.shape, device=THERE, **shape)  # type: ignore[attr-defined]
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(operation, args, kwargs or {})


class Computing(TorchDispatchMode):
    """Sees what makes tensors as well: `device="meta"` makes one of these."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(operation, args, kwargs or {})


class Making(TorchFunctionMode):
    """Python's numbers become such tensors by way of the processor: torch itself would make them without numbers."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], Elsewhere):
            places = args[1] if isinstance(args[1], tuple) else (args[1],)
            return function(args[0], tuple(map(as_places, places)), *args[2:])
        if function is Tensor.tolist and isinstance(args[0], Elsewhere):
            return args[0].cpu().tolist()
        if function is Tensor.new_tensor and isinstance(args[0], Elsewhere):
            return torch.tensor(args[1], **{"dtype": args[0].dtype, **kwargs, "device": HERE}).to(THERE)
        device = kwargs.get("device")
        if function in (torch.tensor, torch.as_tensor) and device is not None and torch.device(device) == THERE:
            return function(*args, **{**kwargs, "device": HERE}).to(THERE)
        return function(*args, **kwargs)


def as_places(index: Any) -> Any:
    """An index; a list as a tensor of the processor, for torch itself would make one elsewhere, without numbers."""
    return torch.tensor(index, dtype=None if index else torch.int64) if isinstance(index, list) else index


def computed(operation: Any, args: Any, kwargs: Any) -> Any:
    """What the processor makes of an operation, on the device on which a GPU would have it."""
    leaves = list(flat((*args, *kwargs.values())))
    given = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    name, said = operation._schema.name, kwargs.get("device")
    there = any(isinstance(tensor, Elsewhere) for tensor in given) if said is None else torch.device(said) == THERE
    if name not in MOVES:
        refuse_mixtures(name, args, given)
        if there and any(isinstance(leaf, torch.Generator) for leaf in leaves):
            raise RuntimeError(f"{name}: draws the processor's random numbers into a tensor that is elsewhere")
    named = {key: plain(value) for key, value in kwargs.items()}
    found = operation(*plain(args), **(named if said is None else {**named, "device": HERE}))
    if not there:
        return found
    return moved(found, {id(tensor.held): tensor for tensor in given if isinstance(tensor, Elsewhere)})


def flat(value: Any) -> Iterator[Any]:
    """What is in tuples and lists of any depth; pytree takes far longer."""
    if isinstance(value, tuple | list):
        for part in value:
            yield from flat(part)
    else:
        yield value


def plain(value: Any) -> Any:
    """The tensors that are held instead of those that hold them."""
    if isinstance(value, Elsewhere):
        return value.held
    return type(value)(map(plain, value)) if type(value) in (tuple, list) else value


def moved(value: Any, known: dict[int, Elsewhere]) -> Any:
    """Results as tensors of that device; what was changed in place is known already."""
    if isinstance(value, Tensor):
        return known[id(value)] if id(value) in known else Elsewhere(value)
    return type(value)(moved(part, known) for part in value) if type(value) in (tuple, list) else value


def refuse_mixtures(name: str, args: Any, given: list[Tensor]) -> None:
    """Raise what torch raises of tensors of two devices; a processor's number without dimensions may be anywhere."""
    if name in INDEXED:
        places = [each for each in args[1] if isinstance(each, Elsewhere)]
        given = [args[0], *(part for part in args[2:] if isinstance(part, Tensor)), *places]
    elif name not in OF_ONE_KIND:
        given = [tensor for tensor in given if tensor.dim() or isinstance(tensor, Elsewhere)]
    if len({isinstance(tensor, Elsewhere) for tensor in given}) > 1:
        raise RuntimeError(f"{name}: tensors of two devices, {[tuple(tensor.shape) for tensor in given]}")


@contextmanager
def elsewhere() -> Iterator[None]:
    """Within it "cuda" is that device, and tests' models are made there."""

    def choose(name: str) -> torch.device:
        return HERE if name == "cpu" else THERE

    with pytest.MonkeyPatch.context() as patches, patch.object(models, "DEVICE", THERE), Computing(), Making():
        patches.setattr(frugal.device, "choose_device", choose)
        set_everywhere(patches, "choose_device", choose)
        # Tensors like these cannot be made in inference mode.
        patches.setattr(torch.inference_mode, "__enter__", torch.no_grad.__enter__)
        patches.setattr(torch.inference_mode, "__exit__", torch.no_grad.__exit__)
        patches.setattr(sys.modules["torch.optim.adam"], "_device_dtype_check_for_fused", lambda *_, **__: None)
        yield
