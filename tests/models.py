"""Small models that tests score by hand, and one builder per language model of the library."""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor

from frugal.baselines import BoostedTrees, Cache, ContextMixing, NGram, SmallTransformer
from frugal.combine import Ensemble, Extrapolated, Guided, Inverted, Mixture, OnlineMixture, Steered, Tempered
from frugal.cooperative import LSTMLanguageModel
from frugal.corpora import BytePairTokenizer, CharTokenizer, Tokenizer
from frugal.forward_forward import ForwardForwardReadout
from frugal.foundation import Foundation, WindowedFoundation
from frugal.language_model import HiddenStateModel, LanguageModel
from frugal.memory import Interpolation, MemoryGPT, NearestNeighbourLM
from frugal.piecewise import PiecewiseLM, preset
from frugal.readout import (
    EchoLanguageModel,
    OnlineResidual,
    Readout,
    ReservoirLanguageModel,
    RidgeReadout,
    SoftmaxReadout,
)
from frugal.reservoir import Reservoir

# What float32 may change in a log-probability when other kernels, or the same in another order, compute it: its own
# steps at -46, the lowest that a small model here gives, are 4e-6, and some twenty roundings come together.
ROUNDING = 1e-4

DEVICE = torch.device("cpu")  # where models that can be elsewhere are made; tests of devices change it

TEXTS = ["the cat sat on the mat. the dog sat on the log.", "a cat and a dog met on a mat.", "the log rolled."]


