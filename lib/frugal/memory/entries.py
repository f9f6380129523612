"""What the streams of a batch have written themselves, each for itself alone.

They are tensors and not an AssociativeMemory, since in training they carry the gradient by which writing is learned.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor


class Entries(NamedTuple):
    """Entries of B streams; those of row b belong to stream b."""

    vectors: Tensor  # [B, m, D]
    tokens: Tensor  # [B, m], the token that followed
    log_prior: Tensor  # [B, m], added to their similarity; -inf where none was written, or it was deleted
    positions: Tensor  # [B, m], where in the stream

    @classmethod
    def none(cls, batch_size: int, dim: int, device: torch.device) -> Self:
        """Those of streams that have written nothing yet, [B, 0]."""
        tokens = torch.empty(batch_size, 0, dtype=torch.int64, device=device)
        return cls(torch.empty(batch_size, 0, dim, device=device), tokens, tokens.float(), tokens)

    def before(self, position: int) -> "Entries":
        """Only what was written before a position is left; columns stay where they are."""
        return self.without(self.positions >= position)

    def without(self, deleted: Tensor) -> "Entries":
        """Some are deleted, [B, m]; columns stay where they are."""
        return self._replace(log_prior=self.log_prior.masked_fill(deleted, -torch.inf))

    def joined(self, new: "Entries", capacity: int) -> "Entries":
        """With newer ones behind, the newest `capacity` of all."""
        return Entries(*(torch.cat(pair, 1)[:, -capacity:] for pair in zip(self, new, strict=True)))

    def shuffled(self, seed: int = 0) -> "Entries":
        """The same entries with one another's tokens: the control that shows how much these contribute."""
        order = torch.randperm(self.tokens.shape[1], generator=torch.Generator().manual_seed(int(seed)))
        return self._replace(tokens=self.tokens[:, order])
