"""hp-refinement: more, or fewer, nodes (p) or segments (h), without losing what the edges have learned."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from frugal.errors import InputError, is_number
from frugal.piecewise.layers.basis import PiecewiseBasis, TensorProductBasis
from frugal.piecewise.layers.convolution import BasisConvolution
from frugal.piecewise.layers.fully_connected import BasisLayer

Layer = TypeVar("Layer", BasisLayer, BasisConvolution)


def refined(
    layer: Layer, *, nodes: int | None = None, segments: int | None = None, continuous: bool | None = None
) -> Layer:
    """Return a copy of `layer` on another piecewise basis of the same domain.

    This is the hp-refinement of finite elements: more segments are its h, more nodes its p. Liu et al. ("KAN:
    Kolmogorov-Arnold networks", 2024, section 2.4) call it grid extension. More nodes, a multiple of the segments and
    `continuous=False` keep the function exactly; any other change gives the nearest function, by least squares over
    the domain.

    Args:
        layer: is not changed.
        nodes, segments, continuous: of the new basis; None keeps the layer's own.

    Raises:
        InputError: the layer's basis is not piecewise, or there is no such basis.

    >>> import torch
    >>> from frugal.piecewise import PiecewisePolynomial
    >>> coarse = PiecewisePolynomial(2, 3, nodes=2, segments=4)
    >>> fine = refined(coarse, nodes=3, segments=8)
    >>> tuple(coarse.weight.shape), tuple(fine.weight.shape)
    ((2, 5, 3), (2, 17, 3))
    >>> x = torch.rand(100, 2) * 2 - 1
    >>> torch.allclose(fine(x), coarse(x), atol=1e-5)
    True
    """
    old = layer.basis
    if isinstance(old, TensorProductBasis):
        return _transferred(layer, dataclasses.replace(old, axis=_changed(old.axis, nodes, segments, continuous)))
    return _transferred(layer, _changed(_piecewise(layer), nodes, segments, continuous))


def smoothed(layer: Layer, factor: float) -> Layer:
    """Return a copy whose two values at every interior knot are nearer by `factor` of their gap; 1 closes it.

    Raises:
        InputError: the layer is continuous or not piecewise, or `factor` is not in 0 to 1.

    >>> from frugal.piecewise import PiecewisePolynomial
    >>> layer = PiecewisePolynomial(1, 1, nodes=2, segments=2, continuous=False)
    >>> closed = smoothed(layer, 1.0).weight.flatten()
    >>> bool(closed[1].isclose(closed[2]))
    True
    """
    basis = _piecewise(layer)
    if basis.continuous:
        raise InputError("a continuous layer has no knots to smooth; give a layer with continuous=False")
    if not (is_number(factor) and 0 <= factor <= 1):
        raise InputError(f"factor={factor}: must lie between 0, no change, and 1, continuous")

    def change(weight: Tensor) -> Tensor:  # [V, ...]
        result, n = weight.clone(), basis.nodes
        half = (weight[n::n] - weight[n - 1 : -1 : n]) * (factor / 2)
        result[n - 1 : -1 : n] += half
        result[n::n] -= half
        return result

    return _on_basis(layer, basis, change)


def refined_weights(network: nn.Module, finer: nn.Module) -> dict[str, Tensor]:
    """Return a state for `finer`, a network that differs in the bases of its layers alone; see `refined`."""
    state = network.state_dict()
    for name, new in finer.named_modules():
        if isinstance(new, (BasisLayer, BasisConvolution)):
            old: Any = network.get_submodule(name)
            if old.basis != new.basis:
                state[f"{name}.weight"] = _transferred(old, _piecewise(new)).weight
    return state


def nearest(old: PiecewiseBasis, new: PiecewiseBasis, weight: Tensor) -> Tensor:
    """Return weights [V', ...] in float64 that make on `new` the function nearest to that of [V, ...] on `old`.

    Nearest in the integral of the squared difference over the domain, which Gauss points between all knots of both
    give exactly; so a function that `new` can express is kept. The normal equations are banded: a function meets only
    those of its own and the neighbouring segments.
    """
    from scipy.linalg import solveh_banded  # takes a while to import

    knots = np.unique(np.round(np.concatenate([np.linspace(0, 1, b.segments + 1) for b in (old, new)]), 12))
    points, shares = np.polynomial.legendre.leggauss(max(old.nodes, new.nodes))
    widths = np.diff(knots)[:, None]
    x = torch.from_numpy((knots[:-1, None] + widths * (points + 1) / 2 - 0.5).ravel()) * new.length
    (cell, values), (old_cell, old_values) = (
        dataclasses.replace(basis, periodicity=None).active(x) for basis in (new, old)
    )
    weighted = values * torch.from_numpy((widths * shares).ravel())[:, None]  # [points, nodes]
    first, old_rows = new.cell_nodes[cell, 0], old.cell_nodes[old_cell]
    given = weight.detach().to("cpu", torch.float64).flatten(1)
    function = torch.zeros(len(x), given.shape[1], dtype=torch.float64)
    for j in range(old.nodes):
        function += old_values[:, j, None] * given[old_rows[:, j]]
    right = torch.zeros(new.values_per_edge, function.shape[1], dtype=torch.float64)
    band = torch.zeros(new.nodes, new.values_per_edge, dtype=torch.float64)  # the diagonal and those below it
    for j in range(new.nodes):
        right.index_add_(0, first + j, weighted[:, j, None] * function)
        for k in range(j, new.nodes):
            band[k - j].index_add_(0, first + j, weighted[:, j] * values[:, k])
    return torch.from_numpy(solveh_banded(band.numpy(), right.numpy(), lower=True, check_finite=False)).view(
        -1, *weight.shape[1:]
    )


def _changed(basis: PiecewiseBasis, nodes: int | None, segments: int | None, continuous: bool | None) -> PiecewiseBasis:
    return dataclasses.replace(
        basis,
        nodes=basis.nodes if nodes is None else nodes,
        segments=basis.segments if segments is None else segments,
        continuous=basis.continuous if continuous is None else continuous,
    )


def _piecewise(layer: BasisLayer | BasisConvolution) -> PiecewiseBasis:
    if not isinstance(layer.basis, PiecewiseBasis):
        raise InputError(f"{layer.basis}: only piecewise polynomials have segments and nodes to change")
    return layer.basis


def _transferred(layer: Layer, basis: PiecewiseBasis | TensorProductBasis) -> Layer:
    """Return a copy on another basis of the same domain and dimensions, its function as near as possible."""
    old: Any = layer.basis
    axes = (old.axis, basis.axis) if isinstance(basis, TensorProductBasis) else (old, basis)

    def change(weight: Tensor) -> Tensor:  # [V ** dimensions, ...]
        result = weight.view(*[axes[0].values_per_edge] * basis.dimensions, -1)
        for axis in range(basis.dimensions):
            result = nearest(*axes, result.movedim(axis, 0)).movedim(0, axis)
        return result.reshape(-1, *weight.shape[1:])

    return _on_basis(layer, basis, change)


def _on_basis(layer: Layer, basis: PiecewiseBasis | TensorProductBasis, change: Callable[[Tensor], Tensor]) -> Layer:
    """Return a copy of `layer` on `basis`, with changed weights of the edges, [V, ...]."""
    result = copy.deepcopy(layer)
    weight = layer.weight.detach()
    if isinstance(layer, BasisConvolution):
        channels = 0 if layer.transposed else 1  # the axis that holds C * V
        edges = weight.unflatten(channels, (-1, layer.basis.values_per_edge)).movedim(channels + 1, 0)
        new = change(edges.contiguous()).movedim(0, channels + 1).flatten(channels, channels + 1)
    else:
        new = change(weight.movedim(1, 0).contiguous()).movedim(0, 1)
    result.basis, result.weight = basis, nn.Parameter(new.to(weight).contiguous(), layer.weight.requires_grad)
    return result
