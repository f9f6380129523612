"""A memory of texts: what the context was at a token is the key, the token that followed is the value."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from frugal.baselines.cache import Neighbours
from frugal.corpora import Tokenizer
from frugal.errors import InputError
from frugal.memory.store import AssociativeMemory

# Search gathers the vectors of all candidates: so many numbers at a time.
NUMBERS_AT_ONCE = 2**25


class Place(NamedTuple):
    """Where an entry was written: the number of its text, and the place there of the token that is its value."""

    text: int
    token: int


@dataclass(frozen=True)
class Datastore:
    """An associative memory of (key [D] -> next token), each entry with the place it was read at.

    Attributes:
        store: the entries; their values are (token, text, place), int64.
        texts: tokens [1 + T] of the texts that were remembered, by number.

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
    texts: dict[int, Tensor]

    @classmethod
    def empty(cls, dim: int, capacity: int, *, index: str = "auto", device: str = "cpu", **settings: Any) -> Self:
        """A memory without entries; the settings are those of AssociativeMemory.

        Where a model computes on another `device`, an index of FAISS still searches on the processor.
        """
        device = device if index in ("exact", "auto") else "cpu"
        settings = {"metric": "cosine", "index": index, "device": device, **settings}
        return cls(AssociativeMemory(dim, capacity, **settings), {})

    def __len__(self) -> int:
        return len(self.store)

    def add(self, tokens: Tensor, keys: Tensor, rows: Tensor | None = None) -> int:
        """Write a text of tokens [1 + T]: keys [n, D] of some of its rows [n], or of all; the text's number.

        Row t's value is token t + 1.
        """
        rows = torch.arange(len(tokens) - 1) if rows is None else rows
        number = max(self.texts, default=-1) + 1
        self.texts[number] = tokens = tokens.cpu()
        places = rows.cpu() + 1
        if len(places):
            values = torch.stack([tokens[places], torch.full_like(places, number), places], 1)  # [n, 3]
            self.store.add(keys.detach().float().cpu(), values)
        return number

    def forget(self, tokens: Tensor) -> int:
        """Remove the entries of every remembered text that is exactly `tokens`; their number.

        Raises:
            InputError: no such text is remembered.
        """
        numbers = [number for number, known in self.texts.items() if torch.equal(known, tokens.cpu())]
        if not numbers:
            raise InputError("this text is not in the memory: give one exactly as it was remembered")
        ids = torch.from_numpy(self.store.ids())
        mine = ids[torch.isin(self.store.values(ids)[:, 1], torch.tensor(numbers))] if len(ids) else ids
        self.store.remove(mine)
        for number in numbers:
            del self.texts[number]
        return len(mine)

    def search(self, queries: Tensor, k: int) -> Neighbours:
        """The k nearest entries of each query [T, D]; fewer columns where the memory holds fewer entries."""
        k = min(k, max(1, len(self)))
        found = [self._search(piece, k) for piece in queries.split(max(1, NUMBERS_AT_ONCE // (k * self.store.dim)))]
        return Neighbours(*(torch.cat(column).to(queries.device) for column in zip(*found, strict=True)))

    def place(self, entry: int) -> Place:
        """Where an entry was read."""
        _, text, place = self.store.values([entry])[0]
        return Place(int(text), int(place))

    def text_at(self, entry: int, tokenizer: Tokenizer, before: int = 6) -> tuple[str, str]:
        """The last few tokens that were read when an entry was written, and the token that is its value."""
        number, token = self.place(entry)
        return text_at(self.texts[number], token, tokenizer, before)

    def save(self, folder: Path) -> None:
        """Write the memory into a folder."""
        self.store.save(folder / "memory")
        save_file({str(number): tokens for number, tokens in self.texts.items()}, folder / "texts.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        texts = {int(number): tokens for number, tokens in load_file(folder / "texts.safetensors").items()}
        return cls(AssociativeMemory.load(folder / "memory"), texts)

    def _search(self, queries: Tensor, k: int) -> Iterator[Tensor]:
        queries = queries.detach().float().cpu()
        if not len(self):
            nothing = torch.full((len(queries), 1), -1)
            return iter((nothing, torch.full((len(queries), 1), -torch.inf), nothing.clamp_min(0)))
        ids, distances = self.store.search(queries, k, count_hits=False)
        return iter((ids, 1 - distances, self.store.values(ids)[..., 0]))


def text_at(tokens: Tensor, place: int, tokenizer: Tokenizer, before: int = 6) -> tuple[str, str]:
    """What stands before a place in a text, `before` tokens of it, and what stands there."""
    return tokenizer.decode(tokens[max(0, place - before) : place]), tokenizer.decode(tokens[place : place + 1])
