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
    """Milliseconds per entry added and per query searched in batch, and recall of the 10 nearest.

    Example:
        >>> measured = measure_index("exact", torch.randn(100, 4), torch.randn(20, 4))
        >>> measured["entries"], measured["recall"]
        (100, 1.0)
    """
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
    """Share of the entries that are their own nearest neighbour, or equal to it.

    Example:
        >>> store = AssociativeMemory(2, capacity=10)
        >>> ids = store.add(torch.eye(2))
        >>> self_look_up(store)
        1.0
    """
    vectors = store.all_embeddings()
    ids, _ = store.search(vectors, 1)
    return float(np.isclose(store.get(ids[:, 0]), vectors).all(1).mean())


def only(retrieved: Sequence[Retrieved], *sources: int) -> list[Retrieved]:
    """With some of the sources alone: 0 is the document, 1 the memory.

    Example:
        >>> from frugal.cooperative import LSTMLanguageModel
        >>> from frugal.corpora import CharTokenizer
        >>> lm = NearestNeighbourLM(LSTMLanguageModel(CharTokenizer.ascii(), 16))  # untrained
        >>> retrieved = lm.retrieve(["a cat", "a dog"])
        >>> [len(each.sources) for each in retrieved], [len(each.sources) for each in only(retrieved, 1)]
        ([2, 2], [1, 1])
    """
    return [each._replace(sources=tuple(each.sources[j] for j in sources)) for each in retrieved]


def shuffled(retrieved: Sequence[Retrieved], seed: int = 0) -> list[Retrieved]:
    """With values that belong to other entries, of each source.

    Example:
        >>> document = Neighbours(torch.tensor([[0], [1]]), torch.ones(2, 1), torch.tensor([[5], [6]]))
        >>> found = Retrieved(torch.zeros(2), torch.zeros(2), torch.tensor([6, 7]), (document,))
        >>> shuffled([found])[0].sources[0].tokens.tolist()  # only the first was written before the second
        [[5], [5]]
    """
    return [each._replace(sources=tuple(shuffled_values(s, seed) for s in each.sources)) for each in retrieved]


def oracle(retrieved: Sequence[Retrieved]) -> list[Retrieved]:
    """With the right token in each nearest entry: the bound on what a better search could gain.

    Example:
        >>> document = Neighbours(torch.tensor([[0], [1]]), torch.ones(2, 1), torch.tensor([[5], [6]]))
        >>> found = Retrieved(torch.zeros(2), torch.zeros(2), torch.tensor([6, 7]), (document,))
        >>> oracle([found])[0].sources[0].tokens.tolist()
        [[6], [7]]
    """
    return [each._replace(sources=tuple(oracle_values(s, each.targets) for s in each.sources)) for each in retrieved]


def shuffled_values(neighbours: Neighbours, seed: int = 0) -> Neighbours:
    """Each entry with the value of another, drawn at random from those before it.

    From those before it, since a document's later entries would tell its future.
    """
    ids, place = neighbours.ids.unique(return_inverse=True)  # in ascending order, which is that of writing
    values = torch.zeros_like(ids).scatter_(0, place.flatten(), neighbours.tokens.flatten())
    drawn = torch.rand(len(ids), generator=torch.Generator().manual_seed(int(seed))).to(ids.device)
    earlier = (drawn * torch.arange(len(ids), device=ids.device)).long()
    return neighbours._replace(tokens=values[earlier][place])


def oracle_values(neighbours: Neighbours, targets: Tensor) -> Neighbours:
    """The nearest entry of each row with the row's target as its value."""
    return neighbours._replace(tokens=torch.cat([targets.unsqueeze(1), neighbours.tokens[:, 1:]], 1))


