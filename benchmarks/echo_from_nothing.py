"""What makes an echo from nothing good? Echoes and readouts of several kinds beside a plain net, on the same text.

    python benchmarks/echo_from_nothing.py            about twenty minutes of processor time
    python benchmarks/echo_from_nothing.py --small    tiny sizes, to see that it works; nothing is kept

Trained on 300,000 characters of `wikipedia`, scored on its test part, three seeds. All are trained alike: AdamW, half a
cosine, as many passes over the text, and for each kind that learning rate of three which validation text chooses with
the first seed. The nets see 12 characters, or 6 byte pairs; the plain one's embedding is learned. The echoes' readouts
have about as many weights. One echo is a delay line: its states hold the last 12 characters side by side, each as 42
random numbers, and nothing else; it tells what of the difference is the state and what is the readout. Results go to
benchmarks/results/echo_from_nothing.json, which notebook 12 shows.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from frugal.corpora import excerpts, load_corpus
from frugal.device import processor
from frugal.evaluate import evaluate
from frugal.files import appearing
from frugal.frontier import Documents, Made, make_net, quick_reservoir, train_echo
from frugal.reservoir import Reservoir

RESULTS = Path(__file__).parent / "results" / "echo_from_nothing.json"
SEEDS = (0, 1, 2)
RATES = (2e-3, 4e-3, 8e-3)
STEPS = 12  # characters in a delay line, as many as the plain net sees
NUMBERS = 42  # for each of them


def fading(inputs: int, *, units: int = 512, seed: int) -> Reservoir:
    """Units of all speeds: leaks from 1 to 0.03."""
    return Reservoir(inputs, units, leak=torch.logspace(0, -1.5, units), fan_in=10, spectral_radius=0.9, seed=seed)


def delay_line(inputs: int, *, seed: int) -> Reservoir:
    """A shift register: W moves each block of numbers on by one place."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.zeros(STEPS * NUMBERS, STEPS * NUMBERS)
    W[NUMBERS:, :-NUMBERS] = torch.eye((STEPS - 1) * NUMBERS)
    W_in = torch.zeros(STEPS * NUMBERS, inputs)
    W_in[:NUMBERS] = torch.randn(NUMBERS, inputs, generator=generator)
    return Reservoir.from_matrices(W, W_in, activation="identity")


def kinds() -> dict[str, Callable[..., Made]]:
    """What is compared: takes train, valid, seed and learning_rate by name."""

    def net(name: str, **settings: Any) -> Callable[..., Made]:
        def make(train: Documents, valid: Documents, seed: int, learning_rate: float) -> Made:
            return make_net(name, train, valid, seed, "cpu", learning_rate=learning_rate, **settings)

        return make

    def echo(reservoir: Callable[..., Reservoir], **settings: Any) -> Callable[..., Made]:
        def make(train: Documents, valid: Documents, seed: int, learning_rate: float) -> Made:
            of = partial(reservoir, seed=seed)
            return train_echo(of, train, valid, seed, learning_rate=learning_rate, **settings)

        return make

    pairs = {"vocabulary": 1000}
    return {
        "plain net": net("low_order_mlp", weights=71_000),
        "plain net, three passes": net("low_order_mlp", weights=71_000, examples=800_000),
        "piecewise net": net("large_single_layer", weights=71_000),
        "echo, softmax": echo(fading),
        "echo of 2,048 units, softmax": echo(partial(fading, units=2048)),
        "echo, hidden layer": echo(fading, hidden=(100,)),
        "quick echo, hidden layer": echo(quick_reservoir, hidden=(100,)),
        "delay line, softmax": echo(delay_line),
        "delay line, hidden layer": echo(delay_line, hidden=(100,)),
        "plain net of byte pairs": net("low_order_mlp", weights=195_000, context_length=6, **pairs),
        "quick echo of byte pairs, hidden layer": echo(quick_reservoir, hidden=(128,), **pairs),
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
    for name, make in kinds().items():
        tried = {rate: make(train, valid, SEEDS[0], rate) for rate in RATES}
        best = min(tried, key=lambda rate: evaluate(tried[rate].model, valid).bits_per_byte)
        for seed in SEEDS[:1] if small else SEEDS:
            made = tried[best] if seed == SEEDS[0] else make(train, valid, seed, best)
            bits = evaluate(made.model, test).bits_per_byte
            sizes = {"weights": made.parameters, "processor seconds": round(made.seconds, 1)}
            setting = f"{made.setting}, rate {best}"
            rows.append({"model": name, "seed": seed, "bits per byte": bits, **sizes, "setting": setting})
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
