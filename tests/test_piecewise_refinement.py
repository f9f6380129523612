"""Refinement keeps the function where it can, and comes as near as possible where it cannot."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frugal.errors import InputError
from frugal.piecewise import (
    BasisConvolution,
    BasisLayer,
    Fourier,
    PiecewiseBasis,
    PiecewisePolynomial,
    PolynomialND,
    refined,
    smoothed,
)
from models import TEXTS, TINY_CONVOLUTIONS, piecewise


@settings(max_examples=40)
@given(
    nodes=st.integers(2, 5),
    segments=st.integers(1, 6),
    more_nodes=st.integers(0, 4),
    multiple=st.integers(1, 5),
    continuous=st.booleans(),
    break_knots=st.booleans(),
    length=st.sampled_from([2.0, 3.0]),
)
def test_more_nodes_and_multiples_of_segments_keep_the_function(
    nodes: int, segments: int, more_nodes: int, multiple: int, continuous: bool, break_knots: bool, length: float
) -> None:
    layer = PiecewisePolynomial(2, 3, nodes, segments, continuous=continuous, length=length).double()
    torch.nn.init.normal_(layer.weight)
    finer = refined(
        layer, nodes=nodes + more_nodes, segments=segments * multiple, continuous=continuous and not break_knots
    )
    x = (torch.rand(200, 2, dtype=torch.float64) - 0.5) * length
    torch.testing.assert_close(finer(x), layer(x), rtol=1e-8, atol=1e-8)
    assert finer.weight.shape == (2, finer.basis.values_per_edge, 3)


@pytest.mark.parametrize("continuous", [True, False])
def test_segments_that_do_not_divide_give_the_least_squares_fit(continuous: bool) -> None:
    torch.manual_seed(0)
    layer = PiecewisePolynomial(1, 1, 3, 7, continuous=continuous).double()
    torch.nn.init.normal_(layer.weight)
    coarser = refined(layer, segments=5)
    x = torch.linspace(-1, 1, 100_001, dtype=torch.float64)[:, None]
    design = coarser.basis.expand(x[:, 0])
    best = torch.linalg.lstsq(design, layer(x)).solution
    torch.testing.assert_close(coarser.weight.detach()[0], best, rtol=1e-2, atol=1e-3)


def test_refinement_of_a_convolution_keeps_its_function() -> None:
    for transposed in (False, True):
        convolution = BasisConvolution(2, 3, 3, PiecewiseBasis(2, 3), dimensions=2, transposed=transposed).double()
        x = torch.rand(2, 2, 6, 6, dtype=torch.float64) * 2 - 1
        torch.testing.assert_close(refined(convolution, nodes=4, segments=6)(x), convolution(x))


def test_refinement_in_several_coordinates_keeps_the_function() -> None:
    layer = PolynomialND(2, 3, 2, 2, segments=2).double()
    x = torch.rand(50, 2, 2, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(refined(layer, nodes=3, segments=4)(x), layer(x))


def test_many_segments_are_refined_as_few_are() -> None:
    layer = PiecewisePolynomial(1, 1, 3, 20_000, continuous=False).double()
    x = torch.rand(500, 1, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(refined(layer, nodes=4, segments=60_000)(x), layer(x), rtol=1e-8, atol=1e-8)
    closed = smoothed(layer, 1.0).weight.detach().flatten().view(-1, 3)
    before = layer.weight.detach().flatten().view(-1, 3)
    torch.testing.assert_close(closed[1:, 0], (before[:-1, 2] + before[1:, 0]) / 2)
    torch.testing.assert_close(closed[:-1, 2], closed[1:, 0])
    assert torch.equal(closed[:, 1], before[:, 1])


def test_five_coordinates_are_refined_one_by_one() -> None:
    layer = PolynomialND(1, 1, 2, 5, segments=6).double()
    x = torch.rand(50, 1, 5, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(refined(layer, segments=12)(x), layer(x))


@pytest.mark.parametrize(
    ("name", "shape", "changes"),
    [
        ("large_single_layer", {"width": 6}, {"nodes": 3, "segments": 4}),
        ("small", {"width": 6, "nodes": 3}, {"nodes": 4, "segments": 16, "output_segments": 24}),
        ("large_single_layer", {"width": 6}, {"kind": "discontinuous", "segments": 6}),
        ("tail_focus", {"context_length": 9, **TINY_CONVOLUTIONS}, {"nodes": 3, "segments": (6,)}),
        ("dual_convolution", {"context_length": 4, "width": 5}, {"nodes": 4, "segments": 6}),
    ],
)
def test_a_whole_model_predicts_the_same_with_finer_edges(
    name: str, shape: dict[str, Any], changes: dict[str, Any]
) -> None:
    model = piecewise(name, **shape)
    first = next(model.network.parameters()).requires_grad_(False)
    model.network.eval()
    finer = model.refined(**changes)
    assert [values.requires_grad for values in finer.parameters()] == [p is not first for p in model.parameters()]
    assert not finer.network.training
    assert finer.parameter_count > model.parameter_count
    assert finer.shape == replace(model.shape, **changes)
    tokens = model.tokenizer.encode(TEXTS[0])[None]
    torch.testing.assert_close(finer.log_probabilities(tokens), model.log_probabilities(tokens), rtol=1e-3, atol=1e-3)


def test_refining_changes_nothing_but_the_edges_of_a_model() -> None:
    for change in (
        {"width": 7},
        {"layers": 2},
        {"nods": 3},
        {"normalise": "none"},
        {"kind": "continuous_prod"},
        {"original": True},
        {"initialize": "linear"},
        {"context_length": 3},
    ):
        with pytest.raises(InputError, match="makes another network"):
            piecewise("large_single_layer", width=6).refined(**change)


def test_the_layer_given_is_left_alone_and_the_new_one_trains() -> None:
    layer = PiecewisePolynomial(2, 3, 2, 2)
    before = layer.weight.detach().clone()
    finer = refined(layer, nodes=3)
    torch.nn.init.zeros_(finer.weight)
    assert torch.equal(layer.weight, before)
    assert layer.basis.nodes == 2
    assert finer.weight.requires_grad


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_smoothing_by_one_closes_every_knot_and_by_a_half_halves_it(nodes: int) -> None:
    torch.manual_seed(0)
    layer = PiecewisePolynomial(1, 1, nodes, 4, continuous=False).double()

    def jumps(layer: BasisLayer) -> torch.Tensor:
        knots = torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64)[:, None]
        return layer(knots + 1e-12) - layer(knots - 1e-12)

    if nodes == 1:  # a step's one value belongs to both of its knots, so that closing is only approached
        assert jumps(smoothed(layer, 1.0)).abs().sum() < jumps(layer).abs().sum()
        return
    assert jumps(smoothed(layer, 1.0)).abs().max() < 1e-9
    torch.testing.assert_close(jumps(smoothed(layer, 0.5)), jumps(layer) / 2, rtol=1e-6, atol=1e-9)


def test_what_cannot_be_refined_says_so() -> None:
    with pytest.raises(InputError, match="piecewise"):
        refined(Fourier(2, 3, 5), nodes=3)
    with pytest.raises(InputError, match="continuous=False"):
        smoothed(PiecewisePolynomial(2, 3, 2, 2), 1.0)
    with pytest.raises(InputError, match="factor=2"):
        smoothed(PiecewisePolynomial(2, 3, 2, 2, continuous=False), 2)
