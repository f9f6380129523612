"""Forward-forward on digits: test error and CPU seconds, and the cost of a training step, beside fflib.

    python benchmarks/forward_forward.py            five seeds of every classifier (about 4 CPU minutes)
    python benchmarks/forward_forward.py --small    a few seconds, to see that it works

One thread. The protocol: scikit-learn's 1,797 digits, pixels in 0 to 1, 360 held out, stratified. scikit-learn's own
splits are taken where it is installed (`pip install scikit-learn==1.9.1`), so that errors can be compared seed by seed.
fflib (`pip install fflib`) is left out where it is not installed. Steps are measured at equal layers and batch, in
alternation: a step of fflib trains the layers alone, one of ours the layers, and once more the layers and the head.
Results go to benchmarks/results/forward_forward.json.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import Tensor

from frugal.forward_forward import (
    BackpropClassifier,
    ForwardForwardClassifier,
    ForwardForwardNet,
    ImagePlan,
    UnsupervisedForwardForward,
    load_digits,
    stratified_split,
)
from frugal.forward_forward.net import uniform_wrong
from frugal.forward_forward.optimizer import net_optimizer

RESULTS = Path(__file__).parent / "results" / "forward_forward.json"
HIDDEN = (500, 500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny sizes; nothing is written")
    small = parser.parse_args().small
    torch.set_num_threads(1)
    seeds, epochs, steps = (range(1), 2, 5) if small else (range(5), 60, 60)
    images, labels = load_digits()
    errors = classifiers(images, labels, seeds, epochs)
    speed = training_steps(images, labels, steps)
    for row in errors:
        print("{classifier:44}{error:6.2f} % ±{deviation:5.2f}{cpu_seconds:8.1f} CPU s a seed".format(**row))
    for row in speed:
        print("{step:44}{layers:>12}{batch:6}{milliseconds:9.2f} ms{ratio_to_fflib:8.2f} of fflib's".format(**row))
    if not small:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps({"digits": errors, "steps": speed}, indent=2) + "\n")


def classifiers(images: Tensor, labels: Tensor, seeds: range, epochs: int) -> list[dict[str, Any]]:
    kinds: dict[str, Callable[[ImagePlan], Any]] = {
        "supervised": lambda plan: ForwardForwardClassifier(64, hidden=HIDDEN, plan=plan),
        "unsupervised": lambda plan: UnsupervisedForwardForward((8, 8), hidden=HIDDEN, plan=plan),
        "backpropagation": lambda plan: BackpropClassifier(64, hidden=HIDDEN, plan=plan),
    }
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in seeds:
        train, test = split(labels, seed)
        for name, build in kinds.items():
            start = time.process_time()
            model = build(ImagePlan(epochs=epochs, seed=seed)).fit(images[train], labels[train])
            seconds = time.process_time() - start
            found.setdefault(name, []).append((100 * model.error(images[test], labels[test]), seconds))
            if name == "supervised":
                model.read_by = "softmax"
                error = 100 * model.error(images[test], labels[test])
                found.setdefault("supervised, read by softmax", []).append((error, seconds))
    return [
        {
            "classifier": name,
            "error": mean(error for error, _ in runs),
            "deviation": stdev(error for error, _ in runs) if len(runs) > 1 else 0.0,
            "errors": [error for error, _ in runs],
            "cpu_seconds": median(seconds for _, seconds in runs),
        }
        for name, runs in found.items()
    ]


def split(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Places to train and to test on: scikit-learn's, if it is installed."""
    if find_spec("sklearn") is None:
        return stratified_split(labels, 360, seed)
    from sklearn.model_selection import train_test_split

    parts = train_test_split(range(len(labels)), test_size=360, stratify=labels, random_state=seed)
    return torch.tensor(parts[0]), torch.tensor(parts[1])


def training_steps(images: Tensor, labels: Tensor, steps: int) -> list[dict[str, Any]]:
    """Median CPU milliseconds of a step on 2 layers of 500 and 3 of 1,000."""
    rows = []
    for hidden, batch in (((500, 500), 128), ((1000, 1000, 1000), 100)):
        x, y = images[:batch], labels[:batch]
        kinds = {"layers": our_step(hidden, x, y, False), "layers and head": our_step(hidden, x, y, True)}
        if find_spec("fflib") is None:
            print("fflib is not installed: left out (pip install fflib)")
        else:
            kinds["fflib, layers"] = fflib_step(hidden, x, y)
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(steps):
            for name, step in kinds.items():
                start = time.process_time()
                step()
                times[name].append(1e3 * (time.process_time() - start))
        peer = median(times.get("fflib, layers", [float("nan")]))
        for name, taken in times.items():
            layers = " x ".join(map(str, hidden))
            row = {"step": name, "layers": layers, "batch": batch, "milliseconds": median(taken)}
            rows.append(row | {"ratio_to_fflib": median(taken) / peer})
    return rows


def our_step(hidden: tuple[int, ...], x: Tensor, y: Tensor, head: bool) -> Callable[[], None]:
    net, random = ForwardForwardNet(64, hidden, 10), torch.Generator().manual_seed(0)
    optimizer = net_optimizer(net, 1e-3)

    def step() -> None:
        if head:
            net.set_head_gradient(x, y)
        net.set_gradients(x, y, uniform_wrong(10, y, random))
        optimizer.step()

    return step


def fflib_step(hidden: tuple[int, ...], x: Tensor, y: Tensor) -> Callable[[], None]:
    from fflib.nn.ff_linear import FFLinear
    from fflib.nn.ff_net import FFNet

    sizes = (74, *hidden)
    layers = [FFLinear(before, after, 2.0, 1e-3) for before, after in zip(sizes, hidden, strict=False)]
    net, random = FFNet(layers, None), torch.Generator().manual_seed(0)
    one_hot = torch.eye(10)

    def step() -> None:
        wrong = uniform_wrong(10, y, random)
        net.run_train_combined(torch.cat([x, one_hot[y]], 1), torch.cat([x, one_hot[wrong]], 1))

    return step


if __name__ == "__main__":
    main()
