"""What a frozen GPT gains by adapting while it reads: a cache, a residual that learns online, both; windows 32 and 512.

    python benchmarks/adapting.py            about twenty minutes of processor time
    python benchmarks/adapting.py --small    a minute or so; nothing is kept

SmolLM2 on `wikipedia`. The cache's weight and theta and the residual's rate are chosen on validation text, over the
whole vocabulary. Test documents are read as one stream, each token scored before anything learns from it. Differences
from the plain GPT with intervals by document go to benchmarks/results/adapting.json.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import torch

from frugal.baselines import Cache
from frugal.corpora import excerpts, load_corpus
from frugal.device import processor
from frugal.evaluate import Scores, bootstrap_difference, evaluate
from frugal.files import appearing
from frugal.foundation import WindowedFoundation, load_foundation
from frugal.readout import OnlineResidual

RESULTS = Path(__file__).parent / "results" / "adapting.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="little text; nothing is kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    corpus, gpt = load_corpus("wikipedia"), load_foundation("tiny-gpt2" if arguments.small else "smollm2")
    valid = excerpts(corpus.valid, 1_000 if arguments.small else 12_000)
    test = excerpts(corpus.test, 1_000 if arguments.small else 32_000)
    rows = []
    for window in (32,) if arguments.small else (32, 512):
        model = WindowedFoundation(gpt, window)
        cache = Cache.tuned(model, valid)
        both = OnlineResidual.tuned(model, valid, cache=cache)
        models = {
            "plain": model,
            "cache": cache,
            "online residual": OnlineResidual(model, rate=both.rate),
            "cache and online residual": both,
        }
        scores: dict[str, Scores] = {}
        for name, each in models.items():
            scores[name] = evaluate(each, test, carry=True)
            difference = bootstrap_difference(scores[name], scores["plain"])
            rows.append(
                {
                    "window": window,
                    "model": name,
                    scores[name].measure: scores[name].bits_per_byte,
                    "against plain": [difference.bits_per_byte, difference.low, difference.high],
                    "drawn": difference.unit,
                    "processor seconds": scores[name].seconds,
                    "settings": f"rate {both.rate}, cache weight {cache.weight:.3f}, theta {cache.theta}",
                }
            )
            print(rows[-1], flush=True)
    if not arguments.small:
        kept = {
            "machine": processor(),
            "python": platform.python_version(),
            "command": " ".join(sys.argv),
            "rows": rows,
        }
        with appearing(RESULTS) as temporary:
            temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
