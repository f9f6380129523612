"""A correction of a frozen model's hidden states that is learned from the text while it is read."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from frugal.baselines import Cache
from frugal.corpora import Document
from frugal.errors import InputError, check_list, check_not_negative, check_number, check_whole
from frugal.evaluate import evaluate
from frugal.foundation import Foundation, WindowedFoundation
from frugal.language_model import AdvancingModel, HiddenStateModel, LanguageModel, check_model

RATES = (0.0, 0.1, 0.3, 1.0)
SMALLEST = 1e-12  # mean square of hidden states by which a step is divided
WINDOW = 512  # most tokens that a GPT sees at once where it is read as a stream


class ResidualState(NamedTuple):
    """Of each stream: the model's state, what was learned, the rows to learn from next, and the cache's past."""

    model: Any
    matrix: Tensor  # [B, d, d]
    rows: Tensor  # hidden states [B, n, d] since the last step of learning
    tokens: Tensor  # [B, n], the token before each of these rows
    keys: Tensor  # [B, t, D]; nothing without a cache
    seen: Tensor  # [B, t], all tokens of the stream; likewise


class OnlineResidual(AdvancingModel):
    """Scores every `chunk` of tokens, then learns from it: head(h + R h), with R [d, d] in the state and zero at first.

    After each chunk R takes one step of gradient descent on the mean cross-entropy of its tokens over the whole
    vocabulary. The step is divided by the mean of |h|^2, as in normalised least mean squares, so that a rate suits
    hidden states of any size. Model and head stay as they are. This is dynamic evaluation (Krause et al., "Dynamic
    evaluation of neural sequence models", 2018) confined to one matrix, so that the model itself is run once per token.

    Args:
        model: takes streams of any length, such as `WindowedFoundation(foundation, context=64)`.
        rate: of the step; 0 learns nothing.
        chunk: tokens between two steps.
        cache: a tuned continuous cache over the same model, whose share is mixed in; it reaches back over the stream.

    Raises:
        InputError: a value outside its range, a model with a limited context, or a cache over another model.

    Example:
        >>> from frugal.cooperative import LSTMLanguageModel
        >>> from frugal.corpora import CharTokenizer
        >>> model = LSTMLanguageModel(CharTokenizer.ascii(), hidden=8)
        >>> text = ["abababab" * 20]
        >>> learning = evaluate(OnlineResidual(model, rate=0.5, chunk=8), text, carry=True)
        >>> learning.bits_per_byte < evaluate(model, text).bits_per_byte
        True
    """

    def __init__(
        self, model: HiddenStateModel, *, rate: float = 0.3, chunk: int = 32, cache: Cache | None = None
    ) -> None:
        check_not_negative(f"typical values lie in {RATES[1]} to {RATES[-1]}", rate=rate)
        check_whole(chunk=chunk)
        check_model(model, hidden=True, endless=True)
        if cache is not None and cache.model is not model:
            raise InputError("cache: is over another model; build it with this one")
        self.model, self.rate, self.chunk, self.cache = model, rate, chunk, cache
        self.tokenizer, self.vocabulary_size, self.device = model.tokenizer, model.vocabulary_size, model.device
        with torch.no_grad():
            [[hidden]] = model.hidden(torch.tensor([[self.tokenizer.start_id]], device=self.device))
        self.like = hidden  # [d]; of this width, number format and device

    @classmethod
    def over(cls, model: LanguageModel, *, rate: float = 0.3) -> Self:
        """Any model with hidden states as one that learns from what it reads; a GPT then sees windows of 512 tokens.

        Raises:
            InputError: the model has no hidden states, such as an n-gram.
        """
        if isinstance(model, Foundation):
            model = WindowedFoundation(model, min(WINDOW, model.context_length))
        return cls(model, rate=rate)  # type: ignore[arg-type]  # it looks itself

    @classmethod
    def tuned(
        cls,
        model: HiddenStateModel,
        documents: Iterable[Document | str],
        *,
        rates: Sequence[float] = RATES,
        chunk: int = 32,
        cache: Cache | None = None,
    ) -> Self:
        """The rate under which validation documents, read as one stream, are predicted best; each reads them once."""
        check_list(check_number, rates=rates)
        texts = list(documents)
        tried = [cls(model, rate=rate, chunk=chunk, cache=cache) for rate in rates]
        return min(tried, key=lambda each: evaluate(each, texts, carry=True).nats)

    def start(self, batch_size: int) -> ResidualState:
        d = len(self.like)
        nothing = torch.empty(batch_size, 0, dtype=torch.int64, device=self.device)
        return ResidualState(
            self.model.start(batch_size),
            torch.zeros(batch_size, d, d, device=self.device),
            self.like.new_zeros(batch_size, 0, d),
            nothing,
            torch.zeros(batch_size, 0, 0 if self.cache is None else self._width(), device=self.device),
            nothing,
        )

    def advance(self, tokens: Tensor, state: ResidualState) -> tuple[Tensor, ResidualState]:
        with torch.no_grad():
            hidden, inner = self.model.hidden_advance(tokens, state.model)
        rows, read = torch.cat([state.rows, hidden], 1), torch.cat([state.tokens, tokens], 1)
        keys, seen = state.keys, state.seen
        if self.cache is not None:
            keys = torch.cat([keys, self.cache.keys(hidden)], 1)
            seen = torch.cat([seen, tokens], 1)
        known, done = state.rows.shape[1], (read.shape[1] - 1) // self.chunk * self.chunk
        columns = zip(state.matrix, rows, read, keys, seen, strict=True)
        streams = [
            self._stream(matrix, row, tokens, past, words, known) for matrix, row, tokens, past, words in columns
        ]
        log_p, matrices = (torch.stack(column) for column in zip(*streams, strict=True))
        return log_p, ResidualState(inner, matrices, rows[:, done:], read[:, done:], keys, seen)

    def _stream(
        self, matrix: Tensor, rows: Tensor, read: Tensor, keys: Tensor, seen: Tensor, known: int
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities [T, V] after the rows from `known` on, and what was learned by the last of them."""
        found = []
        for begin in range(0, len(rows), self.chunk):
            if begin:
                matrix = self._learned(
                    matrix, rows[begin - self.chunk : begin], read[begin - self.chunk + 1 : begin + 1]
                )
            first, end = max(begin, known), min(begin + self.chunk, len(rows))
            if first >= end:
                continue
            with torch.no_grad():
                log_p = self._logits(matrix, rows[first:end]).log_softmax(-1)
                if self.cache is not None:
                    log_p = self.cache.blended(log_p, keys, seen[1:], len(seen) - len(rows) + first)
            found.append(log_p)
        return torch.cat(found), matrix

    def _learned(self, matrix: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
        """The matrix after one step on rows [n, d] and the tokens after them [n]; a document's end teaches nothing."""
        taught = targets != self.tokenizer.start_id
        if self.rate == 0 or not taught.any():
            return matrix
        with torch.inference_mode(False), torch.enable_grad():
            weights = matrix.clone().requires_grad_()
            loss = cross_entropy(self._logits(weights, rows[taught].clone()), targets[taught].clone())
            (gradient,) = torch.autograd.grad(loss, weights)
            size = rows[taught].float().square().sum(1).mean()
            return (weights - self.rate / size.clamp_min(SMALLEST) * gradient).detach()

    def _logits(self, matrix: Tensor, rows: Tensor) -> Tensor:
        return self.model.head(rows + (rows.float() @ matrix.T).to(rows.dtype)).float()

    def _width(self) -> int:
        assert self.cache is not None
        return self.cache.keys(self.like.unsqueeze(0)).shape[1]
