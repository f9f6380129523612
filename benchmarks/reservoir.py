"""State collection beside reservoirpy 0.4.2, rclib 0.2.0 and a plain torch loop.

    .venv/bin/python benchmarks/reservoir.py

The libraries are compared with where they can be imported, for example with PYTHONPATH=/tmp/peer after
`pip install --no-deps --target /tmp/peer reservoirpy==0.4.2 joblib cloudpickle rclib==0.2.0`.

Rates are tokens (streams times steps) a second of CPU time on one thread, medians; those of a row take turns, so
that a busy machine disturbs them alike. Every library runs at its own defaults; slow ones get fewer steps. "input
product" is W_in x alone for all steps at once, "state product" W s alone for all streams: what no dense code can
beat. Results: benchmarks/results/reservoir.json.
"""

import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch

from frugal.device import processor
from frugal.files import write_text
from frugal.reservoir import Reservoir, run_parallel

STEPS = 10_000
TOKENS = 32_000  # at most, over all streams
SECONDS = 1.0  # a turn of a slow contestant
TURNS = 3
LEAK, RADIUS = 0.5, 0.9
RESULTS = Path(__file__).parent / "results" / "reservoir.json"
INSTALLED = {name: importlib.util.find_spec(name) is not None for name in ("reservoirpy", "rclib")}

Contestant = Callable[[np.ndarray], object]  # takes inputs [B, T, d]


def ours(size: int, width: int, **settings: float) -> Contestant:
    reservoir = Reservoir(width, size, leak=LEAK, spectral_radius=RADIUS, **settings)  # type: ignore[arg-type]
    return lambda inputs: reservoir.run(torch.from_numpy(inputs))


def ours_in_lanes(size: int, width: int, **settings: float) -> Contestant:
    reservoir = Reservoir(width, size, leak=LEAK, spectral_radius=RADIUS, **settings)  # type: ignore[arg-type]
    return lambda inputs: run_parallel(reservoir, torch.from_numpy(inputs[0]), 1e-4)


def reservoirpy(size: int, width: int) -> Contestant:
    from reservoirpy.nodes import Reservoir as Node

    node = Node(size, lr=LEAK, sr=RADIUS, seed=0)
    node.run(np.zeros((2, width)))
    return lambda inputs: [node.run(stream) for stream in inputs]


def rclib(size: int, width: int) -> Contestant:
    from rclib._rclib import RandomSparseReservoir  # its public class runs whole models only

    node = RandomSparseReservoir(size, spectral_radius=RADIUS, sparsity=0.1, leak_rate=LEAK, input_scaling=1.0)
    return lambda inputs: [node.advance(row) for stream in inputs for row in stream[:, None]]


def torch_loop(size: int, width: int) -> Contestant:
    dense = Reservoir(width, size, topology="dense", leak=LEAK, spectral_radius=RADIUS)
    W = dense.W.contiguous()

    def run(inputs: np.ndarray) -> torch.Tensor:
        projected = torch.from_numpy(inputs) @ dense.W_in.T
        state, states = dense.start(len(inputs)), torch.empty_like(projected)
        for t in range(projected.shape[1]):
            state = (1 - LEAK) * state + LEAK * torch.tanh(projected[:, t] + state @ W.T)
            states[:, t] = state
        return states

    return run


def input_product(size: int, width: int) -> Contestant:
    W_in = torch.randn(size, width)
    return lambda inputs: torch.from_numpy(inputs) @ W_in.T


def state_product(size: int, width: int) -> Contestant:
    W = torch.randn(size, size)

    def run(inputs: np.ndarray) -> None:
        state = torch.randn(len(inputs), size)
        for _ in range(inputs.shape[1]):
            state @ W.T

    return run


def cpu_seconds(contestant: Contestant, inputs: np.ndarray) -> float:
    begin = time.process_time()
    contestant(inputs)
    return time.process_time() - begin


def rates(contestants: dict[str, Contestant], streams: int, width: int) -> dict[str, float]:
    """Tokens a second of each, median over turns; each gets as many steps as SECONDS allow."""
    rng = np.random.default_rng(0)
    steps = {}
    for name, contestant in contestants.items():
        trial = rng.standard_normal((streams, 64, width), dtype=np.float32)
        contestant(trial)  # compiles, warms up
        affordable = int(64 * SECONDS / cpu_seconds(contestant, trial))
        steps[name] = max(64, min(STEPS, TOKENS // streams, affordable))
    inputs = rng.standard_normal((streams, max(steps.values()), width), dtype=np.float32)
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(TURNS):
        for name, contestant in contestants.items():
            seconds[name].append(cpu_seconds(contestant, inputs[:, : steps[name]]))
    return {name: streams * steps[name] / statistics.median(seconds[name]) for name in contestants}


def report(title: str, found: dict[str, float], yardstick: str) -> dict[str, object]:
    click.echo(f"\n{title}")
    for name, rate in found.items():
        beside = f"{rate / found[yardstick]:8.2f} x {yardstick}" if yardstick in found else ""
        click.echo(f"  {name:34}{rate:12,.0f} tokens/s{beside}")
    return {"case": title, "tokens_per_second": {name: round(rate) for name, rate in found.items()}}


def against_libraries(size: int, width: int, streams: int) -> dict[str, object]:
    """Every implementation at its own defaults."""
    contestants = {"ours": ours(size, width), "torch loop, dense": torch_loop(size, width)}
    if streams == 1:
        contestants["ours, run_parallel"] = ours_in_lanes(size, width)
    for peer in (reservoirpy, rclib):
        if INSTALLED[peer.__name__]:
            contestants[peer.__name__] = peer(size, width)
    contestants["input product"] = input_product(size, width)
    title = f"N={size}, d={width}, {streams} stream{'s' if streams > 1 else ''}"
    return report(title, rates(contestants, streams, width), "reservoirpy")


def at_equal_density(size: int) -> dict[str, object]:
    """A tenth of all connections, which is reservoirpy's default."""
    tenth = size // 10
    contestants = {
        f"ours, fan_in={tenth}": ours(size, 1, fan_in=tenth),
        "ours, sparse": ours(size, 1, topology="sparse", connectivity=0.1),
        "ours, sparse, run_parallel": ours_in_lanes(size, 1, topology="sparse", connectivity=0.1),
    }
    if INSTALLED["reservoirpy"]:
        contestants["reservoirpy"] = reservoirpy(size, 1)
    return report(f"N={size}, d=1, 1 stream, density 10 %", rates(contestants, 1, 1), "reservoirpy")


def dense_streams(size: int, streams: int) -> dict[str, object]:
    """All connections, many streams in step."""
    contestants = {
        "ours, dense": ours(size, 1, topology="dense"),
        "torch loop, dense": torch_loop(size, 1),
        "state product": state_product(size, 1),
    }
    return report(f"N={size}, d=1, {streams} streams, dense", rates(contestants, streams, 1), "state product")


@click.command()
@click.option("--sizes", default="100,500,1024,4096", help="Reservoir sizes, with commas between.")
def main(sizes: str) -> None:
    torch.set_num_threads(1)
    for name, there in INSTALLED.items():
        if not there:
            click.echo(f"{name} is not installed: compared without it")
    cases = []
    for size in map(int, sizes.split(",")):
        for width in (1, 576):
            cases += [against_libraries(size, width, streams) for streams in (1, 16)]
        cases.append(at_equal_density(size))
        cases += [dense_streams(size, streams) for streams in (16, 128)]
    machine = {"processor": processor(), "threads": 1, "torch": torch.__version__}
    write_text(RESULTS, json.dumps({"machine": machine, "peers": INSTALLED, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
