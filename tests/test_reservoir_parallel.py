"""One stream as many lanes, and what the diagnostics say about forgetting."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frugal.errors import DivergedError, InputError
from frugal.reservoir import DeepReservoir, Reservoir, diagnostics, run_parallel
from frugal.reservoir.topologies import TOPOLOGIES

D = torch.float64


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("topology", sorted(TOPOLOGIES))
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_lanes_give_the_sequential_states_within_the_tolerance(topology: str, tolerance: float) -> None:
    reservoir = Reservoir(2, 64, topology=topology, spectral_radius=0.8, leak=0.7)
    inputs = noise(4003, 2)
    start = 0.5 * noise(1, 64)
    result = run_parallel(reservoir, inputs, tolerance, start, lanes=7)
    states, state = reservoir.run(inputs[None], start)
    assert result.lanes == 7
    assert 0 < result.washout < 300
    apart = (result.states - states[0]).norm(dim=1) / states[0].norm(dim=1)
    assert float(apart.max()) <= tolerance
    assert result.seam_error <= tolerance
    torch.testing.assert_close(result.state, state, rtol=1e-3, atol=10 * tolerance)


def test_a_stack_of_reservoirs_runs_in_lanes_too() -> None:
    deep = DeepReservoir([Reservoir(1, 32, spectral_radius=0.7), Reservoir(32, 32, spectral_radius=0.7, seed=1)])
    inputs = noise(3000, 1)
    result = run_parallel(deep, inputs, 1e-4, lanes=4)
    assert result.lanes == 4
    torch.testing.assert_close(result.states, deep.run(inputs[None])[0][0], rtol=1e-3, atol=1e-4)


def test_a_reservoir_that_does_not_forget_is_run_sequentially_and_says_so() -> None:
    reservoir = Reservoir(1, 64, topology="orthogonal", spectral_radius=1.0, activation="identity", input_scale=0.1)
    inputs = noise(2000, 1)
    with pytest.warns(UserWarning, match="run sequentially: the reservoir does not forget"):
        result = run_parallel(reservoir, inputs, lanes=8)
    assert result.lanes == 1
    assert "does not forget" in result.reason
    assert torch.equal(result.states, reservoir.run(inputs[None])[0][0])


def test_lanes_that_disagree_at_a_seam_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A washout measured far too short, as it would be where forgetting is slow in a stretch nobody watched."""
    monkeypatch.setattr("frugal.reservoir.parallel.measured_washout", lambda *_: 2)
    reservoir = Reservoir(1, 64, leak=0.1)
    with pytest.warns(UserWarning, match="lanes disagree by"):
        result = run_parallel(reservoir, noise(1000, 1), 1e-5, lanes=4)
    assert result.lanes == 1