class Uniform(LanguageModel):
    """Thinks every token equally likely: log2 V bits per token, exactly."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.vocabulary_size = tokenizer.vocabulary_size

    def log_probabilities(self, tokens: Tensor) -> Tensor:
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

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        return self.table[tokens]

    def step(self, tokens: Tensor, state: None) -> tuple[Tensor, None]:
        return self.table[tokens], None


class Recurrent(Uniform, HiddenStateModel):
    """A random recurrent net: its prediction depends on everything before, so that any leak shows."""

    log_probabilities = HiddenStateModel.log_probabilities
    step = HiddenStateModel.step

    def __init__(self, tokenizer: Tokenizer, width: int = 16) -> None:
        super().__init__(tokenizer)
        generator = torch.Generator().manual_seed(0)
        self.device = DEVICE
        self.embedding = torch.randn(self.vocabulary_size, width, generator=generator).to(DEVICE)
        self.recurrence = torch.randn(width, width, generator=generator).to(DEVICE) / width**0.5
        self.output = torch.randn(width, self.vocabulary_size, generator=generator).to(DEVICE)

    def hidden(self, tokens: Tensor) -> Tensor:
        states, state = [], self.start(len(tokens))
        for t in range(tokens.shape[1]):
            hidden, state = self.hidden_step(tokens[:, t], state)
            states.append(hidden)
        return torch.stack(states, 1)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden @ self.output

    def start(self, batch_size: int) -> Any:
        return torch.zeros(batch_size, len(self.recurrence), device=self.device)

    def hidden_step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        state = torch.tanh(self.embedding[tokens] + state @ self.recurrence)
        return state, state


def set_everywhere(monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    """Give a name of the library another value in every module that has it, also where it was imported."""
    users = [each for path, each in sys.modules.items() if path.startswith("frugal.") and name in vars(each)]
    assert users
    for module in users:
        monkeypatch.setattr(module, name, value)


def characters() -> CharTokenizer:
    return CharTokenizer.learn(TEXTS)


def byte_pairs() -> BytePairTokenizer:
    return BytePairTokenizer.train(TEXTS, 270)


def random_gpt2(seed: int = 0, **sizes: int) -> Foundation:
    """An untrained GPT-2 over byte pairs, 24 wide."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    tokenizer = byte_pairs()
    config = GPT2Config(
        vocab_size=tokenizer.vocabulary_size + 3,  # a head wider than the vocabulary, as some models have
        initializer_range=0.3,
        **{"n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 2, **sizes},
    )
    return Foundation(GPT2LMHeadModel(config).to(DEVICE), tokenizer, name="random GPT-2")


def small_reservoir() -> Reservoir:
    return Reservoir(24, 20, fan_in=4, leak=0.5, input_scale=0.3, device=DEVICE)


def echo_model(join: str = "foundation", readout: Readout | None = None, **settings: Any) -> EchoLanguageModel:
    """An echo language model whose windows are shorter than the tests' streams; a readout gets random weights."""
    if isinstance(readout, RidgeReadout):
        # Near its bias of 1 / V: the logarithm of values that cancel to nearly nothing would be that of their rounding.
        readout.weight.normal_(std=0.25 / len(readout.weight), generator=torch.Generator().manual_seed(1))
    elif readout is not None:
        torch.manual_seed(1)
        for name, values in readout.state_dict().items():
            if name.endswith(("weight", "bias")):
                values.normal_(std=0.05)
    settings = {"context": 6, **settings}
    return EchoLanguageModel(random_gpt2(), small_reservoir(), readout, join=join, **settings)  # type: ignore[arg-type]


def piecewise(name: str, **changes: Any) -> PiecewiseLM:
    """An untrained network over characters in float64, its weights made large so that its predictions differ.

    They make what rounding does large too, by 3e4 in the dual convolution, which has jumps as well: in float32 that
    would be seen, in float64 it is not.
    """
    torch.manual_seed(0)
    model = PiecewiseLM(preset(name, **changes), characters())
    model.network.double().to(DEVICE)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(3)
    return model


TINY_CONVOLUTIONS: dict[str, Any] = {
    "channels": (6, 8),
    "kernel_sizes": (3, 2),
    "strides": (2, 1),
    "segments": (2,),
    "focus": (1, 2),
}


def neighbour_model() -> NearestNeighbourLM:
    """A nearest-neighbour model that remembers a text, with weights large enough to matter."""
    model = NearestNeighbourLM(echo_model(), mixture=Interpolation.constant((0.2, 0.3), (5.0, 5.0), (8, 8)))
    model.remember(TEXTS[1])
    return model


def memory_gpt(*, gate: float = 0.7, remembered: Sequence[str] = TEXTS[1:], **settings: Any) -> MemoryGPT:
    """A memory GPT with windows shorter than the tests' streams, a gate that is open, and texts to read."""
    model = MemoryGPT(random_gpt2(), context=6, **settings)
    torch.manual_seed(1)
    with torch.no_grad():
        model.network.gate.fill_(gate)
        model.network.reader.null_key.bias.fill_(0.1)
        for name, weight in model.network.named_parameters():
            if name.startswith(("value.", "fc.")):  # they start at zero
                weight.normal_(std=0.2)
    for text in remembered:
        model.remember(text)
    return model


def lstm(seed: int = 0) -> LSTMLanguageModel:
    return LSTMLanguageModel(characters(), 12, scale=0.4, seed=seed).to(DEVICE)


def reservoir_model() -> ReservoirLanguageModel:
    """A reservoir that reads characters, with random weights in its readout."""
    tokenizer = characters()
    readout = SoftmaxReadout(30, tokenizer.vocabulary_size)
    torch.nn.init.normal_(readout.layers[0].weight, std=0.5, generator=torch.Generator().manual_seed(0))
    return ReservoirLanguageModel(tokenizer, Reservoir(tokenizer.vocabulary_size, 30, fan_in=4, device=DEVICE), readout)


def online_residual() -> OnlineResidual:
    """Chunks shorter than the tests' streams, steps large enough to matter, and a cache."""
    model = Recurrent(characters())
    return OnlineResidual(model, rate=0.1, chunk=3, cache=Cache(model, weight=0.3, theta=5.0))


def ensemble(memory: float) -> Ensemble:
    """Three models of the same characters."""
    return Ensemble(
        {
            "bigram": NGram(2, characters()).fit(TEXTS[:1]),
            "5-gram": NGram(5, characters()).fit(TEXTS[1:]),
            "MLP": piecewise("large_single_layer", context_length=4, width=6),
        },
        {"bigram": 1, "5-gram": 2, "MLP": 0.5},
        memory=memory,
    )


# Every language model of the library, small: tests/test_every_language_model.py holds each to the protocol.
EVERY_MODEL: dict[str, Callable[[], LanguageModel]] = {
    "unigram": lambda: NGram(1, characters()).fit(TEXTS),
    "bigram over characters": lambda: NGram(2, characters()).fit(TEXTS),
    "5-gram over characters": lambda: NGram(5, characters()).fit(TEXTS),
    "trigram over byte pairs": lambda: NGram(3, byte_pairs()).fit(TEXTS),
    "recurrent net": lambda: Recurrent(characters()),
    "guided": lambda: Guided(Recurrent(characters()), TEXTS[1], weight=0.4),
    "continuous cache": lambda: Cache(Recurrent(characters()), weight=0.3, theta=5.0),
    "foundation in windows": lambda: WindowedFoundation(random_gpt2(), context=6),
    "foundation after a prefix": lambda: WindowedFoundation(random_gpt2(), context=6, stride=6, prefix="a mat."),
    "echo, not read": lambda: echo_model(),
    "echo, ridge readout": lambda: echo_model("replace", RidgeReadout(20, 273)),
    "echo of tokens": lambda: echo_model("concat", SoftmaxReadout(44, 273), drive="tokens", stride=2),
    "echo, residual": lambda: echo_model("residual", SoftmaxReadout(44, 273), stride=6, reset="never"),
    "echo, low rank": lambda: echo_model("concat", SoftmaxReadout(44, 273, hidden=(12,), rank=5), reset="window"),
    "echo, forward-forward": lambda: echo_model("concat", ForwardForwardReadout(44, 273, hidden=(12, 8))),
    "echo, forward-forward softmax": lambda: echo_model(
        "residual", ForwardForwardReadout(44, 273, hidden=(12, 8), predict="softmax")
    ),
    "echo, tied": lambda: echo_model("residual", SoftmaxReadout(44, 24, tied=True), stride=1),
    "piecewise MLP": lambda: piecewise("small", context_length=5),
    "piecewise MLP of constants": lambda: piecewise("piecewise_constant", context_length=4, width=8, segments=5),
    "plain MLP, piecewise entry": lambda: piecewise("large_standard", context_length=4, width=16),
    "plain MLP, embeddings": lambda: piecewise("low_order_mlp", context_length=4, width=16),
    "piecewise convolutions": lambda: piecewise("tail_focus", context_length=9, **TINY_CONVOLUTIONS),
    "dual convolution": lambda: piecewise("dual_convolution", context_length=5, width=6),
    "piecewise transformer": lambda: piecewise(
        "transformer", context_length=6, characters_per_position=2, inner_width=8
    ),
    "transformer, piecewise entry": lambda: piecewise("high_order_input_transformer", context_length=5, inner_width=8),
    "Mamba": lambda: piecewise("mamba", width=8, blocks=2, state=4),
    "piecewise Mamba": lambda: piecewise("piecewise_mamba", width=8, blocks=2, state=4),
    "nearest neighbours": neighbour_model,
    "memory, attention": lambda: memory_gpt(read="attention", layer=0),
    "memory, concat": lambda: memory_gpt(read="concat", write="surprise"),
    "memory, concat as the original": lambda: memory_gpt(read="concat", write="threshold", original=True),
    "memory, knn": lambda: memory_gpt(read="knn", write="learned", deletes=True, memory_size=6),
    "context mixing": lambda: ContextMixing(4, characters(), slots=2**12).fit(TEXTS),
    "context mixing, frozen": lambda: ContextMixing(3, byte_pairs(), slots=2**12).fit(TEXTS).frozen(),
    "small transformer": lambda: SmallTransformer(characters(), blocks=2, width=16, context=6).to(DEVICE),
    "LSTM": lstm,
    "reservoir of characters": reservoir_model,
    "tempered": lambda: Tempered(lstm(), 0.7),
    "mixture of two": lambda: Mixture(lstm(0), lstm(1)),
    "extrapolated": lambda: Extrapolated(lstm(0), lstm(1), lam=1.5),
    "inverted": lambda: Inverted(lstm(0), lstm(1), bounds=(0.5, 0.9)),
    "steered": lambda: Steered(Recurrent(characters()), TEXTS[1], weight=0.3),
    "boosted trees": lambda: BoostedTrees(4, characters()).fit(TEXTS, rounds=3, leaves=4, threads=1),
    "online residual": online_residual,
    "online mixture": lambda: OnlineMixture({"LSTM": lstm(), "4-gram": NGram(4, characters()).fit(TEXTS)}, rate=0.02),
    "ensemble with memory": lambda: ensemble(0.8),
    "ensemble with fixed weights": lambda: ensemble(0),
}
