"""Layers, gradients and refinement beside the library high-order-layers-torch, and weights carried both ways.

The comparisons need version 2.6.0 of that library (`pip install --no-deps high-order-layers-torch==2.6.0`) and skip
without it; the plain loops of `test_piecewise_layers.py` stand in every run.
"""

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from frugal.piecewise import (
    BasisConvolution,
    FixedRotation,
    Fourier,
    FourierBasis,
    PiecewiseBasis,
    PiecewisePolynomial,
    Polynomial,
    PolynomialND,
    Product,
    Switch,
    from_high_order_layers,
    normalisation,
    refined,
    smoothed,
    to_high_order_layers,
)
from frugal.training.optimizers import SparseLion


@pytest.fixture(scope="module")
def peer() -> Any:
    return pytest.importorskip("high_order_layers_torch.layers", reason="high-order-layers-torch is not installed")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def assert_same(ours: nn.Module, theirs: nn.Module, x: Tensor, tolerance: float = 1e-5) -> None:
    """Outputs, input gradients and weight gradients agree relative to the largest."""
    ours.load_state_dict(from_high_order_layers(theirs.state_dict()))
    results = []
    for module in (ours, theirs):
        module.zero_grad()
        probe = x.clone().requires_grad_()
        y = module(probe)
        y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape))
        gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        results.append([y, probe.grad, gradients])
    (y, dx, dw), (their_y, their_dx, their_gradients) = results
    for a, b in [(y, their_y), (dx, their_dx)]:
        assert b is None or (a - b).abs().max() <= tolerance * b.abs().max()
    for name, b in from_high_order_layers(their_gradients).items():
        assert (dw[name] - b).abs().max() <= tolerance * b.abs().max()


def with_normal_weights(module: nn.Module) -> nn.Module:
    """The library starts with constants, which would hide most mistakes."""
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def inputs(*shape: int) -> Tensor:
    return torch.rand(shape) * 2 - 1


@pytest.mark.parametrize("kernel", ["dense", "gather", "reference"])
@pytest.mark.parametrize(
    ("continuous", "nodes", "segments"),
    [
        (False, 1, 5),  # there are no continuous constants
        *((c, *size) for c in (True, False) for size in ((2, 1), (2, 2), (3, 8), (4, 32), (5, 3), (8, 150))),
    ],
)
def test_piecewise_layers_agree(peer: Any, nodes: int, segments: int, continuous: bool, kernel: Any) -> None:
    make = peer.PiecewisePolynomial if continuous else peer.PiecewiseDiscontinuousPolynomial
    theirs = with_normal_weights(make(nodes, 6, 4, segments=segments))
    ours = PiecewisePolynomial(6, 4, nodes, segments, continuous=continuous, kernel=kernel)
    # At 8 nodes in 150 segments the two differ by their rounding, of which the larger part is the library's.
    assert_same(ours, theirs, inputs(20, 6), tolerance=2e-4 if nodes == 8 else 1e-5)


@pytest.mark.parametrize("periodicity", [2.0, 1.5])
def test_mirrored_inputs_agree(peer: Any, periodicity: float) -> None:
    theirs = with_normal_weights(peer.PiecewisePolynomial(3, 6, 4, segments=4, periodicity=periodicity))
    assert_same(PiecewisePolynomial(6, 4, 3, 4, periodicity=periodicity), theirs, inputs(20, 6) * 3)


def test_outside_the_domain_the_polynomials_agree(peer: Any) -> None:
    theirs = with_normal_weights(peer.PiecewisePolynomial(3, 6, 4, segments=4))
    assert_same(PiecewisePolynomial(6, 4, 3, 4), theirs, inputs(20, 6) * 2)


@pytest.mark.parametrize("continuous", [True, False])
def test_product_forms_agree(peer: Any, continuous: bool) -> None:
    make = peer.PiecewisePolynomialProd if continuous else peer.PiecewiseDiscontinuousPolynomialProd
    theirs = with_normal_weights(make(3, 5, 4, segments=3))
    assert_same(PiecewisePolynomial(5, 4, 3, 3, continuous=continuous, form="product"), theirs, inputs(20, 5))


