"""Training and generation with a memory against the same GPT without: tokens per second, one thread.

    python benchmarks/memory_gpt.py            tiny-gpt2, windows of 64 tokens, every way to read
    python benchmarks/memory_gpt.py --small    a few seconds, to see that it works

Training trains all weights on the same windows; generation continues a stream whose memory is full of its own past.
The two are measured in turn, several times, and medians compared. Results go to benchmarks/results/memory_gpt.json.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from frugal.corpora import strided_windows
from frugal.foundation import Foundation, load_foundation
from frugal.language_model import LanguageModel
from frugal.memory import MemoryGPT, MemoryPlan
from frugal.memory.training import memory_loss

RESULTS = Path(__file__).parent / "results" / "memory_gpt.json"
Ways = dict[str, Callable[[], None]]
READS = ("knn", "attention", "concat")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="fewer and shorter measurements")
    small = parser.parse_args().small
    torch.set_num_threads(1)
    foundation = load_foundation("tiny-gpt2", dtype="float32")
    context, windows, batch, repeats, new = (16, 3, 2, 1, 8) if small else (64, 8, 8, 5, 64)
    rows = []
    for read in READS:
        model = MemoryGPT(foundation, read=read, write="learned", context=context, train_base=True)
        length = context + (windows - 1) * model.stride
        tokens = torch.randint(foundation.vocabulary_size, (batch, length + 1))
        training: Ways = {"memory": partial(train, model, tokens), "plain": partial(train_plain, model, tokens)}
        stream = tokens[:1, :length]
        model.network.eval()
        going: Ways = {"memory": continuing(model, stream, new), "plain": continuing_plain(model, stream, new)}
        for task, ways, count in (("training", training, batch * length), ("generation", going, new)):
            model.network.train(task == "training")
            memory, plain = (count / seconds for seconds in measured(ways, repeats).values())
            rows.append({"read": read, "task": task, "memory": memory, "plain": plain, "share": memory / plain})
            print(f"{read:10} {task:11}{memory:9,.0f} of {plain:9,.0f} tokens/s = {memory / plain:.0%}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")


def train(model: MemoryGPT, tokens: Tensor) -> None:
    """One step's gradient with the memory."""
    plan = MemoryPlan()
    total = torch.zeros(())
    for step in model.steps(tokens[:, :-1]):
        targets = tokens[:, step.begin + 1 : step.begin + 1 + step.output.logits.shape[1]]
        total = total + memory_loss(model, step, targets, plan)
    total.backward()


def train_plain(model: MemoryGPT, tokens: Tensor) -> None:
    """The same windows through the same GPT without one."""
    gpt, total = model.network.gpt, torch.zeros(())
    for begin, end, keep in strided_windows(tokens.shape[1] - 1, model.context, model.stride):
        logits = gpt(tokens[:, begin:end], use_cache=False, logits_to_keep=end - keep).logits
        total = total + cross_entropy(logits.flatten(0, 1), tokens[:, keep + 1 : end + 1].flatten())
    total.backward()


def continuing(model: LanguageModel, stream: Tensor, new: int) -> Callable[[], None]:
    """Steps of a language model after a stream."""
    with torch.inference_mode():
        _, state = model.feed(stream, model.start(1))

    def run() -> None:
        token, now = stream[:, -1], state
        with torch.inference_mode():
            for _ in range(new):
                logits, now = model.step(token, now)
                token = logits.argmax(-1)

    return run


def continuing_plain(model: MemoryGPT, stream: Tensor, new: int) -> Callable[[], None]:
    """Steps of the GPT alone, with windows of the same length."""
    plain = Foundation(model.foundation.model, model.tokenizer, name="plain", context_length=model.context)
    return continuing(plain, stream, new)


def measured(ways: Ways, repeats: int) -> dict[str, float]:
    """Median CPU seconds of each way, taken in turn after one unmeasured round."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(repeats + 1):
        for name, run in ways.items():
            began = time.process_time()
            run()
            if round_number:
                taken[name].append(time.process_time() - began)
    return {name: median(values) for name, values in taken.items()}


if __name__ == "__main__":
    main()
