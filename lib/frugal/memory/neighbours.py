"""A language model that looks up what followed in similar contexts."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from frugal.corpora import Document, encode_documents
from frugal.errors import InputError
from frugal.files import appearing
from frugal.language_model import (
    LOGITS_AT_ONCE,
    HiddenStateModel,
    LanguageModel,
    TargetScores,
    gather_targets,
    load_model,
    read_model,
    save_model,
)
from frugal.memory.datastore import Datastore
from frugal.memory.mixture import Interpolation, Neighbours, Trace

# Neighbours looked up in the document and in the memory; a mixture may use fewer.
DOCUMENT = 512
KEPT = 128
USUAL_CAPACITY = 1_000_000


class NeighbourState(NamedTuple):
    """A stream's past: the model's own state, keys [B, t, D], tokens [B, t]."""

    model: Any
    keys: Tensor
    tokens: Tensor


class NearestNeighbourLM(LanguageModel):
    """A hidden-state model mixed with the next tokens of its nearest neighbours (kNN-LM; Khandelwal et al., 2020).

    The key of a context is the model's hidden state there, scaled to unit length; the value is the token that
    followed. There are two sources of neighbours, each with its own weight:

        the document   what the stream itself has passed, strictly before the token that is predicted;
        the memory     texts that were remembered. Scoring only reads it; `remember` and `forget` change it.

    Nothing is trained but the mixture, a handful of numbers.

    Args:
        model: takes streams of any length, such as `WindowedFoundation(foundation, context=512)`.
        memory: texts that are kept beyond a document; by default an empty one.
        mixture: weights, inverse temperatures, numbers of neighbours; see `Interpolation.fit`.

    Raises:
        InputError: a model with a limited context, or a memory of another width.
    """

    context_length = None

    def __init__(
        self, model: HiddenStateModel, memory: Datastore | None = None, mixture: Interpolation | None = None
    ) -> None:
        if model.context_length is not None:
            raise InputError(
                f"the model takes {model.context_length} tokens at once: give one for streams of any length, such as "
                "WindowedFoundation(foundation, context=512)"
            )
        self.model, self.mixture = model, mixture or Interpolation.constant((0.1, 0.1), (20.0, 20.0), (512, 128))
        self.tokenizer, self.vocabulary_size, self.device = model.tokenizer, model.vocabulary_size, model.device
        self.memory = memory or Datastore.empty(self._width(), USUAL_CAPACITY)

    @torch.inference_mode()
    def remember(self, text: Document | str) -> int:
        """Write a text into the memory; the number by which the memory knows it."""
        tokens = encode_documents(self.tokenizer, [text])[0]
        return self._remember(tokens, self._hidden_and_keys(tokens[None, :-1].to(self.device))[1][0])

    def remember_all(self, documents: Iterable[Document | str]) -> None:
        """As `remember`, for many texts, whose features are kept on disk where the model can do so."""
        for tokens, hidden in self._read(documents):
            self._remember(tokens, normalize(hidden, dim=-1))

    def forget(self, text: Document | str) -> int:
        """Take a remembered text out of the memory again; the number of entries removed."""
        return self.memory.forget(encode_documents(self.tokenizer, [text])[0])

    @torch.inference_mode()
    def traces(self, documents: Iterable[Document | str], *, remember: bool = False) -> list[Trace]:
        """What any mixture needs to know of documents, each read from its start.

        Args:
            documents: their features are kept on disk where the model can do so.
            remember: write each into the memory once it is read, so that later ones find it (dynamic evaluation);
                by default the memory is only read.
        """
        traces = []
        for tokens, hidden in self._read(documents):
            keys, targets = normalize(hidden, dim=-1), tokens[1:].to(self.device)
            own, entropy = self._own(hidden, targets)
            sources = (_whole_document(keys, targets), self.memory.search(keys, KEPT))
            traces.append(Trace(own, entropy, targets, sources))
            if remember:
                self._remember(tokens, keys)
        return traces

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        rows = [
            self._mixture(hidden, keys, row[1:], 0)
            for row, hidden, keys in zip(tokens, *self._hidden_and_keys(tokens), strict=True)
        ]
        return torch.stack(rows)

    def target_scores(self, tokens: Tensor) -> TargetScores:
        """As the protocol's, in bounded memory for rows of any length."""
        last = tokens.shape[1] - 1
        at_once = max(1, LOGITS_AT_ONCE // max(self.vocabulary_size, last))
        rows = []
        for row, hidden, keys in zip(tokens, *self._hidden_and_keys(tokens[:, :-1]), strict=True):
            pieces = [
                gather_targets(
                    self._mixture(hidden[begin : begin + at_once], keys, row[1:], begin),
                    row[begin + 1 : begin + at_once + 1],
                )
                for begin in range(0, last, at_once)
            ]
            rows.append([torch.cat(column) for column in zip(*pieces, strict=True)])
        return TargetScores(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def start(self, batch_size: int) -> NeighbourState:
        nothing = torch.empty(batch_size, 0, self.memory.store.dim, device=self.device)
        tokens = torch.empty(batch_size, 0, dtype=torch.int64, device=self.device)
        return NeighbourState(self.model.start(batch_size), nothing, tokens)

    def step(self, tokens: Tensor, state: NeighbourState) -> tuple[Tensor, NeighbourState]:
        hidden, inner = self.model.hidden_step(tokens, state.model)
        keys = torch.cat([state.keys, normalize(hidden.float(), dim=-1).unsqueeze(1)], 1)
        seen = torch.cat([state.tokens, tokens.unsqueeze(1)], 1)
        last = keys.shape[1] - 1
        logits = [
            self._mixture(row.unsqueeze(0), past, words[1:], last)[0]
            for row, past, words in zip(hidden, keys, seen, strict=True)
        ]
        return torch.stack(logits), NeighbourState(inner, keys, seen)

    def save(self, folder: Path, notes: str = "") -> None:
        """Write the model, its mixture and its memory to a folder; `notes` go on its card.

        Raises:
            InputError: the model inside has nothing to save.
        """
        config = {"thetas": self.mixture.thetas, "counts": self.mixture.counts}
        card = f"# Nearest-neighbour language model\n\nA memory of {len(self.memory)} entries.\n\n{notes}"
        with appearing(folder) as temporary:
            save_model(temporary, self, {"gate": self.mixture.gate}, config, card)
            self.model.save(temporary / "model")
            self.memory.save(temporary)

    @classmethod
    def load(cls, folder: Path, *, model: HiddenStateModel | None = None, device: str = "cpu") -> Self:
        """Read what `save` wrote; the model inside can be given where it is loaded already."""
        weights, config, _ = read_model(folder, cls)
        mixture = Interpolation(tuple(config["thetas"]), tuple(config["counts"]), weights["gate"])
        inside: Any = load_model(folder / "model", device=device) if model is None else model
        return cls(inside, Datastore.load(folder), mixture)

    def _width(self) -> int:
        token = torch.zeros(1, dtype=torch.int64, device=self.device)
        return self.model.hidden_step(token, self.model.start(1))[0].shape[-1]

    def _hidden_and_keys(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.model.hidden(tokens)
        return hidden, normalize(hidden.float(), dim=-1)

    def _read(self, documents: Iterable[Document | str]) -> Iterator[tuple[Tensor, Tensor]]:
        """Tokens [1 + T] and hidden states [T, d] of each document."""
        encoded = encode_documents(self.tokenizer, documents)
        yield from zip(encoded, self.model.document_hidden(encoded), strict=True)

    def _remember(self, tokens: Tensor, keys: Tensor) -> int:
        return self.memory.remember(tokens, keys, torch.arange(len(keys)))

    def _own(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The model's own log-probability of each target, and the entropy of its distribution, [T]."""
        pieces = []
        at_once = max(1, LOGITS_AT_ONCE // self.vocabulary_size)
        for rows, wanted in zip(hidden.split(at_once), targets.split(at_once), strict=True):
            log_model = self.model.head(rows).float().log_softmax(-1)
            pieces.append((log_model.gather(1, wanted.unsqueeze(1)).squeeze(1), _entropy(log_model)))
        own, entropy = (torch.cat(column) for column in zip(*pieces, strict=True))
        return own, entropy

    def _mixture(self, hidden: Tensor, keys: Tensor, following: Tensor, begin: int) -> Tensor:
        """Log-probabilities [n, V] after tokens begin..begin + n - 1 of one stream.

        `hidden` [n, d] are the states of these rows, `keys` [t, d] those of the stream and `following` the tokens
        after them; only what precedes a row is used for it.
        """
        log_model = self.model.head(hidden).float().log_softmax(-1)
        if self.mixture.is_off:
            return log_model
        rows = keys[begin : begin + len(hidden)]
        sources = (document_neighbours(keys, following, begin, begin + len(hidden)), self.memory.search(rows, KEPT))
        weights = self.mixture.weights(_entropy(log_model), sources)
        mixed = weights[:, :1] * log_model.exp()
        pairs = zip(sources, self.mixture.thetas, self.mixture.counts, strict=True)
        for j, (source, theta, k) in enumerate(pairs, 1):
            mixed.scatter_add_(1, source.tokens[:, :k], weights[:, j : j + 1] * source.weights(theta, k))
        return mixed.log()


def document_neighbours(keys: Tensor, following: Tensor, begin: int, end: int) -> Neighbours:
    """The nearest of a stream's own earlier contexts for its rows begin..end - 1.

    `keys` [t, d] are unit vectors, `following` [t - 1] or [t] the tokens after them. A row sees only entries whose
    token it has read: those strictly before it.
    """
    entries = max(1, end - 1)
    rows = torch.arange(begin, end, device=keys.device).unsqueeze(1)
    similarity = keys[begin:end] @ keys[:entries].T
    similarity = similarity.masked_fill(torch.arange(entries, device=keys.device) >= rows, -torch.inf)
    nearest = similarity.topk(min(DOCUMENT, entries), dim=1)
    ids = nearest.indices.where(nearest.values > -torch.inf, -1)
    tokens = pad(following, (0, 1))[ids]  # of a missing entry: whatever stands at the end, with no weight
    return Neighbours(ids, nearest.values, tokens)


def _whole_document(keys: Tensor, following: Tensor) -> Neighbours:
    """`document_neighbours` of all rows, in bounded memory."""
    at_once = max(1, LOGITS_AT_ONCE // len(keys))
    pieces = [
        document_neighbours(keys, following, begin, min(begin + at_once, len(keys)))
        for begin in range(0, len(keys), at_once)
    ]
    most = max(piece.tokens.shape[1] for piece in pieces)
    fill = Neighbours(-1, -torch.inf, 0)  # type: ignore[arg-type]  # one value per column
    return Neighbours(
        *(
            torch.cat([pad(column, (0, most - column.shape[1]), value=value) for column in columns])
            for value, *columns in zip(fill, *pieces, strict=True)
        )
    )


def _entropy(log_probabilities: Tensor) -> Tensor:
    """In nats, [..], of distributions [.., V]."""
    return torch.special.entr(log_probabilities.exp()).sum(-1)
