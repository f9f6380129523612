"""Time and memory of piecewise layers beside high-order-layers-torch 2.6.0 and a plain linear layer.

    .venv/bin/python benchmarks/piecewise.py

The library is compared with where it can be imported, for example after
`pip install --no-deps --target /tmp/peer high-order-layers-torch==2.6.0`, with PYTHONPATH=/tmp/peer.

Every time is the median CPU time of forward and backward, input gradient included, on one thread, so that a busy
machine disturbs it little; the layers of a row take turns, so that it disturbs them alike. Peak memory is what a
fresh process adds to its inputs, weights and their gradients. Before a layer is timed, its outputs and gradients are
compared with the library's for the same weights; a difference beyond rounding ends the run. Results:
benchmarks/results/piecewise.json.
"""

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from frugal.device import processor
from frugal.files import write_text
from frugal.piecewise import PiecewisePolynomial, from_high_order_layers

try:
    from high_order_layers_torch import layers as library
except ImportError:
    library = None

WIDTH, BATCH = 128, 1000
NODES, SEGMENTS = (2, 3, 5), (2, 8, 32, 150)
RESULTS = Path(__file__).parent / "results" / "piecewise.json"


def one_layer(owner: str, nodes: int, segments: int, continuous: bool) -> nn.Module:
    """A layer of ours, of the library's, or a linear one, from WIDTH to WIDTH."""
    if owner == "linear":
        return nn.Linear(WIDTH, WIDTH)
    if owner == "ours":
        return PiecewisePolynomial(WIDTH, WIDTH, nodes, segments, continuous=continuous)
    make = library.PiecewisePolynomial if continuous else library.PiecewiseDiscontinuousPolynomial
    return make(nodes, WIDTH, WIDTH, segments=segments)


def check_agreement(nodes: int, segments: int, continuous: bool) -> None:
    """Stop unless the library's layer and ours compute the same from the same weights, gradients included."""
    ours, theirs = (one_layer(owner, nodes, segments, continuous) for owner in ("ours", "library"))
    nn.init.normal_(theirs.w)  # the library starts with constants, which would hide mistakes
    ours.load_state_dict(from_high_order_layers(theirs.state_dict()))
    x, results = torch.rand(50, WIDTH) * 2 - 1, []
    for layer in (ours, theirs):
        probe = x.clone().requires_grad_()
        y = layer(probe)
        weight = ours.weight if layer is ours else theirs.w
        results.append([y, *torch.autograd.grad(y.square().sum(), [probe, weight])])
    results[1][2] = results[1][2].permute(1, 2, 0)
    for a, b in zip(*results, strict=True):
        difference = float((a - b).abs().max() / b.abs().max())
        if difference > 1e-3:  # rounding, of which the larger part is the library's
            raise click.ClickException(f"{ours}: differs from the library's by {difference:.1e} of the largest")


def layer_step(layer: nn.Module) -> Callable[[], None]:
    """Forward and backward on random numbers of the domain."""
    x = (torch.rand(BATCH, WIDTH) * 2 - 1).requires_grad_()
    gradient = torch.randn(BATCH, WIDTH)

    def step() -> None:
        x.grad = None
        layer.zero_grad()
        layer(x).backward(gradient)

    return step


def training_step(owner: str) -> Callable[[], None]:
    """One step of the recipe with one hidden layer: 16 characters, 200 wide, next of 128 characters, Adam."""
    sizes = [(16, 200, 128), (200, 200, 2), (200, 128, 2)]
    if owner == "ours":
        maps: list[nn.Module] = [PiecewisePolynomial(i, o, 2, segments) for i, o, segments in sizes]
    else:
        maps = [library.PiecewisePolynomial(2, i, o, segments=segments) for i, o, segments in sizes]
    model = nn.Sequential(maps[0], nn.LayerNorm(200), maps[1], nn.LayerNorm(200), maps[2])
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    codes, targets = torch.randint(0, 128, (BATCH, 16)), torch.randint(0, 128, (BATCH,))
    x: Tensor = codes if owner == "ours" else (codes - 63.5) / 64

    def step() -> None:
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), targets).backward()
        optimiser.step()

    return step


def cpu_times(steps: dict[str, Callable[[], None]], repeats: dict[str, int]) -> dict[str, float]:
    """Return the median CPU milliseconds of each step; they take turns, after one run that does not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(max(repeats.values()) + 1):
        for name, step in steps.items():
            if turn > repeats[name]:
                continue
            begin = time.process_time()
            step()
            times[name].append((time.process_time() - begin) * 1000)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def added_memory(owner: str, nodes: int, segments: int, continuous: bool) -> float:
    """Return the peak MB that a step adds (Linux only); to be called in a process of its own."""
    torch.set_num_threads(1)
    layer_step(one_layer("linear", nodes, segments, continuous))()  # what torch itself takes when first used
    layer = one_layer(owner, nodes, segments, continuous)
    step = layer_step(layer)
    held = sum(p.numel() * p.element_size() for p in layer.parameters()) + 4 * BATCH * WIDTH  # the gradients
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = resident("VmRSS")
    for _ in range(2):
        step()
    return (resident("VmHWM") - before - held) / 1e6


def resident(kind: str) -> int:
    """Return the process's resident bytes now (VmRSS) or at their peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


def in_fresh_process(*case: object) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(added_memory, case)


@click.command()
@click.option("--repeats", default=15, show_default=True, help="Timed runs of each layer of ours.")
@click.option("--library-repeats", default=3, show_default=True, help="Timed runs of each layer of the library.")
def main(repeats: int, library_repeats: int) -> None:
    """Time the layers, print a table and write it as JSON."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    owners = ["linear", "ours", *(["library"] if library else [])]
    counts = {"linear": repeats, "ours": repeats, "library": library_repeats}
    rows = []
    click.echo("basis          nodes segments |  ours ms  x linear | library ms  x ours | added MB, library")
    for continuous in (True, False):
        for nodes in NODES:
            for segments in SEGMENTS:
                case = (nodes, segments, continuous)
                if library:
                    check_agreement(*case)
                times = cpu_times({o: layer_step(one_layer(o, *case)) for o in owners}, counts)
                memory = {"ours": in_fresh_process("ours", *case)}
                if library and segments == SEGMENTS[0]:  # its memory does not depend on the segments
                    memory["library"] = in_fresh_process("library", *case)
                library_memory = f"{memory['library']:8.0f}" if "library" in memory else ""
                rows.append({"nodes": nodes, "segments": segments, "continuous": continuous, "ms": times, "MB": memory})
                click.echo(
                    f"{'continuous' if continuous else 'discontinuous':<14} {nodes:5} {segments:8} | "
                    f"{times['ours']:8.1f} {times['ours'] / times['linear']:9.1f} | {compared(times)} | "
                    f"{memory['ours']:8.0f} {library_memory}"
                )
    training = cpu_times({o: training_step(o) for o in owners if o != "linear"}, counts)
    click.echo(f"training step, 16-200-200-128 {' ' * 2}| {training['ours']:8.1f} {'':9} | {compared(training)} |")
    machine = {"threads": 1, "processor": processor(), "torch": torch.__version__}
    result = {
        "machine": machine,
        "repeats": counts,
        "batch": BATCH,
        "width": WIDTH,
        "layers": rows,
        "training_step_ms": training,
    }
    write_text(RESULTS, json.dumps(result, indent=1) + "\n")


def compared(times: dict[str, float]) -> str:
    if "library" not in times:
        return f"{'absent':>10} {'':>7}"
    return f"{times['library']:10.0f} {times['library'] / times['ours']:7.0f}"


if __name__ == "__main__":
    main()
