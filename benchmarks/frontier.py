"""The curves of notebook 12: models trained from nothing on 10^4 to 2x10^7 characters, scored on held-out text.

    python benchmarks/frontier.py                 all points that are not kept yet; about an hour of processor time
    python benchmarks/frontier.py --text sympy    those on program text
    python benchmarks/frontier.py --only echo     those of one model
    python benchmarks/frontier.py --most 100000   those of at most so many characters
    python benchmarks/frontier.py --small         tiny sizes, to see that it works; nothing is kept

Two texts: English, trained on `wikipedia`, settings chosen on its validation part, scored on its test part and on
`grimm`; and program text, the source files of the installed SymPy, split by file, because it is ten times as long.
Every point is kept as soon as it is measured, so that an interrupted run goes on where it stopped. One thread. The
points with the commit, the machine and the command go to benchmarks/results/frontier.json and frontier_sympy.json,
which the notebook draws. The compressors PPMd and ZPAQ are measured where they are installed (the package pyppmd, the
program zpaq).
"""

import argparse
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch

from frugal.corpora import Document, excerpts, load_corpus
from frugal.corpora.splits import split_documents
from frugal.device import processor
from frugal.errors import UnavailableError
from frugal.files import appearing
from frugal.frontier import COMPRESSORS, Point, as_json, measure, read_points

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
HELD_OUT = 20_000  # characters of each held-out text


class Texts(NamedTuple):
    """What models are trained on, what their settings are chosen by, and what they are scored on."""

    train: tuple[Document, ...]
    valid: tuple[Document, ...]
    held_out: dict[str, tuple[Document, ...]]

    def first(self, characters: int) -> tuple[Document, ...]:
        """So much training text, from all documents alike."""
        return excerpts(self.train[: max(1, characters // 1000)], characters)


def english(size: int) -> Texts:
    corpus = load_corpus("wikipedia")
    held_out = {"wikipedia": corpus.test, "grimm": load_corpus("grimm").test}
    return Texts(corpus.train, excerpts(corpus.valid, size), {name: excerpts(t, size) for name, t in held_out.items()})


def program(size: int) -> Texts:
    """Source files of SymPy of at least 2,000 characters, in an order that the seed of the split chooses."""
    found = find_spec("sympy")
    if found is None or found.origin is None:
        raise SystemExit("sympy is not installed: it comes with torch")
    folder = Path(found.origin).parent
    read = ((file, file.read_text(encoding="utf-8")) for file in sorted(folder.rglob("*.py")))
    files = [Document(str(file.relative_to(folder)), text) for file, text in read if len(text) >= 2_000]
    parts = split_documents(files, seed=0)
    return Texts(parts.train, excerpts(parts.valid[:12], size), {"sympy": excerpts(parts.test[:12], size)})


TEXTS = {"wikipedia": english, "sympy": program}
FILES = {"wikipedia": RESULTS / "frontier.json", "sympy": RESULTS / "frontier_sympy.json"}


def plan(text: str) -> Iterator[tuple[str, int, float, int]]:
    """Model, characters, budget, seed, cheap ones first."""
    decades = (100_000, 1_000_000, 10_000_000) if text == "sympy" else (10_000, 100_000, 1_000_000, 2_000_000)
    for characters in decades:
        for name in ("n-gram", "context mixing", *COMPRESSORS):
            yield name, characters, 0, 0
    learning = [characters for characters in decades if 100_000 <= characters <= 1_000_000]
    for characters in learning:
        for name in ("plain net", "echo", "piecewise net"):
            yield name, characters, 0, 0
        for budget in (3, 10, 30):
            yield "transformer", characters, budget, 0
    yield "echo", decades[-1], 0, 0
    for budget in (30, 100):
        yield "transformer", decades[-1], budget, 0
    if text == "wikipedia":
        for seed in SEEDS[1:]:
            for characters in learning:
                for name in ("echo", "plain net", "piecewise net"):
                    yield name, characters, 0, seed
                yield "transformer", characters, 10, seed
    yield "transformer", decades[-1], 300, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny sizes; nothing is kept")
    parser.add_argument("--text", choices=TEXTS, help="points of this text")
    parser.add_argument("--only", help="points of this model")
    parser.add_argument("--most", type=float, default=1e9, help="points of at most so many characters")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for text in [arguments.text] if arguments.text else TEXTS:
        run(text, arguments)


def run(text: str, arguments: argparse.Namespace) -> None:
    """Measure the points of a text that are not kept yet."""
    texts, file = TEXTS[text](2_000 if arguments.small else HELD_OUT), FILES[text]
    points = read_points(file) if file.exists() and not arguments.small else []
    for model, characters, budget, seed in plan(text):
        if characters > arguments.most or arguments.only not in (None, model):
            continue
        if any(is_of(point, model, characters, budget, seed) for point in points):
            continue
        train = texts.first(max(2_000, characters // 50) if arguments.small else characters)
        nominal = budget / (50 if arguments.small else 1)
        try:
            point = measure(model, train, texts.valid, texts.held_out, budget=nominal, seed=seed)
        except UnavailableError as error:
            print(f"{model} is left out: {error}")
            continue
        print(line(point), flush=True)
        points.append(point)
        if not arguments.small:
            with appearing(file) as temporary:
                temporary.write_text(as_json(points, about()), encoding="utf-8")


def is_of(point: Point, model: str, characters: int, budget: float, seed: int) -> bool:
    near = 0.8 * characters < point.characters <= characters  # excerpts end between two words
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
        "texts": f"held out: {HELD_OUT:,} characters of the test part of each text that is named",
    }


if __name__ == "__main__":
    main()
