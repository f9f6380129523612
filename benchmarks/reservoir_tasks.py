"""The standard tasks at full size, five seeds, for the default topology and independent connections of equal number.

    .venv/bin/python benchmarks/reservoir_tasks.py

Protocols are those of `frugal.reservoir.tasks` and `frugal.reservoir.capacity`; the settings were chosen on another
seed. Results: benchmarks/results/reservoir_tasks.json.
"""

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import click
import torch

from frugal.files import write_text
from frugal.reservoir import Reservoir, capacity, tasks

SEEDS = range(5)
RESULTS = Path(__file__).parent / "results" / "reservoir_tasks.json"

Draw = Callable[..., Reservoir]


def sparse(size: int, seed: int, connectivity: float, *, width: int = 1, **settings: float) -> Reservoir:
    settings |= {"connectivity": connectivity}
    return Reservoir(width, size, topology="sparse", seed=seed, dtype=torch.float64, **settings)  # type: ignore[arg-type]


def fan_in(size: int, seed: int, connectivity: float, *, width: int = 1, **settings: float) -> Reservoir:
    """The default topology with as many connections."""
    connections = round(connectivity * size)
    return Reservoir(width, size, fan_in=connections, seed=seed, dtype=torch.float64, **settings)  # type: ignore[arg-type]


def mackey_glass(draw: Draw, seed: int) -> float:
    reservoir = draw(1000, seed, 0.01, spectral_radius=1.0, bias_scale=0.2)
    return math.log10(tasks.score_mackey_glass(reservoir, ridge=1e-14, seed=seed).nrmse84)


def narma10(draw: Draw, seed: int) -> float:
    reservoir = draw(200, seed, 0.1, spectral_radius=0.8, input_scale=0.02, bias_scale=0.2)
    return tasks.score_narma10(reservoir, ridge=1e-14, seed=seed)


def lorenz_300(draw: Draw, seed: int) -> float:
    reservoir = draw(300, seed, 0.1, width=3, spectral_radius=0.6, input_scale=0.2, bias_scale=0.5)
    return float(tasks.score_lorenz(reservoir, ridge=1e-9, seed=seed).mean())


def lorenz_1000(draw: Draw, seed: int) -> float:
    reservoir = draw(1000, seed, 0.02, width=3, spectral_radius=0.9, input_scale=0.2, bias_scale=0.5)
    return float(tasks.score_lorenz(reservoir, ridge=1e-9, seed=seed).mean())


def memory_tanh(draw: Draw, seed: int) -> float:
    return capacity.memory_capacity(draw(100, seed, 0.1, input_scale=0.1), seed=seed).total


def memory_ring(draw: Draw, seed: int) -> float:
    ring = Reservoir(1, 100, topology="ring", spectral_radius=0.95, activation="identity", seed=seed)
    return capacity.memory_capacity(ring, seed=seed).total


def processing(draw: Draw, seed: int) -> float:
    """Share of 50 units' capacity that is found."""
    reservoir = draw(50, seed, 0.2, bias_scale=0.5)
    found = capacity.information_processing_capacity(reservoir, seed=seed)
    if found.total > found.rank:
        raise AssertionError(
            f"a capacity of {found.total} exceeds the rank of {found.rank}: states or search are wrong"
        )
    return found.total / reservoir.size


SCORES = {
    "Mackey-Glass, N=1000, log10 NRMSE84": mackey_glass,
    "NARMA-10, N=200, NRMSE": narma10,
    "Lorenz, N=300, Lyapunov times": lorenz_300,
    "Lorenz, N=1000, Lyapunov times": lorenz_1000,
    "memory capacity, tanh, N=100": memory_tanh,
    "memory capacity, linear ring, N=100": memory_ring,
    "processing capacity, N=50, share": processing,
}


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for draw in (fan_in, sparse):
        for name, score in SCORES.items():
            values = [score(draw, seed) for seed in SEEDS]
            middle, mean = statistics.median(values), statistics.fmean(values)
            seeds = " ".join(f"{value:.4g}" for value in values)
            click.echo(f"{draw.__name__:8}{name:38}median {middle:<8.4g}mean {mean:<8.4g}seeds {seeds}")
            rows.append({"topology": draw.__name__, "score": name, "median": middle, "mean": mean, "seeds": values})
    write_text(RESULTS, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
