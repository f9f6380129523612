"""Does an echo help a readout on a frozen GPT, added or joined by a product, when the window is short?

    python benchmarks/echo_on_gpt.py                      60,000 characters, window 32: 40 minutes or so of one core
    python benchmarks/echo_on_gpt.py --characters 250000  more text; likewise four times as long
    python benchmarks/echo_on_gpt.py --window 8           a shorter window
    python benchmarks/echo_on_gpt.py --small              a minute, to see that it works; nothing is kept

SmolLM2 on `wikipedia`; residual readouts tied to its head, two epochs, three seeds of echo and readout. "probe" reads
the GPT's feature alone, "echo" feature and state; "linear" adds a linear map of them, "hidden layer" one with 256 GELU
units, in which feature and state meet. Controls: an echo that is reset with each window, and so knows no more than it.
Differences from the probe of the same kind, with intervals by document, go to benchmarks/results/echo_on_gpt.json as
soon as they are measured; an interrupted run goes on where it stopped.
"""

import argparse
import json
import platform
from pathlib import Path
from typing import Any, Literal

import torch

from frugal.corpora import excerpts, load_corpus
from frugal.device import processor
from frugal.evaluate import Scores, bootstrap_difference, evaluate
from frugal.files import appearing
from frugal.foundation import load_foundation
from frugal.readout import EchoLanguageModel, ReadoutPlan, SoftmaxReadout, train_readout
from frugal.reservoir import Reservoir
from frugal.ridge import RidgeStatistics
from frugal.training import seed_everything

RESULTS = Path(__file__).parent / "results" / "echo_on_gpt.json"
SEEDS = (0, 1, 2)
HIDDEN: dict[str, tuple[int, ...]] = {"linear": (), "hidden layer": (256,)}
UNITS = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="little text; nothing is kept")
    parser.add_argument("--characters", type=int, default=60_000, help="of training text")
    parser.add_argument("--window", type=int, default=32, help="tokens that the GPT sees at once")
    arguments = parser.parse_args()
    small, window = arguments.small, arguments.window
    torch.set_num_threads(1)
    corpus, gpt = load_corpus("wikipedia"), load_foundation("tiny-gpt2" if small else "smollm2")
    characters = 2_000 if small else arguments.characters
    train = excerpts(corpus.train, characters)
    valid, test = (excerpts(part, 1_000 if small else 24_000) for part in (corpus.valid, corpus.test))
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() and not small else []
    for seed in SEEDS[:1] if small else SEEDS:
        here = {"characters": characters, "window": window, "seed": seed}
        if any(here.items() <= row.items() for row in rows):
            continue
        leak = torch.logspace(torch.tensor(0.2).log10(), torch.tensor(0.005).log10(), UNITS)
        settings: dict[str, Any] = {"topology": "sparse", "connectivity": 0.05, "input_scale": 0.03}
        echo = Reservoir(gpt.hidden_size, UNITS, leak=leak, seed=seed, **settings)
        for layers, hidden in HIDDEN.items():
            scores: dict[str, Scores] = {}
            for kind, reservoir in (("probe", None), ("echo", echo), ("reset echo", echo)):
                seed_everything(seed)
                width = gpt.hidden_size + (0 if reservoir is None else UNITS)
                readout = SoftmaxReadout(width, gpt.hidden_size, hidden=hidden, tied=True, seed=seed)
                reset: Literal["window", "document"] = "window" if kind == "reset echo" else "document"
                model = EchoLanguageModel(
                    gpt, reservoir, readout, join="residual", drive="tokens", context=window, reset=reset
                )
                learn, judge = (model.rows(part).kept() for part in (train, valid))
                readout.whiten(RidgeStatistics.of_inputs(x for x, _ in learn), shrinkage=1.0)
                plan = ReadoutPlan(epochs=1 if small else 2, learning_rate=2e-4, batch_size=128, seed=seed)
                train_readout(model, learn, judge, plan)
                scores[kind] = evaluate(model, test)
                found = bootstrap_difference(scores[kind], scores["probe"])
                difference = {"difference": found.bits_per_byte, "low": found.low, "high": found.high}
                row = {"readout": layers, "model": kind, "bits per byte": scores[kind].bits_per_byte}
                rows.append(here | row | difference)
                print(rows[-1], flush=True)
        if not small:
            kept = {"machine": f"{processor()}, one thread", "python": platform.python_version(), "rows": rows}
            with appearing(RESULTS) as temporary:
                temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
