"""The two memory families: a GPT that learns to read and write its memory, and one that looks up what it remembers.

Train, keep, load, score, generate; with a pretrained GPT `foundation` is its name.

    >>> from pathlib import Path
    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> from frugal.corpora import BytePairTokenizer
    >>> from frugal.foundation import Foundation
    >>> pairs = BytePairTokenizer.train(["a text"], vocabulary_size=260)
    >>> small = GPT2Config(vocab_size=260, n_positions=32, n_embd=12, n_layer=1, bos_token_id=0, eos_token_id=0)
    >>> Foundation(GPT2LMHeadModel(small), pairs, name="small").save(Path("my-gpt"), "# Untrained")

    >>> from frugal.evaluate import evaluate
    >>> from frugal.families import Kept, asked, keep_model, kept_model, read_texts
    >>> from frugal.generate import Sampling, generate
    >>> texts = read_texts("topics", characters=2_000, held_out_characters=400)
    >>> family, plan = asked("neighbours", {"foundation": "my-gpt", "context_length": 8})
    >>> trained = family.train(family.build(texts), texts, plan)
    >>> folder = keep_model(trained.model, Kept(name="mine", family="neighbours", text="topics"))
    >>> model, about, _ = kept_model("mine")
    >>> abs(evaluate(model, texts.test).nats / evaluate(trained.model, texts.test).nats - 1) < 1e-2
    True
    >>> text = generate(model, "The river", Sampling(max_tokens=8, seed=0))

The GPT that learns to read takes the same lines:

    >>> family, plan = asked("memory", {"foundation": "my-gpt", "context_length": 8, "memory_dim": 8, "epochs": 1})
    >>> trained = family.train(family.build(texts), texts, plan)
    >>> [score.epoch for score in trained.scores]
    [0, 1]
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from frugal.corpora import encode_documents
from frugal.device import DType
from frugal.families.family import Family, Observe, Trained, known
from frugal.families.texts import Texts
from frugal.foundation import WindowedFoundation, load_foundation
from frugal.language_model import LanguageModel
from frugal.memory import Datastore, Interpolation, MemoryGPT, MemoryPlan, NearestNeighbourLM, train_memory

SECONDS_READING = 200.0  # of a training; scoring such a model takes as long again
IndexType = Literal["auto", "exact", "flat", "ivf", "compressed", "graph"]


@known
@dataclass(frozen=True, kw_only=True)
class MemoryFamily(Family):
    """A MemoryGPT: see there for what it computes.

    Attributes:
        foundation: the GPT: smollm2, tiny-gpt2, a folder or a Hugging Face name.
        context_length: tokens per window of it.
        read: how entries are read: "knn" mixes their tokens into the output, "attention" their vectors into the hidden
            states, "concat" into the input.
        write: what is written: "all", "threshold", "surprise", "learned" or "random".
        write_budget: share of tokens that may be written.
        deletes: obey the delete decision.
        memory_size: most entries of a stream, and of the kept memory; the oldest go first.
        memory_dim: width of the entries; None: that of the foundation.
        num_search_results: entries read at each token.
        index_type: of the kept memory: flat, exact, ivf, compressed, graph or auto.
        num_clusters: lists of ivf and compressed.
        train_base: train the GPT too.
        original: as VardaGPT's code has it, where that differs from its description.
        remember: put the training text into the kept memory when the training is over.

    >>> MemoryFamily(read="attention").plan().learning_rate
    0.001
    """

    name: ClassVar[str] = "memory"
    ranges: ClassVar = {"write_budget": (0, 1)}

    characters: int | None = 15_000
    foundation: str = "smollm2"
    context_length: int = 32
    read: Literal["knn", "attention", "concat"] = "knn"
    write: Literal["all", "threshold", "surprise", "learned", "random"] = "all"
    write_budget: float = 0.25
    deletes: bool = False
    memory_size: int = 10_000
    memory_dim: int | None = 128
    num_search_results: int = 5
    index_type: IndexType = "flat"
    num_clusters: int = 1024
    train_base: bool = False
    original: bool = False
    remember: bool = False

    def plan(self) -> MemoryPlan:
        return MemoryPlan(epochs=2, learning_rate=1e-3, batch_size=4, seconds=SECONDS_READING)

    def foundation_of(self, model: MemoryGPT) -> WindowedFoundation:
        return WindowedFoundation(model.foundation, model.context)

    def _build(self, texts: Texts, device: str, dtype: DType, seed: int) -> MemoryGPT:
        return MemoryGPT(
            load_foundation(self.foundation, device=device, dtype="float32"),
            read=self.read,
            write=self.write,
            context=self.context_length,
            memory_size=self.memory_size,
            memory_dim=self.memory_dim,
            num_search_results=self.num_search_results,
            budget=self.write_budget,
            deletes=self.deletes,
            original=self.original,
            train_base=self.train_base,
            seed=seed,
            index=self.index_type,
            num_clusters=self.num_clusters,
        )

    def _train(self, model: Any, texts: Texts, plan: Any, observe: Observe, beside: Path | None) -> Trained:
        longest = max(map(len, encode_documents(model.tokenizer, texts.train)))
        if longest <= model.context + (plan.windows - 1) * model.stride:
            plan = replace(plan, scope="stream")  # documents too short for a step are read on, one after the other
        scores = train_memory(model, texts.train, texts.valid, plan, on_epoch=observe)
        if self.remember:
            for document in texts.train:
                model.remember(document)
        return Trained(model, scores)


@known
@dataclass(frozen=True, kw_only=True)
class NeighboursFamily(Family):
    """A NearestNeighbourLM: nothing is trained but a handful of numbers, on the validation text.

    Attributes:
        foundation: frozen GPT: smollm2, tiny-gpt2, a folder or a Hugging Face name.
        context_length: tokens per window of it.
        memory_size: most entries; the oldest go first.
        index_type: flat, exact, ivf, compressed, graph or auto.
        adaptive: the weights of the neighbours follow how sure the GPT is and how near they are.

    >>> NeighboursFamily().plan() is None
    True
    """

    name: ClassVar[str] = "neighbours"

    characters: int | None = 100_000
    foundation: str = "smollm2"
    context_length: int = 64
    memory_size: int = 1_000_000
    index_type: IndexType = "auto"
    adaptive: bool = True

    def foundation_of(self, model: NearestNeighbourLM) -> LanguageModel:
        return model.model

    def _build(self, texts: Texts, device: str, dtype: DType, seed: int) -> NearestNeighbourLM:
        windows = WindowedFoundation(load_foundation(self.foundation, device=device, dtype=dtype), self.context_length)
        memory = Datastore.empty(
            windows.foundation.hidden_size, self.memory_size, index=self.index_type, seed=seed, device=device
        )
        return NearestNeighbourLM(windows, memory)

    def _train(self, model: Any, texts: Texts, plan: Any, observe: Observe, beside: Path | None) -> Trained:
        remembered = {text.text for text in model.memory.store.texts.values()}
        model.remember_all(document for document in texts.train if document.text not in remembered)
        model.mixture = Interpolation.fit(model.retrieve(texts.valid), adaptive=self.adaptive)
        return Trained(model)
