"""Is it the memory? Measurements of a store, and controls that change one thing and leave the rest as it was."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from frugal.corpora import Document, encode_documents
from frugal.generate import Sampling, generate
from frugal.memory.datastore import Datastore
from frugal.memory.mixture import Interpolation, Trace
from frugal.memory.neighbours import KEPT, NearestNeighbourLM
from frugal.memory.reading import Entries
from frugal.memory.store import AssociativeMemory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


def only(traces: Sequence[Trace], *sources: int) -> list[Trace]:
    """Traces with some of their sources: 0 is the document, 1 the memory."""
    return [trace._replace(sources=tuple(trace.sources[j] for j in sources)) for trace in traces]


def shuffled(traces: Sequence[Trace], seed: int = 0) -> list[Trace]:
    """Traces whose entries have one another's values."""
    return [t._replace(sources=tuple(s.with_shuffled_values(seed) for s in t.sources)) for t in traces]


def oracle(traces: Sequence[Trace]) -> list[Trace]:
    """Traces whose nearest entries hold the right token."""
    return [t._replace(sources=tuple(s.with_oracle_values(t.targets) for s in t.sources)) for t in traces]


def with_foreign_documents(traces: Sequence[Trace], keys: Sequence[Tensor]) -> list[Trace]:
    """Traces that find, in place of their own document, all of the document before it (of the first: the last).

    `keys` [T, D] are those of each document.
    """
    changed = []
    for place, trace in enumerate(traces):
        values, vectors = traces[place - 1].targets, keys[place - 1]
        memory = Datastore.empty(vectors.shape[1], len(vectors))
        memory.remember(pad(values, (1, 0)), vectors, torch.arange(len(values)))
        changed.append(trace._replace(sources=(memory.search(keys[place], KEPT),)))
    return changed


def explain(lm: NearestNeighbourLM, document: Document, trace: Trace, count: int = 8) -> list[Found]:
    """Where the memory won most, and by which entries."""
    (tokens,) = encode_documents(lm.tokenizer, [document])
    won = (lm.mixture.log_probabilities(trace) - trace.own) / np.log(2)
    weights = lm.mixture.weights(trace.entropy, trace.sources)[:, 1:]

    def text(known: Tensor, place: int) -> tuple[str, str]:
        return lm.tokenizer.decode(known[max(0, place - 6) : place]), lm.tokenizer.decode(known[place : place + 1])

    rows = []
    for row in won.topk(min(count, len(won))).indices.tolist():
        source = int(weights[row].argmax())
        entry = int(trace.sources[source].ids[row, 0])
        if source == 0:
            found = text(tokens, entry + 1)
        else:
            number, place = lm.memory.place(entry)
            found = text(lm.memory.texts[number], place)
        name = ("document", "memory")[source]
        rows.append(Found(*text(tokens, row + 1), won[row].item(), weights[row].sum().item(), name, *found))
    return rows


def read_twice(lm: NearestNeighbourLM, document: Document, between: Sequence[Document]) -> dict[str, float]:
    """Bits per token of a document read first, read after others, and read again after these and itself."""
    fresh = NearestNeighbourLM(lm.model, Datastore.empty(lm.memory.store.dim, lm.memory.store.capacity), lm.mixture)
    bits = {}
    for name, before in (("first", []), ("after others", [*between]), ("again", [document])):
        for text in before:
            fresh.remember(text)
        bits[name] = -lm.mixture.log_probabilities(fresh.traces([document])[0]).mean().item() / np.log(2)
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


def nothing(entries: Entries) -> Entries:
    """No memory at all; for `MemoryGPT.altered`, as the next three."""
    return entries.without(torch.ones_like(entries.tokens, dtype=torch.bool))


def zero(entries: Entries) -> Entries:
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


def draw_differences(
    axis: "Axes", rows: Sequence[dict[str, Any]], names: Sequence[str], colours: Sequence[str]
) -> None:
    """A point with its interval for each row with "bits per byte", "low" and "high"; the first at the bottom."""
    for place, (row, colour) in enumerate(zip(rows, colours, strict=True)):
        axis.plot([row["low"], row["high"]], [place, place], color=colour)
        axis.plot(row["bits per byte"], place, "o", color=colour)
    axis.set_yticks(range(len(rows)), names, fontsize=9)
    axis.axvline(0, color="gray", linewidth=1)
    axis.set_xlabel("difference in bits per byte")


def draw_architecture(axis: "Axes", *, E: int, D: int, k: int, V: int, colour: str) -> None:
    """What a window's tokens read and write, with the shapes of the tensors."""
    places = {
        "input": (f"input x\n[B, n, {E}]", 0.2, 3.2),
        "query": (f"query\n[B, n, {D}]", 1.7, 3.2),
        "memory": (f"memory\nkeys [m, {D}]\ntokens [m]", 3.0, 1.9),
        "reading": (f"reading\n[B, n, {k}, {D}]", 1.7, 2.2),
        "fc": (f"fc, or attention\n[B, n, {E}]", 0.2, 1.9),
        "GPT": (f"GPT\nhidden [B, n, {E}]", 0.2, 0.8),
        "heads": (f"storable, deletable\nvector [B, n, {D}]\ndecisions [B, n, 1]", 1.7, 0.8),
        "logits": (f"logits\n[B, n, {V}]", 0.2, -0.2),
    }
    arrows = [("input", "query", "W"), ("query", "reading", f"{k} nearest"), ("memory", "reading", "search")]
    arrows += [("reading", "fc", "gate"), ("input", "fc", ""), ("fc", "GPT", ""), ("GPT", "heads", "")]
    arrows += [("heads", "memory", "add, remove"), ("GPT", "logits", "head")]
    centred: dict[str, Any] = {"ha": "center", "va": "center"}
    frame = {"boxstyle": "round", "facecolor": "none"}
    behind = {"facecolor": axis.get_facecolor(), "edgecolor": "none", "pad": 1}
    boxes = {
        name: axis.text(x, y, text, fontsize=11, bbox=frame, **centred).get_bbox_patch()
        for name, (text, x, y) in places.items()
    }
    for start, end, label in arrows:
        begin, finish = places[start][1:], places[end][1:]
        patches = {"patchA": boxes[start], "patchB": boxes[end], "shrinkA": 2, "shrinkB": 2}
        axis.annotate("", finish, begin, arrowprops={"arrowstyle": "->", "color": colour, **patches})
        x, y = np.mean([begin, finish], axis=0)
        axis.text(x, y, label, fontsize=10, color=colour, bbox=behind, **centred)
    axis.set(xlim=(-0.3, 3.5), ylim=(-0.5, 3.5))
    axis.axis("off")
