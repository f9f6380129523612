"""Ridge regression without the Gram matrix, whose condition number is the square of the inputs'.

A triangular R with R'R = Z'Z for Z = [1 X Y] holds all that RidgeStatistics holds, at full precision. It too is
collected in one pass (QR of [R; new rows]) and merged (QR of [R; R']). Since the first column of Z is constant, the
rest of R is that of centred inputs and targets. For a few outputs, such as a time series; a vocabulary is too wide.

Source: Golub and Van Loan, Matrix Computations, sections 5.3 and 6.1.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from frugal.errors import InputError

MOST_OUTPUTS = 2048


class SquareRootStatistics:
    """The triangular factor of rows [1 x y], x [D], y [K]; float64.

    Attributes:
        count: number of rows.
        factor: R, [1 + D + K, 1 + D + K].
    """

    def __init__(self, input_size: int, output_size: int, device: str | torch.device = "cpu") -> None:
        if not 1 <= output_size <= MOST_OUTPUTS:
            raise InputError(
                f"output_size={output_size}: must lie in 1 to {MOST_OUTPUTS}; use RidgeStatistics for a vocabulary"
            )
        if input_size < 1:
            raise InputError(f"input_size={input_size}: must be positive")
        self.input_size, self.output_size, self.count = input_size, output_size, 0
        width = 1 + input_size + output_size
        self.factor = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        """Take rows: inputs [n, D] with values [n, K]."""
        n, D, K = len(inputs), self.input_size, self.output_size
        if inputs.shape != (n, D) or targets.shape != (n, K):
            raise InputError(
                f"inputs {tuple(inputs.shape)} and targets {tuple(targets.shape)}: must be [n, {D}] and [n, {K}]"
            )
        rows = torch.cat([torch.ones(n, 1, device=inputs.device), inputs, targets], 1).double()
        if not torch.isfinite(rows.sum()):
            raise InputError("inputs or targets hold NaN or infinity; check the reservoir's radius and input scale")
        self.factor = _triangle(torch.cat([self.factor, rows]))
        self.count += n

    def merge(self, other: Self) -> Self:
        """The statistics of both sets of rows together."""
        if self.factor.shape != other.factor.shape or self.input_size != other.input_size:
            raise InputError("shards of different models: inputs and outputs must be equally many")
        both = type(self)(self.input_size, self.output_size, self.factor.device)
        both.factor = _triangle(torch.cat([self.factor, other.factor]))
        both.count = self.count + other.count
        return both


class SquareRootPath:
    """As RidgePath, from the singular values of the inputs instead of the eigenvalues of their Gram matrix."""

    def __init__(self, statistics: SquareRootStatistics) -> None:
        if statistics.count < 2:
            raise InputError(f"{statistics.count} rows: ridge regression needs at least 2; collect some first")
        D, factor, self.count = statistics.input_size, statistics.factor, statistics.count
        means = factor[0, 1:] / factor[0, 0]
        self.input_mean, self.target_mean = means[:D], means[D:]
        left, self.singular, self.basis = torch.linalg.svd(factor[1 : 1 + D, 1 : 1 + D])
        if not self.singular[0] > 0:
            raise InputError("the inputs do not vary: a readout needs states that depend on what it is to predict")
        self.projected = left.T @ factor[1 : 1 + D, 1 + D :]  # [D, K]
        self.unexplained = factor[1 + D :, 1 + D :].square().sum()

    def condition(self, alpha: float) -> float:
        """Reciprocal condition number of the least-squares problem [X; sqrt(penalty) I]."""
        smallest, largest = self.singular[-1].square(), self.singular[0].square()
        return float(((smallest + self._penalty(alpha)) / (largest + self._penalty(alpha))).sqrt())

    def generalised_cross_validation(self, alphas: Sequence[float]) -> Tensor:
        """n * residual / (n - degrees of freedom)^2 for each penalty."""
        scores = []
        for alpha in alphas:
            left_out = self._penalty(alpha) / (self.singular.square() + self._penalty(alpha))  # share not fitted
            residual = self.unexplained + (left_out.unsqueeze(1) * self.projected).square().sum()
            scores.append(self.count * residual / (self.count - 1 - (1 - left_out).sum()) ** 2)
        return torch.stack(scores)

    def validation_errors(self, validation: SquareRootStatistics, alphas: Sequence[float]) -> Tensor:
        """Mean squared error on other rows for each penalty."""
        errors = []
        for alpha in alphas:
            weight, bias = self.solve(alpha, torch.float64)
            residual = torch.cat([bias.unsqueeze(1), weight, -torch.eye(len(bias)).to(weight)], 1)  # of [1 x y]
            errors.append((validation.factor @ residual.T).square().sum() / validation.count)
        return torch.stack(errors)

    def solve(self, alpha: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Weights [K, D] and bias [K] for one penalty."""
        inverse = self.singular / (self.singular.square() + self._penalty(alpha))
        weight = (inverse.unsqueeze(1) * self.projected).T @ self.basis
        bias = self.target_mean - weight @ self.input_mean
        return weight.to(dtype), bias.to(dtype)

    def _penalty(self, alpha: float) -> Tensor:
        return alpha * self.singular.square().mean()


def _triangle(rows: Tensor) -> Tensor:
    """R of the QR decomposition; Q is not formed."""
    return torch.linalg.qr(rows, mode="r").R
