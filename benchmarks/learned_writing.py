"""Does a head that predicts what an entry will be worth choose better than chance what to write?

    python benchmarks/learned_writing.py            three seeds, ten times notebook 06's text; goes on where it was
    python benchmarks/learned_writing.py --small    a minute, to see that it works

A MemoryGPT on tiny-gpt2 (read "knn", windows of 32 tokens) learns to read, with every token written. Then its training
text is read again, with the share BUDGET written at random, several times. Each reading tells what each entry was
worth: the sum over later tokens of log p(token) - log p(token | the entry is not there), in nats, exact but for the
entry that would have been read in its place. A head learns to predict it from what is known when the entry is written:

    hidden          the hidden state alone, which is what the library's store decision sees
    hidden, token   and the embedding and the surprise of the token that is the entry's value

On test text every way to write has the same budget, the same weights and the same reading: "random", "surprise", the
two heads, and "future", which knows the gains that the test text itself gave in such readings and which no writer can
know. Results go to benchmarks/results/learned_writing.json: bits per byte, and differences from "random" with 95 %
intervals over documents.
"""

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, normalize

from frugal.corpora import Document, encode_documents, excerpts, load_corpus
from frugal.evaluate import Scores, compare, sum_scores
from frugal.foundation import Foundation, load_foundation
from frugal.memory import MemoryGPT, MemoryPlan, train_memory
from frugal.memory.entries import Entries
from frugal.memory.model import Step
from frugal.memory.writing import chosen

RESULTS = Path(__file__).parent / "results" / "learned_writing.json"
BUDGET, WINDOW, WIDTH = 0.25, 32, 128
READINGS = 3  # with a budget of a quarter, three of five tokens are written in one of them
WORTH_AT_MOST = 1.0  # nats; few entries are worth much more, and one of them would outweigh a thousand
HEAD_EPOCHS, HEAD_BATCH = 15, 1024
WITH_TOKEN = ("hidden, token",)

Order = Callable[[Tensor, Tensor, Tensor, int], Tensor]


class WritesBy(nn.Module):
    """In place of a model's Writer: the share BUDGET that comes first in an order is written."""

    def __init__(self, writer: Any, order: Order) -> None:
        super().__init__()
        self.writer, self.order = writer, order
        self.deleted_columns = writer.deleted_columns

    def forward(self, hidden: Tensor, following: Tensor, surprise: Tensor, position: int) -> Entries:
        entries = self.writer(hidden, following, surprise, position)  # which writes all
        return chosen(entries, self.order(hidden, following, surprise, position), BUDGET)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one seed, little text; nothing is kept")
    small = parser.parse_args().small
    torch.set_num_threads(1)
    corpus, gpt = load_corpus("wikipedia", seed=0), load_foundation("tiny-gpt2", dtype="float32")
    sizes = {"train": 200_000, "valid": 20_000, "test": 40_000}
    if small:
        sizes = dict.fromkeys(sizes, 3_000)
    texts = {part: excerpts(getattr(corpus, part)[: 3 if small else 32], size) for part, size in sizes.items()}
    found = json.loads(RESULTS.read_text())["seeds"] if RESULTS.is_file() and not small else []
    for seed in range(len(found), 1 if small else 3):
        found.append({"seed": seed} | of_seed(gpt, texts, seed))
        print(json.dumps(found[-1], indent=2), flush=True)
        if not small:
            RESULTS.write_text(json.dumps({"budget": BUDGET, "characters": sizes, "seeds": found}, indent=2) + "\n")


def of_seed(gpt: Foundation, texts: dict[str, Sequence[Document]], seed: int) -> dict[str, Any]:
    model = MemoryGPT(gpt, read="knn", write="all", context=WINDOW, memory_dim=WIDTH, seed=seed)
    plan = MemoryPlan(epochs=1, learning_rate=5e-3, batch_size=8, seed=seed)
    train_memory(model, texts["train"], texts["valid"], plan)
    encoded = {part: encode_documents(gpt.tokenizer, documents) for part, documents in texts.items()}
    known = {part: [worth(model, tokens, seed) for tokens in encoded[part]] for part in encoded}
    heads = {name: trained_head(known, name in WITH_TOKEN, seed) for name in ("hidden", *WITH_TOKEN)}
    orders: dict[str, Callable[[int], Order]] = {
        "random": lambda _: at_random(seed),
        "surprise": lambda _: lambda hidden, following, surprise, position: surprise,
        "future": lambda document: by_position(known["test"][document]["worth"]),
    }
    for name, head in heads.items():
        orders[f"gain by {name}"] = lambda _, head=head, name=name: predicted(model, head, name in WITH_TOKEN)
    scores = {name: scored(model, texts["test"], order) for name, order in orders.items()}
    nats = torch.cat([each["worth"] for each in known["train"]])
    return {
        "bits_per_byte": {name: result.bits_per_byte for name, result in scores.items()},
        "differences": [compare(scores, name, "random", seed=seed) for name in scores if name != "random"],
        "correlation": {name: correlation(head, known["test"], name in WITH_TOKEN) for name, head in heads.items()},
        "entries_worth_reading": (nats > 0).float().mean().item(),
        "entries_that_harm": (nats < 0).float().mean().item(),
    }


