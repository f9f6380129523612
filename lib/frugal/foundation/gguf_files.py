"""Models in GGUF files, as llama.cpp keeps them; transformers reads and expands them."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frugal.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PreTrainedTokenizerBase

# How a text is cut before byte pairs are merged: GGUF's names of two ways (llama.cpp, src/llama-vocab.cpp).
CUT_AS_GPT2 = ("gpt-2", "mpt", "olmo", "jais", "phi-2", "roberta-bpe", "trillion", "exaone4", "granite-docling")
CUT_WITH_SINGLE_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
# What transformers writes into a configuration beside the architecture, where it comes from a GGUF file.
ADDED_SETTINGS = ("_model_name_or_path", "unk_token_id", "quantization_config")


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that is meant: the path itself, or the only one in a folder without safetensors.

    Raises:
        InputError: the folder holds several.
    """
    if path.suffix == ".gguf":
        return path
    files = sorted(path.glob("*.gguf"))
    if not files or any(path.glob("*.safetensors")):
        return None
    if len(files) > 1:
        raise InputError(f"{path} holds {len(files)} GGUF files: give one of them, such as {files[0]}")
    return files[0]


def read_header(path: Path) -> "GGUFReader":
    """The file's settings and the places of its tensors.

    Raises:
        InputError: it holds a model that transformers would read wrongly.
        UnavailableError: it is damaged.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        kind = reader.fields["general.architecture"].contents()
    except Exception as error:  # whatever stands in the file
        raise UnavailableError(f"{path} cannot be read as a GGUF file ({error}): get a complete copy") from error
    scaling = _setting(reader, f"{kind}.rope.scaling.type") not in (None, "none")
    if kind != "gpt-oss" and (scaling or any(tensor.name == "rope_freqs.weight" for tensor in reader.tensors)):
        raise InputError(
            f"{path} scales its rotary embedding, which is not read from GGUF: give the model's Hugging Face folder"
        )
    return reader


def forget_gguf(model: Any) -> None:
    """Make an expanded model an ordinary one, which can be saved and has an ordinary configuration."""
    reader: Any = getattr(model, "hf_quantizer", None)
    if reader is not None:
        reader.remove_quantization_config(model)
    for name in ADDED_SETTINGS:
        vars(model.config).pop(name, None)


def cut_as_trained(tokenizer: "PreTrainedTokenizerBase", reader: "GGUFReader") -> None:
    """Let the tokeniser cut texts as the file says, where transformers leaves it at GPT-2's way."""
    from tokenizers import pre_tokenizers

    backend, way = tokenizer.backend_tokenizer, _setting(reader, "tokenizer.ggml.pre")
    if way in CUT_WITH_SINGLE_DIGITS:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    elif way not in (None, *CUT_AS_GPT2) and isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        warnings.warn(
            f"the GGUF file's way of cutting texts into words, {way!r}, is not known: they are cut as GPT-2 does, "
            "which may cost a little; the model's Hugging Face folder has the exact tokeniser",
            stacklevel=2,
        )


def _setting(reader: "GGUFReader", name: str) -> Any:
    field = reader.fields.get(name)
    return None if field is None else field.contents()
