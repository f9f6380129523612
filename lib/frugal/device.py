"""Where to compute and in which number format, and what the processor is called."""

import platform
from pathlib import Path
from typing import Literal

import torch

from frugal.errors import InputError, UnavailableError

DType = Literal["auto", "float32", "bfloat16"]
DEVICES = ("cpu", "cuda", "mps", "auto")
PAYS_FROM_WIDTH = 256  # hidden units of a model


def choose_device(name: str) -> torch.device:
    """The device called "cpu", "cuda" or "mps" (Apple's GPU); "auto" takes CUDA, else MPS, else the processor.

    Raises:
        InputError: there is no device of that name.
        UnavailableError: this machine has none of that kind.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name not in DEVICES:
        raise InputError(f"device={name!r}: must be one of {', '.join(map(repr, DEVICES))}")
    present = [kind for kind, there in (("cuda", torch.cuda), ("mps", torch.backends.mps)) if there.is_available()]
    if name == "auto":
        return torch.device([*present, "cpu"][0])
    if name not in [*present, "cpu"]:
        raise UnavailableError(f"device={name!r}: torch sees none here; use device='cpu' or 'auto'")
    return torch.device(name)


def choose_dtype(name: DType, device: torch.device, width: int) -> torch.dtype:
    """The number format called "float32" or "bfloat16", for a model `width` wide.

    "auto" takes bfloat16 where the device multiplies matrices of it in hardware and the model is at least 256 wide.
    On a Xeon with AMX, features of models of width 128, 256 and 576 then take 0.75, 0.45 and 0.3 of float32's time;
    without matrix units, or at width 64, they take as long or longer.

    Raises:
        InputError: there is no format of that name.

    >>> choose_dtype("auto", torch.device("cpu"), 64)
    torch.float32
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise InputError(f"dtype={name!r}: must be 'float32', 'bfloat16' or 'auto'")
    if name == "auto":
        name = "bfloat16" if width >= PAYS_FROM_WIDTH and multiplies_bfloat16(device) else "float32"
    return torch.float32 if name == "float32" else torch.bfloat16


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has units that multiply bfloat16 matrices; of processors, those with AMX have."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and "amx_bf16" in _told_of_processor("flags").split()


def processor() -> str:
    """The processor's name."""
    return _told_of_processor("model name") or platform.processor() or platform.machine()


def _told_of_processor(field: str) -> str:
    """What Linux tells of the first core; elsewhere nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next(
        (value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == field), ""
    )