def with_foreign_documents(lm: NearestNeighbourLM, documents: Sequence[Document | str]) -> list[Retrieved]:
    """With all of the document before it (for the first: of the last) in place of each document's own past.

    Example:
        >>> from frugal.cooperative import LSTMLanguageModel
        >>> from frugal.corpora import CharTokenizer
        >>> lm = NearestNeighbourLM(LSTMLanguageModel(CharTokenizer.ascii(), 16))  # untrained
        >>> cat, dog = with_foreign_documents(lm, ["cat", "dog"])
        >>> sorted(lm.tokenizer.decode(cat.sources[0].tokens[0]))
        ['d', 'g', 'o']
    """
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
    """Where the memory won most, and by which entries.

    Example:
        >>> from frugal.cooperative import LSTMLanguageModel
        >>> from frugal.corpora import CharTokenizer
        >>> nearest = Interpolation.constant((0.0, 0.5), (20.0, 20.0), (1, 1))  # of the memory alone
        >>> lm = NearestNeighbourLM(LSTMLanguageModel(CharTokenizer.ascii(), 16), mixture=nearest)  # untrained
        >>> document = Document("Words", "a cup of tea")
        >>> number = lm.remember(document)
        >>> (best,) = explain(lm, document, lm.retrieve([document])[0], count=1)
        >>> best.source, best.found == best.token, best.bits_won > 1
        ('memory', True, True)
    """
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
    """Bits per token of a document read first, read after others, and read again after these and itself.

    Example:
        >>> from frugal.cooperative import LSTMLanguageModel
        >>> from frugal.corpora import CharTokenizer
        >>> lm = NearestNeighbourLM(LSTMLanguageModel(CharTokenizer.ascii(), 16))  # untrained
        >>> bits = read_twice(lm, Document("Words", "a cup of tea"), [Document("Others", "one more day")])
        >>> bool(bits["again"] < bits["first"])
        True
    """
    fresh = NearestNeighbourLM(lm.model, Datastore.empty(lm.memory.store.dim, lm.memory.store.capacity), lm.mixture)
    bits = {}
    for name, before in (("first", []), ("after others", [*between]), ("again", [document])):
        fresh.remember_all(before)
        bits[name] = -lm.mixture.log_probabilities(fresh.retrieve([document])[0]).mean().item() / np.log(2)
    return bits


def needle(lm: NearestNeighbourLM, question: str, secrets: Sequence[str]) -> dict[str, str]:
    """The likeliest answers to a question: unaware, told each secret in turn, and when all is forgotten.

    Example:
        >>> from frugal.cooperative import LSTMLanguageModel
        >>> from frugal.corpora import CharTokenizer
        >>> lm = NearestNeighbourLM(LSTMLanguageModel(CharTokenizer.ascii(), 16))  # untrained
        >>> answers = needle(lm, "The password is", [" marmalade"])
        >>> list(answers), answers["asked"] == answers["forgotten"]
        (['asked', 'told marmalade', 'forgotten'], True)
    """
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

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> from frugal.corpora import CharTokenizer
        >>> from frugal.foundation import Foundation
        >>> small = GPT2Config(vocab_size=130, n_positions=8, n_embd=12, n_layer=1, bos_token_id=128, eos_token_id=128)
        >>> gpt = Foundation(GPT2LMHeadModel(small), CharTokenizer.ascii(), name="untrained")
        >>> scores = ablations(MemoryGPT(gpt, read="knn"), ["the cat sat on the mat"], "a cup of tea")
        >>> list(scores)
        ['off', 'zero', 'shuffled', "another document's", 'writes random', 'writes surprise', 'writes all']
    """
    tokens = encode_documents(model.tokenizer, [foreign])[0][None, : 20 * model.context].to(model.device)
    with torch.inference_mode():
        *_, last = model.steps(tokens)

    def of_another(entries: Entries) -> Entries:
        """What the other document wrote, for every stream that has written something itself."""
        if not entries.tokens.shape[1]:
            return entries
        return Entries(*(column.expand(len(entries.tokens), *column.shape[1:]) for column in last.entries))

    changes: dict[str, Callable[[Entries], Entries]] = {
        "off": emptied,
        "zero": lambda entries: entries._replace(vectors=torch.zeros_like(entries.vectors)),
        "shuffled": lambda entries: entries.shuffled(seed),
        "another document's": of_another,
    }
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
    """No memory at all; for `MemoryGPT.altered`.

    Example:
        >>> entries = Entries(torch.ones(1, 2, 3), torch.tensor([[7, 8]]), torch.zeros(1, 2), torch.tensor([[0, 1]]))
        >>> emptied(entries).log_prior
        tensor([[-inf, -inf]])
    """
    return entries.without(torch.ones_like(entries.tokens, dtype=torch.bool))
