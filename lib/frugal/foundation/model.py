"""Frozen pretrained language models: hidden states, head, key-value cache, saving and loading."""

import contextlib
import copy
import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from frugal.corpora import Tokenizer, Window, strided_windows
from frugal.device import DType, choose_device, choose_dtype
from frugal.errors import InputError, UnavailableError
from frugal.files import appearing, data_folder
from frugal.foundation.features import collect_features
from frugal.foundation.gguf_files import cut_as_trained, forget_gguf, gguf_file, read_header
from frugal.foundation.tokenizer import PretrainedTokenizer
from frugal.language_model import HiddenStateModel

if TYPE_CHECKING:  # the functions that need transformers import it: that takes seconds
    from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

# What a configuration says beside the function that the model computes.
INCIDENTAL_SETTINGS = ("_name_or_path", "architectures", "dtype", "transformers_version", "use_cache")
USUAL_CONTEXT = 512


@dataclass(frozen=True)
class FoundationState:
    """What a stream keeps: the tokens in view and their keys and values.

    A step makes a new cache from the old one's tensors, which transformers never writes into (it concatenates),
    so an old state stays valid and costs no copy of its own.
    """

    tokens: Tensor  # [B, n], n <= context_length
    cache: "DynamicCache"


class Foundation(HiddenStateModel):
    """A frozen causal language model of the Hugging Face kind: GPT-2, GPT-NeoX, Llama and their like.

    Streams may be longer than `context_length`: when the cache is full, the last `context_length // 2` tokens are
    encoded again and the stream goes on from there. So a step past the limit sees between a half and the whole of
    the context, and the cost of encoding again is shared by the many steps between.

    Attributes:
        model: the transformers model, in evaluation mode, its parameters frozen.
        name: what the model was loaded by.
        dtype: of the weights and of the computation.
        hidden_size: width d of the hidden states.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> from frugal.corpora import CharTokenizer, encode_documents
        >>> small = GPT2Config(vocab_size=130, n_positions=32, n_embd=12, n_layer=1, bos_token_id=128, eos_token_id=128)
        >>> gpt = Foundation(GPT2LMHeadModel(small), CharTokenizer.ascii(), name="untrained")
        >>> gpt
        Foundation(untrained: GPT2LMHeadModel, 0.0 M parameters, float32 on cpu)
        >>> [tokens] = encode_documents(gpt.tokenizer, ["hello"])
        >>> gpt.hidden(tokens[None]).shape
        torch.Size([1, 6, 12])
    """

    context_length: int

    def __init__(
        self, model: "PreTrainedModel", tokenizer: Tokenizer, *, name: str, context_length: int | None = None
    ) -> None:
        """Freeze `model`; `context_length` may shorten the context that it was trained for.

        Raises:
            InputError: the context length does not fit, or the model does not have the form that is needed here.
        """
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.device = model.device
        self.dtype = model.dtype
        self.hidden_size: int = model.config.hidden_size
        self.vocabulary_size: int = model.get_output_embeddings().weight.shape[0]
        limit = getattr(model.config, "max_position_embeddings", None)
        if limit is None:
            raise InputError(f"{name} states no context length: use a model of the GPT-2, GPT-NeoX or Llama kind")
        self.context_length = limit if context_length is None else context_length
        if not 4 <= self.context_length <= limit:
            raise InputError(f"context_length={context_length}: must lie in 4 to {limit}, for which {name} was trained")
        self._check_form()

    def __repr__(self) -> str:
        millions = sum(weight.numel() for weight in self.model.parameters()) / 1e6
        kind, dtype = type(self.model).__name__, str(self.dtype).removeprefix("torch.")
        return f"Foundation({self.name}: {kind}, {millions:.1f} M parameters, {dtype} on {self.device})"

    def hidden(self, tokens: Tensor) -> Tensor:
        if tokens.shape[1] > self.context_length:
            raise InputError(
                f"{tokens.shape[1]} tokens at once: {self.name} takes at most context_length={self.context_length}; "
                "cut the text into strided windows"
            )
        return self.model.base_model(tokens, use_cache=False).last_hidden_state

    def head(self, hidden: Tensor) -> Tensor:
        return self.model.get_output_embeddings()(hidden)

    @property
    def embedding_size(self) -> int:
        """Width of a token's embedding; most models have it equal to the hidden size."""
        return self.model.get_input_embeddings().weight.shape[1]

    def embed(self, tokens: Tensor) -> Tensor:
        """The model's own embeddings [.., e] of tokens [..]."""
        return self.model.get_input_embeddings()(tokens)

    def start(self, batch_size: int) -> FoundationState:
        tokens = torch.empty(batch_size, 0, dtype=torch.int64, device=self.device)
        return FoundationState(tokens, self._empty_cache())

    def hidden_step(self, tokens: Tensor, state: FoundationState) -> tuple[Tensor, FoundationState]:
        return self._take(tokens.unsqueeze(1), state)

    def feed(self, tokens: Tensor, state: FoundationState) -> tuple[Tensor, FoundationState]:
        hidden, state = self._take(tokens, state)
        return self.head(hidden).float(), state

    def features(
        self,
        tokens: Tensor | Sequence[Tensor],
        *,
        context: int | None = None,
        stride: int | None = None,
        batch_size: int = 8,
    ) -> np.ndarray | list[np.ndarray]:
        """Last hidden states of each token, read from the cache on disk or computed and cached there.

        Args:
            tokens: int64 [T], or one such tensor per document: no window crosses a document's border.
            context: longest window, in tokens; by default 512, or the model's `context_length` where that is less.
            stride: how far windows advance (see `strided_windows`); by default `context`, so that each token is
                encoded once and the first ones of a window see little before them.
            batch_size: windows encoded at once; no part of the cache's key.

        Returns:
            A memory-mapped, read-only float16 array [T, d], or one view of it per document.

        Raises:
            InputError: tokens outside the vocabulary, a window longer than the model's context, hidden states
                that float16 cannot hold.
            UnavailableError: the disk is too full.
        """
        documents = [tokens] if isinstance(tokens, Tensor) else list(tokens)
        context = min(USUAL_CONTEXT, self.context_length) if context is None else context
        stride = context if stride is None else stride
        if context > self.context_length:
            raise InputError(f"context={context}: must not exceed the model's context_length={self.context_length}")
        if not sum(map(len, documents)):
            raise InputError("tokens: must hold at least one token; give a text that is not empty")
        joined = torch.cat(documents).cpu()
        if not 0 <= int(joined.min()) <= int(joined.max()) < self.vocabulary_size:
            raise InputError(f"tokens: must lie in 0 to {self.vocabulary_size - 1}; use this model's own tokeniser")
        lengths = [len(document) for document in documents]
        rows = collect_features(
            self._hidden_rows,
            joined,
            windows=_joined_windows(lengths, context, stride),
            width=self.hidden_size,
            batch_size=batch_size,
            folder=data_folder() / "features" / self._feature_key(joined, lengths, context, stride),
        )
        if isinstance(tokens, Tensor):
            return rows
        return np.split(rows, np.cumsum(lengths)[:-1])

    def logits(self, features: np.ndarray | Tensor) -> Tensor:
        """The model's own logits, float32 [.., V], of hidden states [.., d], such as rows of `features`."""
        if isinstance(features, np.ndarray):
            features = torch.tensor(features)  # a copy, since torch wants memory that it could write to
        return self.head(features.to(self.device, self.dtype)).float()

    @cached_property
    def fingerprint(self) -> str:
        """Tells models apart: a digest of the configuration and of the weights, rounded to bfloat16.

        So it is the same whether the model is stored or computed in float32 or bfloat16.
        """
        return self._digest(torch.bfloat16)

    @property
    def identity(self) -> str:
        """What a training on its hidden states follows from; see `frugal.training.checkpoint.fingerprint`."""
        return self.fingerprint

    @cached_property
    def exact_fingerprint(self) -> str:
        """Tells apart models that give different hidden states: as `fingerprint`, of the weights computed with."""
        return self._digest(None)

    def _digest(self, dtype: torch.dtype | None) -> str:
        settings = self.model.config.to_dict()
        settings = {name: value for name, value in settings.items() if name not in INCIDENTAL_SETTINGS}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        for name, weight in sorted(self.model.base_model.state_dict().items()):
            digest.update(name.encode())
            weight = weight.to(dtype) if dtype is not None and weight.is_floating_point() else weight
            digest.update(weight.contiguous().cpu().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def save(self, folder: Path, card: str | None = None) -> None:
        """Write a Hugging Face folder, which other programs can read too; `card` is the text of its card.md."""
        with appearing(folder) as temporary, quiet_transformers():
            self.model.save_pretrained(temporary)
            self.tokenizer.save(temporary)
            text = f"# {self.name}\n\n{self!r}" if card is None else card
            (temporary / "card.md").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = "cpu",
        dtype: DType = "auto",
        context_length: int | None = None,
        name: str | None = None,
    ) -> Self:
        """Read a Hugging Face folder or a GGUF file; see `load_foundation`."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        file = gguf_file(folder)
        if file is None:
            check_model_folder(folder)
        header = None if file is None else read_header(file)
        where = choose_device(device)
        # No code of a folder is run, and nobody is asked whether it may be.
        source: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        if file is not None:
            folder, source["gguf_file"] = file.parent, file.name
        config = _read_config(folder, source)
        computed_in = choose_dtype(dtype, where, config.hidden_size)
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
                pretrained = AutoTokenizer.from_pretrained(folder, **source)
        except Exception as error:  # transformers, safetensors and tokenizers each raise their own kinds
            raise UnavailableError(
                f"{file or folder} cannot be read as a causal language model ({_first_line(error)}): "
                "check or replace its files"
            ) from error
        model, info = loaded
        _check_weights(file or folder, info)
        if header is not None:
            forget_gguf(model)
            cut_as_trained(pretrained, header)
        ends = model.generation_config.eos_token_id if model.generation_config else None
        tokenizer = PretrainedTokenizer(pretrained, np.ravel([] if ends is None else ends).tolist())
        name = str(file or folder) if name is None else name
        return cls(model.to(where), tokenizer, name=name, context_length=context_length)

    def _take(self, tokens: Tensor, state: FoundationState) -> tuple[Tensor, FoundationState]:
        """Hidden state [B, d] after T >= 1 more tokens [B, T], in one forward pass."""
        seen = torch.cat([state.tokens, tokens], dim=1)
        surplus = seen.shape[1] - self.context_length - 1
        if surplus < 0:
            cache = _with_same_tensors(state.cache)
        else:
            # Where one token at a time would have led: back to a half when full, then on to the next filling.
            half = self.context_length // 2
            tokens = seen = seen[:, -(half + surplus % (self.context_length + 1 - half)) :]
            cache = self._empty_cache()
        output = self.model.base_model(tokens, past_key_values=cache, use_cache=True)
        return output.last_hidden_state[:, -1], FoundationState(seen, cache)

    def _empty_cache(self) -> "DynamicCache":
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def _hidden_rows(self, tokens: Tensor) -> np.ndarray:
        return self.hidden(tokens.to(self.device)).float().cpu().numpy()

    def _feature_key(self, tokens: Tensor, lengths: list[int], context: int, stride: int) -> str:
        settings = [self.exact_fingerprint, str(self.dtype), lengths, context, stride]
        return hashlib.sha256(json.dumps(settings).encode() + tokens.numpy().tobytes()).hexdigest()[:32]

    def _check_form(self) -> None:
        """Try on a few tokens that the model is causal and that its head is all that follows the hidden states."""
        tokens = torch.tensor([[0, 1, 2], [0, 1, 3]], device=self.device)
        hidden, logits = self.hidden(tokens), self.model(tokens, use_cache=False).logits
        if not hidden.isfinite().all():
            raise UnavailableError(f"{self.name} computes numbers that are not finite: its weights are damaged")
        if not torch.allclose(hidden[0, :2], hidden[1, :2], rtol=1e-3, atol=1e-3):
            raise InputError(f"{self.name} looks at later tokens: a causal language model is needed, such as GPT-2")
        if not torch.allclose(self.head(hidden), logits, rtol=1e-3, atol=1e-3):
            raise InputError(
                f"{self.name} does more between hidden states and logits than one linear layer: "
                "use a model of the GPT-2, GPT-NeoX or Llama kind"
            )


def _read_config(folder: Path, source: dict[str, Any]) -> "PreTrainedConfig":
    from transformers import AutoConfig

    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, **source)
    except Exception as error:  # whatever stands in the file
        raise InputError(
            f"{folder / source.get('gguf_file', '')} holds no model of a kind that transformers knows "
            f"({_first_line(error)}): models that need code of their own cannot be used; use one of the GPT-2, "
            "GPT-NeoX or Llama kind"
        ) from error
    if getattr(config, "hidden_size", None) is None:
        raise InputError(f"{folder} holds a {config.model_type}, not a model of text alone: give its text model")
    return config


def _check_weights(path: Path, info: dict[str, Any]) -> None:
    """Refuse weights that are missing or of other shapes than the configuration says; name those left over."""
    if info["mismatched_keys"]:
        raise UnavailableError(
            f"{path} has weights of other shapes than its configuration says ({_some(info['mismatched_keys'])}): "
            "get a complete copy"
        )
    if info["missing_keys"]:
        raise UnavailableError(
            f"{path} lacks weights of its architecture ({_some(info['missing_keys'])}): get a complete copy"
        )
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


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]


def check_model_folder(folder: Path) -> None:
    """Raise InputError unless `folder` has a configuration and all its weights as safetensors."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json: give a Hugging Face model folder, as save_pretrained writes it")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            needed = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except Exception as error:  # whatever stands in the file
            raise UnavailableError(f"{index} cannot be read ({_first_line(error)}): get a complete copy") from error
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


def _with_same_tensors(cache: "DynamicCache") -> "DynamicCache":
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    return twin


def _joined_windows(lengths: list[int], context: int, stride: int) -> list[Window]:
    """Windows of all documents, counted from the start of the first."""
    starts = np.cumsum([0, *lengths]).tolist()
    return [
        Window(*(start + place for place in window))
        for start, length in zip(starts, lengths, strict=False)
        for window in strided_windows(length, context, stride)
    ]
