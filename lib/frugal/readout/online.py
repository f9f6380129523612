"""The online readout: the ridge readout's linear map, learnt row by row by recursive least squares."""

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from frugal.errors import DivergedError, InputError, check_positive, is_number
from frugal.readout.ridge import RidgeReadout
from frugal.tensors import like_given, number_tensor, token_tensor


class OnlineReadout(RidgeReadout):
    """A ridge readout that learns from each row as it comes: recursive least squares.

    With P the inverse of the penalised, discounted sum of x x' (x with a 1 for the bias), a row x with target y gives

        k = P x / (forgetting + x' P x),    W <- W + (y - W x) k',    P <- (P - k x' P) / forgetting

    Kept is a root R of P = R R', which rounding cannot make negative, in float64 (Potter's square-root filter):

        v = R' x,    a = forgetting + v' v,    R <- (R - R v v' / (a + sqrt(a forgetting))) / sqrt(forgetting)

    Without forgetting W is the ridge solution with the penalty `alpha` on all weights and the bias, after every row.
    FORCE learning is the same in a closed loop: predict, learn from the row, feed the prediction back.

    Haykin, "Adaptive filter theory", chapter 10; Sussillo and Abbott, "Generating coherent patterns of activity from
    chaotic neural networks", Neuron 63, 2009; Bierman, "Factorization methods for discrete sequential
    estimation", 1977.

    Args:
        input_size: width D of the inputs.
        output_size: number K of values to predict, or the vocabulary's size.
        alpha: the penalty, in units of the inputs' squares, as reservoirpy's RLS has it.
        forgetting: weight of a row after one more, in (0, 1]; 1 forgets nothing.
        dtype: of the weights and the values, "float32" or "float64".

    Attributes:
        root: R, [D + 1, D + 1]; the rest as in `RidgeReadout`.

    Raises:
        InputError: a value outside its range.

    Example:
        >>> readout = OnlineReadout(2, 1, alpha=1e-9)
        >>> inputs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> readout = readout.partial_fit(inputs, torch.tensor([[5.0], [2.0], [4.0]]))
        >>> round(float(readout.predict(torch.zeros(1, 2))), 3)
        3.0
    """

    root: Tensor
    counts: Tensor

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        alpha: float = 1e-6,
        forgetting: float = 1.0,
        dtype: str = "float64",
        tokens: bool = True,
    ) -> None:
        super().__init__(input_size, output_size, dtype=dtype, tokens=tokens)
        check_positive("typical values lie in 1e-9 to 1", alpha=alpha)
        if not (is_number(forgetting) and 0 < forgetting <= 1):
            raise InputError(f"forgetting={forgetting}: must lie in (0, 1]; 1 forgets nothing, 0.999 a thousand rows")
        self.forgetting = forgetting
        self.bias.zero_()
        self.alpha.fill_(alpha)
        self.register_buffer("counts", torch.zeros_like(self.bias))
        self.register_buffer("root", torch.eye(input_size + 1, dtype=torch.float64) / math.sqrt(alpha))

    @classmethod
    def fit(cls, *_: Any, **__: Any) -> Self:
        """Refused: this readout learns from rows, not from their statistics."""
        raise InputError("OnlineReadout.fit: it learns from rows; call `partial_fit`, or fit a RidgeReadout")

    @torch.no_grad()
    def partial_fit(
        self,
        inputs: Tensor | np.ndarray,
        targets: Tensor | np.ndarray,
        sample_weight: Tensor | np.ndarray | None = None,
    ) -> Self:
        """Learn from rows: inputs [n, D], and values [n, K] or tokens (integers [n]), in their order.

        Args:
            sample_weight: [n], factors of the rows' squared errors; equal by default. A row of weight 0 teaches
                nothing, but counts for the forgetting as any other does.

        Raises:
            InputError: shapes that do not fit, NaN or infinity, or a negative weight. Nothing is learnt then.
            DivergedError: the weights are no numbers any more after these rows. Nothing is learnt then either.
        """
        x, y = number_tensor("inputs", inputs).to(self.root), number_tensor("targets", targets).to(self.weight.device)
        tokens = not y.is_floating_point() and y.ndim == 1
        y = one_hot(token_tensor("targets", y, self.output_size), self.output_size) if tokens else y
        y = y.to(self.root)
        if x.ndim != 2 or x.shape[1] != self.input_size or y.shape != (len(x), self.output_size):
            raise InputError(
                f"inputs {list(x.shape)} and targets {list(y.shape)}: must be [n, {self.input_size}] and "
                f"[n, {self.output_size}]"
            )
        ones = torch.ones(len(x)).to(x)
        weights = ones if sample_weight is None else number_tensor("sample_weight", sample_weight).to(x)
        if weights.shape != (len(x),) or not (weights >= 0).all():
            raise InputError(f"sample_weight of shape {list(weights.shape)}: must be [{len(x)}], none negative")
        for name, values in (("inputs", x), ("targets", y), ("sample_weight", weights)):
            if not torch.isfinite(values).all():
                raise InputError(f"{name}: hold NaN or infinity; leave these rows out")
        if len(y) and tokens != self.tokens and (self.weight.any() or self.bias.any()):
            learnt, given = ("tokens", "values") if self.tokens else ("values", "tokens")
            raise InputError(f"targets: are {given}, and this readout has learnt {learnt}; take another one for them")
        self.tokens = tokens if len(y) else self.tokens
        both, root = torch.cat([self.weight, self.bias.unsqueeze(1)], 1).to(self.root), self.root
        for row, target, weight in zip(torch.cat([x, ones.unsqueeze(1)], 1), y, weights, strict=True):
            seen = root.T @ row
            spread = weight * (root @ seen)
            total = self.forgetting + weight * (seen @ seen)
            both += torch.outer(target - both @ row, spread / total)
            root = root - torch.outer(spread / (total + (total * self.forgetting).sqrt()), seen)
            root = root / math.sqrt(self.forgetting)
        if not (both.to(self.weight).isfinite().all() and root.square().isfinite().all()):
            raise DivergedError(
                f"forgetting={self.forgetting}: so much of the past is forgotten in these {len(x)} rows that the rest "
                "determines no weights; take it nearer to 1, or a larger alpha"
            )
        self.root.copy_(root)
        self.weight.copy_(both[:, :-1])
        self.bias.copy_(both[:, -1])
        if tokens:
            self.counts += (weights.unsqueeze(1) * y).sum(0)
            self.frequency.copy_((self.counts + 0.5) / (self.counts + 0.5).sum())
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As of any module, but the root stays in float64 when the weights are moved to another type."""
        root = self.root
        super()._apply(fn, recurse)
        self.root = root.to(self.weight.device)
        return self

    def predict(self, inputs: Tensor | np.ndarray) -> Any:
        """The values [.., K] for inputs [.., D]; an array for an array."""
        return like_given(self.values(inputs), inputs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Earlier versions kept P itself."""
        inverse = state_dict.pop(f"{prefix}inverse", None)
        if inverse is not None:
            values, basis = torch.linalg.eigh(inverse.double())
            state_dict[f"{prefix}root"] = basis * values.clamp_min(0).sqrt()
        super()._load_from_state_dict(state_dict, prefix, *args)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "alpha": float(self.alpha), "forgetting": self.forgetting}
