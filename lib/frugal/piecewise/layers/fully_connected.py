"""Fully connected layers: a basis on every edge, and a way to join the edges at a neuron."""

import math
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from frugal.errors import InputError, check_is, check_number, check_whole
from frugal.piecewise.layers.basis import Basis, FourierBasis, LocalBasis, PiecewiseBasis, TensorProductBasis, precise
from frugal.piecewise.layers.kernels import (
    Kernel,
    check_kernel,
    code_sums,
    neuron_products,
    neuron_sums,
    product_of_edges,
)
from frugal.tensors import number_tensor

Initialize = Literal["uniform", "linear", "constant"]
Form = Literal["sum", "product"]


class BasisLayer(nn.Module):
    """y_o = sum_i f_oi(x_i) with f_oi = sum_v weight[i, v, o] phi_v, for any basis phi. No bias: the edges have one.

    Input [..., in_features], or [..., in_features, D] for a basis in D coordinates; output [..., out_features].
    With form="product", edges join as y_o = prod_i (1 + f_oi) - 1 - (1 - alpha) sum_i f_oi, so that alpha=0 leaves
    only what several inputs do together.

    initialize: "uniform" draws every weight from U(-1/I, 1/I); "linear" makes every edge a random line, slope and
    offset from U(-1/2, 1/2); "constant" makes every edge a constant from U(0, 1/I), whose input gradient is zero.

    >>> from frugal.piecewise import FourierBasis
    >>> layer = BasisLayer(2, 3, FourierBasis(terms=5))
    >>> tuple(layer.weight.shape), tuple(layer(torch.rand(7, 2)).shape)
    ((2, 5, 3), (7, 3))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        basis: Basis,
        *,
        form: Form = "sum",
        alpha: float = 1.0,
        initialize: Initialize = "uniform",
        kernel: Kernel = "auto",
    ) -> None:
        super().__init__()
        check_whole(in_features=in_features, out_features=out_features)
        check_is(Basis, basis=basis)
        check_form(form, alpha)
        check_kernel(kernel, basis, form)
        self.in_features, self.out_features = in_features, out_features
        self.basis, self.form, self.alpha, self.kernel = basis, form, alpha, kernel
        weight = initial_weight(basis, initialize, fan_in=in_features, edges=(in_features, out_features))
        self.weight = nn.Parameter(weight)  # [I, V, O]

    def forward(self, x: Tensor) -> Tensor:
        """Return y for numbers, or for integer codes 0 ... segments - 1, which stand for the segments' middles."""
        x = numbers_or_codes(x, self.weight)
        basis, shape = self.basis, x.shape
        if basis.dimensions > 1 and (not shape or shape[-1] != basis.dimensions):
            raise InputError(f"input of shape {tuple(shape)}: the last axis must hold {basis.dimensions} coordinates")
        batch = shape[:-1] if basis.dimensions == 1 else shape[:-2]
        if len(shape) == len(batch) or shape[len(batch)] != self.in_features:
            raise InputError(f"input of shape {tuple(shape)}: expected in_features={self.in_features} inputs a sample")
        x = x.reshape(-1, *shape[len(batch) :])
        y = self._of_numbers(x) if x.is_floating_point() else self._of_codes(x)
        return y.view(*batch, self.out_features)

    def _of_numbers(self, x: Tensor) -> Tensor:
        if self.form == "product":
            return neuron_products(self.basis, x, self.weight, self.alpha, self.kernel)
        return neuron_sums(self.basis, x, self.weight, self.kernel)

    def _of_codes(self, codes: Tensor) -> Tensor:
        if not isinstance(self.basis, PiecewiseBasis):
            raise InputError(f"input of {codes.dtype}: integer codes need a piecewise layer; give numbers")
        if self.form == "product":
            return self._of_numbers(self.basis.of_codes(codes))
        self.basis.check_codes(codes)
        return code_sums(self.basis, codes, self.weight)

    def extra_repr(self) -> str:
        form = "" if self.form == "sum" else f", form='product', alpha={self.alpha}"
        return f"{self.in_features}, {self.out_features}, {self.basis}, kernel={self.kernel!r}{form}"


