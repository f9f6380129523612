"""Looking back into the text itself: a model's prediction mixed with what followed in similar states before.

The continuous cache: recently seen words become likelier where the model is in a similar state. Grave, Joulin and
Usunier, "Improving neural language models with a continuous cache", 2017:

    p(w) = (1 - weight) * p_model(w) + weight * p_cache(w),
    p_cache(w) proportional to the sum over past i with x_{i+1} = w of exp(theta * cosine(k_t, k_i))

It learns nothing, so a memory or an echo that gains less than this cache has not earned its keep.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad
from tqdm.auto import tqdm

from frugal.corpora import Document, encode_documents
from frugal.errors import InputError, check_list, is_number
from frugal.language_model import (
    LOGITS_AT_ONCE,
    AdvancingModel,
    HiddenStateModel,
    TargetScores,
    check_model,
    gather_targets,
    log_mixed,
)

# Inverse temperatures that are tried; 0 counts words, whatever the state.
THETAS = (0.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
MOST_THETA = 1e6  # which tells apart all cosines that float32 does
EM_STEPS, EM_TOLERANCE = 200, 1e-6

Setting = TypeVar("Setting")


def check_thetas(**thetas: float) -> None:
    """Raise InputError unless each of these is an inverse temperature, of a size that leaves numbers of float32."""
    for name, theta in thetas.items():
        if not (is_number(theta) and 0 <= theta <= MOST_THETA):
            raise InputError(f"{name}={theta!r}: must lie in 0 to {MOST_THETA:g}; typical values lie in 0 to 50")


class Neighbours(NamedTuple):
    """Entries of one source for each row; where there are fewer, similarity is -inf."""

    ids: Tensor  # [T, k], -1 where there is none
    similarity: Tensor  # [T, k], cosine of the keys
    tokens: Tensor  # [T, k], the entries' values

    @property
    def found(self) -> Tensor:
        """Whether there is any, [T]."""
        return (self.similarity > -torch.inf).any(1)

    def weights(self, theta: float, k: int | None = None) -> Tensor:
        """The share of each of the first k, or of all, [T, k]; zeros where there is none at all."""
        similarity = self.similarity[:, :k]
        return (theta * similarity).where(similarity > -torch.inf, -torch.inf).softmax(1).nan_to_num()

    def probability(self, targets: Tensor, theta: float, k: int | None = None) -> Tensor:
        """Of each row's target, [T]."""
        return (self.weights(theta, k) * (self.tokens[:, :k] == targets.unsqueeze(1))).sum(1)


def earlier_in_document(keys: Tensor, following: Tensor, begin: int, end: int, most: int | None = None) -> Neighbours:
    """What a stream's own past holds for its rows begin..end - 1: all of it, or the `most` similar, nearest first.

    `keys` [t, D] are unit vectors, `following` [t - 1] or [t] the tokens after them. A row sees only entries whose
    token it has read: those strictly before it.
    """
    entries = max(1, end - 1)
    places = torch.arange(entries, device=keys.device)
    later = places >= torch.arange(begin, end, device=keys.device).unsqueeze(1)
    similarity = (keys[begin:end] @ keys[:entries].T).masked_fill(later, -torch.inf)
    ids = places.expand_as(similarity)
    if most is not None:
        similarity, ids = similarity.topk(min(most, entries), dim=1)
    ids = ids.where(similarity > -torch.inf, -1)
    return Neighbours(ids, similarity, pad(following, (0, 1))[ids])  # of a missing entry: a token without weight


