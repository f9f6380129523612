"""The functions on the edges: a basis turns one number into the values that an edge's weights multiply.

An edge from input i to output o carries a function f_oi(x) = sum_v w_oiv phi_v(x), as in Kolmogorov-Arnold networks
(Liu et al., "KAN: Kolmogorov-Arnold networks", 2024), where the phi_v are B-splines. What all edges share is here: the
basis functions phi_v, where they are not zero, and what happens outside the domain.
"""

import itertools
import math
import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from frugal.errors import InputError, check_is, check_positive, check_whole


class Basis(ABC):
    """Functions phi_0 ... phi_{V-1} of an input that has one number, or `dimensions` of them on a last axis.

    >>> PiecewiseBasis(nodes=3, segments=4).values_per_edge, FourierBasis(terms=5).values_per_edge
    (9, 5)
    """

    dimensions: int = 1

    @property
    @abstractmethod
    def values_per_edge(self) -> int:
        """V, the number of weights of one edge."""

    @abstractmethod
    def columns(self, x: Tensor) -> list[Tensor]:
        """Return the V values phi_v(x), each with the shape of `x` (without its last axis if `dimensions` > 1)."""

    def expand(self, x: Tensor) -> Tensor:
        """Return phi(x) on a new last axis of V values."""
        return torch.stack(self.columns(x), dim=-1)


