"""What a position reads from the memory: the entries nearest to its query, and how much each of them weighs."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from frugal.memory.datastore import Datastore
from frugal.memory.entries import Entries


class Reading(NamedTuple):
    """The k entries that each position found, from the stream's own and from the kept memory."""

    weights: Tensor  # [B, T, 1 + k]; the first is the share of reading nothing
    vectors: Tensor  # [B, T, k, D]
    tokens: Tensor  # [B, T, k], the tokens that followed; -1 where there is no entry
    columns: Tensor  # [B, T, k], column of the stream's own entries, -1 where it is none of them
    ids: Tensor  # [B, T, k], id in the kept memory, -1 where it is none of its

    def rows(self, begin: int) -> "Reading":
        """Positions from `begin` on."""
        return Reading(*(column[:, begin:] for column in self))

    def hits(self, targets: Tensor) -> Tensor:
        """Whether each entry found holds the target [B, T], as [B, T, k]."""
        return self.tokens == targets.unsqueeze(-1)


class Reader(nn.Module):
    """Finds the k nearest entries and weighs them by a softmax that can also choose none of them.

        weights = softmax([scale * null_key(x); scale * similarity(query(x), entry) + log_prior of the entry])

    `null_key` gives the similarity from which on an entry is worth reading. The similarity is the cosine, or with
    `original` the negative squared distance of vectors as they are.
    """

    def __init__(self, width: int, dim: int, k: int, original: bool) -> None:
        super().__init__()
        self.k, self.original = k, original
        self.query = nn.Linear(width, dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(0.0 if original else 2.3))
        self.null_key = nn.Linear(width, 1)
        nn.init.zeros_(self.null_key.weight)
        nn.init.constant_(self.null_key.bias, 0.0 if original else 1.2)  # a cosine never reaches this
        nn.init.eye_(self.query.weight)  # similar contexts, as long as nothing else is learned

    def forward(self, inputs: Tensor, entries: Entries | None, kept: Datastore | None) -> Reading:
        """Read for inputs [B, T, E]."""
        inputs = inputs.float()
        queries = inputs if self.original else normalize(self.query(inputs), dim=-1)  # [B, T, D]
        B, T, D = queries.shape
        nothing = torch.full((B, T, 0), -1, device=queries.device)
        found: list[tuple[Tensor, ...]]
        found = [(torch.zeros(B, T, 0, D, device=queries.device), nothing, nothing.float(), nothing, nothing)]
        if entries is not None and entries.tokens.shape[1]:
            found.append(self._from_stream(queries, entries))
        if kept is not None and len(kept):
            found.append(self._from_kept(queries, kept))
        vectors, tokens, log_prior, columns, ids = (torch.cat(parts, 2) for parts in zip(*found, strict=True))
        vectors = self._form(vectors)
        products = torch.einsum("btd,btkd->btk", queries, vectors)
        logits = self._logits(products, queries, vectors) + log_prior
        logits, order = logits.topk(min(self.k, logits.shape[2]), dim=2)
        missing = logits == -torch.inf
        short = self.k - order.shape[2]
        none = self.log_scale.exp() * self.null_key(inputs)  # [B, T, 1]
        weights = torch.cat([none, pad(logits, (0, short), value=-torch.inf)], 2).softmax(2)
        vectors = vectors.gather(2, order.unsqueeze(3).expand(-1, -1, -1, D)).masked_fill(missing.unsqueeze(3), 0.0)
        tokens, columns, ids = (
            pad(column.gather(2, order).masked_fill(missing, -1), (0, short), value=-1)
            for column in (tokens, columns, ids)
        )
        return Reading(weights, pad(vectors, (0, 0, 0, short)), tokens, columns, ids)

    def _from_stream(self, queries: Tensor, entries: Entries) -> tuple[Tensor, ...]:
        with torch.no_grad():
            vectors = self._form(entries.vectors)
            products = queries @ vectors.transpose(1, 2)  # [B, T, m]
            logits = self._logits(products, queries, vectors.unsqueeze(1)) + entries.log_prior.unsqueeze(1)
            columns = logits.topk(min(self.k, logits.shape[2]), dim=2).indices  # [B, T, k]
        flat = columns.flatten(1)
        vectors = entries.vectors.gather(1, flat.unsqueeze(2).expand(-1, -1, queries.shape[2])).view(*columns.shape, -1)
        tokens, log_prior = (column.gather(1, flat).view_as(columns) for column in (entries.tokens, entries.log_prior))
        return vectors, tokens, log_prior, columns, torch.full_like(columns, -1)

    def _from_kept(self, queries: Tensor, kept: Datastore) -> tuple[Tensor, ...]:
        B, T, _ = queries.shape
        found = kept.search(queries.flatten(0, 1), self.k)
        ids, tokens = (column.view(B, T, -1) for column in (found.ids, found.tokens))
        vectors = kept.store.get(ids)
        log_prior = torch.zeros_like(ids, dtype=torch.float32).masked_fill(ids < 0, -torch.inf)
        return vectors, tokens, log_prior, torch.full_like(ids, -1), ids

    def _form(self, vectors: Tensor) -> Tensor:
        return vectors if self.original else normalize(vectors, dim=-1)

    def _logits(self, products: Tensor, queries: Tensor, vectors: Tensor) -> Tensor:
        """[B, T, m] from the inner products of queries [B, T, D] and vectors [B, T or 1, m, D]."""
        if self.original:
            products = 2 * products - vectors.square().sum(-1) - queries.square().sum(-1, keepdim=True)
        return self.log_scale.exp() * products
