"""A memory of texts: what the context was at a token is the key, the token that followed is the value."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from frugal.baselines.cache import Neighbours
from frugal.corpora import Document, Tokenizer, encode_documents
from frugal.errors import InputError
from frugal.memory.store import AssociativeMemory, Text

# Search gathers the vectors of all candidates: so many numbers at a time.
NUMBERS_AT_ONCE = 2**25


class Place(NamedTuple):
    """Where an entry was written: the number of its text, and the place there of the token that is its value."""

    text: int
    token: int


@dataclass(frozen=True)
class Datastore:
    """An associative memory of (key [D] -> next token), each entry with the text and the place it was read at.

    An entry's value is the token, its position the token's place in the text. What the store holds of a text changes
    with its entries in one transaction; see `AssociativeMemory` for what survives what.

    Attributes:
        store: the entries and the texts.

    Examples:
        >>> datastore = Datastore.empty(dim=2, capacity=100)
        >>> datastore.add(torch.tensor([0, 5, 6]), torch.eye(2))  # after token 0 came 5, after that 6
        0
        >>> found = datastore.search(torch.tensor([[0.1, 1.0]]), k=1)
        >>> found.tokens, datastore.place(int(found.ids))
        (tensor([[6]]), Place(text=0, token=2))
        >>> datastore.forget(torch.tensor([0, 5, 6]))
        2
    """

    store: AssociativeMemory

    @classmethod
    def empty(cls, dim: int, capacity: int, *, index: str = "auto", device: str = "cpu", **settings: Any) -> Self:
        """A memory without entries; the settings are those of AssociativeMemory.

        Where a model computes on another `device`, an index of FAISS still searches on the processor.
        """
        device = device if index in ("exact", "auto") else "cpu"
        settings = {"metric": "cosine", "index": index, "device": device, **settings}
        return cls(AssociativeMemory(dim, capacity, **settings))

    @classmethod
    def open(cls, folder: Path | str, dim: int, capacity: int, *, device: str = "cpu", **settings: Any) -> Self:
        """The memory that is kept in a folder, every change of it too; it is made there where it is not yet.

        A memory that is there keeps its own settings.

        Raises:
            InputError: its entries have another width, or it was saved by an earlier version.
            UnavailableError: it is damaged, or another process writes to it.

        Examples:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     with Datastore.open(folder, dim=2, capacity=100) as first:
            ...         number = first.add(torch.tensor([0, 5, 6]), torch.eye(2))
            ...     with Datastore.open(folder, dim=2, capacity=100) as second:
            ...         len(second)
            2
        """
        folder = Path(folder)
        if (folder / "texts.safetensors").is_file():
            raise InputError(f"{folder} was saved by an earlier version: `load` it, and `save` it to another folder")
        if not AssociativeMemory.is_in(folder):
            kept = cls.empty(dim, capacity, device=device, **settings)
            kept.store.attach(folder)
            return kept
        kept = cls(AssociativeMemory.open(folder, device))
        if kept.store.dim != dim:
            kept.close()
            raise InputError(
                f"{folder} holds entries {kept.store.dim} wide: expected {dim}; it was made with another model"
            )
        return kept

    def close(self) -> None:
        """Let the folder go, where another process can then write."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.store)

    @property
    def texts(self) -> dict[int, Tensor]:
        """Tokens [1 + T] of the texts that are remembered, by number."""
        return {number: torch.from_numpy(text.tokens.copy()) for number, text in self.store.texts.items()}

    @property
    def identity(self) -> tuple[Any, ...]:
        """What a search follows from: the entries, and how they are compared."""
        ids = self.store.ids()
        return self.store.config, self.store.get(ids), self.store.values(ids)

    def add(
        self, tokens: Tensor, keys: Tensor, rows: Tensor | None = None, document: Document | str | None = None
    ) -> int:
        """Write a text of tokens [1 + T]: keys [n, D] of some of its rows [n], or of all; the text's number.

        Row t's value is token t + 1. The document is what a reader of the file sees.
        """
        if not isinstance(document, Document):
            document = Document("", "" if document is None else document)
        rows = torch.arange(len(tokens) - 1) if rows is None else rows
        tokens, places = tokens.cpu(), rows.cpu() + 1
        number = self.store.next_text
        now = datetime.now(UTC).isoformat(timespec="seconds")
        remembered = Text(tokens.numpy().copy(), document.text, document.title, now)
        keys = keys.detach().float().cpu()
        self.store.add(keys, tokens[places], positions=places, text=remembered)
        return number

    def forget(self, tokens: Tensor) -> int:
        """Remove the entries of every remembered text that is exactly `tokens`; their number.

        Raises:
            InputError: no such text is remembered.
        """
        numbers = [number for number, known in self.texts.items() if torch.equal(known, tokens.cpu())]
        if not numbers:
            raise InputError("this text is not in the memory: give one exactly as it was remembered")
        return len(self.store.remove_texts(numbers))

    def search(self, queries: Tensor, k: int) -> Neighbours:
        """The k nearest entries of each query [T, D]; fewer columns where the memory holds fewer entries."""
        if not len(self):
            nothing = torch.full((len(queries), 1), -1, device=queries.device)
            return Neighbours(nothing, torch.full_like(nothing, -torch.inf, dtype=torch.float32), nothing + 1)
        k, found = min(k, len(self)), []
        for piece in queries.detach().float().cpu().split(int(max(1, NUMBERS_AT_ONCE // (k * self.store.dim)))):
            ids, distances = self.store.search(piece, k, count_hits=False)
            found.append((ids, 1 - distances, self.store.values(ids)))
        return Neighbours(*(torch.cat(column).to(queries.device) for column in zip(*found, strict=True)))

    def place(self, entry: int) -> Place:
        """Where an entry was read."""
        return Place(int(self.store.text_numbers([entry])[0]), int(self.store.positions([entry])[0]))

    def text_at(self, entry: int, tokenizer: Tokenizer, before: int = 6) -> tuple[str, str]:
        """The last few tokens that were read when an entry was written, and the token that is its value."""
        number, token = self.place(entry)
        return text_at(torch.from_numpy(self.store.texts[number].tokens.copy()), token, tokenizer, before)

    def save(self, folder: Path | str) -> None:
        """Write the memory into a folder."""
        self.store.save(Path(folder, "memory"))

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read back what `save` wrote."""
        return cls(AssociativeMemory.load(Path(folder, "memory")))


def tokens_to_remember(tokenizer: Tokenizer, text: Document | str) -> Tensor:
    """The tokens [1 + T] of a text, T > 0.

    Raises:
        InputError: the text is empty.
    """
    (tokens,) = encode_documents(tokenizer, [text])
    if len(tokens) == 1:
        raise InputError("the text is empty: there is nothing to remember")
    return tokens


def text_at(tokens: Tensor, place: int, tokenizer: Tokenizer, before: int = 6) -> tuple[str, str]:
    """What stands before a place in a text, `before` tokens of it, and what stands there."""
    return tokenizer.decode(tokens[max(0, place - before) : place]), tokenizer.decode(tokens[place : place + 1])
