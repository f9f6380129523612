"""The nearest-neighbour model held to two references for kNN-LMs on GPTs that are trained in minutes.

    python benchmarks/memory_references.py                     characters of Python's help topics
    python benchmarks/memory_references.py --wikitext FOLDER   and bytes of WikiText-2's valid.txt and test.txt
    python benchmarks/memory_references.py --small             a few seconds, to see that it works

characters  GPT-2 of 4 layers of width 128, 800 steps of 16 x 128 characters; the first nine tenths are trained on and
            remembered, the last tenth is scored. Reference: an exact kNN-LM with 64 neighbours, 2.545 bits per
            character without and 2.279 with it.
bytes       GPT-2 of 2 layers of width 128, 300 steps of 16 x 64 bytes of valid.txt, of which the first 60,000 are
            remembered; the first 12,000 of test.txt are scored. Reference: the kNN-LM of knn-transformers, 3.197
            without and 3.129 with it.

Windows are disjoint. What tunes the mixture is neither trained on nor remembered: the text before the scored tenth,
and the end of valid.txt. A GPT of ours is not the reference's, so it is the relative gain that is compared. "document"
is the continuous cache. Results go to benchmarks/results/memory_references.json.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel

from frugal.corpora import Blocks, CharTokenizer
from frugal.foundation import Foundation, WindowedFoundation
from frugal.foundation.tiny_gpt2 import next_token_loss
from frugal.memory import Datastore, Interpolation, NearestNeighbourLM, controls
from frugal.memory.mixture import Retrieved
from frugal.training import fit

RESULTS = Path(__file__).parent / "results" / "memory_references.json"
TUNED_ON = 10_000
LATIN_1 = "".join(map(chr, range(256)))
SOURCES = {"document": (0,), "memory": (1,), "document and memory": (0, 1)}


@dataclass(frozen=True)
class Recipe:
    """A GPT, its training and its texts; `base` and `with_memory` are the reference's bits per character."""

    name: str
    layers: int
    context: int
    steps: int
    base: float
    with_memory: float
    trained: str
    remembered: str
    tuned: str
    scored: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wikitext", type=Path, help="a folder with WikiText-2's valid.txt and test.txt")
    parser.add_argument("--small", action="store_true", help="short texts and little training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipes = [characters()]
    if arguments.wikitext:
        recipes.append(wikitext(arguments.wikitext))
    else:
        print("no --wikitext FOLDER: the reference on bytes is left out")
    if arguments.small:
        recipes = [small(recipe) for recipe in recipes]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FRUGAL_DATA"] = folder  # features of these GPTs are of no use later
        results = [measure(recipe) for recipe in recipes]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def characters() -> Recipe:
    text = "".join(topics.values())
    end = len(text) * 9 // 10
    train, tuned = text[: end - TUNED_ON], text[end - TUNED_ON : end]
    return Recipe("characters", 4, 128, 800, 2.545, 2.279, train, train, tuned, text[end:][:20_000])


def wikitext(folder: Path) -> Recipe:
    valid, test = ((folder / f"{part}.txt").read_bytes().decode("latin-1") for part in ("valid", "test"))
    train, tuned = valid[:-TUNED_ON], valid[-TUNED_ON:]
    return Recipe("bytes", 2, 64, 300, 3.197, 3.129, train, train[:60_000], tuned, test[:12_000])


def small(recipe: Recipe) -> Recipe:
    tuned, scored = recipe.tuned[:1_000], recipe.scored[:1_000]
    return replace(recipe, steps=10, remembered=recipe.remembered[:5_000], tuned=tuned, scored=scored)


def measure(recipe: Recipe) -> dict[str, Any]:
    began = time.process_time()
    windows = WindowedFoundation(trained(recipe), recipe.context, stride=recipe.context)
    lm = NearestNeighbourLM(windows, Datastore.empty(128, len(recipe.remembered), index="flat"))
    training = time.process_time() - began
    lm.remember_all([recipe.remembered])
    valid, test = lm.retrieve([recipe.tuned]), lm.retrieve([recipe.scored])
    bits = {"GPT": -test[0].own.mean().item() / log(2)}
    for name, sources in SOURCES.items():
        for kind in ("", ", adaptive"):
            bits[name + kind] = mixed(
                controls.only(valid, *sources), controls.only(test, *sources), adaptive=bool(kind)
            )
    shuffled = [controls.only(controls.shuffled(retrieved), 1) for retrieved in (valid, test)]
    bits["memory, values shuffled"] = mixed(*shuffled, adaptive=False)
    gains = {name: 1 - value / bits["GPT"] for name, value in bits.items()}
    reference = 1 - recipe.with_memory / recipe.base
    print(f"{recipe.name}: the reference gains {reference:.1%} on {recipe.base}, {len(lm.memory):,} entries remembered")
    for name, value in bits.items():
        print(f"  {name:32}{value:7.3f} bits{gains[name]:8.1%}", flush=True)
    seconds = {"training": training, "all": time.process_time() - began}
    return {"recipe": recipe.name, "reference gain": reference, "bits": bits, "gains": gains, "CPU seconds": seconds}


def trained(recipe: Recipe) -> Foundation:
    tokenizer = CharTokenizer(LATIN_1)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=tokenizer.vocabulary_size,
        n_positions=recipe.context,
        n_embd=128,
        n_layer=recipe.layers,
        n_head=4,
        bos_token_id=tokenizer.start_id,
        eos_token_id=tokenizer.start_id,
    )
    model = GPT2LMHeadModel(config)
    blocks = Blocks(tokenizer.encode(recipe.trained), recipe.context, stride=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    fit(model, next_token_loss, DataLoader(blocks, 16, shuffle=True), optimizer, steps=recipe.steps)
    return Foundation(model, tokenizer, name=recipe.name)


def mixed(valid: Sequence[Retrieved], test: Sequence[Retrieved], *, adaptive: bool) -> float:
    """Bits per character of the test text with the mixture that predicts the validation text best."""
    mixture = Interpolation.fit(valid, adaptive=adaptive)
    return -mixture.log_probabilities(test[0]).mean().item() / log(2)


if __name__ == "__main__":
    main()
