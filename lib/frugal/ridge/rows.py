"""Ridge regression of rows that are all in memory, such as a time series.

Singular values of the inputs bear twice the digits of their Gram matrix's eigenvalues, whose condition is the square.
A reservoir of 1,000 units that is to continue a series freely, with a penalty of 1e-14, needs them.

Source: Golub and Van Loan, Matrix Computations, sections 5.5 and 6.1.
"""

import math
from dataclasses import dataclass
from typing import Self, overload

import numpy as np
import torch
from torch import Tensor

from frugal.errors import InputError, check_not_negative
from frugal.ridge.statistics import EPS, ROUNDING, check_size
from frugal.tensors import like_given, number_tensor


@dataclass(frozen=True)
class LinearMap:
    """y = (x - input_mean) weights + target_mean, in float64.

    Attributes:
        weights: [D, K].
        input_mean: [D]; target_mean: [K].

    Example:
        >>> import torch
        >>> inputs = torch.tensor([[1.0], [2.0], [4.0]])
        >>> fitted = LinearMap.fit(inputs, 3 * inputs + 1, ridge=0.0)
        >>> round(float(fitted(torch.tensor([[10.0]]))), 9)
        31.0
    """

    weights: Tensor
    input_mean: Tensor
    target_mean: Tensor

    @classmethod
    def fit(
        cls,
        inputs: Tensor | np.ndarray,
        targets: Tensor | np.ndarray,
        ridge: float,
        sample_weight: Tensor | np.ndarray | None = None,
    ) -> Self:
        """Least squares of `targets` [n, K] on `inputs` [n, D], both centred.

        Args:
            ridge: added to the squared singular values of the centred inputs, not scaled by the number of rows.
                Directions in which the inputs vary by rounding alone are left out; with 0, what is left may have
                many solutions, and this is the shortest.
            sample_weight: [n]; a row of weight 2 counts as two, one of weight 0 not at all. Equal by default.

        Raises:
            InputError: no rows, shapes that do not fit, NaN, infinity or numbers too large to square, or a negative
                penalty or weight.
        """
        inputs, targets = number_tensor("inputs", inputs), number_tensor("targets", targets)
        if inputs.ndim != 2 or targets.ndim != 2 or len(inputs) != len(targets) or len(inputs) == 0:
            raise InputError(
                f"inputs {tuple(inputs.shape)} and targets {tuple(targets.shape)}: must be [n, D] and [n, K], n > 0"
            )
        check_not_negative("typical values lie in 1e-14 to 1", ridge=ridge)
        inputs, targets = inputs.detach().double(), targets.detach().double()
        for name, values in (("inputs", inputs), ("targets", targets)):
            check_size(values, name, "leave these rows out, or check the reservoir's radius")
        weights = torch.ones(len(inputs)) if sample_weight is None else number_tensor("sample_weight", sample_weight)
        weights = weights.detach().to(inputs)
        if weights.shape != (len(inputs),) or not (weights >= 0).all() or not 0 < weights.sum() < torch.inf:
            raise InputError(f"sample_weight: must be [{len(inputs)}] numbers, none negative and some positive")
        share, root = (weights / weights.sum()).unsqueeze(1), weights.sqrt().unsqueeze(1)
        input_mean, target_mean = (share * inputs).sum(0), (share * targets).sum(0)
        centred = root * (inputs - input_mean)
        # Centring rounds each input by its size, the decomposition all of them by the largest spread.
        spread, rounding = _lengths(centred), ROUNDING * _lengths(root * inputs)
        varies = spread > rounding
        # A power of two, which rounds nothing.
        largest = math.ldexp(1.0, math.frexp(max(spread.where(varies, 0.0).tolist(), default=0.0))[1])
        penalty = ridge / largest / largest
        # Where the rows determine all weights, each input may be taken in units of its own spread.
        for units in (spread.new_tensor(largest),) if ridge else (spread, spread.new_tensor(largest)):
            unit = torch.where(varies, units, torch.inf)
            left, values, right = torch.linalg.svd(centred / unit, full_matrices=False)
            negligible = torch.linalg.norm(right * (rounding / unit), dim=1)
            kept = values > torch.maximum(negligible, EPS * max(inputs.shape) * values[:1])
            if kept.sum() == varies.sum():
                break
        damped = torch.where(kept, values / (values.square() + penalty), 0.0).unsqueeze(1)
        solution = (right / unit).T @ (damped * (left.T @ (root * (targets - target_mean))))
        return cls(solution, input_mean, target_mean)

    @overload
    def __call__(self, inputs: Tensor) -> Tensor: ...

    @overload
    def __call__(self, inputs: np.ndarray) -> np.ndarray: ...

    def __call__(self, inputs: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Predictions [.., K] for inputs [.., D]; an array for an array.

        Raises:
            InputError: no numbers, or not as many in a row as the map was fitted to.
        """
        x = number_tensor("inputs", inputs).double()
        if x.ndim == 0 or x.shape[-1] != len(self.weights):
            raise InputError(f"inputs of shape {tuple(x.shape)}: must be [.., {len(self.weights)}]")
        return like_given((x - self.input_mean) @ self.weights + self.target_mean, inputs)


def _lengths(columns: Tensor) -> Tensor:
    """Euclidean lengths of columns [n, D], of any size: small squares do not vanish."""
    largest = columns.abs().amax(0)
    return largest * torch.linalg.norm(columns / largest.where(largest > 0, 1.0), dim=0)
