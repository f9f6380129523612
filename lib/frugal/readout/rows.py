"""Training rows: (hidden states [n, d + N], next tokens [n]) of documents, never all in memory unless they are few."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frugal.errors import InputError, check_whole
from frugal.language_model import HiddenStateModel
from frugal.readout.encoder import EchoEncoder
from frugal.tensors import number_tensor, token_tensor

ROWS_AT_ONCE = 4096
ROWS_TO_SHUFFLE = 16384
BYTES_TO_KEEP = 2**30
LANES = 4  # places of a stream that are read at once, which is several times as fast as one

Piece = tuple[Tensor, Tensor]
Trunk = tuple[Any, ...] | None


class Rows(ABC):
    """Rows that can be gone through again and again.

    Attributes:
        count: number of rows n; width: of a row.
        trunk: what the hidden states follow from, as the model that they are of has it; None if that is not known.
    """

    count: int
    width: int
    trunk: Trunk = None

    @property
    @abstractmethod
    def identity(self) -> tuple[Any, ...]:
        """What a training on them follows from; see `frugal.training.checkpoint.fingerprint`."""

    @property
    @abstractmethod
    def largest(self) -> int:
        """The largest token that is read or to be predicted."""

    @abstractmethod
    def __iter__(self) -> Iterator[Piece]:
        """All rows in the order of the text, in pieces (inputs [n, D], targets [n])."""

    @abstractmethod
    def shuffled(self, generator: torch.Generator) -> Iterator[Piece]:
        """All rows in another order, in larger pieces."""

    def batches(self, size: int, seed: int) -> Iterator[Piece]:
        """All rows once in random order, `size` at a time; the last batch may be smaller."""
        check_whole(size=size)
        generator = torch.Generator().manual_seed(int(seed))
        rest: Piece | None = None
        for inputs, targets in self.shuffled(generator):
            if rest is not None:
                inputs, targets = torch.cat([rest[0], inputs]), torch.cat([rest[1], targets])
            full = len(targets) // size * size
            for at in range(0, full, size):
                yield inputs[at : at + size], targets[at : at + size]
            rest = inputs[full:], targets[full:]
        if rest is not None and len(rest[1]):
            yield rest

    def kept(self, most_bytes: int = BYTES_TO_KEEP) -> "Rows":
        """These rows in memory if they take at most so many bytes, else themselves."""
        if self.count * self.width * 4 > most_bytes:
            return self
        inputs = torch.empty(self.count, self.width)
        targets = torch.empty(self.count, dtype=torch.int64)
        at = 0
        for piece, following in self:
            inputs[at : at + len(piece)], targets[at : at + len(piece)] = piece, following
            at += len(piece)
        return KeptRows.owning(inputs, targets, self.trunk)


class KeptRows(Rows):
    """Rows in memory, a copy of those given.

    Raises:
        InputError: there are none, or they are no inputs [n, D] with tokens [n].
    """

    def __init__(self, inputs: Tensor | np.ndarray, targets: Tensor | np.ndarray, trunk: Trunk = None) -> None:
        self._keep(number_tensor("inputs", inputs).detach().clone(), token_tensor("targets", targets).clone(), trunk)

    @classmethod
    def owning(cls, inputs: Tensor, targets: Tensor, trunk: Trunk) -> "KeptRows":
        """Rows whose memory nobody else has: it is not copied."""
        rows = cls.__new__(cls)
        rows._keep(inputs, targets, trunk)
        return rows

    def _keep(self, inputs: Tensor, targets: Tensor, trunk: Trunk) -> None:
        if inputs.ndim != 2 or targets.shape != (len(inputs),):
            raise InputError(
                f"inputs {tuple(inputs.shape)} and targets {tuple(targets.shape)}: must be [n, D] and tokens [n]"
            )
        if not len(inputs):
            raise InputError("rows: must hold at least one row; give a text of at least two tokens")
        self.inputs, self.targets = inputs, targets
        self.count, self.width = inputs.shape
        self.trunk = trunk

    @property
    def identity(self) -> tuple[Any, ...]:
        return self.inputs, self.targets

    @property
    def largest(self) -> int:
        return int(self.targets.max())

    def __iter__(self) -> Iterator[Piece]:
        yield from zip(self.inputs.split(ROWS_AT_ONCE), self.targets.split(ROWS_AT_ONCE), strict=True)

    def shuffled(self, generator: torch.Generator) -> Iterator[Piece]:
        for places in torch.randperm(self.count, generator=generator).split(ROWS_TO_SHUFFLE):
            yield self.inputs[places], self.targets[places]

    def shuffle_columns(self, columns: slice, seed: int = 0) -> "KeptRows":
        """The same rows with these columns taken from other rows: the control that shows how much they gain."""
        check_whole(0, seed=seed)
        inputs = self.inputs.clone()
        places = torch.randperm(self.count, generator=torch.Generator().manual_seed(int(seed)))
        inputs[:, columns] = self.inputs[places, columns]
        return KeptRows.owning(inputs, self.targets, self.trunk)


class EchoRows(Rows):
    """Rows of documents: cached features from disk, states computed on the way at every pass.

    Args:
        encoder: the frozen part of an echo language model.
        documents: tokens [1 + T] of each, with the start token in front.
    """

    def __init__(self, encoder: EchoEncoder, documents: Sequence[Tensor]) -> None:
        self.documents = [document for document in documents if len(document) > 1]
        if not self.documents:
            raise InputError("documents: must hold at least one that is not empty")
        self.encoder = encoder
        self.features = encoder.windowed.features(self.documents)
        self.count = sum(len(document) - 1 for document in self.documents)
        self.width, self.trunk = encoder.width, encoder.identity

    @property
    def identity(self) -> tuple[Any, ...]:
        return self.documents, self.encoder

    @property
    def largest(self) -> int:
        return max(int(document.max()) for document in self.documents)

    def __iter__(self) -> Iterator[Piece]:
        yield from self.of_documents(list(range(len(self.documents))))

    def shuffled(self, generator: torch.Generator) -> Iterator[Piece]:
        """Documents in random order, their rows mixed within pieces of about ROWS_TO_SHUFFLE.

        An echo that is never reset fixes the order of the documents.
        """
        order = list(range(len(self.documents)))
        if self.encoder.reset != "never":
            order = torch.randperm(len(order), generator=generator).tolist()
        pieces: list[Piece] = []
        for piece in self.of_documents(order):
            pieces.append(piece)
            if sum(len(targets) for _, targets in pieces) >= ROWS_TO_SHUFFLE:
                yield _mixed(pieces, generator)
                pieces = []
        if pieces:
            yield _mixed(pieces, generator)

    def of_documents(self, order: list[int]) -> Iterator[Piece]:
        """Rows of the documents in the given order; their start tokens reset the echo where it is to be reset."""
        echo = self.encoder.start(1).echo
        for document in order:
            tokens, features = self.documents[document], self.features[document]
            for begin in range(0, len(tokens) - 1, ROWS_AT_ONCE):
                end = min(begin + ROWS_AT_ONCE, len(tokens) - 1)
                piece = torch.from_numpy(features[begin:end].astype(np.float32)).to(echo.device)
                read = tokens[None, begin:end].to(echo.device)
                with torch.no_grad():
                    hidden, echo = self.encoder.join(read, piece[None], self.encoder.resets(read, begin), echo)
                yield hidden[0], tokens[begin + 1 : end + 1].to(echo.device)


class StreamRows(Rows):
    """Rows of a text that is read as one stream; states are computed on the way at every pass.

    For random order it is read from several places at once, each on to where the next one began. So that these are of
    one length, up to three tokens at its end are left out.

    Args:
        model: whose hidden states they are.
        tokens: the stream [1 + T], as `encode_in_a_row` gives it.
        width: of a hidden state.
    """

    def __init__(self, model: HiddenStateModel, tokens: Tensor, width: int) -> None:
        if len(tokens) < 2:
            raise InputError("documents: must hold at least one that is not empty")
        self.model, self.tokens, self.width, self.trunk = model, tokens, width, model.trunk
        self.lanes = min(LANES, len(tokens) - 1)
        self.count = (len(tokens) - 1) // self.lanes * self.lanes

    @property
    def identity(self) -> tuple[Any, ...]:
        return self.tokens, self.trunk

    @property
    def largest(self) -> int:
        return int(self.tokens.max())

    def __iter__(self) -> Iterator[Piece]:
        return self._read(1, ROWS_AT_ONCE)

    def shuffled(self, generator: torch.Generator) -> Iterator[Piece]:
        """Rows mixed within pieces of the text, which is gone through in its order."""
        for piece in self._read(self.lanes, 2 * ROWS_AT_ONCE):
            yield _mixed([piece], generator)

    @torch.no_grad()
    def _read(self, lanes: int, at_once: int) -> Iterator[Piece]:
        inputs, targets = (self.tokens[at : at + self.count].view(lanes, -1) for at in (0, 1))
        state = self.model.start(lanes)
        for read, following in zip(*(each.split(at_once // lanes, 1) for each in (inputs, targets)), strict=True):
            hidden, state = self.model.hidden_advance(read.long().to(self.model.device), state)
            yield hidden.flatten(0, 1), following.long().flatten().to(self.model.device)


def _mixed(pieces: list[Piece], generator: torch.Generator) -> Piece:
    inputs, targets = (torch.cat(column) for column in zip(*pieces, strict=True))
    places = torch.randperm(len(targets), generator=generator)
    return inputs[places], targets[places]
