"""What ridge regression needs to know of a corpus: sums that one pass collects and that shards add up.

Sums of squares of numbers far from zero cancel when their means are taken off. So all sums here are about an origin
close to the means, in float64. The origin moves to the means whenever the number of rows passes a power of two:
moving it is exact algebra, and so rare that even the sums of a whole vocabulary can follow.

Source: Chan, Golub and LeVeque, Algorithms for computing the sample variance, The American Statistician 37, 1983.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from frugal.errors import InputError, UnavailableError, check_whole
from frugal.files import appearing, load_tensors, save_tensors
from frugal.tensors import number_tensor, row_pairs, token_tensor

OUTPUTS_AT_ONCE = 1024  # rows of Y'X
LARGEST_SQUARE = 1e150  # its square is still a number
EPS = torch.finfo(torch.float64).eps
ROUNDING = 8 * EPS  # a column that varies by less of its mean is constant


@dataclass
class RidgeStatistics:
    """Sums over rows x [D] with targets y [K] about the origins o [D] and p [K], all float64.

    Tokens are targets too: token k stands for the k-th unit vector of K = vocabulary size, which is never built,
    so a row costs D additions beside its part in the Gram matrix, however large the vocabulary is. Their p is zero.

    Attributes:
        count: number of rows n, a tensor [].
        origin: o, [D]; target_origin: p, [K].
        inputs: sum of x - o, [D].
        gram: sum of (x - o)(x - o)', [D, D].
        cross: sum of (y - p)(x - o)', [K, D].
        targets: sum of y - p, [K].
        squares: sum of |y - p|^2, a tensor [].
        others: number of rows whose targets were no token, a tensor [].

    Example:
        >>> import torch
        >>> inputs = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]])
        >>> first = RidgeStatistics.collect([(inputs[:2], torch.tensor([0, 1]))], output_size=2)
        >>> second = RidgeStatistics.collect([(inputs[2:], torch.tensor([1]))], output_size=2)
        >>> both = first.merge(second)
        >>> both.mean.tolist(), both.target_sums.tolist()
        ([3.0, 5.0], [1.0, 2.0])
    """

    count: Tensor
    origin: Tensor
    target_origin: Tensor
    inputs: Tensor
    gram: Tensor
    cross: Tensor
    targets: Tensor
    squares: Tensor
    others: Tensor

    @classmethod
    def empty(cls, input_size: int, output_size: int, device: str | torch.device = "cpu") -> Self:
        """No rows yet; `output_size` is the vocabulary's size, the number of values to predict, or 0: no targets."""
        check_whole(input_size=input_size)
        check_whole(0, output_size=output_size)
        return cls(
            *(torch.zeros(shape, dtype=torch.float64, device=device) for shape in _shapes(input_size, output_size))
        )

    @classmethod
    def collect(
        cls, rows: Iterable[tuple[Tensor, Tensor]], output_size: int, device: str | torch.device = "cpu"
    ) -> Self:
        """One pass over pieces (inputs [n, D], targets [n] or [n, K]).

        Raises:
            InputError: no pieces, pieces that are no pairs, or what `add` refuses.
        """
        return cls._collected(row_pairs(rows), output_size, device)

    @classmethod
    def of_inputs(cls, pieces: Iterable[Tensor], device: str | torch.device = "cpu") -> Self:
        """One pass over inputs [n, D] that have no targets: their mean and covariance, to whiten by.

        >>> import torch
        >>> RidgeStatistics.of_inputs([torch.tensor([[1.0], [3.0]])]).covariance.tolist()
        [[1.0]]
        """
        return cls._collected(((inputs, None) for inputs in pieces), 0, device)

    def add(self, inputs: Tensor | np.ndarray, targets: Tensor | np.ndarray | None = None) -> None:
        """Take rows: inputs [n, D] of any number type, and tokens (integers [n]) or values [n, K]; arrays, too.

        Raises:
            InputError: shapes or tokens do not fit, a number is not finite or too large. The sums stay as they were.
        """
        x, y = self._checked(inputs, targets)
        rows = len(x)
        if rows == 0:
            return
        values, count = y.is_floating_point(), int(self.count)
        others = rows - int(_unit_vectors(y).sum()) if values else 0
        origin = self.origin
        target_origin = self.target_origin if values else torch.zeros_like(self.target_origin)
        if count.bit_length() != (count + rows).bit_length():
            origin = origin + (self.inputs + (x - origin).sum(0)) / (count + rows)
            if values:
                target_origin = target_origin + (self.targets + (y - target_origin).sum(0)) / (count + rows)
        x = x - origin
        check_size(x, "inputs", "check the reservoir's spectral radius and input scale")
        if values:
            y = y - target_origin
            check_size(y, "targets", "leave out rows without a target")
        if (self.others > 0 and not values) or (others and self.given_as_tokens):
            given, before = ("values", "tokens") if values else ("tokens", "values")
            raise InputError(f"targets: are {given}, and those before were {before}; collect each kind alone")
        if origin is not self.origin or not torch.equal(target_origin, self.target_origin):
            self._move(origin, target_origin)
        self._add(x, y)
        self.others += others

    @property
    def mean(self) -> Tensor:
        """Mean of the inputs, [D]."""
        return self.origin + self.inputs / self.count.clamp_min(1)

    @property
    def target_mean(self) -> Tensor:
        """Mean of the targets, [K]."""
        return self.target_origin + self.targets / self.count.clamp_min(1)

    @property
    def target_sums(self) -> Tensor:
        """Sum of the targets, [K]; for tokens, how often each occurred."""
        return self.targets + self.count * self.target_origin

    @property
    def of_tokens(self) -> bool:
        """Whether every target was a token, or a unit vector; of older files, whether the sums are as of tokens."""
        about_zero = self.about(self.origin, torch.zeros_like(self.target_origin))
        sums, ones = torch.stack([self.target_sums.sum(), about_zero.squares]), self.count.expand(2)
        possible = bool(self.count > 0) and bool(self.others == 0)
        return possible and torch.allclose(sums, ones, rtol=1e-9) and bool((self.target_sums > -1e-6).all())

    @property
    def given_as_tokens(self) -> bool:
        """Whether the targets came as tokens: values have means, about which their sums are, or are no unit vectors."""
        return not self.target_origin.any() and self.of_tokens

    @property
    def covariance(self) -> Tensor:
        """Of the inputs, [D, D], over n; exactly 0 for columns that vary by rounding alone."""
        mean = self.mean
        covariance = self.about(mean, self.target_origin).gram / self.count.clamp_min(1)
        varies = covariance.diagonal() > (ROUNDING * mean).square()
        return torch.where(varies & varies.unsqueeze(1), covariance, 0.0)

    def about(self, origin: Tensor, target_origin: Tensor) -> "Moments":
        """These statistics about other origins."""
        return Moments(self, origin, target_origin)

    def merge(self, other: Self) -> Self:
        """The statistics of both sets of rows together, as one pass over all of them would give."""
        if self.cross.shape != other.cross.shape:
            raise InputError(
                f"shards with {tuple(self.cross.shape)} and {tuple(other.cross.shape)} outputs and inputs: "
                "must be of the same model"
            )
        if (self.given_as_tokens and other.others > 0) or (other.given_as_tokens and self.others > 0):
            raise InputError("shards of tokens and of values: their targets have nothing in common; keep them apart")
        count = self.count + other.count
        share = other.count / count.clamp_min(1)
        origin = self.mean + share * (other.mean - self.mean)
        target_origin = torch.zeros_like(self.target_origin)
        if self.target_origin.any() or other.target_origin.any():  # not tokens alone
            target_origin = self.target_mean + share * (other.target_mean - self.target_mean)
        one, two = self.about(origin, target_origin), other.about(origin, target_origin)
        cross = one.cross(slice(None))
        for begin in range(0, len(cross), OUTPUTS_AT_ONCE):
            outputs = slice(begin, begin + OUTPUTS_AT_ONCE)
            cross[outputs] += two.cross(outputs)
        sums = (one.inputs + two.inputs, one.gram + two.gram, cross, one.targets + two.targets)
        return type(self)(count, origin, target_origin, *sums, one.squares + two.squares, self.others + other.others)

    def select(self, columns: slice | int | Sequence[int] | Tensor | np.ndarray) -> Self:
        """The statistics that a pass over these columns of the inputs, in this order, would have given.

        Args:
            columns: a slice, numbers of columns, or a mask of all of them.

        Raises:
            InputError: they are no columns of the inputs, or none at all.
        """
        every = np.arange(len(self.origin))
        try:
            given = columns if isinstance(columns, slice) else number_tensor("columns", columns).cpu().numpy()
            chosen = torch.from_numpy(np.array(every[given], ndmin=1, order="C")).to(self.gram.device)
        except (IndexError, TypeError) as error:
            raise InputError(f"columns={columns!r}: must be whole numbers or a mask of {len(every)} columns") from error
        if chosen.ndim != 1 or not len(chosen):
            raise InputError(f"columns={columns!r}: must select at least one of {len(every)} columns, in one list")
        parts = {name: getattr(self, name).index_select(-1, chosen) for name in ("origin", "inputs", "cross")}
        parts["gram"] = self.gram.index_select(0, chosen).index_select(1, chosen)
        rest = {field.name: getattr(self, field.name).clone() for field in fields(self) if field.name not in parts}
        return type(self)(**parts, **rest)

    def save(self, path: Path) -> None:
        """Write one safetensors file, so that shards can be collected by different processes."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        with appearing(path) as temporary:
            save_tensors(tensors, temporary)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote, in earlier versions too: their sums were about zero.

        Raises:
            UnavailableError: the file is missing, damaged, or holds something else.
        """
        try:
            tensors = load_tensors(path)
            tensors.setdefault("origin", torch.zeros_like(tensors["inputs"]))
            tensors.setdefault("target_origin", torch.zeros_like(tensors["targets"]))
            tensors.setdefault("others", torch.zeros_like(tensors["count"]))
            statistics = cls(**tensors)
            K, D = statistics.cross.shape
            for field, shape in zip(fields(cls), _shapes(D, K), strict=True):
                values = getattr(statistics, field.name)
                if values.shape != shape or values.dtype != torch.float64 or not torch.isfinite(values).all():
                    raise ValueError(f"{field.name} is not {shape} finite numbers of float64")
            return statistics
        except Exception as error:
            raise UnavailableError(
                f"{path} holds no readable ridge statistics ({error}): collect them again"
            ) from error

    @classmethod
    def _collected(
        cls, rows: Iterable[tuple[Tensor, Tensor | None]], output_size: int, device: str | torch.device
    ) -> Self:
        statistics = None
        for given, targets in rows:
            inputs = number_tensor("inputs", given)
            if statistics is None:
                statistics = cls.empty(inputs.shape[-1] if inputs.ndim else 1, output_size, device)
            statistics.add(inputs.to(device), None if targets is None else number_tensor("targets", targets).to(device))
        if statistics is None:
            raise InputError("rows: must hold at least one piece; give a text that is not empty")
        return statistics

    def _checked(self, inputs: Tensor | np.ndarray, targets: Tensor | np.ndarray | None) -> tuple[Tensor, Tensor]:
        """Inputs in float64, and tokens in int64 or values in float64."""
        K, D = self.cross.shape
        inputs = number_tensor("inputs", inputs)
        if inputs.ndim != 2 or inputs.shape[1] != D:
            raise InputError(f"inputs of shape {tuple(inputs.shape)}: must be [n, {D}]")
        x = inputs.detach().double()
        if targets is None and K == 0:
            return x, x.new_zeros(len(x), 0)
        if targets is None or K == 0:
            raise InputError(f"statistics of {K} outputs: rows must have targets, and have none where there are none")
        targets = number_tensor("targets", targets)
        values = targets.is_floating_point()
        expected = (len(inputs), K) if values else (len(inputs),)
        if targets.shape != expected:
            raise InputError(f"targets of shape {tuple(targets.shape)}: must be {expected}, one for each input")
        return x, targets.detach().double() if values else token_tensor("targets", targets, K)

    def _move(self, origin: Tensor, target_origin: Tensor) -> None:
        """Take all sums about other origins."""
        moved = self.about(origin, target_origin)
        self.cross.addmm_(*moved.difference(slice(None)), alpha=-1)
        self.inputs, self.gram, self.targets, self.squares = moved.inputs, moved.gram, moved.targets, moved.squares
        self.origin, self.target_origin = origin, target_origin

    def _add(self, x: Tensor, y: Tensor) -> None:
        """Add rows, less their origins; y may be tokens."""
        self.count += len(x)
        self.inputs += x.sum(0)
        add_gram(self.gram, x)
        if y.is_floating_point():
            self.cross.addmm_(y.T, x)
            self.targets += y.sum(0)
            self.squares += y.square().sum()
        else:
            self.cross.index_add_(0, y, x)
            self.targets += torch.bincount(y, minlength=len(self.targets))
            self.squares += len(y)


