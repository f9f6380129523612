"""The state of a training on disk: numbers in JSON, tensors in safetensors, and no pickle."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from frugal.errors import InputError, UnavailableError
from frugal.files import appearing


def keep(
    folder: Path,
    title: str,
    plan: Any,
    network: nn.Module,
    optimizer: Optimizer,
    scores: Sequence[Any],
    best: dict[str, Tensor] | None,
) -> None:
    """Write a training's state, plan and scores being dataclasses; the folder appears whole."""
    tensors: dict[str, Tensor] = {}
    state = {"network": network.state_dict(), "best": best, "optimizer": optimizer.state_dict()}
    kept = {
        "training": title,
        "plan": asdict(plan),
        "scores": [asdict(score) for score in scores],
        "state": _without_tensors(state, tensors, "state"),
    }
    with appearing(folder) as temporary:
        temporary.mkdir()
        save_file(tensors, temporary / "training.safetensors")
        (temporary / "training.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def resume(
    folder: Path, title: str, plan: Any, network: nn.Module, optimizer: Optimizer
) -> tuple[list[dict[str, Any]], dict[str, Tensor] | None]:
    """Put network and optimiser back as `keep` found them; the fields of the scores, and the best weights.

    Raises:
        InputError: another training was kept there.
        UnavailableError: the folder is damaged, or of an earlier version.
    """
    try:
        kept = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        found = kept["training"], kept["plan"]
        state = _with_tensors(kept["state"], load_file(folder / "training.safetensors"))
    except Exception as error:
        raise UnavailableError(
            f"{folder} holds no training that this version can resume ({error}): remove it to start again"
        ) from error
    if found != (title, json.loads(json.dumps(asdict(plan)))):
        raise InputError(f"{folder} holds a training of another plan ({found}): remove it or use that plan")
    try:
        network.load_state_dict(state["network"])
    except RuntimeError as error:
        raise InputError(f"{folder} holds the training of another model: remove it or give another folder") from error
    optimizer.load_state_dict(state["optimizer"])
    return kept["scores"], state["best"]


def _without_tensors(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """Nested dictionaries and lists for JSON; their tensors are moved to `tensors`, and their names stand for them."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):  # as pairs, since JSON would make strings of keys that are numbers
        return {"pairs": [[key, _without_tensors(part, tensors, f"{name}.{key}")] for key, part in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_without_tensors(part, tensors, f"{name}.{place}") for place, part in enumerate(value)]
    return value


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What `_without_tensors` was given."""
    if isinstance(value, list):
        return [_with_tensors(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    return tensors[value["tensor"]] if "tensor" in value else {k: _with_tensors(v, tensors) for k, v in value["pairs"]}
