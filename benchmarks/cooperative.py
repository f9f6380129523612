"""Cooperative training beside maximum likelihood: divergence from a known oracle, cost per token, gradient noise.

    python benchmarks/cooperative.py            three seeds, about 15 minutes of one core
    python benchmarks/cooperative.py --small    half a minute, to see that it works

The worlds are random LSTM oracles: 50 symbols of length 20 (10,000 sequences to learn from), and 4 symbols of length 6
(2,000 sequences), where every sequence can be listed. Rows: likelihood for as many steps as cooperative training takes,
and for as much processor time; the best temperature of each by jsd_step. One thread. Results go to
benchmarks/results/cooperative.json, world by world.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from frugal.combine import Tempered
from frugal.cooperative import (
    CooperativePlan,
    CooperativeTrainer,
    LikelihoodTrainer,
    Oracle,
    SequencePlan,
    gradient_noise,
)
from frugal.cooperative.training import SequenceTrainer
from frugal.files import write_text

RESULTS = Path(__file__).parent / "results" / "cooperative.json"
TEMPERATURES = (0.7, 0.8, 0.9, 1.1)
# symbols, length, oracle's units, sequences, generator's units, mediator's units, steps, highest learning rates
WORLDS = {
    "50 symbols, length 20": (50, 20, 32, 10_000, 32, 64, 5000, 1e-2, 1e-2),
    "4 symbols, length 6": (4, 6, 8, 2_000, 8, 16, 3000, 5e-3, 1e-2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a few steps, one seed, nothing written")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table: list[dict[str, Any]] = []
    for seed in range(1 if arguments.small else arguments.seeds):
        for name in WORLDS:
            table += compare(name, seed, 40 if arguments.small else None)
            if not arguments.small:
                write_text(RESULTS, json.dumps(table, indent=2) + "\n")
    for name in WORLDS:
        heads = ("jsd_step", "jsd", "nll_test", "nll_oracle", "H(G)", "CPU s")
        print(f"\n{name:42}{'steps':>6}" + "".join(f"{head:>11}" for head in heads))
        for row_name in dict.fromkeys(row["row"] for row in table):
            rows = [row for row in table if (row["world"], row["row"]) == (name, row_name)]
            columns = ("steps", "jsd_step", "jsd", "nll_test", "nll_oracle", "entropy", "cpu_seconds")
            values = [mean(row[column] for row in rows) for column in columns]
            print("{:42}{:6.0f}{:11.4f}{:11.4f}{:11.3f}{:11.3f}{:11.3f}{:11.1f}".format(row_name, *values))
        costs = [row["cost_ratio"] for row in table if row["world"] == name and "cost_ratio" in row]
        print(f"cost per token and step: {median(costs):.2f} times likelihood's")
    print("\nmeans over seeds; noise of the generator's gradient, variance over squared mean:")
    for row in table:
        if "noise" in row:
            print(f"{row['world']}, seed {row['seed']}:", {key: round(value, 2) for key, value in row["noise"].items()})


def compare(world: str, seed: int, steps: int | None) -> list[dict[str, Any]]:
    """All rows of one world and seed."""
    V, T, hidden, count, units, mediator_units, full, rate, mediator_rate = WORLDS[world]
    steps = steps or full
    oracle = Oracle(V, T, hidden, seed)
    data, held_out = oracle.sequences(count, seed=0), oracle.sequences(256, seed=7)
    mediator, generator = oracle.learner(mediator_units, seed=2), oracle.learner(units, seed=1)
    plan = CooperativePlan(steps=steps, epochs=1, learning_rate=rate, mediator_rate=mediator_rate, seed=seed)
    cooperative = CooperativeTrainer(generator, mediator, data, held_out, plan)

    def likelihood(steps: int) -> LikelihoodTrainer:
        plan = SequencePlan(steps=steps, epochs=1, learning_rate=rate, seed=seed)
        return LikelihoodTrainer(oracle.learner(units, seed=1), data, held_out, plan)

    rows = trained("cooperative", oracle, cooperative)
    rows += trained("likelihood, same steps", oracle, likelihood(steps))
    ratio = rows[0]["cpu_seconds"] / rows[-1]["cpu_seconds"]
    rows += trained("likelihood, same time", oracle, likelihood(round(ratio * steps)))
    noise = gradient_noise(generator, mediator, data)
    rows[0] |= {"cost_ratio": ratio, "noise": {name: found.ratio for name, found in noise.items()}}
    rows[0] |= {"variance": {name: found.variance for name, found in noise.items()}}
    return [{"world": world, "seed": seed, **row} for row in rows]


def trained(name: str, oracle: Oracle, trainer: SequenceTrainer) -> list[dict[str, Any]]:
    """Train; the scores of the generator as it is and at the temperature that suits it best."""
    log = trainer.train()
    scores = {1.0: oracle.compare(trainer.generator)}
    scores |= {t: oracle.compare(Tempered(trainer.generator, t)) for t in TEMPERATURES}
    best = min(scores, key=lambda t: scores[t].jsd_step)
    about = {"steps": trainer.plan.steps, "cpu_seconds": log[-1].seconds}
    return [
        {"row": name, **about, "temperature": 1.0, **asdict(scores[1.0])},
        {"row": f"{name}, best temperature", **about, "temperature": best, **asdict(scores[best])},
    ]


if __name__ == "__main__":
    main()
