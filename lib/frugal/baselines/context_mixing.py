"""Context mixing: n-gram counts of many orders, hashed, mixed bit by bit with weights that are learned while reading.

What the best text compressors do (Mahoney, PAQ; Knoll and de Freitas, "A machine learning perspective on predictive
coding with PAQ8", 2012), as a language model over the tokens of any tokeniser.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugal.corpora import Document, Tokenizer, encode_documents
from frugal.errors import InputError, check_whole
from frugal.language_model import AdvancingModel, check_on_cpu, read_model, save_model

HISTORY = 32  # tokens that the longest context may hold
FIRST_WEIGHT = 0.3  # of each context, before anything is learned
ROWS = 2**16  # of the map of corrections; beyond, several pairs of token and node share one
CELLS, STEEPEST, COUNTS = 24, 12.0, 8  # as the compiled loops have them


@dataclass(frozen=True)
class Tables:
    """All that is learned; see `logistic.read_contexts`."""

    chance: NDArray[np.float32]  # [slots]
    seen: NDArray[np.uint8]
    keys: NDArray[np.uint16]
    weights: NDArray[np.float32]  # [orders, orders + 1, COUNTS]
    refined: NDArray[np.float32]  # [rows, CELLS]

    @classmethod
    def empty(cls, orders: int, slots: int, vocabulary_size: int) -> Self:
        rows = min(ROWS, vocabulary_size << (vocabulary_size - 1).bit_length())
        places = np.arange(CELLS) * 2 * STEEPEST / (CELLS - 1) - STEEPEST
        unchanged = (1 / (1 + np.exp(-places))).astype(np.float32)
        return cls(
            np.full(slots, 0.5, np.float32),
            np.zeros(slots, np.uint8),
            np.zeros(slots, np.uint16),
            np.full((orders, orders + 1, COUNTS), FIRST_WEIGHT, np.float32),
            np.tile(unchanged, (rows, 1)),
        )

    def copy(self) -> Self:
        return replace(self, **{name: values.copy() for name, values in vars(self).items()})


@dataclass(frozen=True)
class MixingState:
    """Of each stream: what has been learned so far, and the last tokens. Nobody changes either."""

    tables: tuple[Tables, ...]
    history: Tensor  # [B, HISTORY]


class ContextMixing(AdvancingModel):
    """Contexts of 0 to `orders - 1` tokens and of the word so far, each with its own counts, mixed as logits.

    The state holds what a stream has taught: with `learns` the model goes on learning while it reads, so that a text
    scored with `evaluate(.., carry=True)` adapts it. Without, it stays as `fit` left it.

    Args:
        orders: how many contexts; 9 look back on up to 8 tokens.
        tokenizer: of characters, bytes or a small vocabulary.
        slots: places for counts, a power of two; where they are all taken, what was seen least is given up. A slot
            takes 7 bytes, and each call that learns works on a copy.
        learns: while it reads; the default is to.

    Raises:
        InputError: a size that cannot be.

    >>> from frugal.corpora import CharTokenizer
    >>> model = ContextMixing(4, CharTokenizer.ascii(), slots=2**14).fit(["the cat sat on the mat. " * 5])
    >>> tokens = model.tokenizer.encode("the c")[None]
    >>> model.tokenizer.decode(model.log_probabilities(tokens)[0, -1].argmax()[None])
    'a'
    """

    def __init__(self, orders: int, tokenizer: Tokenizer, *, slots: int = 2**22, learns: bool = True) -> None:
        check_whole(orders=orders, slots=slots)
        if not 1 <= orders <= HISTORY:
            raise InputError(f"orders={orders}: must lie in 1 to {HISTORY}; typical values are 5 to 9")
        if slots < 4 or slots & (slots - 1):
            raise InputError(f"slots={slots}: must be a power of two, such as 2**22 for a million characters")
        self.tokenizer, self.vocabulary_size = tokenizer, tokenizer.vocabulary_size
        self.orders, self.learns = orders, learns
        self.tables = Tables.empty(orders, slots, self.vocabulary_size)
        pieces = (tokenizer.decode(torch.tensor([token])) for token in range(self.vocabulary_size))
        self.is_word = np.array([piece.strip().isalpha() and not piece[0].isspace() for piece in pieces])

    def fit(self, documents: Iterable[Document | str]) -> Self:
        """Learn from documents, in their order, what has not been learned before; it can be called again.

        Raises:
            InputError: there is no text.
        """
        encoded = encode_documents(self.tokenizer, documents)
        if not sum(len(tokens) - 1 for tokens in encoded):
            raise InputError("nothing to count: the training text is empty; give some text")
        tables, history = self.tables.copy(), self._beginning(1)[0]
        for tokens in encoded:
            self._read(tokens.numpy(), tables, history, learn=True, wanted=False)
        self.tables = tables
        return self

    def frozen(self) -> "ContextMixing":
        """The same model, which no longer learns while it reads."""
        twin = ContextMixing(self.orders, self.tokenizer, slots=4, learns=False)
        twin.tables = self.tables
        return twin

    @property
    def parameter_count(self) -> int:
        """How many slots are taken, and the weights."""
        return int((self.tables.seen > 0).sum()) + self.tables.weights.size

    def start(self, batch_size: int) -> MixingState:
        return MixingState((self.tables,) * batch_size, torch.from_numpy(self._beginning(batch_size)))

    def advance(self, tokens: Tensor, state: MixingState) -> tuple[Tensor, MixingState]:
        history, after, rows = state.history.clone(), [], []
        for stream, before, past in zip(tokens.numpy(), state.tables, history.numpy(), strict=True):
            tables = before.copy() if self.learns else before
            rows.append(self._read(stream, tables, past, learn=self.learns, wanted=True))
            after.append(tables)
        return torch.from_numpy(np.stack(rows)), MixingState(tuple(after), history)

    def save(self, folder: Path | str) -> None:
        weights = {
            name: torch.from_numpy(values.view(np.int16) if values.dtype == np.uint16 else values)
            for name, values in vars(self.tables).items()
        }
        config = {"orders": self.orders, "slots": len(self.tables.seen), "learns": self.learns}
        card = f"# Context mixing\n\n{self.orders} orders, {self.parameter_count:,} counts and weights."
        save_model(folder, self, weights, config, card)

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "cpu") -> Self:
        check_on_cpu(cls, device)
        weights, config, tokenizer = read_model(folder, cls)
        model = cls(config["orders"], tokenizer, slots=config["slots"], learns=config["learns"])
        arrays = {name: values.numpy() for name, values in weights.items()}
        model.tables = Tables(**{**arrays, "keys": arrays["keys"].view(np.uint16)})
        return model

    def _beginning(self, batch_size: int) -> NDArray[np.int64]:
        return np.full((batch_size, HISTORY), self.tokenizer.start_id)

    def _read(
        self, tokens: NDArray[np.int64], tables: Tables, history: NDArray[np.int64], *, learn: bool, wanted: bool
    ) -> NDArray[np.float32]:
        """Log-probabilities [T, V] after each token, if wanted; tables and history are changed in place."""
        from frugal.baselines.logistic import read_contexts

        rows = np.zeros((len(tokens) if wanted else 1, self.vocabulary_size), np.float32)
        read_contexts(
            np.ascontiguousarray(tokens),
            learn,
            wanted,
            history,
            self.is_word,
            tables.chance,
            tables.seen,
            tables.keys,
            tables.weights,
            tables.refined,
            rows,
            self.tokenizer.start_id,
        )
        return rows
