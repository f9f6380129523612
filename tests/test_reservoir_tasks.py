"""The standard tasks' series and protocols, at sizes that run in seconds; full ones are in benchmarks/."""

import math

import pytest
import torch

from frugal.errors import InputError
from frugal.reservoir import Reservoir, capacity, tasks

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


def test_a_reservoir_with_another_number_of_inputs_is_refused() -> None:
    with pytest.raises(InputError, match="this task needs input_size=3"):
        tasks.score_lorenz(Reservoir(1, 20, dtype=D), ridge=1e-9)


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
