"""The standard tasks' series and protocols, at sizes that run in seconds; full ones are in benchmarks/."""

import math
import re

import pytest
import torch

from frugal.errors import DivergedError, InputError
from frugal.reservoir import DeepReservoir, Reservoir, capacity, diagnostics, tasks

D = torch.float64


def test_series_begin_with_the_published_values() -> None:
    mackey_glass = tasks.mackey_glass(3).atanh() + 1
    assert mackey_glass.tolist() == pytest.approx([1.067883054099, 1.020417880865, 0.974619348967], abs=1e-10)
    inputs, targets = tasks.narma10(3)
    assert inputs.tolist() == pytest.approx([0.159840818141, 0.093753857864, 0.336263316958], abs=1e-10)
    assert targets.tolist() == pytest.approx([0.393675874538, 0.340116725391, 0.296390069527], abs=1e-10)
    assert tasks.lorenz(1)[0].tolist() == pytest.approx([-8.188646900975, 5.823720121641, 38.790394889077], abs=1e-9)


def test_narma_reaches_the_literature_at_100_units() -> None:
    scores = [
        tasks.score_narma10(
            Reservoir(1, 100, spectral_radius=0.7, input_scale=0.05, bias_scale=0.2, seed=seed, dtype=D),
            ridge=1e-14,
            seed=seed,
        )
        for seed in range(3)
    ]
    assert sorted(scores)[1] < 0.31  # Rodan and Tino 2011: 0.31 at this size


def test_mackey_glass_continues_freely_for_84_steps() -> None:
    score = tasks.score_mackey_glass(Reservoir(1, 200, spectral_radius=1.0, bias_scale=0.2, dtype=D), ridge=1e-12)
    assert score.one_step < 1e-3
    assert math.log10(score.nrmse84) < -1.7  # what the best methods before reservoirs reached


def test_a_readout_that_knows_nothing_fails_the_free_run() -> None:
    score = tasks.score_mackey_glass(Reservoir(1, 50, bias_scale=0.2, dtype=D), ridge=1e9)
    assert score.nrmse84 > 0.5


def test_lorenz_is_predicted_for_several_lyapunov_times() -> None:
    reservoir = Reservoir(3, 150, spectral_radius=0.6, input_scale=0.2, bias_scale=0.5, dtype=D)
    times = tasks.score_lorenz(reservoir, ridge=1e-9)
    assert times.shape == (20,)
    assert float(times.mean()) > 4


def test_memory_capacity_of_a_linear_ring_is_its_size() -> None:
    ring = Reservoir(1, 30, topology="ring", spectral_radius=0.95, activation="identity")
    memory = capacity.memory_capacity(ring, fit=3000, test=3000)
    assert 28.7 < memory.total <= memory.bound + 1e-9
    # What comes round again after 30 steps, weaker by 0.95^30, is what each lag shares its unit with.
    assert float(memory.by_lag[:28].min()) == pytest.approx(1 / (1 + 0.95**60), abs=0.01)


def test_a_delay_line_remembers_exactly_its_length() -> None:
    line = Reservoir.from_matrices(torch.eye(10).roll(1, 0).tril(), torch.eye(10)[:, :1], activation="identity")
    memory = capacity.memory_capacity(line, fit=2000, test=2000)
    assert memory.by_lag[:9] == pytest.approx(torch.ones(9))
    assert float(memory.by_lag[9:].max()) < 0.02


def test_processing_capacity_fills_the_rank_and_never_exceeds_it() -> None:
    reservoir = Reservoir(1, 20, fan_in=5, input_scale=0.3, bias_scale=0.5)
    found = capacity.information_processing_capacity(reservoir, steps=30_000, degree=5)
    assert found.rank == 20
    assert 0.95 * 20 < found.total <= 20
    assert float(found.by_degree[1]) > 1


def test_without_a_bias_no_even_function_of_the_inputs_is_held() -> None:
    reservoir = Reservoir(1, 20, fan_in=5, input_scale=0.5)
    found = capacity.information_processing_capacity(reservoir, steps=20_000, degree=4)
    assert found.by_degree[[1, 3]].tolist() == [0, 0]
    assert float(found.by_degree[2]) > 1


