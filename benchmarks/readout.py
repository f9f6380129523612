"""Ridge readout over a whole vocabulary: CPU seconds and memory, beside the ridge of scikit-learn and reservoirpy.

    python benchmarks/readout.py            the full case: 100,000 tokens, 1,024 units, 49,152 tokens to predict
    python benchmarks/readout.py --small    a few seconds, to see that it works

Each measurement is a process of its own with one thread. Random states are made outside the timing; tokens follow
Zipf's law, as words do, or are uniform, so that nearly all occur. The peers take the targets as a dense one-hot matrix;
they are given the largest vocabulary whose matrices fit into --memory. Results go to benchmarks/results/readout.json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results" / "readout.json"
CHUNK = 4096
ALPHA = 1e-2  # in units of the mean eigenvalue; random states of unit variance have a mean eigenvalue of `tokens`
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each case")
    parser.add_argument("--memory", type=float, default=8.0, help="GB that a peer's targets and solution may take")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # a measuring process
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(**json.loads(arguments.case))))
        return
    T, N, V = (5_000, 128, 4_000) if arguments.small else (100_000, 1_024, 49_152)
    cases = [case("frugal", T, N, V, "zipf"), case("frugal", T, N, V, "uniform")]
    for peer, module in (("scikit-learn", "sklearn"), ("reservoirpy", "reservoirpy")):
        if find_spec(module) is None:
            print(f"{peer} is not installed: left out (pip install {peer})")
            continue
        largest = min(V, int(arguments.memory * 1e9 / (3 * 8 * T)))  # targets, a centred copy, room for products
        cases += [case(peer, T, N, largest, "uniform"), case("frugal", T, N, largest, "uniform")]
    measured = [run(**one) for _ in range(arguments.repeats) for one in cases]  # alternating
    table = [summary(one, [m for m in measured if m["case"] == one]) for one in cases]
    print(f"{'':14}{'tokens':>9}{'units':>7}{'vocabulary':>12}{'targets':>9}{'CPU s':>8}{'peak MB':>9}{'extra MB':>10}")
    for row in table:
        print(
            "{library:14}{T:9,}{N:7,}{V:12,}{targets:>9}{cpu_seconds:8.2f}{peak_mb:9,.0f}{extra_mb:10,.0f}".format(
                **row
            )
        )
    print("one thread; medians; extra memory is the peak less what the process had taken before the first row")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(table, indent=2) + "\n")


def case(library: str, T: int, N: int, V: int, targets: str) -> dict[str, Any]:
    return {"library": library, "T": T, "N": N, "V": V, "targets": targets}


def run(**one: Any) -> dict[str, Any]:
    """Measure one case in a process of its own."""
    command = [sys.executable, __file__, "--case", json.dumps(one)]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True)
    if done.returncode:
        print(f"{one}: ended with {done.returncode}\n{done.stderr[-500:]}", file=sys.stderr)
        return {"case": one, "cpu_seconds": float("nan"), "peak_mb": float("nan"), "extra_mb": float("nan")}
    return {"case": one, **json.loads(done.stdout)}


def summary(one: dict[str, Any], measured: list[dict[str, Any]]) -> dict[str, Any]:
    return one | {name: median(m[name] for m in measured) for name in ("cpu_seconds", "peak_mb", "extra_mb")}


def measure(library: str, T: int, N: int, V: int, targets: str) -> dict[str, float]:
    fit = {"frugal": frugal, "scikit-learn": scikit_learn, "reservoirpy": reservoirpy}[library]
    return fit(T, N, V, targets)


def frugal(T: int, N: int, V: int, targets: str) -> dict[str, float]:
    """Statistics in one pass, generalised cross-validation over five penalties, and the solution."""
    import torch

    from frugal.readout import RidgeReadout
    from frugal.ridge import RidgeStatistics

    torch.set_num_threads(1)
    tokens = torch.from_numpy(some_tokens(T, V, targets))
    generator = torch.Generator().manual_seed(0)
    states = torch.empty(CHUNK, N)
    before, spent = peak_mb(), 0.0
    statistics = RidgeStatistics.empty(N, V)
    for begin in range(0, T, CHUNK):
        following = tokens[begin : begin + CHUNK]
        piece = states[: len(following)].normal_(generator=generator)
        start = time.process_time()
        statistics.add(piece, following)
        spent += time.process_time() - start
    start = time.process_time()
    RidgeReadout.fit(statistics, alphas=[1e-4, 1e-3, ALPHA, 1e-1, 1.0])
    return {"cpu_seconds": spent + time.process_time() - start, **memory_since(before)}


def scikit_learn(T: int, N: int, V: int, targets: str) -> dict[str, float]:
    """One penalty, Cholesky solver, dense one-hot targets; making them counts, since the method needs them."""
    import numpy as np
    from sklearn.linear_model import Ridge

    states, tokens = np.random.default_rng(0).standard_normal((T, N)), some_tokens(T, V, targets)
    before, start = peak_mb(), time.process_time()
    Ridge(alpha=ALPHA * T, solver="cholesky").fit(states, one_hot(tokens, V))
    return {"cpu_seconds": time.process_time() - start, **memory_since(before)}


def reservoirpy(T: int, N: int, V: int, targets: str) -> dict[str, float]:
    """As scikit-learn's."""
    import numpy as np
    from reservoirpy.nodes import Ridge

    states, tokens = np.random.default_rng(0).standard_normal((T, N)), some_tokens(T, V, targets)
    before, start = peak_mb(), time.process_time()
    Ridge(ridge=ALPHA * T).fit(states, one_hot(tokens, V))
    return {"cpu_seconds": time.process_time() - start, **memory_since(before)}


def some_tokens(T: int, V: int, targets: str) -> Any:
    """T tokens below V: uniform, or with a frequency inverse to their rank."""
    import numpy as np

    weights = np.ones(V) if targets == "uniform" else 1 / np.arange(1, V + 1)
    return np.random.default_rng(1).choice(V, T, p=weights / weights.sum())


def one_hot(tokens: Any, V: int) -> Any:
    import numpy as np

    targets = np.zeros((len(tokens), V))
    targets[np.arange(len(tokens)), tokens] = 1
    return targets


def memory_since(before: float) -> dict[str, float]:
    return {"peak_mb": peak_mb(), "extra_mb": peak_mb() - before}


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
