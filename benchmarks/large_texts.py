"""Texts larger than memory: what reading, splitting, tokenising, counting and training on them take.

    python benchmarks/large_texts.py                     all steps, 10^9 and 10^8 characters; half an hour of one core
    python benchmarks/large_texts.py letters transformer these steps; the other rows of the results stay
    python benchmarks/large_texts.py --characters 1e7    a minute, nothing written

The text of a tenth of the size is made of runs of 3 to 40 words from random places of the catalogue's Wikipedia
articles and small talk, a paragraph of two hundred runs; the large one is its paragraphs in ten random orders. Each
step is a process of its own with one thread. Its row has processor seconds and the most memory that its largest process
had; what the library alone takes is in the row "imports". Results go to benchmarks/results/large_texts.json.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from frugal.baselines import NGram, SmallTransformer, TransformerPlan
from frugal.corpora import BytePairTokenizer, CharTokenizer, Document, Tokenizer, encode_in_a_row, load_corpus
from frugal.files import data_folder, write_text
from frugal.lab.run.provenance import machine, versions
from frugal.piecewise import PiecewiseLM, PiecewisePlan, Windows, preset, train

RESULTS = Path(__file__).parent / "results" / "large_texts.json"
SAMPLE = 10  # documents that byte pairs are learnt from, and that a tokeniser's own speed is measured on
Documents = tuple[Document, ...]
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(TEXTS)}")
    parser.add_argument("--characters", type=float, default=1e9)
    parser.add_argument("--here", metavar="TEXT", help="the one step, in this process")
    given = parser.parse_args()
    if given.here:
        corpus = load_corpus(given.here)
        step = STEPS.get(given.steps[0])
        print(json.dumps({"documents": len(corpus.train)} if step is None else step(corpus.train)))
        return
    rows = {row["step"]: row for row in json.loads(RESULTS.read_text())["rows"]} if RESULTS.exists() else {}
    with TemporaryDirectory(dir=data_folder()) as folder:
        # In another process: what this one has held would count as the first memory of those that it starts.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            paths = pool.submit(make_texts, Path(folder), int(given.characters)).result()
        for step in given.steps or TEXTS:
            text = paths.get(TEXTS[step])
            rows[step] = {"step": step, "bytes": text.stat().st_size if text else 0, **measured(step, text, folder)}
            print(rows[step], flush=True)
    if given.characters >= 1e9:
        about = {"versions": versions(), "machine": machine(), "rows": [rows[step] for step in TEXTS if step in rows]}
        write_text(RESULTS, json.dumps(about, indent=2) + "\n")


def make_texts(folder: Path, size: int) -> dict[str, Path]:
    articles = (load_corpus(name).train for name in ("wikipedia", "chitchat"))
    words = [word for documents in articles for document in documents for word in document.text.split()]
    draw, left, paragraphs = random.Random(0), size // 10, []
    while left > 0:
        begins = (draw.randrange(len(words) - 40) for _ in range(200))
        paragraphs.append(" ".join(" ".join(words[begin : begin + draw.randint(3, 40)]) for begin in begins) + "\n\n")
        left -= len(paragraphs[-1])
    paths = {name: folder / f"{name}.txt" for name in ("tenth", "large")}
    paths["tenth"].write_text("".join(paragraphs), encoding="utf-8")
    with paths["large"].open("w", encoding="utf-8") as file:
        for _ in range(10):
            file.writelines(draw.sample(paragraphs, len(paragraphs)))
    return paths


def measured(step: str, text: Path | None, folder: str) -> Row:
    command = [sys.executable, "-W", "ignore", __file__, step, "--here", str(text or "topics")]
    if step == COMMAND:
        command = [sys.executable, "-m", *step.split(), "--train", str(text), "--reports", folder]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{step}: stopped")
    cost = {"seconds": round(usage.ru_utime + usage.ru_stime, 1), "peak_mb": round(usage.ru_maxrss / 1024)}
    return {**cost, **(json.loads(said) if said.startswith("{") else {})}


def tokenise(tokenizer: Tokenizer, documents: Documents) -> Row:
    """Megabytes a second of documents on disk to tokens on disk, and of the tokeniser alone."""
    begun = time.process_time()
    tokens = encode_in_a_row(tokenizer, documents)
    speed = sum(len(document.text) for document in documents) / (time.process_time() - begun) / 1e6
    texts = [document.text for document in documents[:SAMPLE]]
    begun = time.process_time()
    for text in texts:
        tokenizer.encode(text)
    alone = sum(map(len, texts)) / (time.process_time() - begun) / 1e6
    return {"tokens": len(tokens), "mb_per_second": round(speed, 2), "tokeniser_alone": round(alone, 2)}


def letters(documents: Documents) -> Row:
    return tokenise(CharTokenizer.learn(document.text for document in documents), documents)


def byte_pairs(documents: Documents) -> Row:
    texts = (document.text for document in documents[:SAMPLE])
    return tokenise(BytePairTokenizer.train(texts, 8000), documents)


def count(documents: Documents) -> Row:
    model = NGram(6, CharTokenizer.learn(document.text for document in documents)).fit(documents)
    return {"ngrams": sum(len(level.keys) for level in model.levels)}


def transformer(documents: Documents) -> Row:
    tokenizer = CharTokenizer.learn(document.text for document in documents)
    model = SmallTransformer(tokenizer, blocks=2, width=64)
    model.fit(documents, TransformerPlan(examples=3200, epochs=1), progress=False)
    return {"windows": 3200}


def piecewise(documents: Documents) -> Row:
    tokenizer = CharTokenizer.learn(document.text for document in documents)
    model = PiecewiseLM(preset("large_single_layer"), tokenizer)
    windows = Windows.for_network(model.network, tokenizer, documents)
    train(model, windows, PiecewisePlan(epochs=1, batch_size=500, seconds=20), progress=False)
    return {"windows": len(windows)}


COMMAND = "frugal train ngram"
TEXTS = {
    "imports": "",
    "read and split": "large",
    "letters": "large",
    "byte pairs": "tenth",
    "n-gram": "tenth",
    "transformer": "tenth",
    "piecewise net": "tenth",
    COMMAND: "tenth",
}
STEPS: dict[str, Callable[[Documents], Row]] = {
    "letters": letters,
    "byte pairs": byte_pairs,
    "n-gram": count,
    "transformer": transformer,
    "piecewise net": piecewise,
}

if __name__ == "__main__":
    main()
