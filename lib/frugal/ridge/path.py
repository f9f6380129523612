"""Ridge regression in closed form: every penalty from one eigendecomposition.

With centred inputs X [n, D] and targets Y [n, K], the weights for the penalty `alpha` are

    W = Y'X (X'X + alpha t I)^-1,   t = trace(X'X) / D

so that `alpha` is relative to the mean eigenvalue and means the same for any length of text and any scale of the
inputs. In the eigenbasis, X'X = Q diag(l) Q', another `alpha` changes a diagonal only.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from frugal.errors import InputError
from frugal.ridge.statistics import RidgeStatistics, add_gram

OUTPUTS_AT_ONCE = 1024  # rows of Y'X


class Moments(NamedTuple):
    """Statistics about given means; the sums with the targets, Y'X [K, D], are made in pieces when they are needed."""

    statistics: RidgeStatistics
    input_mean: Tensor
    target_mean: Tensor

    @property
    def gram(self) -> Tensor:
        """Centred X'X [D, D]."""
        n, total, mean = self.statistics.count, self.statistics.inputs, self.input_mean
        crossed = torch.outer(total, mean)
        return self.statistics.gram - crossed - crossed.T + n * torch.outer(mean, mean)

    @property
    def squares(self) -> Tensor:
        """Sum of all squared centred targets, []."""
        n, total, mean = self.statistics.count, self.statistics.targets, self.target_mean
        return self.statistics.squares - 2 * total @ mean + n * mean @ mean

    def cross(self, outputs: Tensor) -> Tensor:
        """Rows `outputs` of the centred Y'X, [len(outputs), D]."""
        n, targets, mean = self.statistics.count, self.statistics.targets[outputs], self.target_mean[outputs]
        left = torch.stack([targets - n * mean, mean], 1)
        right = torch.stack([self.input_mean, self.statistics.inputs])
        return self.statistics.cross[outputs].addmm_(left, right, alpha=-1)


class RidgePath:
    """The solutions for all penalties from one eigendecomposition of the centred Gram matrix.

    Attributes:
        input_mean: [D]; target_mean: [K].
        eigenvalues: of the centred Gram matrix, ascending, [D].
        basis: their eigenvectors as columns, [D, D].
    """

    def __init__(self, statistics: RidgeStatistics) -> None:
        n = statistics.count
        if n < 2:
            raise InputError(f"{int(n)} rows: ridge regression needs at least 2; collect statistics of some text first")
        self.input_mean, self.target_mean = statistics.inputs / n, statistics.targets / n
        self.moments = Moments(statistics, self.input_mean, self.target_mean)
        eigenvalues, self.basis = torch.linalg.eigh(self.moments.gram)
        self.eigenvalues = eigenvalues.clamp_min(0)
        if not self.eigenvalues[-1] > 0:
            raise InputError("the inputs do not vary: a readout needs states that depend on the text")
        cross_gram = torch.zeros_like(self.basis)
        for outputs in self._outputs():
            add_gram(cross_gram, self.moments.cross(outputs))
        self.cross_gram = self._in_basis(cross_gram)  # Q'X'Y Y'X Q: all that the errors need to know of K outputs

    def condition(self, alpha: float) -> float:
        """Reciprocal condition number of the system that is solved; below about 1e-14 its solution is noise."""
        penalty = alpha * self.eigenvalues.mean()
        return float((self.eigenvalues[0] + penalty) / (self.eigenvalues[-1] + penalty))

    def generalised_cross_validation(self, alphas: Sequence[float]) -> Tensor:
        """n * residual / (n - degrees of freedom)^2 for each penalty (Golub, Heath and Wahba 1979)."""
        n = self.moments.statistics.count
        explained, scores = self.cross_gram.diagonal(), []
        for alpha in alphas:
            inverse = self._inverse(alpha)
            residual = self.moments.squares - ((2 - self.eigenvalues * inverse) * inverse * explained).sum()
            freedom = 1 + (self.eigenvalues * inverse).sum()  # 1 for the means
            scores.append(n * residual.clamp_min(0) / (n - freedom) ** 2)
        return torch.stack(scores)

    def validation_errors(self, validation: RidgeStatistics, alphas: Sequence[float]) -> Tensor:
        """Mean squared error on other rows for each penalty, from their statistics alone."""
        others = Moments(validation, self.input_mean, self.target_mean)
        both = torch.zeros_like(self.basis)
        for outputs in self._outputs():
            both += self.moments.cross(outputs).T @ others.cross(outputs)
        agreement = self._in_basis(both).diagonal()
        fitted = self.cross_gram * self._in_basis(others.gram)
        inverses = [self._inverse(alpha) for alpha in alphas]
        errors = [others.squares - 2 * inverse @ agreement + inverse @ fitted @ inverse for inverse in inverses]
        return torch.stack(errors) / validation.count

    def solve(self, alpha: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Weights [K, D] and bias [K] for one penalty; the arithmetic is float64 whatever their dtype."""
        inverse = (self.basis * self._inverse(alpha)) @ self.basis.T
        weights = torch.zeros_like(self.moments.statistics.cross, dtype=dtype)
        bias = self.target_mean.clone()
        for outputs in self._outputs():
            rows = self.moments.cross(outputs) @ inverse
            weights[outputs] = rows.to(dtype)
            bias[outputs] -= rows @ self.input_mean
        return weights, bias.to(dtype)

    def _inverse(self, alpha: float) -> Tensor:
        """Eigenvalues of the penalised Gram matrix's inverse, [D]."""
        return 1 / (self.eigenvalues + alpha * self.eigenvalues.mean())

    def _in_basis(self, matrix: Tensor) -> Tensor:
        return self.basis.T @ matrix @ self.basis

    def _outputs(self) -> Iterator[Tensor]:
        """Indices of the outputs that occur, in pieces: most of a vocabulary does not, and its weights are zero."""
        statistics = self.moments.statistics
        pieces = zip(statistics.targets.split(OUTPUTS_AT_ONCE), statistics.cross.split(OUTPUTS_AT_ONCE), strict=True)
        occurring = torch.cat([(targets != 0) | (cross != 0).any(1) for targets, cross in pieces])
        yield from occurring.nonzero().squeeze(1).split(OUTPUTS_AT_ONCE)
