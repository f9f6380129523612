"""The softmax readout: a small net on whitened states, trained by gradient."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn

from frugal.errors import InputError, check_list, check_positive, check_whole
from frugal.readout.base import Readout
from frugal.readout.ridge import RidgeReadout
from frugal.ridge.statistics import RidgeStatistics

SHRINKAGE = 1e-4


class SoftmaxReadout(Readout):
    """Linear, low-rank or with hidden layers, before a softmax over the vocabulary.

    The inputs are whitened by a fixed linear map first, once `whiten` has set it: gradient descent then sees
    directions of equal variance. The last layer starts at zero, so that nothing is preferred to begin with, and a
    residual readout begins as the foundation model that it corrects.

    Attributes:
        mean: of the inputs, [D]; whitening: [D, D]; the identity at first.
        layers: what is trained.

    Example:
        >>> readout = SoftmaxReadout(6, 100, hidden=(8,), rank=4)
        >>> readout(torch.ones(2, 6)).abs().max().item()  # nothing is preferred yet
        0.0
    """

    mean: Tensor
    whitening: Tensor

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        hidden: Sequence[int] = (),
        rank: int | None = None,
        tied: bool = False,
        seed: int = 0,
    ) -> None:
        """Build the readout.

        Args:
            input_size: width D of the inputs.
            output_size: the vocabulary's size or, if `tied`, the foundation's hidden size.
            hidden: sizes of hidden layers with GELU between input and output.
            rank: factor the last layer through so many dimensions: rank * (D + K) weights instead of D * K.
            tied: the outputs are hidden states, which the foundation's own frozen head turns into logits.
            seed: of the first layers' weights, where there are several.
        """
        super().__init__(input_size, output_size)
        check_whole(rank=1 if rank is None else rank)
        check_list(check_whole, 0, hidden=hidden)
        check_whole(0, seed=seed)
        self.hidden, self.rank, self.tied, self.seed = tuple(map(int, hidden)), rank, tied, seed
        self.register_buffer("mean", torch.zeros(input_size))
        self.register_buffer("whitening", torch.eye(input_size))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed))
            self.layers = self._build()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(self.whitened(inputs))

    def whitened(self, inputs: Tensor) -> Tensor:
        """Inputs [.., D] with mean 0 and unit variance in all directions, as far as the statistics knew."""
        return (self.given_rows(inputs) - self.mean).to(self.mean) @ self.whitening

    def whiten(self, statistics: RidgeStatistics, shrinkage: float = SHRINKAGE) -> Self:
        """Set the whitening from the inputs' mean and covariance; do so before training.

        Args:
            statistics: of training rows, with targets or without: `RidgeStatistics.of_inputs`.
            shrinkage: added to the variance of each direction, in units of the mean variance, so that rounding
                errors are not blown up to unit size; larger values hold down the small directions.
        """
        mean, whitening = whitening_map(statistics, self.input_size, shrinkage)
        self.mean.copy_(mean)
        self.whitening.copy_(whitening)
        return self

    def start_from(self, ridge: RidgeReadout, scale: float = 7.0) -> Self:
        """Start a linear readout where ridge regression ends, after `whiten`.

        The logits become log frequency + scale * (value - frequency): least squares says which tokens are likelier
        than usual, but not by how much on a logarithmic scale, which is left to `scale` and the training.
        """
        last = self.layers[-1]
        if len(self.layers) > 1 or not isinstance(last, nn.Linear) or last.weight.shape != ridge.weight.shape:
            raise InputError("start_from: needs a linear readout with as many inputs and outputs as the ridge readout")
        if not ridge.tokens:
            raise InputError("start_from: the ridge readout was fitted to values, which are no probabilities of tokens")
        with torch.no_grad():
            last.weight.copy_(scale * torch.linalg.solve(self.whitening, ridge.weight.to(self.mean), left=False))
            # What the ridge readout gives at its mean is the frequency, before that was smoothed.
            last.bias.copy_(ridge.frequency.log() + scale * (ridge.bias - ridge.frequency))
        return self

    def settings(self) -> dict[str, Any]:
        return {
            "input_size": self.input_size,
            "output_size": self.output_size,
            "hidden": list(self.hidden),
            "rank": self.rank,
            "tied": self.tied,
            "seed": self.seed,
        }

    def _build(self) -> nn.Sequential:
        layers: list[nn.Module] = []
        sizes = [self.input_size, *self.hidden]
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.GELU()]
        if self.rank is not None:
            layers.append(nn.Linear(sizes[-1], self.rank, bias=False))
        last = nn.Linear(sizes[-1] if self.rank is None else self.rank, self.output_size)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        return nn.Sequential(*layers, last)


def whitening_map(statistics: RidgeStatistics, input_size: int, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Mean [D], and the symmetric map [D, D] that gives inputs less their mean unit variance in all directions."""
    if len(statistics.inputs) != input_size:
        raise InputError(
            f"statistics of {len(statistics.inputs)} inputs: this readout takes {input_size}; "
            "`statistics.select(model.columns)` gives those of its own"
        )
    check_positive("typical values lie in 1e-4 to 1", shrinkage=shrinkage)
    variance, basis = torch.linalg.eigh(statistics.covariance)
    if not variance.mean() > 0:
        raise InputError("the inputs do not vary, so that they cannot be whitened: give longer or more texts")
    shrunk = variance.clamp_min(0) + shrinkage * variance.mean()
    # Symmetric (ZCA): of all whitening maps the one that changes the inputs least.
    return statistics.mean, (basis * shrunk.rsqrt()) @ basis.T
