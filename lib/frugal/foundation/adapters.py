"""Low-rank adapters (LoRA, Hu et al. 2021), as the peft library saves them, added to the weights they were made for."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from frugal.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model of its own."""
    return (folder / SETTINGS).is_file() and not (folder / "config.json").is_file()


def adapted_model(folder: Path) -> str:
    """The name of the model that an adapter was made for.

    Raises:
        InputError: the folder does not say.
    """
    name = _settings(folder).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise InputError(f"{folder / SETTINGS} does not name a base_model_name_or_path: add the model's name or folder")
    return name


@torch.no_grad()
def add_adapter(model: "PreTrainedModel", folder: Path) -> None:
    """Replace each adapted weight W by W + scale B A, and those that were trained whole.

    A head that shares its weights with the embedding has its own from then on if the adapter changes one of the two.

    Raises:
        InputError: the adapter is of a kind that is not a sum of such products, or was made for another model.
        UnavailableError: its files are damaged.
    """
    settings = _settings(folder)
    if settings.get("peft_type") != "LORA" or settings.get("use_dora"):
        kind = "DoRA" if settings.get("use_dora") else settings.get("peft_type")
        raise InputError(
            f"{folder} is an adapter of the kind {kind}: only LoRA is read; merge it with the peft library"
        )
    try:
        weights = load_file(folder / WEIGHTS)
    except Exception as error:  # whatever stands in the file
        raise UnavailableError(f"{folder / WEIGHTS} cannot be read ({error}): get a complete copy") from error
    weights = {name.removeprefix("base_model.model."): weight for name, weight in weights.items()}
    tied, layers = _is_tied(model), dict(model.named_modules())
    for name in [name for name in weights if name.endswith(".lora_A.weight")]:
        place = name.removesuffix(".lora_A.weight")
        down, up = weights.pop(name), weights.pop(f"{place}.lora_B.weight", None)  # A [r, in], B [out, r]
        layer = layers.get(place)
        if layer is None or up is None or up.shape[1:] != down.shape[:1]:
            raise InputError(f"{folder} changes {place}, which the model does not have: it was made for another one")
        change = _scale(settings, place, len(down)) * up.float() @ down.float()
        # GPT-2's Conv1D keeps its weights the other way round.
        _replace(layer, layer.weight.float() + (change if isinstance(layer, nn.Linear) else change.T), folder)
    for name, weight in weights.items():
        place = re.sub(r"\.(weight|bias)$", "", name)
        layer = layers.get(place)
        if "lora_" in name or layer is None or not name.endswith(".weight"):
            raise InputError(f"{folder} holds {name}, which is no part of a plain LoRA: merge it with the peft library")
        _replace(layer, weight, folder)
    if tied and not _is_tied(model):
        model.config.tie_word_embeddings = False  # or the saved model would be tied again when it is read


def _is_tied(model: "PreTrainedModel") -> bool:
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        return dict(settings)
    except Exception as error:  # whatever stands in the file
        raise UnavailableError(f"{folder / SETTINGS} cannot be read ({error}): get a complete copy") from error


def _scale(settings: dict[str, Any], place: str, rank: int) -> float:
    """What B A is multiplied by; patterns name single layers by the end of their place."""

    def of_layer(patterns: dict[str, Any], usual: Any) -> Any:
        return next((value for end, value in patterns.items() if re.match(rf"(.*\.)?({end})$", place)), usual)

    alpha = of_layer(settings.get("alpha_pattern") or {}, settings.get("lora_alpha", 8))
    return float(alpha / (rank**0.5 if settings.get("use_rslora") else rank))


def _replace(layer: Any, weight: Tensor, folder: Path) -> None:
    if weight.shape != layer.weight.shape:
        raise InputError(
            f"{folder} holds weights of the shape {tuple(weight.shape)} where the model's have "
            f"{tuple(layer.weight.shape)}: it was made for another model"
        )
    layer.weight = nn.Parameter(weight.to(layer.weight), requires_grad=False)  # another layer may share the old one
