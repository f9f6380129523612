"""The state of a training on disk, so that it can be interrupted and gone on with."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from frugal.errors import InputError, UnavailableError
from frugal.files import appearing
from frugal.readout.base import part
from frugal.readout.plan import EpochScore


def keep(
    folder: Path,
    readout: nn.Module,
    plan: Any,
    optimizer: Optimizer,
    scores: list[Any],
    best: dict[str, Tensor],
) -> None:
    """Write the training's state, plan and scores being dataclasses; the folder appears whole."""
    tensors = {f"last.{name}": values for name, values in readout.state_dict().items()}
    tensors |= {f"best.{name}": values for name, values in best.items()}
    if not isinstance(optimizer, LBFGS):  # which gathers its curvature anew
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": values for name, values in state.items()}
    with appearing(folder) as temporary:
        temporary.mkdir()
        save_file({name: values.contiguous() for name, values in tensors.items()}, temporary / "training.safetensors")
        text = json.dumps({"plan": asdict(plan), "scores": [asdict(score) for score in scores]}, indent=2)
        (temporary / "training.json").write_text(text + "\n", encoding="utf-8")


def resume(
    folder: Path, readout: nn.Module, plan: Any, optimizer: Optimizer, kind: type[Any] = EpochScore
) -> tuple[list[Any], dict[str, Tensor]]:
    """Put readout and optimiser back as `keep` found them; the scores, of this kind, and the best weights so far."""
    try:
        kept = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "training.safetensors")
        scores = [kind(**score) for score in kept["scores"]]
    except Exception as error:
        raise UnavailableError(f"{folder} holds no readable training ({error}): remove it to start anew") from error
    if kept["plan"] != asdict(plan):
        raise InputError(f"{folder} holds a training of another plan ({kept['plan']}): remove it or use that plan")
    try:
        readout.load_state_dict(part(tensors, "last."))
    except RuntimeError as error:
        raise InputError(f"{folder} holds the training of another readout: remove it or give another folder") from error
    states: dict[int, dict[str, Tensor]] = {}
    for name, values in part(tensors, "optimizer.").items():
        index, key = name.split(".")
        states.setdefault(int(index), {})[key] = values
    if states:
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return scores, part(tensors, "best.")
