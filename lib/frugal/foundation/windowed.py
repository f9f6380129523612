"""A foundation that reads streams of any length through short windows.

Token t's feature is defined by the stream's beginning alone: `strided_windows(length, context, stride)` says which
window answers for it. A stepped stream therefore gives the features of a text that is known as a whole, and both give
those of `Foundation.features(tokens, context=, stride=)`, which are cached. Past the first window a feature sees
between `context - stride` and `context - 1` tokens before its own.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from frugal.corpora import Window, encode_documents, strided_windows
from frugal.device import DType
from frugal.errors import InputError, check_whole
from frugal.foundation.model import Foundation
from frugal.foundation.saving import save_on_foundation, saved_foundation
from frugal.language_model import KeptStateModel, pieces_in_windows, read_model

TOKENS_AT_ONCE = 4096


class WindowState(NamedTuple):
    """A stream's current window: its tokens [B, n], n <= context, and the foundation's own state after them."""

    tokens: Tensor
    inner: Any


class WindowedFoundation(KeptStateModel):
    """The foundation's own predictions for streams of any length, each made in a short window.

    Args:
        foundation: the frozen model.
        context: tokens per window.
        stride: how far windows advance; by default about half the context, which costs two encodings of each token
            and is how the foundation itself goes on when its context is full.
        prefix: text that the foundation reads before each window, beside the tokens of `context`.

    Raises:
        InputError: the context does not fit the foundation, or the stride not the context.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> from frugal.corpora import CharTokenizer
        >>> small = GPT2Config(vocab_size=130, n_positions=32, n_embd=12, n_layer=1, bos_token_id=128, eos_token_id=128)
        >>> gpt = Foundation(GPT2LMHeadModel(small), CharTokenizer.ascii(), name="untrained")
        >>> WindowedFoundation(gpt, context=8).log_probabilities(torch.zeros(1, 100, dtype=torch.int64)).shape
        torch.Size([1, 100, 130])
    """

    def __init__(self, foundation: Foundation, context: int, stride: int | None = None, prefix: str = "") -> None:
        tokenizer = foundation.tokenizer
        self.prefix = encode_documents(tokenizer, [prefix])[0] if prefix else torch.empty(0, dtype=torch.int64)
        self.prefix = self.prefix.to(foundation.device)  # [P]
        room = foundation.context_length - len(self.prefix)
        check_whole(context=context, stride=1 if stride is None else stride)
        if not 2 <= context <= room:
            beside = f" beside a prefix of {len(self.prefix)} tokens" if prefix else ""
            raise InputError(f"context={context}: must lie in 2 to {room}, the context of {foundation.name}{beside}")
        self.foundation, self.context, self.text = foundation, context, prefix
        self.tokenizer, self.device = tokenizer, foundation.device
        self.vocabulary_size = foundation.vocabulary_size
        self.stride = context + 1 - context // 2 if stride is None else stride
        strided_windows(0, context, self.stride)  # checks the stride

    def hidden(self, tokens: Tensor) -> Tensor:
        return torch.cat(list(self.hidden_pieces(tokens)), 1)

    def hidden_pieces(self, tokens: Tensor) -> Iterator[Tensor]:
        return self.pieces(tokens, self.start(len(tokens)))

    def document_pieces(self, documents: Sequence[Tensor]) -> Iterator[Iterator[Tensor]]:
        for features in self.features(documents):
            rows = features[:-1]
            pieces = (rows[at : at + TOKENS_AT_ONCE] for at in range(0, len(rows), TOKENS_AT_ONCE))
            yield (torch.from_numpy(piece.astype(np.float32)).to(self.device) for piece in pieces)

    def head(self, hidden: Tensor) -> Tensor:
        return self.foundation.logits(hidden)

    def start(self, batch_size: int) -> WindowState:
        return self.resume(torch.empty(batch_size, 0, dtype=torch.int64, device=self.device))

    def hidden_step(self, tokens: Tensor, state: WindowState) -> tuple[Tensor, WindowState]:
        if state.tokens.shape[1] == self.context:
            state = self.resume(state.tokens[:, self.stride :])
        feature, inner = self.foundation.hidden_step(tokens, state.inner)
        return feature, WindowState(torch.cat([state.tokens, tokens.unsqueeze(1)], 1), inner)

    def hidden_advance(self, tokens: Tensor, state: WindowState) -> tuple[Tensor, WindowState]:
        return torch.cat(list(self.pieces(tokens, state)), 1), self.after(tokens, state)

    def save(self, folder: Path | str, notes: str = "") -> None:
        """Write the settings to a folder; `notes` go on its card. A packaged foundation is named, any other saved."""
        config = {"context": self.context, "stride": self.stride, "prefix": self.text}
        card = f"# Foundation in windows\n\n{self.foundation.name}, {config}.\n\n{notes}"
        save_on_foundation(folder, self, {}, config, card)

    @classmethod
    def load(
        cls, folder: Path | str, *, foundation: Foundation | None = None, device: str = "cpu", dtype: DType = "auto"
    ) -> Self:
        """Read what `save` wrote; the foundation can be given where it is loaded already.

        Raises:
            InputError: the folder holds another kind of model, or `foundation` is another one.
            UnavailableError: a file is missing or damaged.
        """
        _, config, _ = read_model(folder, cls)
        return cls(saved_foundation(folder, config, foundation, device, dtype), **config)

    def pieces(self, tokens: Tensor, state: WindowState) -> Iterator[Tensor]:
        """Features of T more tokens [B, T] per stream, in pieces [B, n, d] that bound the memory."""
        return pieces_in_windows(
            lambda windows: self.foundation.hidden(self._prefixed(windows))[:, len(self.prefix) :],
            torch.cat([state.tokens, tokens], 1),
            state.tokens.shape[1],
            context=self.context,
            stride=self.stride,
            tokens_at_once=TOKENS_AT_ONCE,
        )

    def after(self, tokens: Tensor, state: WindowState) -> WindowState:
        """The state after T more tokens [B, T] per stream."""
        seen = torch.cat([state.tokens, tokens], 1)
        return self.resume(seen[:, self.windows(seen.shape[1])[-1].begin :])

    def features(self, documents: Sequence[Tensor]) -> list[np.ndarray]:
        """Float16 features [T, d] of each document [T], from the cache on disk; with a prefix, computed every time."""
        if len(self.prefix):
            return [self._features(tokens.to(self.device)) for tokens in documents]
        features = self.foundation.features(documents, context=self.context, stride=self.stride)
        assert isinstance(features, list)  # as it is for several documents
        return features

    def windows(self, length: int) -> list[Window]:
        """The windows of a stream of `length` tokens."""
        return strided_windows(length, self.context, self.stride)

    def begins_window(self, tokens_before: int) -> bool:
        """Whether the token after so many of a stream is the first that a new window answers for."""
        ahead = tokens_before - self.context
        return tokens_before == 0 or (ahead >= 0 and ahead % self.stride == 0)

    def resume(self, tokens: Tensor) -> WindowState:
        """The state in a window that holds `tokens` [B, n]."""
        inner, read = self.foundation.start(len(tokens)), self._prefixed(tokens)
        if read.shape[1]:
            inner = self.foundation.feed(read, inner)[1]
        return WindowState(tokens, inner)

    @torch.no_grad()
    def _features(self, tokens: Tensor) -> np.ndarray:
        pieces = self.pieces(tokens.unsqueeze(0), self.start(1))
        return torch.cat([piece[0].half().cpu() for piece in pieces]).numpy()

    def _prefixed(self, tokens: Tensor) -> Tensor:
        """Windows [B, n] with the prefix in front, [B, P + n]."""
        return torch.cat([self.prefix.expand(len(tokens), -1), tokens], 1)
