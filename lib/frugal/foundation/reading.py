"""Pretrained models as they lie on disk: Hugging Face folders, GGUF files, adapters made for them."""

import contextlib
import json
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from frugal.device import DType, choose_dtype
from frugal.errors import InputError, UnavailableError
from frugal.foundation.adapters import add_adapter, is_adapter
from frugal.foundation.gguf_files import cut_as_trained, forget_gguf, gguf_file, read_header
from frugal.foundation.tokenizer import PretrainedTokenizer

if TYPE_CHECKING:  # the functions that need transformers import it: that takes seconds
    from transformers import PreTrainedConfig, PreTrainedModel

TOKENIZER_SETTINGS = "tokenizer_config.json"


def read_pretrained(
    folder: Path, device: torch.device, dtype: DType, adapter: Path | None = None
) -> tuple["PreTrainedModel", PretrainedTokenizer]:
    """The model and the tokeniser in a folder or a GGUF file; an adapter's weights are added to the model's.

    Raises:
        InputError: there is no such model, or it is of a kind that cannot be used here.
        UnavailableError: its files are damaged.
    """
    from transformers import AutoModelForCausalLM

    file = gguf_file(folder)
    if file is None:
        check_model_folder(folder)
    header = None if file is None else read_header(file)
    # No code of a folder is run, and nobody is asked whether it may be.
    source: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if file is not None:
        folder, source["gguf_file"] = file.parent, file.name
    config = _read_config(folder, source)
    computed_in = choose_dtype(dtype, device, getattr(config.get_text_config(decoder=True), "hidden_size", 0))
    try:
        with quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=computed_in,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are named below
                output_loading_info=True,
                **source,
            )
    except Exception as error:  # transformers and safetensors each raise their own kinds
        raise UnavailableError(
            f"{file or folder} cannot be read as a causal language model ({first_line(error)}): "
            "check or replace its files"
        ) from error
    if adapter is not None and (adapter / TOKENIZER_SETTINGS).is_file():
        pretrained = _read_tokenizer(adapter, {**source, "gguf_file": None})
    else:
        pretrained = _read_tokenizer(folder, source)
    model, info = loaded
    _check_weights(file or folder, info)
    if header is not None:
        forget_gguf(model)
        cut_as_trained(pretrained, header)
    if adapter is not None:
        add_adapter(model, adapter)
    ends = model.generation_config.eos_token_id if model.generation_config else None
    ends = np.ravel([] if ends is None else ends).tolist()
    tokenizer = PretrainedTokenizer(pretrained, ends, model.get_input_embeddings().weight.shape[0])
    return model.to(device), tokenizer


def _read_config(folder: Path, source: dict[str, Any]) -> "PreTrainedConfig":
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, **source)
    except Exception as error:  # whatever stands in the file
        raise InputError(
            f"{folder / source.get('gguf_file', '')} holds no model of a kind that transformers knows "
            f"({first_line(error)}): models that need code of their own cannot be used; use one of the GPT-2, "
            "GPT-NeoX or Llama kind"
        ) from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InputError(
            f"{folder} holds a {config.model_type}, which is no causal language model: give one like GPT-2"
        )
    return config


def _read_tokenizer(folder: Path, source: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(folder, **source)
    except Exception as error:  # transformers and tokenizers each raise their own kinds
        if _names_code(folder / TOKENIZER_SETTINGS):
            raise InputError(
                f"the tokeniser in {folder} needs code of its own, which is never run: add its tokenizer.json"
            ) from error
        raise UnavailableError(
            f"the tokeniser in {folder} cannot be read ({first_line(error)}): check or replace its files"
        ) from error


def _names_code(settings: Path) -> bool:
    try:
        return "auto_map" in json.loads(settings.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _check_weights(path: Path, info: dict[str, Any]) -> None:
    """Refuse weights that are missing or of other shapes than the configuration says; name those left over."""
    refused = {
        "mismatched_keys": "has weights of other shapes than its configuration says",
        "missing_keys": "lacks weights of its architecture",
    }
    for keys, fault in refused.items():
        if info[keys]:
            raise UnavailableError(f"{path} {fault} ({_some(info[keys])}): get a complete copy")
    if info["unexpected_keys"]:
        warnings.warn(
            f"{path} holds weights that its configuration has no place for ({_some(info['unexpected_keys'])}): "
            "they are not used",
            stacklevel=3,
        )


def _some(names: Iterable[Any]) -> str:
    """The first three of names, some of which come with shapes."""
    names = sorted(name if isinstance(name, str) else name[0] for name in names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def first_line(error: Exception) -> str:
    return str(error).split("\n")[0]


def check_model_folder(folder: Path) -> None:
    """Raise InputError unless `folder` has a configuration and all its weights as safetensors."""
    if is_adapter(folder):
        return
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json: give a Hugging Face model folder, as save_pretrained writes it")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            needed = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except Exception as error:  # whatever stands in the file
            raise UnavailableError(f"{index} cannot be read ({first_line(error)}): get a complete copy") from error
    else:
        needed = {"model.safetensors"}
    missing = sorted(name for name in needed if not (folder / name).is_file())
    if missing:
        raise InputError(
            f"{folder} has no {missing[0]}: only safetensors weights are read, since pickled ones can run code; "
            "save the model with save_pretrained"
        )


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' bars and remarks about routine loading and saving out of notebooks."""
    from transformers.utils import logging as log

    bars, verbosity = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
