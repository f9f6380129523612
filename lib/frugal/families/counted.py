"""Families that need no pretrained model and no gradient: n-grams, mixtures of one model for each source, trees.

Train, keep, load, score, generate:

    >>> from frugal.evaluate import evaluate
    >>> from frugal.families import Kept, asked, keep_model, kept_model, read_texts
    >>> from frugal.generate import Sampling, generate
    >>> texts = read_texts("topics", characters=2_000, held_out_characters=400)
    >>> family, plan = asked("ngram", {"order": 4})
    >>> trained = family.train(family.build(texts), texts, plan)
    >>> folder = keep_model(trained.model, Kept(name="mine", family="ngram", text="topics"))
    >>> model, about, _ = kept_model("mine")
    >>> abs(evaluate(model, texts.test).nats / evaluate(trained.model, texts.test).nats - 1) < 1e-3
    True
    >>> text = generate(model, "The river", Sampling(max_tokens=8, seed=0))

A mixture of experts takes the same lines, and then gives and takes sources:

    >>> family, plan = asked("ensemble", {"experts": 3, "order": 4})
    >>> mixture = family.train(family.build(texts), texts, plan).model
    >>> fewer = mixture.without_expert(next(iter(mixture.experts)))
    >>> len(mixture.experts), len(fewer.experts)
    (3, 2)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from frugal.baselines import BoostedTrees, NGram
from frugal.combine import Ensemble
from frugal.corpora import BytePairTokenizer, CharTokenizer, Document, Tokenizer
from frugal.device import DType
from frugal.families.family import Family, Observe, Trained, known
from frugal.families.texts import Texts
from frugal.language_model import LanguageModel

LONGEST = 32  # n-gram; memory and time grow with it, and a text repeats few longer sequences
BYTE_PAIRS = 2000  # tokens that are learnt; fewer for a text that has fewer


class Counted(Family):
    """A family whose models are made of all their text in one pass."""

    @property
    def made_at_once(self) -> bool:
        return True

    def start_of(self, model: Any, texts: Texts) -> tuple[str, LanguageModel]:
        return "unigram", NGram(1, model.tokenizer).fit(texts.train)


@known
@dataclass(frozen=True, kw_only=True)
class NGramFamily(Counted):
    """An interpolated modified Kneser-Ney n-gram.

    Attributes:
        order: longest n-gram that is counted.
        tokens: "characters", or "pairs": byte pairs learnt from the training text.

    >>> NGramFamily(order=3).build(Texts((Document("a", "abc"),), (), (), 3)).order
    3
    """

    name: ClassVar[str] = "ngram"
    ranges: ClassVar = {"order": (1, LONGEST)}

    order: int = 6
    tokens: Literal["characters", "pairs"] = "characters"

    def _build(self, texts: Texts, device: str, dtype: DType, seed: int) -> NGram:
        return NGram(self.order, tokenizer_for(texts.train, self.tokens))

    def _train(self, model: Any, texts: Texts, plan: Any, observe: Observe, beside: Path | None) -> Trained:
        return Trained(model.fit(texts.train))


@known
@dataclass(frozen=True, kw_only=True)
class EnsembleFamily(Counted):
    """One n-gram for each source, mixed as a text goes on; sources come and go, and no other model changes.

    A source is a document of the training text; a single document, or more of them than there may be experts, is cut
    into, or joined to, so many sources.

    Attributes:
        experts: most sources.
        order: longest n-gram that an expert counts.
        memory: 0 to 1: how long the mixture trusts an expert for what it predicted well.

    >>> text = (Document("a", "one two three four"),)
    >>> family, texts = EnsembleFamily(experts=2), Texts(text, text, text, 18)
    >>> list(family.train(family.build(texts), texts).model.experts)
    ['a, part 1', 'a, part 2']
    """

    name: ClassVar[str] = "ensemble"
    ranges: ClassVar = {"memory": (0, 1), "order": (1, LONGEST)}

    experts: int = 4
    order: int = 6
    memory: float = 0.9

    def _build(self, texts: Texts, device: str, dtype: DType, seed: int) -> Ensemble:
        tokenizer = tokenizer_for(texts.train, "characters")
        names = sources(texts.train, self.experts)
        return Ensemble({name: NGram(self.order, tokenizer) for name in names}, memory=self.memory)

    def _train(self, model: Any, texts: Texts, plan: Any, observe: Observe, beside: Path | None) -> Trained:
        taught = sources(texts.train, self.experts)
        experts = {name: NGram(self.order, model.tokenizer).fit(documents) for name, documents in taught.items()}
        return Trained(Ensemble(experts, memory=self.memory).with_learned_prior(texts.valid))


@known
@dataclass(frozen=True, kw_only=True)
class TreesFamily(Counted):
    """Boosted trees over the characters before, LightGBM's; slow for what they learn.

    Attributes:
        context_length: characters that they see.
        rounds: each grows a tree for every character of the alphabet.
        leaves: most of a tree.
        learning_rate: share of each tree's answer that is added.

    >>> TreesFamily(rounds=5).made_at_once
    True
    """

    name: ClassVar[str] = "trees"
    ranges: ClassVar = {"leaves": (2, math.inf)}

    characters: int | None = 50_000
    context_length: int = 10
    rounds: int = 20
    leaves: int = 31
    learning_rate: float = 0.1

    def _build(self, texts: Texts, device: str, dtype: DType, seed: int) -> BoostedTrees:
        return BoostedTrees(self.context_length, tokenizer_for(texts.train, "characters"))

    def _train(self, model: Any, texts: Texts, plan: Any, observe: Observe, beside: Path | None) -> Trained:
        settings = {"rounds": self.rounds, "leaves": self.leaves, "learning_rate": self.learning_rate}
        return Trained(model.fit(texts.train, threads=torch.get_num_threads(), **settings))


def tokenizer_for(documents: Sequence[Document], tokens: str, vocabulary: int = BYTE_PAIRS) -> Tokenizer:
    """The alphabet of the documents, or byte pairs learnt from them, at most so many."""
    texts = (document.text for document in documents)
    return CharTokenizer.learn(texts) if tokens == "characters" else BytePairTokenizer.train(texts, vocabulary)


def sources(documents: Sequence[Document], most: int) -> dict[str, list[Document]]:
    """At most so many groups of documents of about equal length, in order, each with a name.

    >>> list(sources([Document("a", "one two three four")], 2).values())
    [[Document(title='a', text='one two t', turns=())], [Document(title='a', text='hree four', turns=())]]
    """
    if len(documents) == 1:
        [document] = documents
        length = max(1, -(-len(document.text) // most))
        cuts = [document.text[at : at + length] for at in range(0, len(document.text), length)]
        return {f"{document.title}, part {n}": [Document(document.title, cut)] for n, cut in enumerate(cuts, 1)}
    share = -(-len(documents) // most)
    groups = [list(documents[at : at + share]) for at in range(0, len(documents), share)]
    names = [group[0].title + (f" and {len(group) - 1} more" if len(group) > 1 else "") for group in groups]
    # Files of many folders may have one name.
    names = [name if names.count(name) == 1 else f"{name} ({n})" for n, name in enumerate(names, 1)]
    return dict(zip(names, groups, strict=True))
