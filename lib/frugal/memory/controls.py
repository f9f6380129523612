"""Is it the memory? Measurements of a store, and controls that change one thing and leave the rest as it was."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from frugal.baselines.cache import Neighbours
from frugal.corpora import Document, encode_documents
from frugal.evaluate import Scores, evaluate
from frugal.generate import Sampling, generate
from frugal.memory.datastore import Datastore, text_at
from frugal.memory.entries import Entries
from frugal.memory.knn_lm import KEPT, NearestNeighbourLM
from frugal.memory.mixture import Interpolation, Retrieved
from frugal.memory.model import MemoryGPT
from frugal.memory.store import AssociativeMemory

Change = Callable[[Entries], Entries]


class Found(NamedTuple):
    """What weighed most where a token was predicted: what was read before it, and what was found."""

    after: str
    token: str
    bits_won: float
    weight: float  # of all sources together
    source: str
    found_after: str
    found: str


def measure_index(index: str, vectors: Tensor, queries: Tensor, seed: int = 0) -> dict[str, Any]:
    """Milliseconds per entry added and per query searched in batch, and recall of the 10 nearest."""
    store = AssociativeMemory(vectors.shape[1], len(vectors), index=index, seed=seed)
    began = time.perf_counter()
    store.add(vectors)
    adding = time.perf_counter() - began
    store.search(queries)  # builds what is still to be built
    began = time.perf_counter()
    store.search(queries)
    searching = time.perf_counter() - began
    return {
        "index": index,
        "entries": len(vectors),
        "recall": store.recall(queries),
        "add, ms": 1000 * adding / len(vectors),
        "search, ms": 1000 * searching / len(queries),
    }


def self_look_up(store: AssociativeMemory) -> float:
    """Share of the entries that are their own nearest neighbour, or equal to it."""
    vectors = store.all_embeddings()
    ids, _ = store.search(vectors, 1)
    return float(np.isclose(store.get(ids[:, 0]), vectors).all(1).mean())


def only(retrieved: Sequence[Retrieved], *sources: int) -> list[Retrieved]:
    """With some of the sources alone: 0 is the document, 1 the memory."""
    return [each._replace(sources=tuple(each.sources[j] for j in sources)) for each in retrieved]


def shuffled(retrieved: Sequence[Retrieved], seed: int = 0) -> list[Retrieved]:
    """With values that belong to other entries, of each source."""
    return [each._replace(sources=tuple(shuffled_values(s, seed) for s in each.sources)) for each in retrieved]


def oracle(retrieved: Sequence[Retrieved]) -> list[Retrieved]:
    """With the right token in each nearest entry: the bound on what a better search could gain."""
    return [each._replace(sources=tuple(oracle_values(s, each.targets) for s in each.sources)) for each in retrieved]


def shuffled_values(neighbours: Neighbours, seed: int = 0) -> Neighbours:
    """Each entry with the value of another, drawn at random from those before it.

    From those before it, since a document's later entries would tell its future.
    """
    ids, place = neighbours.ids.unique(return_inverse=True)  # in ascending order, which is that of writing
    values = torch.zeros_like(ids).scatter_(0, place.flatten(), neighbours.tokens.flatten())
    drawn = torch.rand(len(ids), generator=torch.Generator().manual_seed(seed)).to(ids.device)
    earlier = (drawn * torch.arange(len(ids), device=ids.device)).long()
    return neighbours._replace(tokens=values[earlier][place])


def oracle_values(neighbours: Neighbours, targets: Tensor) -> Neighbours:
    """The nearest entry of each row with the row's target as its value."""
    return neighbours._replace(tokens=torch.cat([targets.unsqueeze(1), neighbours.tokens[:, 1:]], 1))


def with_foreign_documents(lm: NearestNeighbourLM, documents: Sequence[Document | str]) -> list[Retrieved]:
    """With all of the document before it (for the first: of the last) in place of each document's own past."""
    read, retrieved = list(lm.read(documents)), lm.retrieve(documents)
    changed = []
    for place, ((_, hidden), each) in enumerate(zip(read, retrieved, strict=True)):
        tokens, other = read[place - 1]
        keys = lm.keys(other)
        memory = Datastore.empty(keys.shape[1], len(keys))
        memory.add(tokens, keys)
        changed.append(each._replace(sources=(memory.search(lm.keys(hidden), KEPT),)))
    return changed


