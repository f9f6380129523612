"""Ridge statistics of one corpus by 1 and by 2 workers, and what a billion tokens would cost.

    python benchmarks/shards.py             20,000 tokens of Wikipedia articles, 4 shards: some five minutes
    python benchmarks/shards.py --small     3,000 tokens, to see that it works

SmolLM2's features at a window of 64 and an echo of 512 units. Workers are processes of one thread each; every
measurement starts without cached features. The sums are compared with those of one pass in this process, whose CPU
seconds per token, split into features, states and sums, are what the extrapolation rests on.
Results go to benchmarks/results/shards.json.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from frugal.corpora import Document, load_corpus
from frugal.files import data_folder
from frugal.foundation import load_foundation
from frugal.lab.sweep import Site
from frugal.lab.sweep.shards import collect_shards
from frugal.readout import EchoLanguageModel
from frugal.reservoir import Reservoir
from frugal.ridge import RidgeStatistics

RESULTS = Path(__file__).parent / "results" / "shards.json"
BILLION, TOKENS_PER_SHARD = 10**9, 10**7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a few tokens")
    parser.add_argument("--repeats", type=int, default=3, help="measurements with each number of workers")
    arguments = parser.parse_args()
    tokens, shards, repeats = (3_000, 2, 1) if arguments.small else (20_000, 4, arguments.repeats)

    gpt = load_foundation("smollm2")
    model = EchoLanguageModel(gpt, Reservoir(gpt.hidden_size, 512, spectral_radius=0.9, leak=0.05, seed=0), context=64)
    documents = some_documents(model, tokens)
    with nothing_cached():
        whole, seconds = one_pass(model, documents)
    walls: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for workers, measured in walls.items():
            with nothing_cached() as folder:
                site = Site(workers=workers, options={"worker_init": "export OMP_NUM_THREADS=1"})
                begun = time.perf_counter()
                merged = collect_shards(model, documents, folder / "shards", shards=shards, site=site)
                measured.append(time.perf_counter() - begun)
    result = summary(int(whole.count), shards, seconds, {w: median(times) for w, times in walls.items()})
    result["largest_relative_difference"] = difference(whole, merged)
    print(json.dumps(result, indent=2))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


def some_documents(model: EchoLanguageModel, tokens: int) -> list[Document]:
    """Articles of together about so many tokens."""
    found, count = list[Document](), 0
    for document in load_corpus("wikipedia").train:
        if count >= tokens:
            break
        found.append(document)
        count += len(model.tokenizer.encode(document.text))
    return found


@contextmanager
def nothing_cached() -> Iterator[Path]:
    """A data folder with this one's texts and weights but without features."""
    with tempfile.TemporaryDirectory() as name:
        for path in data_folder().iterdir():
            if path.name != "features":
                (Path(name) / path.name).symlink_to(path)
        before = os.environ.get("FRUGAL_DATA")
        os.environ["FRUGAL_DATA"] = name
        try:
            yield Path(name)
        finally:
            os.environ.pop("FRUGAL_DATA")
            if before is not None:
                os.environ["FRUGAL_DATA"] = before


def one_pass(model: EchoLanguageModel, documents: list[Document]) -> tuple[RidgeStatistics, dict[str, float]]:
    """The statistics, and the CPU seconds of each part."""
    begun = time.process_time()
    rows = model.rows(documents)
    seconds = {"features": time.process_time() - begun, "states": 0.0, "sums": 0.0}
    statistics = RidgeStatistics.empty(rows.width, model.vocabulary_size)
    begun = time.process_time()
    for inputs, targets in rows:
        seconds["states"] += time.process_time() - begun
        begun = time.process_time()
        statistics.add(inputs, targets)
        seconds["sums"] += time.process_time() - begun
        begun = time.process_time()
    return statistics, seconds


def summary(tokens: int, shards: int, seconds: dict[str, float], walls: dict[int, float]) -> dict[str, Any]:
    """What was measured, and the extrapolation: time per token, plus what every shard costs besides."""
    per_token = {part: spent / tokens for part, spent in seconds.items()}
    per_shard = max(0.0, walls[1] - sum(seconds.values())) / shards
    hours = (BILLION * sum(per_token.values()) + BILLION / TOKENS_PER_SHARD * per_shard) / 3600
    return {
        "tokens": tokens,
        "shards": shards,
        "microseconds_per_token": {part: 1e6 * spent for part, spent in per_token.items()},
        "seconds_besides_per_shard": per_shard,
        "wall_seconds": walls,
        "speedup_of_two_workers": walls[1] / walls[2],
        "core_hours_per_billion_tokens": hours,
    }


def difference(some: RidgeStatistics, others: RidgeStatistics) -> float:
    """The largest difference of an entry of a sum about zero, relative to the sum's largest entry."""
    both = [each.about(torch.zeros_like(each.origin), torch.zeros_like(each.target_origin)) for each in (some, others)]
    sums = ([each.inputs, each.gram, each.targets, each.squares, each.cross(slice(None))] for each in both)
    pairs = zip(*sums, strict=True)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


if __name__ == "__main__":
    main()
