"""What makes an echo from nothing good? Echoes and readouts of several kinds beside a plain net, on the same text.

    python benchmarks/echo_from_nothing.py            about ten minutes of processor time
    python benchmarks/echo_from_nothing.py --small    tiny sizes, to see that it works; nothing is kept

Trained on 300,000 characters of `wikipedia`, scored on its test part, three seeds. The plain net sees 12 characters by
an embedding that is learned. The echoes' readouts have about as many weights. One echo is a delay line: its states hold
the last 12 characters side by side, each as 42 random numbers, and nothing else; it tells what of the difference is
the state and what is the readout. Results go to benchmarks/results/echo_from_nothing.json, which notebook 12 shows.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from frugal.corpora import excerpts, load_corpus
from frugal.device import processor
from frugal.evaluate import evaluate
from frugal.files import appearing
from frugal.frontier import Made, make_plain, quick_reservoir, train_echo
from frugal.reservoir import Reservoir

RESULTS = Path(__file__).parent / "results" / "echo_from_nothing.json"
SEEDS = (0, 1, 2)
STEPS = 12  # characters in a delay line, as many as the plain net sees
NUMBERS = 42  # for each of them


def fading(inputs: int, *, units: int = 512, seed: int) -> Reservoir:
    """Units of all speeds: leaks from 1 to 0.03."""
    return Reservoir(inputs, units, leak=torch.logspace(0, -1.5, units), fan_in=10, spectral_radius=0.9, seed=seed)


def unleaky(inputs: int, *, seed: int) -> Reservoir:
    """Without slow units: every unit's leak is 1."""
    return Reservoir(inputs, 512, fan_in=10, spectral_radius=0.9, seed=seed)


def delay_line(inputs: int, *, seed: int) -> Reservoir:
    """A shift register: W moves each block of numbers on by one place."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.zeros(STEPS * NUMBERS, STEPS * NUMBERS)
    W[NUMBERS:, :-NUMBERS] = torch.eye((STEPS - 1) * NUMBERS)
    W_in = torch.zeros(STEPS * NUMBERS, inputs)
    W_in[:NUMBERS] = torch.randn(NUMBERS, inputs, generator=generator)
    return Reservoir.from_matrices(W, W_in, activation="identity")


def kinds(seed: int) -> dict[str, Callable[..., Made]]:
    """What is compared: takes training and validation text."""
    softmax, layers = partial(train_echo, seed=seed), partial(train_echo, seed=seed, hidden=(100,))
    return {
        "plain net": lambda train, valid: make_plain(train, valid, 0, seed, "cpu"),
        "echo, softmax": partial(softmax, partial(fading, seed=seed)),
        "echo of 2,048 units, softmax": partial(softmax, partial(fading, units=2048, seed=seed)),
        "echo of byte pairs, softmax": partial(softmax, partial(fading, seed=seed), vocabulary=1000),
        "echo, hidden layer": partial(layers, partial(fading, seed=seed)),
        "quick echo, hidden layer": partial(layers, partial(unleaky, seed=seed)),
        "quick echo of byte pairs, hidden layer": partial(
            train_echo, partial(quick_reservoir, seed=seed), seed=seed, hidden=(128,), vocabulary=1000
        ),
        "delay line, softmax": partial(softmax, partial(delay_line, seed=seed)),
        "delay line, hidden layer": partial(layers, partial(delay_line, seed=seed)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny sizes; nothing is kept")
    small = parser.parse_args().small
    torch.set_num_threads(1)
    corpus = load_corpus("wikipedia")
    train = excerpts(corpus.train, 3_000 if small else 300_000)
    valid, test = (excerpts(part, 1_000 if small else 20_000) for part in (corpus.valid, corpus.test))
    rows = []
    for seed in SEEDS[:1] if small else SEEDS:
        for name, make in kinds(seed).items():
            made = make(train=train, valid=valid)
            bits = evaluate(made.model, test).bits_per_byte
            sizes = {"weights": made.parameters, "processor seconds": round(made.seconds, 1)}
            rows.append({"model": name, "seed": seed, "bits per byte": bits, **sizes, "setting": made.setting})
            print(rows[-1], flush=True)
    if not small:
        about = {
            "machine": f"{processor()}, one thread",
            "python": platform.python_version(),
            "command": " ".join(["python", *sys.argv]),
        }
        with appearing(RESULTS) as temporary:
            temporary.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