def explain(lm: NearestNeighbourLM, document: Document, retrieved: Retrieved, count: int = 8) -> list[Found]:
    """Where the memory won most, and by which entries."""
    (tokens,) = encode_documents(lm.tokenizer, [document])
    won = (lm.mixture.log_probabilities(retrieved) - retrieved.own) / np.log(2)
    weights = lm.mixture.weights(retrieved.entropy, retrieved.sources)[:, 1:]

    rows = []
    for row in won.topk(min(count, len(won))).indices.tolist():
        source = int(weights[row].argmax())
        entry = int(retrieved.sources[source].ids[row, 0])
        tokenizer, name = lm.tokenizer, ("document", "memory")[source]
        found = lm.memory.text_at(entry, tokenizer) if source else text_at(tokens, entry + 1, tokenizer)
        gain, weight = won[row].item(), weights[row].sum().item()
        rows.append(Found(*text_at(tokens, row + 1, tokenizer), gain, weight, name, *found))
    return rows


def read_twice(lm: NearestNeighbourLM, document: Document, between: Sequence[Document]) -> dict[str, float]:
    """Bits per token of a document read first, read after others, and read again after these and itself."""
    fresh = NearestNeighbourLM(lm.model, Datastore.empty(lm.memory.store.dim, lm.memory.store.capacity), lm.mixture)
    bits = {}
    for name, before in (("first", []), ("after others", [*between]), ("again", [document])):
        fresh.remember_all(before)
        bits[name] = -lm.mixture.log_probabilities(fresh.retrieve([document])[0]).mean().item() / np.log(2)
    return bits


def needle(lm: NearestNeighbourLM, question: str, secrets: Sequence[str]) -> dict[str, str]:
    """The likeliest answers to a question: unaware, told each secret in turn, and when all is forgotten."""
    fresh = NearestNeighbourLM(lm.model, mixture=Interpolation.constant((0.0, 0.95), (40.0, 40.0), (8, 8)))
    likeliest = Sampling(max_tokens=4, temperature=0)
    answers = {"asked": generate(fresh, question, likeliest)}
    for secret in secrets:
        fresh.remember(f"{question}{secret}.")
        answers[f"told{secret}"] = generate(fresh, question, likeliest)
        fresh.forget(f"{question}{secret}.")
    return answers | {"forgotten": generate(fresh, question, likeliest)}


def ablations(
    model: MemoryGPT, documents: Sequence[Document | str], foreign: Document | str, seed: int = 0
) -> dict[str, Scores]:
    """The same weights with another memory: off, zero, shuffled, another document's, and written in other ways.

    `foreign` is the other document, read up to the twentieth window.
    """
    tokens = encode_documents(model.tokenizer, [foreign])[0][None, : 20 * model.context].to(model.device)
    with torch.inference_mode():
        *_, last = model.steps(tokens)
    written = last.entries._replace(positions=torch.full_like(last.entries.positions, -1))
    changes = {"off": emptied, "zero": zeroed, "shuffled": shuffling(seed), "another document's": of_another(written)}
    scores = {name: evaluate(model.altered(change), documents) for name, change in changes.items()}
    writer = model.network.writer
    usual = writer.write
    try:
        for other in ("random", "surprise", "all"):
            writer.write = other
            scores[f"writes {other}"] = evaluate(model, documents)
    finally:
        writer.write = usual
    return scores


def emptied(entries: Entries) -> Entries:
    """No memory at all; for `MemoryGPT.altered`, as the next three."""
    return entries.without(torch.ones_like(entries.tokens, dtype=torch.bool))


def zeroed(entries: Entries) -> Entries:
    """Vectors that are all zero."""
    return entries._replace(vectors=torch.zeros_like(entries.vectors))


def shuffling(seed: int) -> Change:
    """The entries' tokens in another order."""
    return lambda entries: entries.shuffled(seed)


def of_another(foreign: Entries) -> Change:
    """What another stream wrote [1, m], for every stream that has written something itself."""

    def change(entries: Entries) -> Entries:
        if not entries.tokens.shape[1]:
            return entries
        batch = len(entries.tokens)
        return Entries(*(column.expand(batch, *column.shape[1:]) for column in foreign))

    return change