@torch.no_grad()
def worth(model: MemoryGPT, tokens: Tensor, seed: int) -> dict[str, Tensor]:
    """Of each token of a document: its features when it is written, and the mean of what its entry was worth."""
    length = len(tokens) - 1
    total, times = torch.zeros(length), torch.zeros(length)
    features: list[Tensor] = []
    for reading in range(READINGS):
        with writing(model, at_random(READINGS * seed + reading + 1000)):
            for step in model.steps(tokens[None, :-1]):
                targets = tokens[None, step.begin + 1 : step.begin + 1 + step.output.logits.shape[1]]
                add_gains(model, step, targets, total)
                if reading == 0:
                    surprise = -model.network.target_log_probabilities(step.output.logits, targets)
                    features.append(features_of(model, step.output.hidden, targets, surprise)[0])
            times[model.after(step, tokens[None]).positions[0]] += 1  # all that were written
    return {"features": torch.cat(features), "worth": total / times.clamp_min(1), "written": times > 0}


def add_gains(model: MemoryGPT, step: Step, targets: Tensor, total: Tensor) -> None:
    """Add to each entry, by its position, what it gained or lost the targets [1, n]."""
    reading, gate = step.output.reading, model.network.gate.clamp(0, 1)
    probability = model.network.target_log_probabilities(step.output.logits, targets).exp().unsqueeze(2)  # [1, n, 1]
    nothing, weights = reading.weights[..., :1], reading.weights[..., 1:]
    of_entries = weights * reading.hits(targets)
    own_share = 1 - gate + gate * nothing
    own = (probability - gate * of_entries.sum(2, keepdim=True)).clamp_min(1e-12) / own_share.clamp_min(1e-6)
    rest = (1 - weights).clamp_min(1e-6)  # what the others' weights are divided by where the entry is not there
    without = (1 - gate + gate * nothing / rest) * own + gate * (of_entries.sum(2, keepdim=True) - of_entries) / rest
    gains = (probability.clamp_min(1e-12) / without.clamp_min(1e-12)).log()
    there = reading.columns >= 0
    total.index_add_(0, step.entries.positions[0][reading.columns[there]], gains[there])


def features_of(model: MemoryGPT, hidden: Tensor, following: Tensor, surprise: Tensor) -> Tensor:
    """[B, n, 2 E + 1]: the hidden state, the token's embedding, and its surprise in tens of nats."""
    embedded = model.network.gpt.get_input_embeddings()(following).float()
    return torch.cat([normalize(hidden, dim=-1), normalize(embedded, dim=-1), surprise.unsqueeze(2) / 10], 2)


def seen(features: Tensor, with_token: bool) -> Tensor:
    return features if with_token else features[..., : features.shape[-1] // 2]


def trained_head(known: dict[str, list[dict[str, Tensor]]], with_token: bool, seed: int) -> nn.Module:
    """The head that predicts worth best on validation documents, of all epochs."""
    parts = {}
    for part in ("train", "valid"):
        written = torch.cat([each["written"] for each in known[part]])
        x, y = (torch.cat([each[name] for each in known[part]])[written] for name in ("features", "worth"))
        parts[part] = seen(x, with_token), y.clamp(-WORTH_AT_MOST, WORTH_AT_MOST)
    torch.manual_seed(seed)
    x, y = parts["train"]
    head = nn.Sequential(nn.Linear(x.shape[1], 64), nn.GELU(), nn.Linear(64, 1), nn.Flatten(-2))
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.01)
    best, kept = float("inf"), head.state_dict()
    for _ in range(HEAD_EPOCHS):
        for rows in torch.randperm(len(x)).split(HEAD_BATCH):
            loss = mse_loss(head(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            error = mse_loss(head(parts["valid"][0]), parts["valid"][1]).item()
        if error < best:
            best, kept = error, {name: values.clone() for name, values in head.state_dict().items()}
    head.load_state_dict(kept)
    return head


@torch.no_grad()
def correlation(head: nn.Module, known: list[dict[str, Tensor]], with_token: bool) -> float:
    """Of what the head predicts for test documents with what entries were worth there."""
    written = torch.cat([each["written"] for each in known])
    x, y = (torch.cat([each[name] for each in known])[written] for name in ("features", "worth"))
    pair = torch.stack([head(seen(x, with_token)), y.clamp(-WORTH_AT_MOST, WORTH_AT_MOST)])
    return torch.corrcoef(pair)[0, 1].item()


def at_random(seed: int) -> Order:
    def order(hidden: Tensor, following: Tensor, surprise: Tensor, position: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + position)
        return torch.rand(surprise.shape[1], generator=generator).expand_as(surprise)

    return order


def by_position(values: Tensor) -> Order:
    return lambda hidden, following, surprise, position: values[None, position : position + surprise.shape[1]]


def predicted(model: MemoryGPT, head: nn.Module, with_token: bool) -> Order:
    return lambda hidden, following, surprise, position: head(
        seen(features_of(model, hidden, following, surprise), with_token)
    )


@contextlib.contextmanager
def writing(model: MemoryGPT, order: Order) -> Iterator[None]:
    """While it lasts, the model writes in this order."""
    network: Any = model.network
    usual = network.writer
    network.writer = WritesBy(usual, order)
    try:
        yield
    finally:
        network.writer = usual


@torch.no_grad()
def scored(model: MemoryGPT, documents: Sequence[Document], order: Callable[[int], Order]) -> Scores:
    found = []
    for number, tokens in enumerate(encode_documents(model.tokenizer, documents)):
        with writing(model, order(number)):
            found.append(model.target_log_probabilities(tokens[None])[0])
    return sum_scores(model.tokenizer, documents, found)


if __name__ == "__main__":
    main()
