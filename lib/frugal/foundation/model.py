"""Frozen pretrained language models: hidden states, head, key-value cache, saving and loading."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from frugal.corpora import Tokenizer, Window, strided_windows
from frugal.device import DType, choose_device
from frugal.errors import InputError, UnavailableError
from frugal.files import appearing, data_folder
from frugal.foundation.features import collect_features
from frugal.foundation.parts import Head, alike, cache_name, copied_cache, transformer_of
from frugal.foundation.reading import first_line, quiet_transformers, read_pretrained
from frugal.language_model import HiddenStateModel, check_vocabulary, whole_tokens

if TYPE_CHECKING:  # the functions that need transformers import it: that takes seconds
    from transformers import PreTrainedModel

# What a configuration says beside the function that the model computes.
INCIDENTAL_SETTINGS = ("_name_or_path", "architectures", "dtype", "transformers_version", "use_cache")
# What of a stream's continuation a model reads at a time, with the help of what it kept of the tokens before.
ReadsOn = Literal["a piece", "a token", "nothing"]
USUAL_CONTEXT = 512
UNSTATED_CONTEXT = 2048  # what nearly all models were trained with that state no limit, as recurrent ones do


@dataclass(frozen=True)
class FoundationState:
    """What a stream keeps: the tokens in view, and what the model has computed of them to go on from.

    A step copies what it would overwrite, so an old state stays valid.
    """

    tokens: Tensor  # [B, n], n <= context_length
    cache: Any  # keys and values, recurrent states; None before the first token, and where the model keeps nothing
    architecture: str  # of the model


class Foundation(HiddenStateModel):
    """A frozen causal language model of any family that transformers has: GPT-2, Llama, Mamba and their like.

    A few tokens are tried on loading: what is not causal, or makes its logits of more than its last hidden states, is
    refused; where streams cannot go on from what the model keeps of the past, they read all that is in view again.

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
        self.transformer, self.head_module = transformer_of(model), Head(model)
        self.context_length = _context_length(model, context_length, name)
        self.cache_name = cache_name(self.transformer)
        self.reads_on: ReadsOn = "nothing"
        self._try()

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
        return self.transformer(tokens, use_cache=False).last_hidden_state

    def head(self, hidden: Tensor) -> Tensor:
        return self.head_module(hidden)

    @property
    def embedding_size(self) -> int:
        """Width of a token's embedding; most models have it equal to the hidden size."""
        return self.model.get_input_embeddings().weight.shape[1]

    @property
    def has_usual_form(self) -> bool:
        """Whether vectors can go in and logits come out by GPT-2's parts: embeddings, blocks, one linear layer."""
        head = self.model.get_output_embeddings()
        keeps_keys = self.reads_on != "nothing" and self.cache_name == "past_key_values"
        if not keeps_keys or self.embedding_size != self.hidden_size or head is None:
            return False
        hidden = self.hidden(torch.tensor([[0, 1]], device=self.device))
        return alike(head(hidden), self.head(hidden))

    def embed(self, tokens: Tensor) -> Tensor:
        """The model's own embeddings [.., e] of tokens [..]."""
        check_vocabulary(tokens, self.vocabulary_size)
        return self.model.get_input_embeddings()(tokens)

    def start(self, batch_size: int) -> FoundationState:
        tokens = torch.empty(batch_size, 0, dtype=torch.int64, device=self.device)
        return FoundationState(tokens, None, self.architecture)

    def _goes_on_from(self, state: FoundationState) -> bool:
        return state.architecture == self.architecture

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
        joined = whole_tokens(torch.cat(documents).cpu(), "T", "features", self.vocabulary_size)
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
        return self._digest(torch.bfloat16, head=True)

    @cached_property
    def body_fingerprint(self) -> str:
        """As `fingerprint`, without a head of its own: what earlier versions wrote."""
        return self._digest(torch.bfloat16)

    @property
    def identity(self) -> str:
        """What a training on its hidden states follows from; see `frugal.training.checkpoint.fingerprint`."""
        return self.fingerprint

    @cached_property
    def exact_fingerprint(self) -> str:
        """Tells apart models that give different hidden states: as `fingerprint`, of the weights computed with."""
        return self._digest(None)

    @cached_property
    def architecture(self) -> str:
        """The model's settings, as JSON; other models of the same architecture go on from its states as well."""
        settings = self.model.config.to_dict()
        settings = {name: value for name, value in settings.items() if name not in INCIDENTAL_SETTINGS}
        return json.dumps(settings, sort_keys=True, default=str)

    def _digest(self, dtype: torch.dtype | None, *, head: bool = False) -> str:
        digest = hashlib.sha256(self.architecture.encode())
        weights, last = self.model.base_model.state_dict(), self.model.get_output_embeddings()
        if head and last is not None and not torch.equal(last.weight, self.model.get_input_embeddings().weight):
            weights |= {f"head.{name}": weight for name, weight in last.state_dict().items()}
        for name, weight in sorted(weights.items()):
            digest.update(name.encode())
            weight = weight.to(dtype) if dtype is not None and weight.is_floating_point() else weight
            digest.update(weight.contiguous().cpu().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def save(self, folder: Path | str, card: str | None = None) -> None:
        """Write a Hugging Face folder, which other programs can read too; `card` is the text of its card.md."""
        with appearing(folder) as temporary, quiet_transformers():
            self.model.save_pretrained(temporary)
            self.tokenizer.save(temporary)
            text = f"# {self.name}\n\n{self!r}" if card is None else card
            (temporary / "card.md").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: str = "cpu",
        dtype: DType = "auto",
        context_length: int | None = None,
        name: str | None = None,
        adapter: Path | None = None,
    ) -> Self:
        """Read a Hugging Face folder or a GGUF file, and the adapter made for it; see `load_foundation`."""
        model, tokenizer = read_pretrained(Path(folder), choose_device(device), dtype, adapter)
        return cls(model, tokenizer, name=str(folder) if name is None else name, context_length=context_length)

    def _take(self, tokens: Tensor, state: FoundationState) -> tuple[Tensor, FoundationState]:
        """Hidden state [B, d] after T >= 1 more tokens [B, T], in one forward pass."""
        if self.reads_on == "a token" and state.cache is not None and tokens.shape[1] > 1:
            for token in tokens.split(1, dim=1):
                hidden, state = self._take(token, state)
            return hidden, state
        seen = torch.cat([state.tokens, tokens], dim=1)
        surplus = seen.shape[1] - self.context_length - 1
        cache = copied_cache(state.cache) if surplus < 0 else None
        if surplus >= 0:
            # Where one token at a time would have led: back to a half when full, then on to the next filling.
            half = self.context_length // 2
            tokens = seen = seen[:, -(half + surplus % (self.context_length + 1 - half)) :]
        if self.reads_on == "nothing":
            return self.hidden(seen)[:, -1], replace(state, tokens=seen)
        assert self.cache_name is not None
        output = self.transformer(tokens, use_cache=True, **{self.cache_name: cache})
        return output.last_hidden_state[:, -1], replace(state, tokens=seen, cache=getattr(output, self.cache_name))

    def _hidden_rows(self, tokens: Tensor) -> np.ndarray:
        return self.hidden(tokens.to(self.device)).float().cpu().numpy()

    def _feature_key(self, tokens: Tensor, lengths: list[int], context: int, stride: int) -> str:
        settings = [self.exact_fingerprint, str(self.dtype), lengths, context, stride]
        return hashlib.sha256(json.dumps(settings).encode() + tokens.numpy().tobytes()).hexdigest()[:32]

    @torch.no_grad()
    def _try(self) -> None:
        """Find out on a few tokens what no configuration tells: widths, whether causal, whether streams can go on."""
        tokens = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 0]], device=self.device)
        try:
            logits = self.model(tokens, use_cache=False).logits
            self.vocabulary_size = logits.shape[-1]
            hidden = self.hidden(tokens)
        except Exception as error:  # whatever a family wants beside tokens
            raise InputError(
                f"{self.name} does not read tokens alone ({first_line(error)}): a causal language model of text is "
                "needed, such as GPT-2"
            ) from error
        self.hidden_size = hidden.shape[-1]
        if not (hidden.isfinite().all() and logits.isfinite().all()):
            raise UnavailableError(f"{self.name} computes numbers that are not finite: its weights are damaged")
        if not alike(hidden[0, :3], hidden[1, :3]):
            raise InputError(f"{self.name} looks at later tokens: a causal language model is needed, such as GPT-2")
        try:
            whole = alike(self.head(hidden), logits)
        except Exception:  # its logits are made of more than the hidden states
            whole = False
        if not whole:
            raise InputError(
                f"{self.name} makes its logits of more than the last hidden states: "
                "use a model of the GPT-2, GPT-NeoX or Llama kind"
            )
        ways: tuple[ReadsOn, ...] = ("a piece", "a token") if self.cache_name is not None else ()
        self.reads_on = next((way for way in ways if self._streams_rightly(way, tokens, hidden)), "nothing")
        if self.reads_on == "nothing":
            warnings.warn(
                f"{self.name} keeps nothing that a stream can go on from: each new token costs as much as reading all "
                "that is in view",
                stacklevel=3,
            )

    def _streams_rightly(self, way: ReadsOn, tokens: Tensor, hidden: Tensor) -> bool:
        """Whether streams of `tokens` [2, 4] give their hidden states, also from a state that was continued before."""
        self.reads_on = way
        try:
            _, first = self._take(tokens[:, :1], self.start(2))
            second, _ = self._take(tokens[:, 1:2], first)
            self._take(tokens[:, 3:], first)
            fourth, _ = self._take(tokens[:, 1:], first)
        except Exception:  # whatever a family does that calls its cache as others do
            return False
        return alike(second, hidden[:, 1]) and alike(fourth, hidden[:, 3])


