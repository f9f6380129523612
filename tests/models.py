"""Small models that tests score by hand, and one builder per language model of the library."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from frugal.baselines import ContinuousCache, NGram
from frugal.corpora import BytePairTokenizer, CharTokenizer, Tokenizer
from frugal.foundation import Foundation
from frugal.generate import GuidedModel
from frugal.language_model import HiddenStateModel, LanguageModel
from frugal.readout import EchoLanguageModel, Readout, RidgeReadout, SoftmaxReadout
from frugal.reservoir import Reservoir

TEXTS = ["the cat sat on the mat. the dog sat on the log.", "a cat and a dog met on a mat.", "the log rolled."]


class Uniform(LanguageModel):
    """Thinks every token equally likely: log2 V bits per token, exactly."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.vocabulary_size = tokenizer.vocabulary_size

    def score(self, tokens: Tensor) -> Tensor:
        return torch.full((*tokens.shape, self.vocabulary_size), -math.log(self.vocabulary_size))

    def start(self, batch_size: int) -> None:
        return None

    def step(self, tokens: Tensor, state: None) -> tuple[Tensor, None]:
        return torch.zeros(len(tokens), self.vocabulary_size), None

    def save(self, folder: Path) -> None:
        raise AssertionError("not needed by any test")

    @classmethod
    def load(cls, folder: Path) -> Self:
        raise AssertionError("not needed by any test")


class Table(Uniform):
    """A bigram table [V, V] of log-probabilities, so that a text can be scored with pencil and paper."""

    def __init__(self, tokenizer: Tokenizer, table: Tensor, context_length: int | None = None) -> None:
        super().__init__(tokenizer)
        self.table = table
        self.context_length = context_length

    def score(self, tokens: Tensor) -> Tensor:
        return self.table[tokens]

    def step(self, tokens: Tensor, state: None) -> tuple[Tensor, None]:
        return self.table[tokens], None


class Recurrent(Uniform, HiddenStateModel):
    """A random recurrent net: its prediction depends on everything before, so that any leak shows."""

    score = HiddenStateModel.score
    step = HiddenStateModel.step

    def __init__(self, tokenizer: Tokenizer, width: int = 16) -> None:
        super().__init__(tokenizer)
        generator = torch.Generator().manual_seed(0)
        self.embedding = torch.randn(self.vocabulary_size, width, generator=generator)
        self.recurrence = torch.randn(width, width, generator=generator) / width**0.5
        self.output = torch.randn(width, self.vocabulary_size, generator=generator)

    def hidden(self, tokens: Tensor) -> Tensor:
        states, state = [], self.start(len(tokens))
        for t in range(tokens.shape[1]):
            hidden, state = self.hidden_step(tokens[:, t], state)
            states.append(hidden)
        return torch.stack(states, 1)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden @ self.output

    def start(self, batch_size: int) -> Any:
        return torch.zeros(batch_size, len(self.recurrence))

    def hidden_step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        state = torch.tanh(self.embedding[tokens] + state @ self.recurrence)
        return state, state


def characters() -> CharTokenizer:
    return CharTokenizer.learn(TEXTS)


def byte_pairs() -> BytePairTokenizer:
    return BytePairTokenizer.train(TEXTS, 270)


def random_gpt2(seed: int = 0) -> Foundation:
    """An untrained GPT-2 over byte pairs, 24 wide."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    tokenizer = byte_pairs()
    config = GPT2Config(
        vocab_size=tokenizer.vocabulary_size + 3,  # a head wider than the vocabulary, as some models have
        n_positions=16,
        n_embd=24,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
    )
    return Foundation(GPT2LMHeadModel(config), tokenizer, name="random GPT-2")


def small_reservoir() -> Reservoir:
    return Reservoir(24, 20, fan_in=4, leak=0.5, input_scale=0.3)


def echo_model(join: str = "foundation", readout: Readout | None = None, **settings: Any) -> EchoLanguageModel:
    """An echo language model whose windows are shorter than the tests' streams; a readout gets random weights."""
    if readout is not None:
        torch.manual_seed(1)
        for name, values in readout.state_dict().items():
            if name.endswith(("weight", "bias")):
                values.normal_(std=0.05)
    settings = {"context": 6, **settings}
    return EchoLanguageModel(random_gpt2(), small_reservoir(), readout, join=join, **settings)  # type: ignore[arg-type]


# Every language model of the library, small: tests/test_every_language_model.py holds each to the protocol.
EVERY_MODEL: dict[str, Callable[[], LanguageModel]] = {
    "unigram": lambda: NGram(1, characters()).fit(TEXTS),
    "bigram over characters": lambda: NGram(2, characters()).fit(TEXTS),
    "5-gram over characters": lambda: NGram(5, characters()).fit(TEXTS),
    "trigram over byte pairs": lambda: NGram(3, byte_pairs()).fit(TEXTS),
    "recurrent net": lambda: Recurrent(characters()),
    "guided": lambda: GuidedModel(Recurrent(characters()), TEXTS[1], weight=0.4),
    "continuous cache": lambda: ContinuousCache(Recurrent(characters()), weight=0.3, theta=5.0),
    "foundation in windows": lambda: echo_model(),
    "echo, ridge readout": lambda: echo_model("replace", RidgeReadout(20, 273)),
    "echo of tokens": lambda: echo_model("concat", SoftmaxReadout(44, 273), drive="tokens", stride=2),
    "echo, residual": lambda: echo_model("residual", SoftmaxReadout(44, 273), stride=6, reset="never"),
    "echo, low rank": lambda: echo_model("concat", SoftmaxReadout(44, 273, hidden=(12,), rank=5), reset="window"),
    "echo, tied": lambda: echo_model("residual", SoftmaxReadout(44, 24, tied=True), stride=1),
}
