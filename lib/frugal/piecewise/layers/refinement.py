"""hp-refinement: more, or fewer, nodes (p) or segments (h), without losing what the edges have learned."""

import copy
import dataclasses
import functools
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
        new_axis = _changed(old.axis, nodes, segments, continuous)
        one_axis = transfer_matrix(old.axis, new_axis)
        return _on_basis(
            layer, dataclasses.replace(old, axis=new_axis), functools.reduce(torch.kron, [one_axis] * old.dimensions)
        )
    new = _changed(_piecewise(layer), nodes, segments, continuous)
    return _on_basis(layer, new, transfer_matrix(_piecewise(layer), new))


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
    matrix = torch.eye(basis.values_per_edge, dtype=torch.float64)
    for right in range(basis.nodes, basis.values_per_edge, basis.nodes):
        left = right - 1
        matrix[left, [left, right]] += torch.tensor([-factor / 2, factor / 2], dtype=torch.float64)
        matrix[right, [left, right]] += torch.tensor([factor / 2, -factor / 2], dtype=torch.float64)
    return _on_basis(layer, basis, matrix)


def refined_weights(network: nn.Module, finer: nn.Module) -> dict[str, Tensor]:
    """Return a state for `finer`, a network that differs in the bases of its layers alone; see `refined`."""
    state = network.state_dict()
    for name, new in finer.named_modules():
        if isinstance(new, (BasisLayer, BasisConvolution)):
            old: Any = network.get_submodule(name)
            if old.basis != new.basis:
                matrix = transfer_matrix(_piecewise(old), _piecewise(new))
                state[f"{name}.weight"] = _on_basis(old, _piecewise(new), matrix).weight
    return state


def transfer_matrix(old: PiecewiseBasis, new: PiecewiseBasis) -> Tensor:
    """Return T [V', V]: weights T w on `new` make the function nearest to weights w on `old`, in float64.

    Nearest in the integral of the squared difference over the domain, which Gauss points between all knots of both
    give exactly; so a function that `new` can express is kept.
    """
    knots = np.unique(np.round(np.concatenate([np.linspace(0, 1, b.segments + 1) for b in (old, new)]), 12))
    points, weights = np.polynomial.legendre.leggauss(max(old.nodes, new.nodes))
    widths = np.diff(knots)[:, None]
    x = torch.from_numpy((knots[:-1, None] + widths * (points + 1) / 2 - 0.5).ravel()) * new.length
    root = torch.from_numpy(np.sqrt(widths * weights).ravel())[:, None]
    inside = [dataclasses.replace(basis, periodicity=None).expand(x) for basis in (new, old)]
    return torch.linalg.lstsq(root * inside[0], root * inside[1], driver="gels").solution


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


def _on_basis(layer: Layer, basis: PiecewiseBasis | TensorProductBasis, matrix: Tensor) -> Layer:
    """Return a copy of `layer` on `basis`, each edge's weights w replaced by `matrix` w."""
    result = copy.deepcopy(layer)
    weight = layer.weight.detach()
    if isinstance(layer, BasisConvolution):
        channels = 0 if layer.transposed else 1  # the axis that holds C * V
        edges = weight.unflatten(channels, (-1, matrix.shape[1]))
        new = _along_axis(matrix, edges, channels + 1).flatten(channels, channels + 1)
    else:
        new = _along_axis(matrix, weight, 1)
    result.basis, result.weight = basis, nn.Parameter(new.contiguous(), layer.weight.requires_grad)
    return result


def _along_axis(matrix: Tensor, values: Tensor, axis: int) -> Tensor:
    return torch.tensordot(matrix.to(values), values, dims=([1], [axis])).movedim(0, axis)