def _context_length(model: "PreTrainedModel", given: int | None, name: str) -> int:
    """The context wanted, at most what the model was made for where it says so."""
    settings = model.config.get_text_config(decoder=True)
    limit = getattr(settings, "max_position_embeddings", None) or getattr(settings, "max_seq_len", None)
    limit = limit if limit is not None and limit > 0 else None  # XLNet says -1
    for table in model.modules():  # RoBERTa and its like count positions from behind that of padding
        if not isinstance(table, nn.Embedding) or table is model.get_input_embeddings():
            continue
        if table.num_embeddings == limit and table.padding_idx is not None:
            limit -= table.padding_idx + 1
    length = given if given is not None else limit if limit is not None else UNSTATED_CONTEXT
    if length < 4 or (limit is not None and length > limit):
        most = "must be at least 4" if limit is None else f"must lie in 4 to {limit}, for which {name} was trained"
        raise InputError(f"context_length={length}: {most}")
    return length


def _joined_windows(lengths: list[int], context: int, stride: int) -> list[Window]:
    """Windows of all documents, counted from the start of the first."""
    starts = np.cumsum([0, *lengths]).tolist()
    return [
        Window(*(start + place for place in window))
        for start, length in zip(starts, lengths, strict=False)
        for window in strided_windows(length, context, stride)
    ]
