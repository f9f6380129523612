"""What ridge regression needs to know of a corpus: sums that one pass collects and that shards add up."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from frugal.errors import InputError, UnavailableError
from frugal.files import appearing


@dataclass
class RidgeStatistics:
    """Sums over rows x [D] with targets y [K], all float64.

    Tokens are targets too: token k stands for the k-th unit vector of K = vocabulary size, which is never built,
    so a row costs D additions beside its part in the Gram matrix, however large the vocabulary is.

    Attributes:
        count: number of rows n, a tensor [].
        inputs: sum of x, [D].
        gram: sum of x x', [D, D].
        cross: sum of y x', [K, D]; for tokens, row k sums the inputs that token k followed.
        targets: sum of y, [K]; for tokens, how often each occurred.
        squares: sum of |y|^2, a tensor [].
    """

    count: Tensor
    inputs: Tensor
    gram: Tensor
    cross: Tensor
    targets: Tensor
    squares: Tensor

    @classmethod
    def empty(cls, input_size: int, output_size: int, device: str | torch.device = "cpu") -> Self:
        """No rows yet; `output_size` is the vocabulary's size or the number of values to predict."""
        if input_size < 1 or output_size < 1:
            raise InputError(f"input_size={input_size}, output_size={output_size}: must both be positive")
        D, K = input_size, output_size
        shapes: list[tuple[int, ...]] = [(), (D,), (D, D), (K, D), (K,), ()]
        return cls(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))

    @classmethod
    def collect(
        cls, rows: Iterable[tuple[Tensor, Tensor]], output_size: int, device: str | torch.device = "cpu"
    ) -> Self:
        """One pass over pieces (inputs [n, D], targets [n] or [n, K])."""
        statistics = None
        for inputs, targets in rows:
            statistics = statistics or cls.empty(inputs.shape[1], output_size, device)
            statistics.add(inputs.to(device), targets.to(device))
        if statistics is None:
            raise InputError("rows: must hold at least one piece; give a text that is not empty")
        return statistics

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        """Take rows: inputs [n, D] and either tokens (integers [n]) or values [n, K].

        With tokens, products are formed in the inputs' own precision, and float32 is enough. Values are often to be
        fitted with penalties so small that float32 products would drown them: theirs are formed in float64.

        Raises:
            InputError: shapes or tokens do not fit, or an input is not finite.
        """
        self._check_shapes(inputs, targets)
        exact = inputs.double()
        total = exact.sum(0)
        if not torch.isfinite(total).all():
            raise InputError("inputs: hold NaN or infinity; check the reservoir's spectral radius and input scale")
        if targets.is_floating_point():
            inputs, targets = exact, targets.double()
            self.cross += targets.T @ inputs
            self.targets += targets.sum(0)
            self.squares += targets.square().sum()
        else:
            self.cross.index_add_(0, targets, exact)
            self.targets += torch.bincount(targets, minlength=len(self.targets))
            self.squares += len(targets)
        self.count += len(inputs)
        self.inputs += total
        add_gram(self.gram, inputs)

    def merge(self, other: Self) -> Self:
        """The statistics of both sets of rows together, as one pass over all of them would give."""
        if self.cross.shape != other.cross.shape:
            raise InputError(
                f"shards with {tuple(self.cross.shape)} and {tuple(other.cross.shape)} outputs and inputs: "
                "must be of the same model"
            )
        return type(self)(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def select(self, columns: slice) -> Self:
        """The statistics that a pass over these columns of the inputs would have given."""
        return type(self)(
            self.count,
            self.inputs[columns],
            self.gram[columns, columns],
            self.cross[:, columns],
            self.targets,
            self.squares,
        )

    def save(self, path: Path) -> None:
        """Write one safetensors file, so that shards can be collected by different processes."""
        tensors = {field.name: getattr(self, field.name).contiguous() for field in fields(self)}
        with appearing(path) as temporary:
            save_file(tensors, temporary)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        try:
            return cls(**load_file(path))
        except Exception as error:
            raise UnavailableError(
                f"{path} holds no readable ridge statistics ({error}): collect them again"
            ) from error

    def _check_shapes(self, inputs: Tensor, targets: Tensor) -> None:
        K, D = self.cross.shape
        if inputs.ndim != 2 or inputs.shape[1] != D:
            raise InputError(f"inputs of shape {tuple(inputs.shape)}: must be [n, {D}]")
        expected = (len(inputs), K) if targets.is_floating_point() else (len(inputs),)
        if targets.shape != expected:
            raise InputError(f"targets of shape {tuple(targets.shape)}: must be {expected}, one for each input")
        if not targets.is_floating_point() and len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < K:
            raise InputError(f"targets: tokens must lie in 0 to {K - 1}; use the model's own tokeniser")


def add_gram(gram: Tensor, rows: Tensor, blocks: int = 4) -> None:
    """Add rows' rows [n, D] to `gram` [D, D]: only blocks on and above the diagonal are multiplied out."""
    D = gram.shape[0]
    size = -(-D // blocks)
    for begin in range(0, D, size):
        end = min(begin + size, D)
        block = (rows[:, begin:end].T @ rows[:, begin:]).double()  # [size, D - begin]
        gram[begin:end, begin:] += block
        gram[end:, begin:end] += block[:, end - begin :].T
