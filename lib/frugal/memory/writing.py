"""What is written into the memory and what is taken out again: the decisions, and the heads that learn them."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, normalize

from frugal.errors import InputError, is_number
from frugal.memory.entries import Entries
from frugal.memory.reading import Reading

Write = Literal["all", "threshold", "surprise", "learned", "random"]
STORE_THRESHOLD = 0.5  # of the decision's raw value
DELETE_THRESHOLD = 0.5  # of the distance below which an entry is meant by the deletable vector


class Writer(nn.Module):
    """Heads over the last hidden states [B, T, E] that say what is stored and what is deleted.

    An entry is the storable vector of a position with the token that followed it. Which positions are written:

        "all"        every one
        "threshold"  those whose store decision is above 0.5
        "surprise"   the share `budget` whose following tokens were least expected
        "learned"    the share `budget` with the highest store decision
        "random"     a share `budget` at random: the control for the two before

    In training, "threshold" and "learned" write all, with the logarithm of sigmoid(decision) added to the entries'
    similarity, so that the decision learns from what reading them was worth.

    Args:
        width, dim: of the hidden states and of the entries' vectors.
        budget: share of positions written.
        deletes: whether the delete decision is obeyed.
        seed: of "random".
        original: vectors are compared as they are, not scaled to unit length.

    Raises:
        InputError: an unknown way to write, or a share that is none.
    """

    def __init__(
        self, width: int, dim: int, *, write: Write, budget: float, deletes: bool, seed: int, original: bool
    ) -> None:
        super().__init__()
        if write not in get_args(Write):
            raise InputError(f"write={write!r}: must be one of {', '.join(map(repr, get_args(Write)))}")
        if not (is_number(budget) and 0 < budget <= 1):
            raise InputError(f"budget={budget}: must be above 0 and at most 1; it is the share of positions written")
        self.write, self.budget, self.deletes, self.seed, self.original = write, budget, deletes, seed, original
        self.storable_vector = nn.Linear(width, dim, bias=original)
        self.store_decision = nn.Linear(width, 1)
        self.deletable_vector = nn.Linear(width, dim)
        self.delete_decision = nn.Linear(width, 1)
        if not original:
            nn.init.eye_(self.storable_vector.weight)

    def forward(self, hidden: Tensor, following: Tensor, surprise: Tensor, position: int) -> Entries:
        """Entries of positions `position`.. with hidden states [B, T, E], followed by tokens [B, T].

        `surprise` [B, T] is each following token's negative log-probability.
        """
        vectors, decision = self.storable_vector(hidden), self.store_decision(hidden).squeeze(2)
        positions = torch.arange(position, position + hidden.shape[1], device=hidden.device).expand_as(following)
        soft = self.training and self.write in ("threshold", "learned")
        entries = Entries(vectors, following, logsigmoid(decision) if soft else torch.zeros_like(decision), positions)
        if soft or self.write == "all":
            return entries
        if self.write == "threshold":
            return entries.without(decision <= STORE_THRESHOLD)
        return chosen(entries, self._order(decision, surprise, position), self.budget)

    def _order(self, decision: Tensor, surprise: Tensor, position: int) -> Tensor:
        """What is written first has the highest value, [B, T]."""
        if self.write == "random":
            generator = torch.Generator().manual_seed(int(self.seed) * 1_000_003 + position)
            return torch.rand(decision.shape[1], generator=generator).to(decision.device).expand_as(decision)
        return surprise if self.write == "surprise" else decision

    def marked_for_deletion(self, hidden: Tensor, reading: Reading) -> Tensor:
        """Which of the entries just read are meant to be deleted, [B, T, k]."""
        decided = self.delete_decision(hidden) > STORE_THRESHOLD  # [B, T, 1]
        return decided & (self.distances(hidden, reading) < DELETE_THRESHOLD) & (reading.tokens >= 0)

    def distances(self, hidden: Tensor, reading: Reading) -> Tensor:
        """From the deletable vector to each entry read, [B, T, k]."""
        wanted = self.deletable_vector(hidden)
        if not self.original:
            wanted = normalize(wanted, dim=-1)
        return (wanted.unsqueeze(2) - reading.vectors).square().sum(-1).clamp_min(1e-12).sqrt()

    def deleted_columns(self, hidden: Tensor, reading: Reading, count: int) -> Tensor:
        """Which of the streams' own `count` entries are deleted, [B, count]."""
        marks = torch.zeros(len(hidden), count + 1, dtype=torch.bool, device=hidden.device)  # the last is for no entry
        if not self.deletes:
            return marks[:, :-1]
        columns = reading.columns.where(self.marked_for_deletion(hidden, reading), -1).flatten(1)
        return marks.scatter(1, columns % (count + 1), True)[:, :-1]


def chosen(entries: Entries, order: Tensor, budget: float) -> Entries:
    """The share `budget` of the entries that comes first, in the order of the text."""
    count = max(1, round(budget * order.shape[1]))
    places = order.topk(count, dim=1).indices.sort(1).values  # [B, count]
    rest = (column.gather(1, places) for column in entries[1:])
    return Entries(entries.vectors.gather(1, places.unsqueeze(2).expand(-1, -1, entries.vectors.shape[2])), *rest)