class PiecewisePolynomial(BasisLayer):
    """A layer whose every edge is a polynomial with `nodes` nodes (degree nodes - 1) in each of `segments` segments.

    A sample touches only `nodes` of an edge's weights, whatever the number of segments; a weight is the edge's value
    at its node. Weights [in_features, V, out_features] with V = (nodes - 1) * segments + 1 if `continuous`, else
    nodes * segments. `length`, `periodicity` and `linear_extrapolation` are explained at `PiecewiseBasis`; the rest
    at `BasisLayer`.

    >>> layer = PiecewisePolynomial(2, 3, nodes=3, segments=4)
    >>> tuple(layer.weight.shape), tuple(layer(torch.rand(5, 2)).shape)
    ((2, 9, 3), (5, 3))
    """

    basis: PiecewiseBasis

    def __init__(
        self,
        in_features: int,
        out_features: int,
        nodes: int,
        segments: int,
        *,
        continuous: bool = True,
        length: float = 2.0,
        periodicity: float | None = None,
        linear_extrapolation: bool = False,
        form: Form = "sum",
        alpha: float = 1.0,
        initialize: Initialize = "uniform",
        kernel: Kernel = "auto",
    ) -> None:
        basis = PiecewiseBasis(nodes, segments, continuous, length, periodicity, linear_extrapolation)
        super().__init__(in_features, out_features, basis, form=form, alpha=alpha, initialize=initialize, kernel=kernel)


class Polynomial(PiecewisePolynomial):
    """A layer whose every edge is one polynomial with `nodes` nodes on the whole domain: one segment.

    `settings` are all others of a `PiecewisePolynomial`.

    >>> layer = Polynomial(1, 1, nodes=3)
    >>> layer.weight.data = torch.tensor([[[1.0], [0.0], [1.0]]])  # at -1, 0 and 1: the square
    >>> layer(torch.tensor([[0.5]])).item()
    0.25
    """

    def __init__(self, in_features: int, out_features: int, nodes: int, **settings: Any) -> None:
        check_whole(nodes=nodes)
        super().__init__(in_features, out_features, nodes, 1, continuous=nodes > 1, **settings)


class PolynomialND(BasisLayer):
    """A layer whose every edge is a piecewise polynomial in 2 to 5 coordinates: products of one basis in each.

    Input [..., in_features, dimensions]. Weights [in_features, V ** dimensions, out_features], the last coordinate
    running fastest.

    >>> layer = PolynomialND(4, 3, nodes=2, dimensions=2)
    >>> tuple(layer.weight.shape), tuple(layer(torch.rand(7, 4, 2)).shape)
    ((4, 4, 3), (7, 3))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        nodes: int,
        dimensions: int,
        *,
        segments: int = 1,
        continuous: bool = True,
        length: float = 2.0,
        periodicity: float | None = None,
        linear_extrapolation: bool = False,
        form: Form = "sum",
        alpha: float = 1.0,
        initialize: Initialize = "uniform",
        kernel: Kernel = "auto",
    ) -> None:
        axis = PiecewiseBasis(nodes, segments, continuous, length, periodicity, linear_extrapolation)
        basis = TensorProductBasis(axis, dimensions)
        super().__init__(in_features, out_features, basis, form=form, alpha=alpha, initialize=initialize, kernel=kernel)


class Fourier(BasisLayer):
    """A layer whose every edge is a Fourier series of `terms` terms and period `length`.

    >>> tuple(Fourier(2, 3, terms=5).weight.shape)
    (2, 5, 3)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        terms: int,
        *,
        length: float = 2.0,
        form: Form = "sum",
        alpha: float = 1.0,
    ) -> None:
        super().__init__(in_features, out_features, FourierBasis(terms, length), form=form, alpha=alpha)


class Product(nn.Module):
    """y_o = prod_i (1 + w_oi x_i) - 1 - (1 - alpha) sum_i w_oi x_i + bias_o: a linear layer joined by products.

    These are multiplicative units. alpha=0 takes the linear part away. Input [..., in_features], output
    [..., out_features].

    >>> layer = Product(2, 1, alpha=0.0)
    >>> layer.weight.data, layer.bias.data = torch.tensor([[1.0, 1.0]]), torch.zeros(1)
    >>> layer(torch.tensor([[3.0, 5.0]])).item()  # only what both inputs do together
    15.0
    """

    def __init__(self, in_features: int, out_features: int, *, alpha: float = 1.0) -> None:
        super().__init__()
        check_whole(in_features=in_features, out_features=out_features)
        linear = nn.Linear(in_features, out_features)  # for its initial values
        check_number(alpha=alpha)
        self.weight, self.bias, self.alpha = linear.weight, linear.bias, alpha

    def forward(self, x: Tensor) -> Tensor:
        x = numbers_of_features(x, self.weight)
        edges = x.reshape(-1, x.shape[-1], 1) * self.weight.t()  # [B, I, O]
        return (product_of_edges(edges, self.alpha) + self.bias).view(*x.shape[:-1], len(self.bias))


