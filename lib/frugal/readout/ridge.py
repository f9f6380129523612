"""The ridge readout: linear scores in closed form, and probabilities made of them."""

import warnings
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from frugal.errors import InputError
from frugal.language_model import LOGITS_AT_ONCE
from frugal.readout.base import Readout
from frugal.ridge.path import RidgePath
from frugal.ridge.statistics import RidgeStatistics
from frugal.tensors import number_tensor, row_pairs, token_tensor

ALPHAS = tuple(10.0**exponent for exponent in range(-9, 2))
SMALLEST_CONDITION = 1e-14
DTYPES = {"float32": torch.float32, "float64": torch.float64}

# The calibration that suits most texts, and what is tried to find a better one.
FLOOR, POWER = 0.5, 1.5
FLOORS = (0.1, 0.3, 1.0, 3.0)
POWERS = (1.0, 1.5, 2.0)


class RidgeReadout(Readout):
    """A linear map fitted by least squares with a penalty, and its calibration.

    Fitted to tokens, the k-th value estimates token k's probability, but may well be negative. The logits are

        power * log max(value_k, floor * frequency_k)

    with the two numbers chosen on held-out text. On characters that costs 0.7 bits less than a softmax with a fitted
    temperature; a softmax readout trained by gradient costs less still, and can start from here.

    Fitted to values, it gives these values.

    Attributes:
        weight: [K, D]; mean: [D]; bias: [K]: the values of inputs x are weight (x - mean) + bias.
        frequency: share of each token in the training text, smoothed, [K].
        floor, power: the calibration.
        alpha: the penalty that was taken, in units of the inputs' mean eigenvalue.
        tokens: whether it was fitted to tokens, and not to values.

    Example:
        >>> states, tokens = torch.eye(3).repeat(20, 1), torch.tensor([2, 0, 1] * 20)
        >>> readout = RidgeReadout.fit(RidgeStatistics.collect([(states, tokens)], output_size=3), alphas=[1e-6])
        >>> readout(torch.eye(3)).argmax(-1)
        tensor([2, 0, 1])
    """

    weight: Tensor
    mean: Tensor
    bias: Tensor
    frequency: Tensor
    floor: Tensor
    power: Tensor
    alpha: Tensor

    def __init__(self, input_size: int, output_size: int, *, dtype: str = "float32", tokens: bool = True) -> None:
        """A readout that is not fitted yet: all tokens are equally likely. `fit` makes fitted ones."""
        super().__init__(input_size, output_size)
        self.tokens, self.dtype = tokens, dtype
        number = number_type(dtype)
        self.register_buffer("weight", torch.zeros(output_size, input_size, dtype=number))
        self.register_buffer("mean", torch.zeros(input_size, dtype=number))
        self.register_buffer("bias", torch.full((output_size,), 1 / output_size, dtype=number))
        self.register_buffer("frequency", self.bias.clone())
        self.register_buffer("floor", torch.tensor(FLOOR, dtype=number))
        self.register_buffer("power", torch.tensor(POWER, dtype=number))
        self.register_buffer("alpha", torch.tensor(torch.inf, dtype=number))

    @classmethod
    def fit(
        cls,
        statistics: RidgeStatistics,
        *,
        alphas: Sequence[float] | np.ndarray | Tensor | float = ALPHAS,
        validation: RidgeStatistics | None = None,
        dtype: str = "float32",
    ) -> Self:
        """Solve for the best of the penalties `alphas`, each in units of the inputs' mean eigenvalue.

        The best has the least squared error on `validation` or, without it, the least generalised cross-validation
        score, which needs no other data; of equal ones the larger penalty. The solution is computed in float64 and kept
        in `dtype`.

        Raises:
            InputError: too few rows, inputs that do not vary, a penalty that is not positive, or another `dtype`.
        """
        number = number_type(dtype)
        penalties = number_tensor("alphas", alphas).double().flatten().tolist()
        if not penalties or not all(0 < alpha < np.inf for alpha in penalties):
            raise InputError(
                f"alphas={alphas}: must be positive; typical values lie in 1e-9 to 10, and rows in memory are fitted "
                "without a penalty by frugal.ridge.LinearMap"
            )
        path = RidgePath(statistics)
        if validation is None:
            errors = path.generalised_cross_validation(penalties)
        else:
            errors = path.validation_errors(validation, penalties)
        alpha = -min(zip(errors.tolist(), (-alpha for alpha in penalties), strict=True))[1]
        if path.condition(alpha) < SMALLEST_CONDITION:
            warnings.warn(
                f"alpha={alpha:g}: the system's reciprocal condition number is {path.condition(alpha):.0e}, so its "
                "solution may be noise; take larger alphas, or fit rows in memory by frugal.ridge.LinearMap, which "
                "bears twice the digits",
                stacklevel=2,
            )
        weight, mean = path.solve(alpha, number), path.input_mean.to(number)
        bias = path.target_mean.to(weight) - weight @ (path.input_mean - mean).to(weight)  # the mean has been rounded
        counts = statistics.target_sums.clamp_min(0)
        parts = {
            "weight": weight,
            "mean": mean,
            "bias": bias,
            "frequency": ((counts + 0.5) / (counts + 0.5).sum()).to(bias),
            "floor": torch.tensor(FLOOR).to(bias),
            "power": torch.tensor(POWER).to(bias),
            "alpha": torch.tensor(alpha).to(bias),
        }
        with torch.device("meta"):  # the weights are large, and here already
            readout = cls(weight.shape[1], weight.shape[0], dtype=dtype, tokens=statistics.of_tokens)
        readout.load_state_dict(parts, assign=True)
        return readout

    def values(self, inputs: Tensor | np.ndarray) -> Tensor:
        """The fitted values [.., K] themselves."""
        inputs = self.given_rows(inputs)
        inputs = inputs if inputs.is_floating_point() else inputs.double()  # no digit is lost before the mean is off
        return linear((inputs - self.mean).to(self.weight.dtype), self.weight, self.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Calibrated logits [.., K] of tokens, or values."""
        values = self.values(inputs)
        return self._logits(values, self.floor, self.power) if self.tokens else values

    def calibrate(self, rows: Iterable[tuple[Tensor, Tensor]]) -> Self:
        """Choose `floor` and `power` for the least negative log-likelihood on held-out rows (inputs, tokens).

        A few thousand rows are enough: only two numbers are fitted.

        Raises:
            InputError: no rows, inputs that are not finite, targets that are no tokens, or a readout of values; the
                calibration stays as it was.
        """
        if not self.tokens:
            raise InputError("calibrate: this readout was fitted to values, which are no probabilities of tokens")
        nats = torch.zeros(len(FLOORS), len(POWERS), dtype=torch.float64)
        rows_seen, at_once = 0, max(1, LOGITS_AT_ONCE // self.output_size)
        for inputs, targets in row_pairs(rows):
            inputs = self.given_rows(inputs).to(self.weight.device)
            targets = token_tensor("targets", targets, self.output_size)
            if inputs.ndim != 2 or inputs.shape[:-1] != targets.shape:
                raise InputError(f"targets of shape {list(targets.shape)}: must be a token for each row of the inputs")
            for x, y in zip(inputs.split(at_once), targets.to(inputs.device).split(at_once), strict=True):
                values = self.values(x)
                for i, j in product(range(len(FLOORS)), range(len(POWERS))):
                    logits = self._logits(values, FLOORS[i], POWERS[j])
                    nats[i, j] += cross_entropy(logits, y, reduction="sum").cpu()
                rows_seen += len(x)
        if rows_seen == 0 or not torch.isfinite(nats).all():
            raise InputError(f"{rows_seen} rows to calibrate on: needs at least one, and no NaN or infinity")
        i, j = divmod(int(nats.argmin()), len(POWERS))
        self.floor.fill_(FLOORS[i])
        self.power.fill_(POWERS[j])
        return self

    def settings(self) -> dict[str, Any]:
        return {
            "input_size": self.input_size,
            "output_size": self.output_size,
            "dtype": self.dtype,
            "tokens": self.tokens,
        }

    def get_extra_state(self) -> Tensor:
        """What `state_dict` keeps beside the weights: whether they are for tokens."""
        return torch.tensor(self.tokens)

    def set_extra_state(self, state: Tensor) -> None:
        self.tokens = bool(state)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Earlier versions kept no mean: it is zero; nor whether the weights are for tokens: the settings say so."""
        state_dict.setdefault(f"{prefix}mean", torch.zeros_like(self.mean))
        state_dict.setdefault(f"{prefix}_extra_state", self.get_extra_state())
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _logits(self, values: Tensor, floor: Tensor | float, power: Tensor | float) -> Tensor:
        return power * torch.maximum(values, floor * self.frequency).log()


def number_type(dtype: str) -> torch.dtype:
    """The type of weights by its name; raises InputError for another than "float32" or "float64"."""
    if not (isinstance(dtype, str) and dtype in DTYPES):
        raise InputError(f"dtype={dtype!r}: must be 'float32' or 'float64'")
    return DTYPES[dtype]