def in_pieces(keys: Tensor, following: Tensor, most: int | None = None) -> Iterator[Neighbours]:
    """`earlier_in_document` of all rows, so many at a time that the memory is bounded."""
    at_once = max(1, LOGITS_AT_ONCE // max(1, 4 * len(keys)))
    for begin in range(0, len(keys), at_once):
        yield earlier_in_document(keys, following, begin, min(begin + at_once, len(keys)), most)


def mixture_weights(given: Tensor, found: Tensor) -> Tensor:
    """The constant weights [C] under which components are likeliest, by expectation maximisation.

    `given` [T, C] are the components' probabilities of each token; the first is always there, the others where `found`
    [T, C - 1] says so. The weights are those of the rows where every component is that is ever there.
    """
    given = given[(found | ~found.any(0)).all(1)]
    given = given[given.sum(1) > 0]  # what none expects tells them not apart
    if not len(given):
        given = torch.ones(1, given.shape[1], dtype=given.dtype)
    weights = torch.full((given.shape[1],), 1 / given.shape[1], dtype=given.dtype)
    for _ in range(EM_STEPS):
        shares = weights * given
        before, weights = weights, (shares / shares.sum(1, keepdim=True)).mean(0)
        if (weights - before).abs().max() < EM_TOLERANCE:
            break
    return weights


def best_setting(own: Tensor, found: Tensor, candidates: Iterable[tuple[Setting, Tensor]]) -> tuple[Setting, float]:
    """The setting of a source, and its weight beside the model, that predict best together.

    Args:
        own: the model's log-probability of each token, [T].
        found: where the source has any entry, [T]; elsewhere the model predicts alone.
        candidates: settings, each with the source's probability of each token, [T].
    """
    model, found = own.cpu().double().exp(), found.cpu()
    tried: list[tuple[float, Setting, float]] = []
    for setting, of_source in candidates:
        given = torch.stack([model, of_source.cpu().double()], 1)
        weight = mixture_weights(given, found.unsqueeze(1))[1] if found.any() else torch.zeros((), dtype=given.dtype)
        shares = weight * found
        likelihood = ((1 - shares) * given[:, 0] + shares * given[:, 1]).log().sum().item()
        tried.append((likelihood, setting, weight.item()))
    if not tried:
        raise InputError("nothing to choose from: give at least one setting")
    return max(tried, key=lambda each: each[0])[1:]


class PastState(NamedTuple):
    """A stream's past: the model's own state, keys [B, t, D], tokens [B, t]."""

    model: Any
    keys: Tensor
    tokens: Tensor


class LooksBack(AdvancingModel):
    """A hidden-state model that also looks into the stream's own past, kept whole from the stream's start.

    Args:
        model: takes streams of any length, such as `WindowedFoundation(foundation, context=512)`.

    Raises:
        InputError: a model with a limited context.
    """

    context_length = None

    def __init__(self, model: HiddenStateModel) -> None:
        check_model(model, hidden=True, endless=True)
        self.model = model
        self.tokenizer, self.vocabulary_size, self.device = model.tokenizer, model.vocabulary_size, model.device

    @abstractmethod
    def mixed(self, hidden: Tensor, keys: Tensor, following: Tensor, begin: int) -> Tensor:
        """Log-probabilities [n, V] after tokens begin..begin + n - 1 of one stream.

        `hidden` [n, d] are the states of these rows, `keys` [t, D] those of the stream and `following` the tokens
        after them; only what precedes a row is used for it.
        """

    def keys(self, hidden: Tensor) -> Tensor:
        """Unit vectors [.., D] by which states [.., d] are compared."""
        return normalize(hidden.float(), dim=-1)

    def read(self, documents: Iterable[Document | str]) -> Iterator[tuple[Tensor, Tensor]]:
        """Tokens [1 + T] and the model's hidden states [T, d] of each document; from disk where they are kept there."""
        encoded = encode_documents(self.tokenizer, documents)
        if encoded:
            yield from zip(encoded, self.model.document_hidden(encoded), strict=True)

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        hidden = self.model.hidden(tokens)
        return self._mixed_rows(hidden, self.keys(hidden), tokens, 0)

    def _target_scores(self, tokens: Tensor) -> TargetScores:
        """As the protocol's, in bounded memory for rows of any length."""
        hidden = self.model.hidden(tokens[:, :-1])
        rows = [self._stream_scores(*row) for row in zip(hidden, tokens[:, 1:], strict=True)]
        return TargetScores(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def document_scores(
        self, documents: Sequence[Tensor], *, context: int | None = None, progress: bool = False, **windows: Any
    ) -> list[TargetScores]:
        """As the protocol's; whole documents by the model's hidden states from disk, where they are kept there."""
        if context is not None:
            return super().document_scores(documents, context=context, progress=progress, **windows)
        states = tqdm(self.model.document_hidden(documents), "documents", len(documents), disable=not progress)
        return [
            self._stream_scores(hidden, tokens[1:].to(self.device)).cpu()
            for tokens, hidden in zip(documents, states, strict=True)
        ]

    def start(self, batch_size: int) -> PastState:
        tokens = torch.empty(batch_size, 0, dtype=torch.int64, device=self.device)
        return PastState(self.model.start(batch_size), torch.empty(batch_size, 0, 0, device=self.device), tokens)

    def advance(self, tokens: Tensor, state: PastState) -> tuple[Tensor, PastState]:
        hidden, inner = self.model.hidden_advance(tokens, state.model)
        begin, new = state.tokens.shape[1], self.keys(hidden)
        keys = torch.cat([state.keys, new], 1) if begin else new
        seen = torch.cat([state.tokens, tokens], 1)
        return self._mixed_rows(hidden, keys, seen, begin), PastState(inner, keys, seen)

    def _mixed_rows(self, hidden: Tensor, keys: Tensor, tokens: Tensor, begin: int) -> Tensor:
        """As `mixed`, of each of several streams."""
        streams = zip(hidden, keys, tokens, strict=True)
        return torch.stack([self.mixed(states, past, row[1:], begin) for states, past, row in streams])

    def _stream_scores(self, hidden: Tensor, following: Tensor) -> TargetScores:
        """Scores of the tokens [T] that follow a stream's hidden states [T, d]."""
        keys = self.keys(hidden)
        at_once = max(1, LOGITS_AT_ONCE // max(self.vocabulary_size, 4 * len(following)))
        pieces = [
            gather_targets(
                self.mixed(hidden[begin : begin + at_once], keys, following, begin),
                following[begin : begin + at_once],
            )
            for begin in range(0, len(following), at_once)
        ]
        return TargetScores.joined(pieces)


class Cache(LooksBack):
    """A hidden-state model with a continuous cache of everything since the document's start.

    Keys are scaled to unit length, so that `theta` means the same for every model.

    Args:
        model: takes streams of any length; the cache outlives the window it reads in.
        weight: share of the cache in the mixture, 0 to 1; 0 is the model itself.
        theta: inverse temperature of the similarity; 0 counts words, whatever the state.
        key: what of the hidden states [.., d] is compared, [.., D]; by default all of them.

    Raises:
        InputError: a value outside its range, or a model with a limited context.

    Example:
        >>> from frugal.cooperative import LSTMLanguageModel
        >>> from frugal.corpora import CharTokenizer
        >>> model = LSTMLanguageModel(CharTokenizer.ascii(), hidden=8)
        >>> Cache.tuned(model, ["The cat saw the cat, and the cat saw the dog."]).weight > 0
        True
    """

    def __init__(
        self,
        model: HiddenStateModel,
        *,
        weight: float = 0.1,
        theta: float = 20.0,
        key: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if not (is_number(weight) and 0 <= weight <= 1):
            raise InputError(f"weight={weight}: must be from 0 to 1; typical values lie in 0.05 to 0.3")
        check_thetas(theta=theta)
        super().__init__(model)
        self.weight, self.theta, self.key = weight, theta, key

    @classmethod
    @torch.inference_mode()
    def tuned(
        cls,
        model: HiddenStateModel,
        documents: Iterable[Document | str],
        *,
        key: Callable[[Tensor], Tensor] | None = None,
        thetas: Sequence[float] = THETAS,
    ) -> Self:
        """The cache whose theta and weight predict validation documents best; the model reads them once.

        Raises:
            InputError: the documents are empty.
        """
        check_list(check_thetas, thetas=thetas)
        cache = cls(model, key=key)
        own, found, of_cache = [], [], []
        for tokens, hidden in cache.read(documents):
            following = tokens[1:].to(cache.device)
            own.append(model.hidden_scores(hidden, following).log_probabilities)
            begin = 0
            for past in in_pieces(cache.keys(hidden), following):
                targets = following[begin : begin + len(past.ids)]
                found.append(past.found)
                of_cache.append(torch.stack([past.probability(targets, theta) for theta in thetas]))
                begin += len(targets)
        if not found:
            raise InputError("documents: must hold at least one that is not empty")
        candidates = zip(thetas, torch.cat(of_cache, 1), strict=True)
        theta, weight = best_setting(torch.cat(own), torch.cat(found), candidates)
        return cls(model, weight=weight, theta=theta, key=key)

    def keys(self, hidden: Tensor) -> Tensor:
        return super().keys(hidden if self.key is None else self.key(hidden))

    def mixed(self, hidden: Tensor, keys: Tensor, following: Tensor, begin: int) -> Tensor:
        return self.blended(self.model.head(hidden).float().log_softmax(-1), keys, following, begin)

    def blended(self, log_model: Tensor, keys: Tensor, following: Tensor, begin: int) -> Tensor:
        """As `mixed`, from a model's log-probabilities [n, V]."""
        if self.weight == 0:
            return log_model
        past = earlier_in_document(keys, following, begin, begin + len(log_model))
        weight = self.weight * past.found.unsqueeze(1)
        mixed = ((1 - weight) * log_model.exp()).scatter_add_(1, past.tokens, weight * past.weights(self.theta))
        return log_mixed(mixed, 1 - weight, log_model)
