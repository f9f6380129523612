"""The curves of notebook 12: models trained from nothing on 10^4 to 10^6 characters, scored on two kinds of text.

    python benchmarks/frontier.py                 all points that are not kept yet; about ten minutes of processor time
    python benchmarks/frontier.py --only echo     those of one model
    python benchmarks/frontier.py --most 100000   those of at most so many characters
    python benchmarks/frontier.py --small         tiny sizes, to see that it works; nothing is kept

Every point is kept as soon as it is measured, so that an interrupted run goes on where it stopped. One thread; trained
on `wikipedia`, settings chosen on its validation part, scored on its test part and on `grimm`. The results with the
commit, the machine and the command go to benchmarks/results/frontier.json, which the notebook draws.
"""

import argparse
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from frugal.corpora import excerpts, load_corpus
from frugal.device import processor
from frugal.files import appearing
from frugal.frontier import Point, as_json, measure, read_points

RESULTS = Path(__file__).parent / "results" / "frontier.json"
SEEDS = (0, 1, 2)
LARGE = (100_000, 1_000_000)  # characters that the slower models are trained on


def plan() -> Iterator[tuple[str, int, float, int]]:
    """Model, characters, budget, seed, cheap ones first."""
    for characters in (10_000, 30_000, *LARGE):
        yield "n-gram", characters, 0, 0
    for characters in (10_000, *LARGE):
        yield "context mixing", characters, 0, 0
    for characters in LARGE:
        for name in ("plain net", "echo", "piecewise net"):
            yield name, characters, 0, 0
        for budget in (3, 10):
            yield "transformer", characters, budget, 0
    for characters in reversed(LARGE):
        yield "transformer", characters, 30, 0
    for seed in SEEDS[1:]:
        for name in ("echo", "plain net", "piecewise net"):
            yield name, LARGE[0], 0, seed
        yield "transformer", LARGE[0], 10, seed
    yield "transformer", LARGE[-1], 100, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny sizes; nothing is kept")
    parser.add_argument("--only", help="points of this model")
    parser.add_argument("--most", type=float, default=1e9, help="points of at most so many characters")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    corpus = load_corpus("wikipedia")
    size = 2_000 if arguments.small else 20_000
    valid = excerpts(corpus.valid, size)
    held_out = {"wikipedia": excerpts(corpus.test, size), "grimm": excerpts(load_corpus("grimm").test, size)}
    points = read_points(RESULTS) if RESULTS.exists() and not arguments.small else []
    for model, characters, budget, seed in plan():
        if characters > arguments.most or arguments.only not in (None, model):
            continue
        if any(is_of(point, model, characters, budget, seed) for point in points):
            continue
        train = excerpts(corpus.train, max(2_000, characters // 50) if arguments.small else characters)
        point = measure(model, train, valid, held_out, budget=budget / (50 if arguments.small else 1), seed=seed)
        print(line(point), flush=True)
        points.append(point)
        if not arguments.small:
            with appearing(RESULTS) as temporary:
                temporary.write_text(as_json(points, about()), encoding="utf-8")


def is_of(point: Point, model: str, characters: int, budget: float, seed: int) -> bool:
    near = 0.9 * characters < point.characters <= characters  # excerpts end between two words
    return near and (point.model, point.budget, point.seed) == (model, budget, seed)


def line(point: Point) -> str:
    bits = " ".join(
        f"{text} {protocol} {point.bits_per_byte(text, protocol):.3f}"
        for text, protocols in point.documents.items()
        for protocol in protocols
    )
    return (
        f"{point.model:15}{point.characters:10,}{point.seconds:8.1f} s (search {point.search_seconds:.1f})"
        f"{point.parameters:12,}  {bits}  {point.setting}, seed {point.seed}"
    )


def about() -> dict[str, str]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return {
        "commit": commit.stdout.strip(),
        "machine": f"{processor()}, one thread, beside other work",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
        "command": " ".join(["python", *sys.argv]),
        "texts": "trained on wikipedia; held out: 20,000 characters each of wikipedia's and grimm's test parts",
    }


if __name__ == "__main__":
    main()