class Switch(nn.Module):
    """The product of the outputs of several layers on the same input: each can switch off features of the others.

    >>> layers = [nn.Linear(2, 3), nn.Linear(2, 3)]
    >>> x = torch.rand(5, 2)
    >>> torch.equal(Switch(layers)(x), layers[0](x) * layers[1](x))
    True
    """

    def __init__(self, layers: list[nn.Module], normalisation: nn.Module | None = None) -> None:
        super().__init__()
        if not isinstance(layers, list | tuple | nn.ModuleList) or not layers:
            raise InputError(f"layers={layers!r}: a switch multiplies the outputs of at least one layer; two are usual")
        for layer in layers:
            check_is(nn.Module, layers=layer)
        self.layers = nn.ModuleList(layers)
        self.normalisation = nn.Identity() if normalisation is None else normalisation

    def forward(self, x: Tensor) -> Tensor:
        x = number_tensor("input", x)
        outputs = [layer(x) for layer in self.layers]
        if len(shapes := {tuple(y.shape) for y in outputs}) > 1:
            raise InputError(
                f"layers: their outputs have shapes {sorted(shapes)}; give layers of one width to multiply"
            )
        return self.normalisation(torch.stack(outputs).prod(dim=0))


class FixedRotation(nn.Module):
    """Every input, and every pair of inputs turned by R - 1 angles in both directions, with weights that stay fixed.

    From n inputs to n + n (n - 1) (R - 1) features: for inputs i < j and the angles a = pi r / (2 R), 0 < r < R,
    cos(a) x_i + sin(a) x_j and sin(a) x_i - cos(a) x_j, each divided by cos(a) + sin(a) if `normalise`, which keeps
    features in the inputs' domain. Gives polynomials in x_i directions other than the axes.

    >>> FixedRotation(2)(torch.tensor([1.0, 0.5])).tolist()  # x_1, half the sum, half the difference, x_2
    [1.0, 0.75, 0.25, 0.5]
    """

    weight: Tensor

    def __init__(self, inputs: int, rotations: int = 2, *, normalise: bool = True) -> None:
        super().__init__()
        check_whole(inputs=inputs, rotations=rotations)
        axes = torch.eye(inputs)
        rows = []
        for i in range(inputs):
            rows.append(axes[i])
            for j in range(i + 1, inputs):
                for r in range(1, rotations):
                    cos, sin = math.cos(math.pi * r / (2 * rotations)), math.sin(math.pi * r / (2 * rotations))
                    size = cos + sin if normalise else 1.0
                    rows += [(cos * axes[i] + sin * axes[j]) / size, (sin * axes[i] - cos * axes[j]) / size]
        self.register_buffer("weight", torch.stack(rows), persistent=False)
        self.out_features = len(rows)

    def forward(self, x: Tensor) -> Tensor:
        return numbers_of_features(x, self.weight) @ self.weight.t()


def numbers_or_codes(x: Tensor | np.ndarray, weight: Tensor) -> Tensor:
    """Numbers in the weights' format, or in float32 to locate them for half of it; integers, as codes, in int64."""
    given = number_tensor("input", x)
    return given.to(precise(weight.dtype)) if given.is_floating_point() else given.long()


def numbers_of_features(x: Tensor | np.ndarray, weight: Tensor) -> Tensor:
    """Numbers [.., I] in the format of weights [O, I]; raises InputError where they are no such."""
    given = number_tensor("input", x)
    if given.ndim == 0 or given.shape[-1] != weight.shape[1]:
        raise InputError(f"input of shape {tuple(given.shape)}: expected {weight.shape[1]} inputs a sample")
    return given.to(weight.dtype)


def check_form(form: str, alpha: float) -> None:
    check_number(alpha=alpha)
    if form not in get_args(Form):
        raise InputError(f"form={form!r}: must be 'sum' or 'product'")


def initial_weight(basis: Basis, initialize: Initialize, *, fan_in: int, edges: tuple[int, int]) -> Tensor:
    """Return first weights [I, V, O] for `edges` = (I, O); `fan_in` edges join at each neuron."""
    inputs, outputs = edges
    if initialize == "uniform":
        return torch.empty(inputs, basis.values_per_edge, outputs).uniform_(-1 / fan_in, 1 / fan_in)
    if initialize not in get_args(Initialize):
        raise InputError(f"initialize={initialize!r}: must be one of {', '.join(get_args(Initialize))}")
    if not isinstance(basis, LocalBasis):
        raise InputError(f"initialize={initialize!r}: is for values at nodes; a Fourier series takes 'uniform'")
    if initialize == "constant":
        return torch.empty(inputs, 1, outputs).uniform_(0, 1 / fan_in).repeat(1, basis.values_per_edge, 1)
    positions = basis.node_positions.float().view(basis.values_per_edge, -1)  # [V, D]
    slope = torch.empty(inputs, outputs, positions.shape[1]).uniform_(-0.5, 0.5)
    offset = torch.empty(inputs, 1, outputs).uniform_(-0.5, 0.5)
    return torch.einsum("vd,iod->ivo", positions.to(slope.device), slope) + offset