@pytest.mark.parametrize("steps", [0, 1, 50, 400])
def test_a_short_stream_is_run_sequentially_without_ado(steps: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = run_parallel(Reservoir(1, 16, spectral_radius=0.3), noise(steps, 1), lanes=64)
    assert len(result.states) == steps


def test_pieces_of_a_long_stream_continue_each_other() -> None:
    reservoir = Reservoir(1, 32, spectral_radius=0.7)
    inputs = noise(4000, 1)
    first = run_parallel(reservoir, inputs[:2000], lanes=3)
    second = run_parallel(reservoir, inputs[2000:], state=first.state, lanes=3)
    whole = reservoir.run(inputs[None])[0][0]
    torch.testing.assert_close(torch.cat((first.states, second.states)), whole, rtol=1e-3, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(
    place=st.sampled_from([0, 100, 1500, 1990, 1999]),
    wrong=st.sampled_from([math.nan, math.inf, 1e39, -1e300]),
    lanes=st.integers(1, 5),
    deep=st.booleans(),
)
def test_inputs_that_run_refuses_are_refused_in_lanes(place: int, wrong: float, lanes: int, deep: bool) -> None:
    reservoir = Reservoir(1, 16, spectral_radius=0.3)
    collector = DeepReservoir([reservoir, Reservoir(16, 12, spectral_radius=0.3, seed=1)]) if deep else reservoir
    inputs = noise(2000, 1, dtype=D)
    assert run_parallel(collector, inputs, lanes=lanes).lanes == lanes
    inputs[place] = wrong
    for run in (lambda: collector.run(inputs[None]), lambda: run_parallel(collector, inputs, lanes=lanes)):
        with pytest.raises(InputError, match=r"hold NaN or infinity, or numbers beyond torch.float32"):
            run()


@pytest.mark.parametrize("lanes", [1, 4])
def test_states_that_grow_without_end_in_the_last_lane_are_said(lanes: int) -> None:
    cube = Reservoir.from_matrices(torch.eye(4), torch.eye(4)[:, :1], activation=lambda total: total**3)
    inputs = 0.01 * noise(2000, 1)
    assert run_parallel(cube, inputs, lanes=lanes).lanes == lanes
    inputs[1900] = 2.0  # from where it grows
    with pytest.raises(DivergedError, match="lower the spectral radius"):
        run_parallel(cube, inputs, lanes=lanes)


def test_lanes_need_one_stream_and_a_positive_tolerance() -> None:
    with pytest.raises(InputError, match=r"one stream, \[T, d\]"):
        run_parallel(Reservoir(1, 16), noise(1, 5, 1))
    with pytest.raises(InputError, match="tolerance=0"):
        run_parallel(Reservoir(1, 16), noise(5, 1), 0)


@pytest.mark.parametrize(("radius", "leak"), [(0.9, 1.0), (0.5, 0.5), (0.8, 0.1)])
def test_a_linear_rotation_forgets_at_its_radius(radius: float, leak: float) -> None:
    """For W = r I every difference shrinks by exactly 1 - a + a r."""
    reservoir = Reservoir.from_matrices(radius * torch.eye(20), torch.ones(20, 1), leak=leak, activation="identity")
    expected = 1 - leak + leak * radius
    forgetting = diagnostics.forgetting(reservoir, 10 + noise(80, 1))
    assert diagnostics.lyapunov_exponent(reservoir, noise(200, 1)) == pytest.approx(math.log(expected), abs=1e-4)
    assert diagnostics.effective_spectral_radius(reservoir) == pytest.approx(expected)
    assert forgetting.rate == pytest.approx(expected, abs=0.02)


def test_the_echo_state_property_is_told_from_chaos() -> None:
    inputs = 0.1 * noise(200, 1)
    calm, wild = (Reservoir(1, 100, spectral_radius=radius) for radius in (0.8, 2.0))
    assert diagnostics.forgetting(calm, inputs).echo_state
    assert not diagnostics.forgetting(wild, inputs).echo_state
    assert diagnostics.lyapunov_exponent(calm, inputs) < -0.1
    assert diagnostics.lyapunov_exponent(wild, inputs) > 0.05
    assert diagnostics.forgetting(wild, inputs).half_life == float("inf")


def test_effective_rank_counts_directions_of_equal_strength() -> None:
    axes = torch.linalg.qr(noise(50, 3, dtype=D)).Q
    states = torch.linalg.qr(noise(1000, 3, dtype=D) - noise(1000, 3, dtype=D).mean(0)).Q @ axes.T
    spectrum = diagnostics.state_spectrum(states)
    assert spectrum.rank == 3
    assert spectrum.effective_rank == pytest.approx(3, abs=0.01)


def test_lanes_are_within_the_tolerance_at_every_step_where_differences_grow_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Strong inputs make the units forget; at each seam begin weak ones, where differences grow a thousandfold."""
    monkeypatch.setattr("frugal.reservoir.parallel.measured_washout", lambda *_: 60)
    reservoir = Reservoir(1, 64, topology="dense", spectral_radius=2.0, input_scale=2.0, dtype=D)
    inputs = torch.where(torch.arange(6000) % 200 >= 80, 3.0, 0.02)[:, None] * noise(6000, 1, dtype=D)
    result = run_parallel(reservoir, inputs, 1e-5, lanes=5)
    states = reservoir.run(inputs[None])[0][0]
    apart = (result.states - states).norm(dim=1) / states.norm(dim=1)
    assert result.lanes == 5
    assert float(apart.max()) <= 1e-5
