"""What each family adds to the others: models of characters mixed with weights that learn while the text is read.

    python benchmarks/mixing.py            about fifteen minutes of processor time
    python benchmarks/mixing.py --small    tiny sizes, to see that it works; nothing is kept

Experts trained from nothing on the same text, over the same characters: n-gram, echo, piecewise net, plain net and
transformer, made as in notebook 12 (there echo and transformer read byte pairs). An `OnlineMixture` learns its first
weights from validation text and goes on while it reads the test texts. Mixed are the n-gram with each, all, all without
each, and all with context mixing, for three seeds of what is trained; intervals are by document. The control mixes
n-grams of three orders. At last the context that chooses the mixer's weights is changed: the last character, one of as
many codes of the echo's state (k-means on training text), or nothing.

Results go to benchmarks/results/mixing.json as soon as a seed is done; an interrupted run goes on with the next.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from frugal.baselines import ContextMixing, NGram, SmallTransformer, TransformerPlan
from frugal.baselines.logistic import mix_experts
from frugal.combine import OnlineMixture
from frugal.corpora import CharTokenizer, Document, encode_in_a_row, excerpts, load_corpus
from frugal.device import processor
from frugal.evaluate import Scores, bootstrap_difference, evaluate
from frugal.files import appearing
from frugal.frontier import RECIPES, quick_reservoir, train_echo
from frugal.language_model import LanguageModel
from frugal.readout import ReservoirLanguageModel
from frugal.training import seed_everything

RESULTS = Path(__file__).parent / "results" / "mixing.json"
NAMES = ("n-gram", "echo", "piecewise net", "plain net", "transformer")
SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny sizes; nothing is kept")
    small = parser.parse_args().small
    torch.set_num_threads(1)
    corpus = load_corpus("wikipedia")
    train = excerpts(corpus.train, 5_000 if small else 300_000)
    valid = excerpts(corpus.valid, 1_000 if small else 8_000)
    tests = {name: excerpts(load_corpus(name).test, 500 if small else 8_000) for name in ("wikipedia", "grimm")}
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() and not small else []
    for seed in SEEDS[:1] if small else SEEDS:
        if any(row["seed"] == seed for row in rows):
            continue
        every = experts(train, valid, seed, examples=50 if small else 20_000)
        found = scored(mixtures(every, train), valid, tests) + by_context(every, train, valid, tests)
        rows += [row | {"seed": seed} for row in found]
        if not small:
            kept = {
                "machine": f"{processor()}, one thread",
                "python": platform.python_version(),
                "command": " ".join(["python", *sys.argv]),
                "texts": "trained on 300,000 characters of wikipedia; held out: 8,000 characters of each text",
                "rows": rows,
            }
            with appearing(RESULTS) as temporary:
                temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def experts(
    train: tuple[Document, ...], valid: tuple[Document, ...], seed: int, *, examples: int
) -> dict[str, LanguageModel]:
    seed_everything(seed)
    made = {name: RECIPES[name](train, valid, 0, seed, "cpu").model for name in NAMES[:-1] if name != "echo"}
    echo = train_echo(partial(quick_reservoir, seed=seed), train, valid, seed, hidden=(128,), learning_rate=4e-3).model
    transformer = SmallTransformer(made["n-gram"].tokenizer, blocks=2, width=64, context=128, seed=seed)
    plan = TransformerPlan(examples=examples, epochs=4, learning_rate=5e-3, batch_size=16, seed=seed)
    transformer.fit(train, plan, valid=valid, progress=False)
    every = {**made, "echo": echo, "transformer": transformer}
    return {name: every[name] for name in NAMES}


def mixtures(every: dict[str, LanguageModel], train: tuple[Document, ...]) -> dict[str, dict[str, LanguageModel]]:
    """The experts of each mixture, by its name."""
    base, *others = NAMES
    tokenizer = every[base].tokenizer
    assert isinstance(tokenizer, CharTokenizer)
    counts = ContextMixing(9, tokenizer, slots=1 << 23).fit(train)
    return {
        base: {base: every[base]},
        "n-grams of orders 3, 5, 8": {f"{order}-gram": NGram(order, tokenizer).fit(train) for order in (3, 5, 8)},
        **{f"{base} + {name}": {base: every[base], name: every[name]} for name in others},
        "all": every,
        **{f"all but {name}": {other: every[other] for other in NAMES if other != name} for name in NAMES},
        "context mixing": {"context mixing": counts},
        "context mixing + all": {"context mixing": counts, **every},
    }


def scored(
    made: dict[str, dict[str, LanguageModel]], valid: tuple[Document, ...], tests: dict[str, tuple[Document, ...]]
) -> list[dict[str, Any]]:
    """Bits per byte of each mixture, and its difference from the n-gram or from all."""
    rows, scores = [], {}
    for name, members in made.items():
        mixture = OnlineMixture(members).fit(valid)
        for text, documents in tests.items():
            scores[name, text] = evaluate(mixture, documents, carry=True)
            row = {"mixture": name, "text": text, "bits per byte": scores[name, text].bits_per_byte}
            reference = "all" if name.startswith("all but") else name.split(" + ")[0] if " + " in name else NAMES[0]
            rows.append(row | {"against": reference} | _difference(scores[name, text], scores[reference, text]))
            print(rows[-1], flush=True)
    for text, documents in tests.items():
        for name, expert in made["all"].items():
            rows.append({"alone": name, "text": text, "bits per byte": evaluate(expert, documents).bits_per_byte})
            print(rows[-1], flush=True)
    return rows


def by_context(
    every: dict[str, LanguageModel],
    train: tuple[Document, ...],
    valid: tuple[Document, ...],
    tests: dict[str, tuple[Document, ...]],
) -> list[dict[str, Any]]:
    """Bits per character of all experts mixed, by what chooses the weights beside the node of the tree."""
    echo = every["echo"]
    assert isinstance(echo, ReservoirLanguageModel)
    V, rows = echo.vocabulary_size, []
    states = echo.hidden(encode_in_a_row(echo.tokenizer, train)[None, :50_000])[0].numpy()
    codes = faiss.Kmeans(states.shape[1], V, seed=1, niter=10)
    codes.train(states)

    def coded(tokens: torch.Tensor) -> NDArray[np.int64]:
        return codes.index.search(echo.hidden(tokens[None])[0].numpy(), 1)[1][:, 0]

    kinds: dict[str, Callable[[torch.Tensor], NDArray[np.int64]]] = {
        "last character": torch.Tensor.numpy,
        "code of the echo's state": coded,
        "nothing": lambda tokens: np.zeros(len(tokens), np.int64),
    }
    with torch.inference_mode():
        for kind, contexts in kinds.items():
            for text, documents in tests.items():
                by_node, by_code = np.full((1 << (V - 1).bit_length(), len(every)), 1 / len(every), np.float32), None
                for part in (valid, documents):
                    tokens = encode_in_a_row(echo.tokenizer, part)
                    said = torch.stack([each.log_probabilities(tokens[None])[0] for each in every.values()], 1)
                    by_code = np.zeros((V, len(every)), np.float32) if by_code is None else by_code
                    mixed, following = np.empty((len(tokens), V), np.float32), np.append(tokens[1:].numpy(), -1)
                    start = echo.tokenizer.start_id
                    mix_experts(
                        said.float().numpy(), following, contexts(tokens), by_node, by_code, 0.005, start, mixed
                    )
                kept = (following >= 0) & (following != start)
                nats = -mixed[kept, following[kept]].mean()
                rows.append({"weights chosen by": kind, "text": text, "bits per character": float(nats / np.log(2))})
                print(rows[-1], flush=True)
    return rows


def _difference(scores: Scores, reference: Scores) -> dict[str, Any]:
    found = bootstrap_difference(scores, reference)
    return {"difference": found.bits_per_byte, "low": found.low, "high": found.high, "drawn": found.unit}


if __name__ == "__main__":
    main()