def test_polynomial_product_agrees(peer: Any) -> None:
    product = importlib.import_module("high_order_layers_torch.LagrangePolynomial").LagrangePolyFlatProd(4)
    ours, x = Polynomial(5, 3, 4, form="product"), inputs(20, 5)
    nn.init.normal_(ours.weight)
    torch.testing.assert_close(ours(x), product.interpolate(x, ours.weight.permute(2, 0, 1)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_product_layers_agree(peer: Any, alpha: float) -> None:
    assert_same(Product(5, 4, alpha=alpha), with_normal_weights(peer.Product(5, 4, alpha=alpha)), inputs(20, 5))


@pytest.mark.parametrize("nodes", [1, 2, 5, 8])
def test_polynomials_agree(peer: Any, nodes: int) -> None:
    assert_same(Polynomial(6, 4, nodes), with_normal_weights(peer.Polynomial(nodes, 6, 4)), inputs(20, 6), 3e-5)


@pytest.mark.parametrize("terms", [1, 2, 5])
def test_fourier_series_agree(peer: Any, terms: int) -> None:
    theirs = with_normal_weights(peer.FourierSeries(terms, 6, 4, length=2.0))
    assert_same(Fourier(6, 4, terms), theirs, inputs(20, 6))


@pytest.mark.parametrize("dimensions", [2, 3, 4, 5])
def test_layers_in_several_coordinates_agree(peer: Any, dimensions: int) -> None:
    theirs = with_normal_weights(getattr(peer, f"Polynomial{dimensions}D")(3, 4, 5))
    assert_same(PolynomialND(4, 5, 3, dimensions), theirs, inputs(10, 4, dimensions))


@pytest.mark.filterwarnings("ignore:non-inplace resize")
@pytest.mark.parametrize(
    ("kind", "basis"),
    [
        ("polynomial1d", PiecewiseBasis(3)),
        ("continuous1d", PiecewiseBasis(3, 4)),
        ("discontinuous1d", PiecewiseBasis(3, 4, continuous=False)),
        ("polynomial2d", PiecewiseBasis(3)),
        ("continuous2d", PiecewiseBasis(3, 4)),
        ("discontinuous2d", PiecewiseBasis(3, 4, continuous=False)),
        ("fourier2d", FourierBasis(3)),
    ],
)
@pytest.mark.parametrize("padding", [0, 1])
def test_convolutions_agree(peer: Any, kind: str, basis: Any, padding: int) -> None:
    sizes = {"in_channels": 2, "out_channels": 4, "kernel_size": 3, "stride": 2, "padding": padding}
    theirs = with_normal_weights(peer.high_order_convolution_layers(kind, n=3, segments=4, **sizes))
    dimensions = int(kind[-2])
    ours = BasisConvolution(2, 4, 3, basis, dimensions=dimensions, stride=2, padding=padding)
    assert_same(ours, theirs, inputs(3, 2, *[9] * dimensions))


def test_transposed_convolution_agrees(peer: Any) -> None:
    sizes = {"in_channels": 2, "out_channels": 4, "kernel_size": 3, "stride": 2, "padding": 1}
    theirs = with_normal_weights(peer.high_order_convolution_transpose_layers("continuous2d", n=3, segments=4, **sizes))
    ours = BasisConvolution(2, 4, 3, PiecewiseBasis(3, 4), dimensions=2, stride=2, padding=1, transposed=True)
    assert_same(ours, theirs, inputs(3, 2, 5, 5))


@pytest.mark.parametrize(("kind", "name"), [("maxabs", "MaxAbs"), ("maxcenter", "MaxCenter")])
def test_normalisations_agree(peer: Any, kind: Any, name: str) -> None:
    x = torch.randn(5, 7)
    torch.testing.assert_close(normalisation(kind, 7)(x), getattr(peer, f"{name}NormalizationLast")()(x))


@pytest.mark.parametrize("normalise", [True, False])
def test_fixed_rotations_agree(peer: Any, normalise: bool) -> None:
    layer, width = peer.fixed_rotation_layer(3, rotations=4, normalize=normalise)
    ours, x = FixedRotation(3, 4, normalise=normalise), inputs(5, 3)
    assert ours.out_features == width
    torch.testing.assert_close(ours(x), layer(x))


def test_refinement_and_smoothing_agree(peer: Any) -> None:
    layers = importlib.import_module("high_order_layers_torch.PolynomialLayers")
    coarse = with_normal_weights(peer.PiecewisePolynomial(3, 2, 3, segments=4))
    ours = PiecewisePolynomial(2, 3, 3, 4)
    ours.load_state_dict(from_high_order_layers(coarse.state_dict()))
    for nodes, segments, refine in [(5, 4, "interpolate_polynomial_layer"), (3, 12, "refine_polynomial_layer")]:
        fine = peer.PiecewisePolynomial(nodes, 2, 3, segments=segments)
        getattr(layers, refine)(coarse, fine)
        expected = from_high_order_layers(fine.state_dict())["weight"]
        torch.testing.assert_close(refined(ours, nodes=nodes, segments=segments).weight, expected, rtol=0, atol=1e-5)
    broken = with_normal_weights(peer.PiecewiseDiscontinuousPolynomial(3, 2, 3, segments=4))
    ours = PiecewisePolynomial(2, 3, 3, 4, continuous=False)
    ours.load_state_dict(from_high_order_layers(broken.state_dict()))
    layers.smooth_discontinuous_layer(broken, 0.4)
    expected = from_high_order_layers(broken.state_dict())["weight"]
    torch.testing.assert_close(smoothed(ours, 0.4).weight, expected)


def test_a_whole_network_agrees(peer: Any) -> None:
    networks = pytest.importorskip("high_order_layers_torch.networks", reason="its networks need pytorch-lightning")
    theirs = networks.HighOrderMLP(
        layer_type="continuous", n=2, in_width=16, out_width=12, hidden_layers=1, hidden_width=10,
        in_segments=128, hidden_segments=2, out_segments=4, normalization=peer.MaxAbsNormalizationLast,
    )  # fmt: skip
    with_normal_weights(theirs)
    model = nn.Sequential(
        PiecewisePolynomial(16, 10, 2, 128),
        normalisation("maxabs", 10),
        PiecewisePolynomial(10, 10, 2, 2),
        normalisation("maxabs", 10),
        PiecewisePolynomial(10, 12, 2, 4),
    )
    assert_same(nn.ModuleDict({"model": model})["model"], theirs.model, inputs(30, 16))


def test_sparse_lion_steps_agree(peer: Any) -> None:
    """Without weight decay, which in the library scales a copy of the weights."""
    theirs = importlib.import_module("high_order_layers_torch.sparse_optimizers").SparseLion
    results = []
    for kind in (SparseLion, theirs):
        torch.manual_seed(1)
        layer = PiecewisePolynomial(4, 3, 3, 20)
        optimizer = kind(layer.parameters(), lr=0.01, betas=(0.9, 0.99))
        for _ in range(5):
            optimizer.zero_grad()
            layer(torch.rand(2, 4) * 2 - 1).square().sum().backward()
            optimizer.step()
        results.append(layer.weight.detach())
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-7)


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
