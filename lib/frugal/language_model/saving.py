"""Models in folders: weights as safetensors, settings with the name of the class, tokeniser and card."""

import inspect
import json
import pkgutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

import frugal
from frugal.corpora.tokenizers import Tokenizer, load_tokenizer
from frugal.device import DType
from frugal.errors import FrugalError, InputError, UnavailableError
from frugal.files import appearing, load_tensors, plain, put_back, save_tensors
from frugal.language_model.protocol import LanguageModel


def class_name(kind: type) -> str:
    """What a saved model's configuration calls a class: "frugal.room:Class"."""
    return f"{'.'.join(kind.__module__.split('.')[:2])}:{kind.__name__}"


def class_named(name: str) -> Any:
    """The class that `class_name` called so; only rooms of this library are looked into.

    Earlier versions saved the bare name, or had the class in another room: then the public names of all are looked at.

    Raises:
        InputError: there is no such class.
    """
    named, _, kind = name.rpartition(":")
    for room in (named, *(f"frugal.{found.name}" for found in pkgutil.iter_modules(frugal.__path__))):
        if room.startswith("frugal.") and room.isprintable() and find_spec(room):
            found = getattr(import_module(room), kind, None)
            # What a room merely imports, such as a class of the standard library, is not to be had by a folder's word.
            if isinstance(found, type) and found.__module__.startswith("frugal."):
                return found
    raise InputError(f"{name!r} is no class of this library: the folder was saved by another version, or is damaged")


def load_model(folder: Path | str, *, device: str = "cpu", dtype: DType = "auto") -> LanguageModel:
    """Read a language model of any family from the folder that it was saved to.

    Args:
        folder: where it was saved.
        device: "cpu", "cuda", "mps" or "auto".
        dtype: that the GPT it stands on computes in: "float32", "bfloat16" or "auto".

    Raises:
        InputError: the folder does not hold a language model of this library, or `dtype` is for one on a GPT.
        UnavailableError: a file is missing or damaged.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> NGram(3, CharTokenizer("ab")).fit(["abab"]).save(Path("trigram"))
        >>> type(load_model("trigram")).__name__
        'NGram'
    """
    folder = Path(folder)
    put_back(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; give one that a model was saved to")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except Exception as error:
        raise UnavailableError(f"{folder} cannot be read as a saved model ({error}): save the model again") from error
    name = config.get("class") if isinstance(config, dict) else None
    kind = class_named(name) if isinstance(name, str) else None
    if kind is None or not issubclass(kind, LanguageModel):
        raise InputError(f"{folder} does not hold a language model of this library: its config.json names {name}")
    options: dict[str, Any] = {"device": device} if dtype == "auto" else {"device": device, "dtype": dtype}
    if not options.keys() <= inspect.signature(kind.load).parameters.keys():
        raise InputError(f"dtype={dtype!r}: a {kind.__name__} stands on no GPT; leave the dtype out")
    try:
        return kind.load(folder, **options)
    except FrugalError:
        raise
    except Exception as error:  # its files do not go together
        raise UnavailableError(f"{folder} cannot be read as a saved model ({error}): save the model again") from error


def check_on_cpu(kind: type, device: str) -> None:
    """Refuse to load a model of this kind onto any other device."""
    if device not in ("auto", "cpu"):
        raise InputError(f"device={device!r}: a {kind.__name__} runs on the CPU; leave the device out")


class HasTokenizer(Protocol):
    """What can be saved: a model of characters or tokens, whether it predicts the next or not."""

    tokenizer: Tokenizer


def save_model(
    folder: Path | str, model: HasTokenizer, weights: dict[str, Tensor], config: dict[str, Any], card: str
) -> None:
    """Write `model.safetensors`, `config.json`, the tokeniser's files and `card.md`; the folder appears whole.

    `config` holds plain values and numbers of NumPy only; the model's class is added, so that `load_model` finds it.
    """
    with appearing(folder) as temporary:
        temporary.mkdir()
        save_tensors(weights, temporary / "model.safetensors")
        settings = {"class": class_name(type(model)), **config}
        (temporary / "config.json").write_text(json.dumps(settings, indent=2, default=plain) + "\n", encoding="utf-8")
        (temporary / "card.md").write_text(card.rstrip() + "\n", encoding="utf-8")
        model.tokenizer.save(temporary)


def read_model(folder: Path | str, kind: type[HasTokenizer]) -> tuple[dict[str, Tensor], dict[str, Any], Tokenizer]:
    """Read back what `save_model` wrote: weights, configuration, tokeniser.

    Raises:
        InputError: the folder holds a model of another class.
        UnavailableError: a file is missing or damaged.
    """
    put_back(Path(folder))
    try:
        config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        weights = load_tensors(Path(folder, "model.safetensors"))
    except Exception as error:
        raise UnavailableError(f"{folder} cannot be read as a saved model ({error}): save the model again") from error
    name = str(config.pop("class", None))
    if name.rpartition(":")[2] != kind.__name__:
        raise InputError(f"{folder} holds a {name}, not a {kind.__name__}: load it with `load_model`")
    return weights, config, load_tokenizer(Path(folder))
