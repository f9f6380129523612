"""A language model that looks up what followed in similar contexts."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from frugal.baselines.cache import LooksBack, Neighbours, earlier_in_document, in_pieces
from frugal.corpora import Document, encode_documents
from frugal.device import DType
from frugal.errors import InputError
from frugal.files import appearing
from frugal.language_model import LOGITS_AT_ONCE, HiddenStateModel, load_model, log_mixed, read_model, save_model
from frugal.memory.datastore import Datastore, tokens_to_remember
from frugal.memory.mixture import Interpolation, Retrieved

# Neighbours looked up in the document and in the memory; a mixture may use fewer.
DOCUMENT = 512
KEPT = 128
USUAL_CAPACITY = 1_000_000


class NearestNeighbourLM(LooksBack):
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

    Examples:
        >>> from frugal.corpora import CharTokenizer
        >>> from frugal.cooperative import LSTMLanguageModel
        >>> from frugal.evaluate import evaluate
        >>> lm = NearestNeighbourLM(LSTMLanguageModel(CharTokenizer.ascii(), 16))  # untrained
        >>> before = evaluate(lm, "the cat sat on the mat").bits_per_byte
        >>> number = lm.remember("the cat sat on the mat")
        >>> evaluate(lm, "the cat sat on the mat").bits_per_byte < before
        True
    """

    def __init__(
        self, model: HiddenStateModel, memory: Datastore | None = None, mixture: Interpolation | None = None
    ) -> None:
        super().__init__(model)
        usual = Interpolation.constant((0.1, 0.1), (20.0, 20.0), (DOCUMENT, KEPT))
        self.mixture = usual if mixture is None else mixture
        width = self._width()
        if memory is not None and memory.store.dim != width:
            raise InputError(
                f"a memory of width {memory.store.dim}: expected {width}, that of the model's hidden states"
            )
        self.memory = Datastore.empty(width, USUAL_CAPACITY) if memory is None else memory

    @classmethod
    def open(
        cls,
        folder: Path | str,
        model: HiddenStateModel,
        mixture: Interpolation | None = None,
        *,
        capacity: int = USUAL_CAPACITY,
        **settings: Any,
    ) -> Self:
        """A model whose memory is kept in a folder, made there if it is not yet; see `Datastore.open`."""
        lm = cls(model, mixture=mixture)
        lm.memory = Datastore.open(folder, lm.memory.store.dim, capacity, **settings)
        return lm

    @torch.inference_mode()
    def remember(self, text: Document | str) -> int:
        """Write a text into the memory; the number by which the memory knows it.

        Raises:
            InputError: the text is empty.
        """
        tokens = tokens_to_remember(self.tokenizer, text)
        hidden = self.model.hidden(tokens[None, :-1].to(self.device))[0]
        return self.memory.add(tokens, self.keys(hidden), document=text)

    @torch.inference_mode()
    def remember_all(self, documents: Iterable[Document | str]) -> None:
        """As `remember`, for many texts, whose hidden states come from disk where they are kept there."""
        documents = list(documents)
        for document, (tokens, hidden) in zip(documents, self.read(documents), strict=True):
            self.memory.add(tokens, self.keys(hidden), document=document)

    def forget(self, text: Document | str) -> int:
        """Take a remembered text out of the memory again; the number of entries removed."""
        return self.memory.forget(encode_documents(self.tokenizer, [text])[0])

    @torch.inference_mode()
    def retrieve(self, documents: Iterable[Document | str], *, remember: bool = False) -> list[Retrieved]:
        """What any mixture needs to know of documents, each read from its start.

        Args:
            documents: their hidden states come from disk where they are kept there.
            remember: write each into the memory once it is read, so that later ones find it (dynamic evaluation);
                by default the memory is only read.
        """
        found, documents = [], list(documents)
        for document, (tokens, hidden) in zip(documents, self.read(documents), strict=True):
            keys, targets = self.keys(hidden), tokens[1:].to(self.device)
            own, entropy = self._own(hidden, targets)
            sources = (_joined(list(in_pieces(keys, targets, DOCUMENT))), self.memory.search(keys, KEPT))
            found.append(Retrieved(own, entropy, targets, sources))
            if remember:
                self.memory.add(tokens, keys, document=document)
        return found

    def mixed(self, hidden: Tensor, keys: Tensor, following: Tensor, begin: int) -> Tensor:
        log_model = self.model.head(hidden).float().log_softmax(-1)
        if self.mixture.is_off:
            return log_model
        end = begin + len(hidden)
        earlier = earlier_in_document(keys, following, begin, end, DOCUMENT)
        sources = (earlier, self.memory.search(keys[begin:end], KEPT))
        weights = self.mixture.weights(_entropy(log_model), sources)
        mixed = weights[:, :1] * log_model.exp()
        settings = zip(sources, self.mixture.thetas, self.mixture.counts, strict=True)
        for j, (source, theta, k) in enumerate(settings, 1):
            mixed.scatter_add_(1, source.tokens[:, :k], weights[:, j : j + 1] * source.weights(theta, k))
        return log_mixed(mixed, weights[:, :1], log_model)

    def save(self, folder: Path | str, notes: str = "") -> None:
        """Write the model, its mixture and its memory to a folder; `notes` go on its card.

        Raises:
            InputError: the model inside has nothing to save.
        """
        config = {"thetas": self.mixture.thetas, "counts": self.mixture.counts}
        card = f"# Nearest-neighbour language model\n\nA memory of {len(self.memory)} entries.\n\n{notes}"
        with appearing(folder) as temporary:
            limits = {} if self.mixture.limits is None else {"limits": self.mixture.limits}
            save_model(temporary, self, {"gate": self.mixture.gate, **limits}, config, card)
            self.model.save(temporary / "model")
            self.memory.save(temporary)

    @classmethod
    def load(
        cls, folder: Path | str, *, model: HiddenStateModel | None = None, device: str = "cpu", dtype: DType = "auto"
    ) -> Self:
        """Read what `save` wrote; the model inside can be given where it is loaded already."""
        weights, config, _ = read_model(folder, cls)
        settings = tuple(config["thetas"]), tuple(config["counts"])
        mixture = Interpolation(*settings, weights["gate"], weights.get("limits"))
        inside: Any = load_model(Path(folder, "model"), device=device, dtype=dtype) if model is None else model
        return cls(inside, Datastore.load(folder), mixture)

    def _width(self) -> int:
        token = torch.zeros(1, dtype=torch.int64, device=self.device)
        return self.model.hidden_step(token, self.model.start(1))[0].shape[-1]

    def _own(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The model's own log-probability of each target, and the entropy of its distribution, [T]."""
        pieces = []
        at_once = max(1, LOGITS_AT_ONCE // self.vocabulary_size)
        for rows, wanted in zip(hidden.split(at_once), targets.split(at_once), strict=True):
            log_model = self.model.head(rows).float().log_softmax(-1)
            pieces.append((log_model.gather(1, wanted.unsqueeze(1)).squeeze(1), _entropy(log_model)))
        own, entropy = (torch.cat(column) for column in zip(*pieces, strict=True))
        return own, entropy


def _joined(pieces: list[Neighbours]) -> Neighbours:
    """Neighbours of one row after the other, all as wide as the widest."""
    most = max(piece.tokens.shape[1] for piece in pieces)
    fill = (-1, -torch.inf, 0)
    columns = zip(fill, *pieces, strict=True)
    return Neighbours(
        *(torch.cat([pad(each, (0, most - each.shape[1]), value=value) for each in rest]) for value, *rest in columns)
    )


def _entropy(log_probabilities: Tensor) -> Tensor:
    """In nats, [..], of distributions [.., V]."""
    return torch.special.entr(log_probabilities.exp()).sum(-1)
