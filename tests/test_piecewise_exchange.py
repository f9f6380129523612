"""Weights from and to high-order-layers-torch: its layout means the same function here.

Each function is written out in loops over that library's layout: `w` [O, I, V] of a layer, torch's layout of a
convolution with V values a channel. `benchmarks/piecewise.py` compares with the library itself.
"""

from itertools import product
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from frugal.piecewise import (
    BasisConvolution,
    Fourier,
    PiecewiseBasis,
    PiecewisePolynomial,
    Polynomial,
    PolynomialND,
    Product,
    Switch,
    from_high_order_layers,
    normalisation,
    to_high_order_layers,
)
from piecewise_loops import edge_by_loops, functions_by_loops


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def inputs(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64) * 2 - 1


def loaded(module: Any, state: dict[str, Tensor]) -> Any:
    """The module in float64 with a state of that library."""
    module.double().load_state_dict(from_high_order_layers(state))
    return module


def sums_by_loops(basis: PiecewiseBasis, x: Tensor, w: Tensor) -> Tensor:
    """y_bo = sum_i f_oi(x_bi) for w [O, I, V]."""
    y = torch.zeros(len(x), len(w), dtype=x.dtype)
    for b, o, i in product(range(len(x)), range(len(w)), range(x.shape[1])):
        y[b, o] += edge_by_loops(basis, x[b, i].item(), w[o, i].tolist())
    return y


@pytest.mark.parametrize("kernel", ["dense", "gather", "reference"])
@pytest.mark.parametrize(
    "basis",
    [
        PiecewiseBasis(2, 1),
        PiecewiseBasis(3, 8),
        PiecewiseBasis(8, 150),
        PiecewiseBasis(1, 5, continuous=False),
        PiecewiseBasis(4, 32, continuous=False),
    ],
)
def test_a_layers_weights_mean_the_same_function(basis: PiecewiseBasis, kernel: Any) -> None:
    w, x = normal(4, 3, basis.values_per_edge), inputs(5, 3) * 1.2  # a few outside the domain
    layer = PiecewisePolynomial(3, 4, basis.nodes, basis.segments, continuous=basis.continuous, kernel=kernel)
    torch.testing.assert_close(loaded(layer, {"w": w})(x), sums_by_loops(basis, x, w), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_product_layers_weights_mean_the_same_function(alpha: float) -> None:
    weight, bias, x = normal(4, 3), normal(4), inputs(5, 3)
    expected = torch.zeros(5, 4, dtype=torch.float64)
    for b, o in product(range(5), range(4)):
        edges = [float(weight[o, i] * x[b, i]) for i in range(3)]
        expected[b, o] = prod(1 + edge for edge in edges) - 1 - (1 - alpha) * sum(edges) + float(bias[o])
    torch.testing.assert_close(loaded(Product(3, 4, alpha=alpha), {"weight": weight, "bias": bias})(x), expected)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_in_several_coordinates_the_last_runs_fastest(dimensions: int) -> None:
    axis, x = PiecewiseBasis(3), inputs(4, 2, dimensions)
    w = normal(5, 2, 3**dimensions)
    expected = torch.zeros(4, 5, dtype=torch.float64)
    for b, o, i in product(range(4), range(5), range(2)):
        values = [functions_by_loops(axis, x[b, i, d].item()) for d in range(dimensions)]
        for place, numbers in enumerate(product(range(3), repeat=dimensions)):
            term = prod(values[d][number] for d, number in enumerate(numbers))
            expected[b, o] += w[o, i, place] * term
    torch.testing.assert_close(loaded(PolynomialND(2, 5, 3, dimensions), {"w": w})(x), expected)


@pytest.mark.parametrize("basis", [PiecewiseBasis(3), PiecewiseBasis(3, 4), PiecewiseBasis(2, 12, continuous=False)])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_a_convolutions_weights_mean_the_same_function(basis: PiecewiseBasis, padding: int, dimensions: int) -> None:
    values, size, stride = basis.values_per_edge, 5, 2
    weight, x = normal(3, 2 * values, *[3] * dimensions), inputs(2, 2, *[size] * dimensions)
    places = (size + 2 * padding - 3) // stride + 1
    expected = torch.zeros(2, 3, *[places] * dimensions, dtype=torch.float64)
    for b, o, c in product(range(2), range(3), range(2)):
        for place in product(range(places), repeat=dimensions):
            for tap in product(range(3), repeat=dimensions):
                at = [p * stride + t - padding for p, t in zip(place, tap, strict=True)]
                if all(0 <= a < size for a in at):  # padding gives nothing
                    w = [weight[o, c * values + v, *tap].item() for v in range(values)]
                    expected[b, o, *place] += edge_by_loops(basis, x[b, c, *at].item(), w)
    layer = BasisConvolution(2, 3, 3, basis, dimensions=dimensions, stride=stride, padding=padding)
    torch.testing.assert_close(loaded(layer, {"conv.weight": weight})(x), expected)


def test_a_transposed_convolutions_weights_mean_the_same_function() -> None:
    basis, stride, padding, size = PiecewiseBasis(3, 4), 2, 1, 4
    values = basis.values_per_edge
    weight, x = normal(2 * values, 3, 3), inputs(2, 2, size)
    length = (size - 1) * stride + 3 - 2 * padding
    expected = torch.zeros(2, 3, length, dtype=torch.float64)
    for b, o, c, place, tap in product(range(2), range(3), range(2), range(size), range(3)):
        at = place * stride + tap - padding
        if 0 <= at < length:
            w = [weight[c * values + v, o, tap].item() for v in range(values)]
            expected[b, o, at] += edge_by_loops(basis, x[b, c, place].item(), w)
    layer = BasisConvolution(2, 3, 3, basis, stride=stride, padding=padding, transposed=True)
    torch.testing.assert_close(loaded(layer, {"conv.weight": weight})(x), expected)


def test_a_whole_networks_weights_mean_the_same_function() -> None:
    first, second = PiecewiseBasis(2, 128), PiecewiseBasis(3, 2)
    state = {"0.w": normal(5, 4, 129), "2.w": normal(3, 5, 5)}
    network = nn.Sequential(
        PiecewisePolynomial(4, 5, 2, 128), normalisation("maxabs", 5), PiecewisePolynomial(5, 3, 3, 2)
    )
    x = inputs(6, 4)
    hidden = sums_by_loops(first, x, state["0.w"])
    hidden = hidden / (hidden.abs().amax(1, keepdim=True) + 1e-6)
    torch.testing.assert_close(loaded(network, state)(x), sums_by_loops(second, hidden, state["2.w"]))


def test_weights_come_back_from_the_round_trip_unchanged() -> None:
    model = nn.Sequential(
        BasisConvolution(2, 4, 3, PiecewiseBasis(2, 5)),
        nn.Flatten(),
        PiecewisePolynomial(8, 6, 3, 2),
        nn.LayerNorm(6),
        Switch([Polynomial(6, 2, 3), Fourier(6, 2, 5)]),
        Product(2, 2),
    )
    theirs = to_high_order_layers(model)
    assert tuple(theirs["2.w"].shape) == (6, 8, 5)
    assert tuple(theirs["0.conv.weight"].shape) == (4, 12, 3)
    back = from_high_order_layers(theirs)
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in model.state_dict().items())


def test_a_single_layer_is_renamed_and_the_unused_result_left_out() -> None:
    state = {"w": torch.rand(4, 3, 5), "result": torch.rand(4)}
    ours = from_high_order_layers(state)
    assert list(ours) == ["weight"]
    assert torch.equal(ours["weight"], state["w"].permute(1, 2, 0))
