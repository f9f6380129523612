"""Where and in which number format to compute."""

import json
import time
from typing import Literal

import torch

from frugal.errors import InputError, UnavailableError
from frugal.files import data_folder, write_text
from frugal.machine import processor

DType = Literal["auto", "float32", "bfloat16"]
TRIAL_ROWS = 64
TRIAL_WIDTH = 1024  # wider models are tried at this width: the trial shall stay short
REPEATS = 8
CLEARLY = 0.8  # bfloat16 has to take less than this part of float32's time


def choose_device(name: str) -> torch.device:
    """The device called "cpu" or "cuda"; "auto" takes CUDA where there is one."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device={name!r}: must be 'cpu', 'cuda' or 'auto'")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UnavailableError("device='cuda': torch sees no CUDA device here; use device='cpu' or 'auto'")
    return torch.device(name)


def choose_dtype(name: DType, device: torch.device, width: int) -> torch.dtype:
    """The number format called "float32" or "bfloat16"; "auto" takes the faster one for models `width` wide.

    A processor is tried once; the result is kept in the data folder, since cached features depend on it.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise InputError(f"dtype={name!r}: must be 'float32', 'bfloat16' or 'auto'")
    if name == "auto":
        name = _faster_on_cuda() if device.type == "cuda" else _faster_on_processor(min(width, TRIAL_WIDTH))
    return torch.float32 if name == "float32" else torch.bfloat16


def _faster_on_cuda() -> DType:
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def _faster_on_processor(width: int) -> DType:
    path = data_folder() / "precision.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    key = f"{processor()}, torch {torch.__version__}, width {width}"
    if key not in results:
        faster = _trial(torch.bfloat16, width) < CLEARLY * _trial(torch.float32, width)
        results[key] = "bfloat16" if faster else "float32"
        write_text(path, json.dumps(results, indent=2) + "\n")
    return results[key]


def _trial(dtype: torch.dtype, width: int) -> float:
    """Seconds for one feed-forward layer's larger product, the best of a few."""
    rows, weights = torch.ones(TRIAL_ROWS, width, dtype=dtype), torch.ones(4 * width, width, dtype=dtype)
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        torch.nn.functional.linear(rows, weights)
        times.append(time.perf_counter() - begin)
    return min(times)