def test_states_that_do_not_depend_on_the_inputs_have_no_capacity() -> None:
    still = Reservoir(1, 10, input_scale=0.0, bias_scale=0.5)
    found = capacity.information_processing_capacity(still, steps=500, degree=2)
    assert (found.rank, found.total, found.by_degree.tolist()) == (0, 0.0, [0.0, 0.0])
    assert capacity.memory_capacity(still, fit=500, test=500).total == 0


def test_a_reservoir_with_another_number_of_inputs_is_refused() -> None:
    with pytest.raises(InputError, match="this task needs input_size=3"):
        tasks.score_lorenz(Reservoir(1, 20, dtype=D), ridge=1e-9)


@pytest.mark.parametrize("dt", [0.5, 10.0, 1e300])
def test_a_step_too_long_for_the_series_is_said(dt: float) -> None:
    with pytest.raises(DivergedError, match=f"dt={re.escape(str(dt))}: the series leaves all bounds"):
        tasks.lorenz(10, dt=dt)


def test_states_that_do_not_vary_fill_no_direction() -> None:
    for constant in (torch.zeros(5, 3), torch.full((50, 3), 0.1), torch.full((7, 2), 1e5 / 3, dtype=D)):
        spectrum = diagnostics.state_spectrum(constant)
        assert (spectrum.rank, spectrum.effective_rank) == (0, 0.0)
        assert not spectrum.values.any()
    tiny = diagnostics.state_spectrum(1e-170 * torch.eye(4, dtype=D))
    assert tiny.effective_rank == pytest.approx(3)


@pytest.mark.parametrize("truth", [torch.ones(5), torch.full((5,), 0.1), torch.ones(1), torch.ones(0)])
def test_an_error_relative_to_what_does_not_vary_is_refused(truth: torch.Tensor) -> None:
    with pytest.raises(InputError, match="truth: must hold two different numbers"):
        tasks.nrmse(truth + 1, truth)
    if len(truth):
        assert tasks.nrmse(truth + 1, truth, torch.tensor(4.0)) == pytest.approx(0.25)
        with pytest.raises(InputError, match=r"deviation=0\.0: must be positive"):
            tasks.nrmse(truth + 1, truth, torch.tensor(0.0))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda line: capacity.memory_capacity(line, fit=0), "fit=0"),
        (lambda line: capacity.memory_capacity(line, test=1), "test=1"),
        (lambda line: capacity.memory_capacity(line, washout="a"), "washout='a'"),
        (lambda line: capacity.memory_capacity(line, seed=-1), "seed=-1"),
        (lambda line: capacity.memory_capacity("line"), "reservoir of type str"),
        (lambda line: capacity.information_processing_capacity(line, washout=-5), "washout=-5"),
        (lambda line: capacity.information_processing_capacity(line, washout=0), "washout=0"),
        (lambda line: capacity.information_processing_capacity(line, steps=0), "steps=0"),
        (lambda line: capacity.information_processing_capacity(line, degree=1.5), "degree=1.5"),
        (lambda line: tasks.score_mackey_glass(line, ridge=-1.0), "ridge=-1.0"),
        (lambda line: tasks.score_mackey_glass(line, ridge=0.1, fit=2.5), "fit=2.5"),
        (lambda line: diagnostics.lyapunov_exponent(line, torch.ones(9, 1), washout=-1), "washout=-1"),
        (lambda line: diagnostics.lyapunov_exponent(line, torch.ones(9, 1), washout=2, seed="a"), "seed='a'"),
        (lambda line: diagnostics.effective_spectral_radius(DeepReservoir([line])), "reservoir of type DeepReservoir"),
        *((lambda line, dt=dt: tasks.lorenz(5, dt=dt), "dt=.*must be positive") for dt in (0, -1, math.inf, "a")),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(make, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=says):
        make(Reservoir(1, 10))


def test_a_narma_series_that_diverges_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = [tasks.narma10(300, seed) for seed in range(6)]
    seed = max(range(6), key=lambda one: float(draws[one][1].max()))
    usual, largest = draws[seed], float(draws[seed][1].max())
    monkeypatch.setattr(tasks, "DIVERGED", 0.99 * largest)
    again = tasks.narma10(300, seed)
    assert not torch.equal(again[0], usual[0])
    assert float(again[1].max()) < largest
    monkeypatch.setattr(tasks, "DIVERGED", 0.2)
    with pytest.raises(InputError, match="steps=300: each of 20 draws diverges"):
        tasks.narma10(300)
