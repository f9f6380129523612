"""The continuous cache: recently seen words become likelier where the model is in a similar state.

Grave, Joulin and Usunier, "Improving neural language models with a continuous cache", 2017:

    p(w) = (1 - weight) * p_model(w) + weight * p_cache(w),
    p_cache(w) proportional to the sum over past i with x_{i+1} = w of exp(theta * h_t . h_i)

It learns nothing, so a memory or an echo that gains less than this cache has not earned its keep.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import normalize

from frugal.corpora import Document, encode_documents, strided_windows
from frugal.errors import InputError
from frugal.language_model import LOGITS_AT_ONCE, HiddenStateModel, LanguageModel, TargetScores, gather_targets


class CacheState(NamedTuple):
    """A stream's past: the model's own state, unit hidden states [B, t, d], tokens after them [B, t - 1]."""

    model: Any
    hidden: Tensor
    tokens: Tensor


class ContinuousCache(LanguageModel):
    """A hidden-state model with a continuous cache of everything since the document's start.

    Hidden states are scaled to unit length, so that `theta` means the same for every model. The cache outlives
    the model's context: the model itself reads windows of `context` tokens, half overlapping.

    Args:
        model: any model that shows its hidden states.
        weight: share of the cache in the mixture, 0 to 1; 0 is the model itself.
        theta: inverse temperature of the similarity; 0 counts words, whatever the state.
        context: tokens per window of the model itself; default: the model's own limit.
    """

    def __init__(
        self, model: HiddenStateModel, *, weight: float = 0.1, theta: float = 20.0, context: int | None = None
    ) -> None:
        if not 0 <= weight <= 1:
            raise InputError(f"weight={weight}: must be from 0 to 1; typical values lie in 0.05 to 0.3")
        if theta < 0:
            raise InputError(f"theta={theta}: must not be negative; typical values lie in 0 to 50")
        self.model, self.weight, self.theta = model, weight, theta
        self.context = context or model.context_length
        self.tokenizer, self.vocabulary_size, self.device = model.tokenizer, model.vocabulary_size, model.device

    @classmethod
    def tuned(
        cls,
        model: HiddenStateModel,
        documents: Iterable[Document | str],
        *,
        context: int | None = None,
        weights: Sequence[float] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5),
        thetas: Sequence[float] = (0, 5, 10, 20, 40, 80),
    ) -> Self:
        """The cache whose weight and theta predict validation documents best; the model reads them once."""
        cache = cls(model, context=context)
        nats = torch.zeros(len(thetas), len(weights), dtype=torch.float64)
        with torch.inference_mode():
            for tokens in encode_documents(model.tokenizer, documents):
                following = tokens[1:].to(cache.device)
                hidden = cache._hidden(tokens[None, :-1].to(cache.device))[0]
                of_model = cache._of_model(hidden, following)
                for i, theta in enumerate(thetas):
                    of_cache = _of_cache(hidden, following, theta)
                    for j, weight in enumerate(weights):
                        mixed = (1 - weight) * of_model + weight * of_cache
                        mixed[0] = of_model[0]  # no past to mix in
                        nats[i, j] -= mixed.log().sum().cpu()
        best = int(nats.argmin())
        return cls(model, weight=weights[best % len(weights)], theta=thetas[best // len(weights)], context=context)

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        rows = [
            self._mixture(hidden, row[1:], 0, len(row))
            for row, hidden in zip(tokens, self._hidden(tokens), strict=True)
        ]
        return torch.stack(rows)

    def target_scores(self, tokens: Tensor) -> TargetScores:
        """As the protocol's, in bounded memory for rows of any length."""
        last = tokens.shape[1] - 1
        at_once = max(1, LOGITS_AT_ONCE // max(self.vocabulary_size, last))
        rows = []
        for row, hidden in zip(tokens, self._hidden(tokens[:, :-1]), strict=True):
            pieces = [
                gather_targets(
                    self._mixture(hidden, row[1:], begin, min(begin + at_once, last)),
                    row[begin + 1 : begin + at_once + 1],
                )
                for begin in range(0, last, at_once)
            ]
            rows.append([torch.cat(column) for column in zip(*pieces, strict=True)])
        return TargetScores(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def start(self, batch_size: int) -> CacheState:
        tokens = torch.empty(batch_size, 0, dtype=torch.int64, device=self.device)
        return CacheState(self.model.start(batch_size), torch.empty(batch_size, 0, 0, device=self.device), tokens)

    def step(self, tokens: Tensor, state: CacheState) -> tuple[Tensor, CacheState]:
        hidden, model_state = self.model.hidden_step(tokens, state.model)
        first = state.hidden.shape[1] == 0
        past = hidden.unsqueeze(1) if first else torch.cat([state.hidden, hidden.unsqueeze(1)], 1)
        seen = state.tokens if first else torch.cat([state.tokens, tokens.unsqueeze(1)], 1)
        last = past.shape[1] - 1
        logits = [self._mixture(row, words, last, last + 1)[0] for row, words in zip(past, seen, strict=True)]
        return torch.stack(logits), CacheState(model_state, past, seen)

    def _hidden(self, tokens: Tensor) -> Tensor:
        """The model's hidden states [B, T, d], from half-overlapping windows where T exceeds its context."""
        length = tokens.shape[1]
        context = self.context or length
        windows = strided_windows(length, context, max(1, context // 2))
        parts = [self.model.hidden(tokens[:, w.begin : w.end])[:, w.keep - w.begin :] for w in windows]
        return torch.cat(parts, 1)

    def _of_model(self, hidden: Tensor, following: Tensor) -> Tensor:
        """The model's own probability [T] of each following token, in bounded memory."""
        at_once = max(1, LOGITS_AT_ONCE // self.vocabulary_size)
        pieces = [
            self.model.head(rows).float().softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1)
            for rows, targets in zip(hidden.split(at_once), following.split(at_once), strict=True)
        ]
        return torch.cat(pieces)

    def _mixture(self, hidden: Tensor, following: Tensor, begin: int, end: int) -> Tensor:
        """Log-probabilities [end - begin, V] after tokens begin..end - 1 of one stream.

        `hidden` [t, d] are the stream's states and `following` the tokens after them; only what precedes a row
        is used for it.
        """
        log_model = self.model.head(hidden[begin:end]).float().log_softmax(-1)
        if self.weight == 0 or end < 2:
            return log_model
        attention = _attention(hidden, self.theta, begin, end)
        cache = torch.zeros_like(log_model).index_add_(1, following[: end - 1], attention)
        has_past = torch.arange(begin, end, device=hidden.device).unsqueeze(1) > 0
        weight = self.weight * has_past
        return ((1 - weight) * log_model.exp() + weight * cache).log()


def _attention(hidden: Tensor, theta: float, begin: int, end: int) -> Tensor:
    """Weights [end - begin, end - 1] of the past entries for rows begin..end - 1; entry i is the token after i."""
    unit = normalize(hidden[:end].float(), dim=-1)
    similarity = theta * unit[begin:end] @ unit[: end - 1].T
    rows = torch.arange(begin, end, device=hidden.device).unsqueeze(1)
    entries = torch.arange(end - 1, device=hidden.device)
    return similarity.masked_fill(entries >= rows, -torch.inf).softmax(-1).nan_to_num()  # no past: all zeros


def _of_cache(hidden: Tensor, following: Tensor, theta: float) -> Tensor:
    """The cache's probability [T] of each following token, in bounded memory."""
    at_once = max(1, LOGITS_AT_ONCE // len(hidden))
    pieces = []
    for begin in range(0, len(hidden), at_once):
        end = min(begin + at_once, len(hidden))
        same = following[begin:end].unsqueeze(1) == following[: end - 1]
        pieces.append((_attention(hidden, theta, begin, end) * same).sum(1))
    return torch.cat(pieces)
