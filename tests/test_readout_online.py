"""The online readout: it is the ridge solution after every row, and forgets as it is told."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frugal.errors import DivergedError, InputError
from frugal.readout import OnlineReadout, RidgeReadout
from frugal.reservoir import Reservoir
from frugal.ridge import LinearMap, RidgeStatistics


def rows(n: int, inputs: int, outputs: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, size, generator=random, dtype=torch.float64) for size in (inputs, outputs))  # type: ignore[return-value]


def solved(x: Tensor, y: Tensor, weights: Tensor, penalty: float) -> Tensor:
    """Weights and bias by least squares, [D + 1, K]."""
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    root, penalties = weights.sqrt()[:, None], penalty**0.5 * torch.eye(x.shape[1], dtype=x.dtype)
    targets = torch.cat([root * y, torch.zeros(x.shape[1], y.shape[1], dtype=x.dtype)])
    return torch.linalg.lstsq(torch.cat([root * x, penalties]), targets).solution


@settings(max_examples=20)
@given(
    st.integers(1, 25),
    st.integers(1, 5),
    st.floats(1e-6, 10),
    st.sampled_from([1.0, 0.99, 0.8]),
    st.integers(1, 24),
    st.sampled_from([0.0, 1e3, 1e5]),
    st.sampled_from([("float64", 1e-8), ("float32", 1e-6)]),
)
def test_it_is_the_discounted_ridge_solution_in_any_pieces(
    n: int, inputs: int, alpha: float, forgetting: float, cut: int, offset: float, precision: tuple[str, float]
) -> None:
    x, y = rows(n, inputs, 2)
    x = x + offset
    weights = torch.arange(n, dtype=torch.float64) % 3
    readout = OnlineReadout(inputs, 2, alpha=alpha, forgetting=forgetting, dtype=precision[0])
    for part in (slice(None, cut), slice(cut, None)):
        readout.partial_fit(x[part].numpy(), y[part], sample_weight=weights[part])
    discount = forgetting ** torch.arange(n - 1, -1, -1, dtype=torch.float64)
    solution = solved(x, y, discount * weights, alpha * forgetting**n)
    places = torch.cat([x, offset + torch.eye(inputs)])
    ones = torch.ones(len(places), 1, dtype=torch.float64)
    found, expected = readout.values(places).double(), torch.cat([places, ones], 1) @ solution
    terms = float((torch.cat([places, ones], 1).abs() @ solution.abs()).max())
    torch.testing.assert_close(found, expected, rtol=0, atol=precision[1] * terms)


def test_it_stays_the_ridge_solution_over_many_rows_of_single_precision() -> None:
    x, y = rows(200, 20, 1)
    readout = OnlineReadout(20, 1, dtype="float32").partial_fit(x.float(), y.float())
    solution = solved(x.float().double(), y.float().double(), torch.ones(200).double(), 1e-6)
    torch.testing.assert_close(readout.weight.double(), solution[:-1].T, rtol=1e-5, atol=1e-5)


def test_tokens_are_targets_too_and_it_comes_back_from_its_settings() -> None:
    readout = OnlineReadout(3, 3).partial_fit(torch.eye(3).repeat(20, 1), torch.tensor([2, 0, 1] * 20))
    assert readout(torch.eye(3)).argmax(-1).tolist() == [2, 0, 1]
    again = OnlineReadout(**readout.settings())
    again.load_state_dict(readout.state_dict())
    more = (torch.eye(3), torch.tensor([0, 0, 0]))
    old = dict(readout.state_dict())  # of an earlier version
    old["inverse"] = old.pop("root") @ readout.root.T
    earlier = OnlineReadout(**readout.settings())
    earlier.load_state_dict(old)
    torch.testing.assert_close(earlier.partial_fit(*more).weight, again.partial_fit(*more).weight)
    again.load_state_dict(readout.state_dict())
    assert torch.equal(again.partial_fit(*more).weight, readout.partial_fit(*more).weight)


def test_values_come_back_as_values_and_are_not_mixed_with_tokens() -> None:
    x, y = rows(50, 3, 2)
    readout = OnlineReadout(3, 2, alpha=1e-9).partial_fit(x, x @ torch.ones(3, 2).double() - 7)
    torch.testing.assert_close(readout(x), x @ torch.ones(3, 2).double() - 7)
    again = OnlineReadout(**readout.settings())
    again.load_state_dict(readout.state_dict())
    assert torch.equal(again(x), readout(x))
    before = readout.weight.clone()
    with pytest.raises(InputError, match="targets: are tokens, and this readout has learnt values"):
        readout.partial_fit(x, torch.zeros(50, dtype=torch.int64))
    assert torch.equal(readout.weight, before)
    with pytest.raises(InputError, match="targets: are values, and this readout has learnt tokens"):
        OnlineReadout(3, 2).partial_fit(x, torch.ones(50, dtype=torch.int64)).partial_fit(x, y)


@pytest.mark.parametrize("kind", [OnlineReadout, RidgeReadout])
def test_its_state_says_whether_it_is_for_tokens(kind: type[RidgeReadout]) -> None:
    x, y = rows(50, 3, 2)
    truth = x @ torch.tensor([[2.0, 1.0], [0.0, -3.0], [1.0, 1.0]]).double() - 7
    tokens = (y[:, 0] > 0).long()
    for targets in (truth, tokens):
        if kind is OnlineReadout:
            fitted: RidgeReadout = OnlineReadout(3, 2, alpha=1e-9).partial_fit(x, targets)
        else:
            fitted = RidgeReadout.fit(RidgeStatistics.collect([(x, targets)], 2), alphas=1e-9, dtype="float64")
        again, older = kind(3, 2, dtype="float64"), kind(3, 2, dtype="float64", tokens=targets is tokens)
        again.load_state_dict(fitted.state_dict())
        assert torch.equal(again(x), fitted(x))
        older.load_state_dict({name: part for name, part in fitted.state_dict().items() if name != "_extra_state"})
        assert torch.equal(older(x), fitted(x))
        if targets is truth:
            torch.testing.assert_close(again(x), truth, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_moved_to_another_precision_it_still_learns_in_double(dtype: torch.dtype) -> None:
    x, y = rows(200, 3, 2)
    expected = OnlineReadout(3, 2).partial_fit(x, y)
    moved = OnlineReadout(3, 2).to(dtype)
    moved = moved.partial_fit(x[:100], y[:100]).to(torch.float64).partial_fit(x[100:], y[100:])
    assert moved.root.dtype == torch.float64
    torch.testing.assert_close(moved.weight, expected.weight, rtol=0.02, atol=0.02)
    assert moved.to(dtype).predict(x.numpy()).shape == (200, 2)


def test_forgetting_that_leaves_no_weights_is_said_and_learns_nothing() -> None:
    """Where nothing excites an input, what is known of it is divided by the forgetting at every row, without end."""
    x, y = torch.zeros(400, 2), torch.ones(400, 1)
    readout = OnlineReadout(2, 1, forgetting=0.1).partial_fit(x[:5], y[:5])
    before = {name: values.clone() for name, values in readout.state_dict().items()}
    with pytest.raises(DivergedError, match=r"forgetting=0.1: so much of the past is forgotten in these 400 rows"):
        readout.partial_fit(x, y)
    assert all(torch.equal(values, before[name]) for name, values in readout.state_dict().items())


def test_force_learning_makes_a_reservoir_generate_a_wave() -> None:
    """The prediction is fed back while it is learnt, and goes on alone afterwards."""
    reservoir = Reservoir(1, 100, topology="dense", spectral_radius=1.2, leak=0.5, seed=1, dtype=torch.float64)
    readout, wave = OnlineReadout(100, 1, alpha=1.0), torch.sin(torch.arange(500) / 5).double()
    output, state, errors = torch.zeros(1, 1, dtype=torch.float64), None, []
    for step, target in enumerate(wave):
        states, state = reservoir.step(output, state)
        output = readout.predict(states)
        errors.append(float((output - target).abs()))
        if step < 400:
            readout.partial_fit(states, target.view(1, 1))
    assert max(errors[400:]) < 0.1


def test_reservoirpy_learns_the_same_weights() -> None:
    nodes = pytest.importorskip("reservoirpy.nodes", reason="reservoirpy is not installed: nothing to compare with")
    x, y = rows(60, 4, 2)
    theirs, ones = nodes.RLS(alpha=1e-2, fit_bias=False), np.ones((60, 1))  # its bias is no part of the least squares
    with_ones = np.concatenate([x.numpy(), ones], axis=1)
    theirs.partial_fit(with_ones, y.numpy())
    ours = OnlineReadout(4, 2, alpha=1e-2).partial_fit(x, y)
    np.testing.assert_allclose(ours.predict(x.numpy()), theirs.run(with_ones), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: OnlineReadout(2, 1, alpha=0), "alpha=0"),
        (lambda: OnlineReadout.fit(RidgeStatistics.empty(2, 1)), "learns from rows; call `partial_fit`"),
        (
            lambda: OnlineReadout(2, 2).partial_fit(torch.ones(1, 2), torch.tensor([True])),
            "targets of torch.bool: must be",
        ),
        (lambda: OnlineReadout(2, 1, forgetting=1.1), "forgetting=1.1"),
        (lambda: OnlineReadout(2, 1).partial_fit(torch.ones(3, 3), torch.ones(3, 1)), r"must be \[n, 2\]"),
        (lambda: OnlineReadout(2, 1).partial_fit(torch.ones(3, 2), torch.full((3, 1), math.nan)), "targets: hold NaN"),
        (lambda: OnlineReadout(2, 2).partial_fit(torch.ones(1, 2), torch.tensor([2])), "tokens must lie in 0 to 1"),
        (
            lambda: OnlineReadout(2, 1).partial_fit(torch.ones(1, 2), torch.ones(1, 1), torch.tensor([-1.0])),
            "none negative",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(make, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=says):
        make()


def test_weighted_rows_count_as_often_as_they_say() -> None:
    x, y = rows(12, 3, 2)
    weights = torch.arange(12) % 3
    for ridge in (0.0, 0.1):
        weighted = LinearMap.fit(x.numpy(), y.numpy(), ridge, sample_weight=weights.numpy())
        repeated = LinearMap.fit(x.repeat_interleave(weights, 0), y.repeat_interleave(weights, 0), ridge)
        np.testing.assert_allclose(weighted(x.numpy()), repeated(x).numpy(), rtol=1e-9, atol=1e-12)
    with pytest.raises(InputError, match="none negative and some positive"):
        LinearMap.fit(x, y, 0.0, sample_weight=torch.zeros(12))