class Moments(NamedTuple):
    """Statistics about given origins; their part [K, D], which may be large, is made in pieces."""

    statistics: RidgeStatistics
    origin: Tensor
    target_origin: Tensor

    @property
    def inputs(self) -> Tensor:
        """Sum of x - o, [D]."""
        return self.statistics.inputs - self.statistics.count * (self.origin - self.statistics.origin)

    @property
    def targets(self) -> Tensor:
        """Sum of y - p, [K]."""
        return self.statistics.targets - self.statistics.count * (self.target_origin - self.statistics.target_origin)

    @property
    def gram(self) -> Tensor:
        """Sum of (x - o)(x - o)', [D, D]."""
        n, step = self.statistics.count, self.origin - self.statistics.origin
        crossed = torch.outer(self.statistics.inputs, step)
        return self.statistics.gram - crossed - crossed.T + n * torch.outer(step, step)

    @property
    def squares(self) -> Tensor:
        """Sum of |y - p|^2, []."""
        n, step = self.statistics.count, self.target_origin - self.statistics.target_origin
        return self.statistics.squares - 2 * self.statistics.targets @ step + n * step @ step

    def cross(self, outputs: Tensor | slice) -> Tensor:
        """Rows `outputs` of the sum of (y - p)(x - o)', [len(outputs), D]."""
        return torch.addmm(self.statistics.cross[outputs], *self.difference(outputs), alpha=-1)

    def difference(self, outputs: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Factors [len(outputs), 2] and [2, D] of what is taken off these rows."""
        step = (self.target_origin - self.statistics.target_origin)[outputs]
        left = torch.stack([self.statistics.targets[outputs], step], 1)
        return left, torch.stack([self.origin - self.statistics.origin, self.inputs])


def add_gram(gram: Tensor, rows: Tensor, blocks: int = 4) -> None:
    """Add rows' rows [n, D] to `gram` [D, D]: only blocks on and above the diagonal are multiplied out."""
    D = gram.shape[0]
    size = -(-D // blocks)
    for begin in range(0, D, size):
        end = min(begin + size, D)
        block = rows[:, begin:end].T @ rows[:, begin:]  # [size, D - begin]
        gram[begin:end, begin:] += block
        gram[end:, begin:end] += block[:, end - begin :].T


def _shapes(D: int, K: int) -> list[tuple[int, ...]]:
    """Of the fields, in their order."""
    return [(), (D,), (K,), (D,), (D, D), (K, D), (K,), (), ()]


def _unit_vectors(values: Tensor) -> Tensor:
    """Which rows of values [n, K] stand for tokens, [n]; one value alone is a value."""
    return ((values == 0) | (values == 1)).all(1) & (values.sum(1) == 1) & (values.shape[1] > 1)


def check_size(values: Tensor, name: str, remedy: str) -> None:
    """NaN, infinity and what overflows when it is squared twice all spoil one sum."""
    if not values.square().sum() < LARGEST_SQUARE:
        raise InputError(f"{name}: hold NaN, infinity or numbers too large to square; {remedy}")