class LocalBasis(Basis):
    """A basis of which only a few functions, those of the cell that holds x, are not zero.

    Its tables lie on the CPU, whatever the default device: layers on several devices may share a basis.
    """

    @property
    @abstractmethod
    def cell_nodes(self) -> Tensor:
        """[cells, m]: which m of the V functions live in each cell."""

    @property
    @abstractmethod
    def node_positions(self) -> Tensor:
        """[V] or [V, dimensions]: where in the domain each weight is the function's value, in float64."""

    @abstractmethod
    def active(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cell of each x, int64 [...], and the values of its functions, [..., m]."""


@dataclass(frozen=True)
class PiecewiseBasis(LocalBasis):
    """Lagrange polynomials on Chebyshev-Lobatto nodes, in each of `segments` equal parts of [-length/2, length/2].

    Segments meet at knots. Continuous: neighbours share the node on their knot, V = (nodes - 1) * segments + 1.
    Discontinuous: every knot has a value for each side, V = nodes * segments. The functions sum to one everywhere.

    An x on an interior knot belongs to the segment on its right. Outside the domain the end segment's polynomial goes
    on, or its tangent if `linear_extrapolation`; `periodicity` P instead mirrors x into [-P/2, P/2], with period 2P.

    Raises:
        InputError: too few nodes, no segment, or a length or period that is not positive.

    >>> import torch
    >>> basis = PiecewiseBasis(nodes=2, segments=2)  # straight lines on [-1, 0] and [0, 1]
    >>> basis.values_per_edge, basis.node_positions.tolist()
    (3, [-1.0, 0.0, 1.0])
    >>> basis.expand(torch.tensor([-1.0, 0.5]))
    tensor([[1.0000, 0.0000, 0.0000],
            [0.0000, 0.5000, 0.5000]])
    """

    nodes: int
    segments: int = 1
    continuous: bool = True
    length: float = 2.0
    periodicity: float | None = None
    linear_extrapolation: bool = False

    def __post_init__(self) -> None:
        check_whole(nodes=self.nodes, segments=self.segments)
        fewest = 2 if self.continuous else 1
        if self.nodes < fewest:
            raise InputError(
                f"nodes={self.nodes}: a {'continuous' if self.continuous else 'discontinuous'} basis needs at least "
                f"{fewest} per segment; use 2 for straight lines, continuous=False for steps"
            )
        check_positive("2 makes the domain [-1, 1]", length=self.length)
        if self.periodicity is not None:
            check_positive("2 mirrors into [-1, 1], None does not", periodicity=self.periodicity)

    @property
    def values_per_edge(self) -> int:
        return self._stride * self.segments + (1 if self.continuous else 0)

    @property
    def _stride(self) -> int:
        """From a segment's first node to the next segment's first node."""
        return self.nodes - 1 if self.continuous else self.nodes

    @cached_property
    def local_nodes(self) -> tuple[float, ...]:
        """Chebyshev-Lobatto nodes of one segment on [-1, 1], ascending, exactly symmetric."""
        last = self.nodes - 1
        return tuple(math.sin(math.pi * (2 * j - last) / (2 * last)) for j in range(self.nodes)) if last else (0.0,)

    @cached_property
    def cell_nodes(self) -> Tensor:
        segment, node = (torch.arange(count, device="cpu") for count in (self.segments, self.nodes))
        return segment[:, None] * self._stride + node

    @cached_property
    def node_positions(self) -> Tensor:
        fraction = (torch.tensor(self.local_nodes, dtype=torch.float64, device="cpu") + 1) / 2
        segment = torch.arange(self.segments, device="cpu")[:, None]
        positions = self.length * ((segment + fraction) / self.segments - 0.5)  # [S, n]
        flat = positions[:, : self._stride].flatten()
        return torch.cat([flat, positions[-1, -1:]]) if self.continuous else flat

    def of_codes(self, codes: Tensor) -> Tensor:
        """Where integer codes 0 ... segments - 1 lie, in float64 where there is: the middles of their segments.

        Raises:
            InputError: a code is none of them.
        """
        self.check_codes(codes)
        precise = torch.float32 if codes.device.type == "mps" else torch.float64  # which Apple's GPU does not have
        return middles(codes, self.segments, precise) * (self.length / 2)

    def check_codes(self, codes: Tensor) -> None:
        """Raise InputError where codes are not 0 ... segments - 1."""
        check_codes(codes, self.segments, "one for each segment")

    def active(self, x: Tensor) -> tuple[Tensor, Tensor]:
        segment, values = self._locate(x)
        return segment.long(), torch.stack(values, dim=-1)

    def columns(self, x: Tensor) -> list[Tensor]:
        segment, values = self._locate(x)
        # One in the segment, zero elsewhere, as a comparison says it, which takes four times as long.
        inside = [torch.relu_(1 - (segment - k).abs_()).to(x.dtype) for k in range(self.segments)]
        columns = [value * mask for mask in inside for value in values[: self._stride]]
        if self.continuous:
            columns.append(values[-1] * inside[-1])
            for k in range(1, self.segments):  # the node on a knot is also the last of the segment on its left
                knot = k * self._stride
                columns[knot] = columns[knot] + values[-1] * inside[k - 1]
        return columns

    def _locate(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return each x's segment, a whole float, and the values of that segment's polynomials in x's dtype."""
        if x.is_floating_point() and x.dtype != precise(x.dtype):
            segment, values = self._locate(x.to(precise(x.dtype)))
            return segment, [value.to(x.dtype) for value in values]
        if self.periodicity is not None:
            x = mirrored(x, self.periodicity)
        segment = x.detach() * (self.segments / self.length)
        segment = segment.add_(self.segments / 2).nan_to_num_().clamp(0, self.segments - 1).floor_()
        middle = (segment + (1 - self.segments) / 2).mul_(self.length / self.segments)
        t = (x - middle) * (2 * self.segments / self.length)  # [-1, 1]; scaling first would lose digits
        if not self.linear_extrapolation or self.nodes == 1:
            return segment, lagrange(t, self.local_nodes)
        right, left = torch.relu(t - 1), torch.relu(-1 - t)  # how far t lies outside, at the ends of the domain
        slopes = end_slopes(self.local_nodes)
        values = lagrange(t.clamp(-1, 1), self.local_nodes)
        return segment, [v + right * last - left * first for v, (first, last) in zip(values, slopes, strict=True)]


def check_codes(codes: Tensor, count: int, hint: str) -> None:
    """Raise InputError where codes are not 0 ... count - 1; inside function transforms, which hide them, nowhere."""
    if not codes.numel() or torch._C._are_functorch_transforms_active():
        return
    lowest, highest = (int(code) for code in codes.long().aminmax())  # unsigned ones have no smallest in torch
    if not 0 <= lowest <= highest < count:
        raise InputError(f"codes from {lowest} to {highest}: must be 0 to {count - 1}, {hint}")


def precise(dtype: torch.dtype) -> torch.dtype:
    """The format in which places are told apart: no less than float32. Half precision has less than 300 on [0, 1]."""
    return torch.promote_types(dtype, torch.float32)


def middles(codes: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Where `count` codes lie in [-1, 1] when each of them gets an equal part: (c - 63.5) / 64 for 128 characters."""
    return ((codes.to(dtype) + 0.5) / count - 0.5) * 2


def mirrored(x: Tensor, period: float) -> Tensor:
    """Fold x into [-period/2, period/2] by mirrors at both ends: a triangle wave, the identity in the middle."""
    return period / 2 - (torch.remainder(x + period / 2, 2 * period) - period).abs()


def lagrange(t: Tensor, nodes: tuple[float, ...]) -> list[Tensor]:
    """Return the Lagrange polynomials l_j(t) = prod_{m != j} (t - X_m) / (X_j - X_m), one tensor for each node.

    Raises:
        InputError: too many nodes for the precision: the products halve with each node, until they underflow, and
            each adds its rounding.
    """
    precision = torch.finfo(t.dtype)
    most = int(min(-math.log2(precision.tiny) * 2 / 3, 0.1 / precision.eps))
    if len(nodes) > most:
        raise InputError(
            f"nodes={len(nodes)}: {t.dtype} bears at most {most} for a segment; take more segments instead"
        )
    if len(nodes) == 1:
        return [t * 0 + 1]  # with a gradient of zero, not without one
    differences = [t - node for node in nodes]
    before = [*itertools.accumulate(differences[:-1], operator.mul)]  # products of the first 1, 2, ... differences
    after = [*itertools.accumulate(differences[:0:-1], operator.mul)][::-1]
    products = [after[0], *map(operator.mul, before[:-1], after[1:]), before[-1]]
    return [product * scale for product, scale in zip(products, _scales(nodes), strict=True)]


def _scales(nodes: tuple[float, ...]) -> list[float]:
    return [1 / math.prod(a - b for b in nodes if b != a) for a in nodes]


def end_slopes(nodes: tuple[float, ...]) -> list[tuple[float, float]]:
    """Return the slopes of each Lagrange polynomial at the first and at the last node."""
    scales = _scales(nodes)

    def slope(j: int, at: int) -> float:
        if j == at:
            return sum(1 / (nodes[at] - b) for b in nodes if b != nodes[at])
        return scales[j] / scales[at] / (nodes[at] - nodes[j])

    return [(slope(j, 0), slope(j, len(nodes) - 1)) for j in range(len(nodes))]


@dataclass(frozen=True)
class FourierBasis(Basis):
    """1/2, sin(2 pi x/L), cos(2 pi x/L), sin(4 pi x/L), ...: the first `terms` of a Fourier series of period L.

    >>> import torch
    >>> FourierBasis(terms=3, length=2.0).expand(torch.tensor([0.5])).round(decimals=3).abs()
    tensor([[0.5000, 1.0000, 0.0000]])
    """

    terms: int
    length: float = 2.0

    def __post_init__(self) -> None:
        check_whole(terms=self.terms)
        check_positive("2 is the period of the domain [-1, 1]", length=self.length)

    @property
    def values_per_edge(self) -> int:
        return self.terms

    def columns(self, x: Tensor) -> list[Tensor]:
        waves = [
            function(x * (2 * math.pi * k / self.length))
            for k in range(1, self.terms // 2 + 1)
            for function in (torch.sin, torch.cos)
        ]
        return [x * 0 + 0.5, *waves][: self.terms]


@dataclass(frozen=True)
class TensorProductBasis(LocalBasis):
    """Products of one `axis` basis in each of several coordinates; the last coordinate runs fastest. Input [..., D].

    >>> import torch
    >>> plane = TensorProductBasis(PiecewiseBasis(nodes=2), dimensions=2)  # bilinear: a value at each corner
    >>> plane.expand(torch.tensor([-1.0, 1.0])).abs()
    tensor([0., 1., 0., 0.])
    """

    axis: PiecewiseBasis
    dimensions: int

    def __post_init__(self) -> None:
        check_is(PiecewiseBasis, axis=self.axis)
        check_whole(dimensions=self.dimensions)
        if not 1 < self.dimensions <= 5:
            raise InputError(f"dimensions={self.dimensions}: must be 2 to 5; use a plain piecewise layer for 1")

    @property
    def values_per_edge(self) -> int:
        return self.axis.values_per_edge**self.dimensions

    @cached_property
    def cell_nodes(self) -> Tensor:
        nodes = axis_nodes = self.axis.cell_nodes
        for _ in range(self.dimensions - 1):
            outer = nodes[:, None, :, None] * self.axis.values_per_edge + axis_nodes[:, None, :]
            nodes = outer.reshape(nodes.shape[0] * axis_nodes.shape[0], -1)
        return nodes

    @cached_property
    def node_positions(self) -> Tensor:
        return torch.cartesian_prod(*[self.axis.node_positions] * self.dimensions)

    def active(self, x: Tensor) -> tuple[Tensor, Tensor]:
        cells, values = self.axis.active(x)  # [..., D], [..., D, m]
        cell, product = cells[..., 0], values[..., 0, :]
        for d in range(1, self.dimensions):
            cell = cell * self.axis.segments + cells[..., d]
            product = (product[..., :, None] * values[..., d, None, :]).flatten(-2)
        return cell, product

    def columns(self, x: Tensor) -> list[Tensor]:
        columns = self.axis.columns(x[..., 0])
        for d in range(1, self.dimensions):
            columns = [a * b for a, b in itertools.product(columns, self.axis.columns(x[..., d]))]
        return columns
