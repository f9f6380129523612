"""The echo family: a frozen GPT with a short view, an echo of all that was read, a readout that is trained.

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
    >>> family, plan = asked("echo", {"foundation": "my-gpt", "context_length": 8, "reservoir_size": 60, "epochs": 1})
    >>> trained = family.train(family.build(texts), texts, plan)
    >>> folder = keep_model(trained.model, Kept(name="mine", family="echo", text="topics"))
    >>> model, about, _ = kept_model("mine")
    >>> abs(evaluate(model, texts.test).nats / evaluate(trained.model, texts.test).nats - 1) < 1e-3
    True
    >>> text = generate(model, "The river", Sampling(max_tokens=8, seed=0))
"""

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from frugal.cooperative import CooperativePlan
from frugal.corpora import excerpts, load_corpus
from frugal.device import DType
from frugal.families.cooperation import MEDIATOR, train_cooperatively
from frugal.families.family import SECONDS, Family, Observe, Trained, known
from frugal.families.reservoir import check_leaks, spaced_leaks
from frugal.families.texts import Texts
from frugal.forward_forward import (
    ForwardForwardReadout,
    FoundationNegatives,
    HardNegatives,
    Negatives,
    SelfGenerated,
    TextNegatives,
    UniformNegatives,
    train_forward_forward,
)
from frugal.foundation import WindowedFoundation, load_foundation
from frugal.readout import (
    EchoLanguageModel,
    KeptRows,
    Readout,
    ReadoutPlan,
    RidgeReadout,
    SoftmaxReadout,
    train_readout,
)
from frugal.reservoir import DeepReservoir, Reservoir
from frugal.ridge import RidgeStatistics
from frugal.training import Plan

ROWS_TO_CALIBRATE = 1000


@known
@dataclass(frozen=True, kw_only=True)
class EchoFamily(Family):
    """An EchoLanguageModel: see there for what it computes.

    Attributes:
        foundation: frozen GPT: smollm2, tiny-gpt2, a folder or a Hugging Face name.
        method: how the readout is trained: "softmax" by gradient, "ridge" in closed form, "cooperative" with a
            mediator, "forward-forward" layer by layer, without backpropagation.
        context_length: tokens per window of the foundation; the echo has no such limit.
        reservoir_size: units of a layer of the echo; 0 leaves the echo out.
        layers: reservoirs on top of each other, all read out.
        spectral_radius: largest eigenvalue of the recurrent weights.
        connectivity: share of the recurrent weights that are not zero.
        fastest_leak, slowest_leak: of the units, whose leaks are spaced evenly between on a logarithmic scale.
        input_scale: how hard the inputs drive the units.
        drive: what drives them: the foundation's "features", or its embeddings of the "tokens".
        prefix: text that the foundation, and nothing else, reads before every window.
        shrinkage: holds down directions in which features or states vary little; more for less text.
        hidden: widths of the forward-forward readout's layers.
        negatives: of forward-forward: tokens drawn "uniform", by the "foundation", "hard" ones by the readout itself,
            from another "text", or "self": what the model writes by itself.
        negative_text: that "text" draws from.
        window: tokens of an excerpt of the cooperative training; fewer where documents are shorter.

    >>> EchoFamily(method="cooperative").plan().steps
    60
    """

    name: ClassVar[str] = "echo"
    ranges: ClassVar = {
        "reservoir_size": (0, math.inf), "spectral_radius": (0, math.inf), "shrinkage": (0, math.inf),
        "connectivity": (0, 1),
    }  # fmt: skip
    of_training = frozenset({"characters", "negatives", "negative_text", "window"})

    characters: int | None = 100_000
    foundation: str = "smollm2"
    method: Literal["softmax", "ridge", "cooperative", "forward-forward"] = "softmax"
    context_length: int = 32
    reservoir_size: int = 512
    layers: int = 1
    spectral_radius: float = 0.9
    connectivity: float = 0.05
    fastest_leak: float = 0.2
    slowest_leak: float = 0.005
    input_scale: float = 0.03
    drive: Literal["features", "tokens"] = "tokens"
    prefix: str = ""
    shrinkage: float = 1.0
    hidden: tuple[int, ...] = (200, 200)
    negatives: Literal["uniform", "foundation", "hard", "text", "self"] = "foundation"
    negative_text: str = "topics"
    window: int = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        check_leaks(self.fastest_leak, self.slowest_leak)

    def check(self) -> None:
        super().check()
        if self.method == "forward-forward" and self.negatives == "text":
            load_corpus(self.negative_text)

    @property
    def made_at_once(self) -> bool:
        return self.method == "ridge"

    def plan(self) -> Plan | None:
        match self.method:
            case "ridge":
                return None
            case "cooperative":
                return CooperativePlan(
                    steps=60, epochs=4, batch_size=8, learning_rate=1e-4, mediator_rate=2e-4, seconds=SECONDS
                )
            case "forward-forward":
                return ReadoutPlan(epochs=2, learning_rate=5e-5, batch_size=128, patience=2, seconds=SECONDS)
        return ReadoutPlan(epochs=3, learning_rate=2e-4, batch_size=128, patience=2, seconds=SECONDS)

    def foundation_of(self, model: EchoLanguageModel) -> WindowedFoundation:
        return model.encoder.windowed

    def _build(self, texts: Texts, device: str, dtype: DType, seed: int) -> EchoLanguageModel:
        gpt = load_foundation(self.foundation, device=device, dtype=dtype)
        V, d = gpt.vocabulary_size, gpt.hidden_size
        settings: dict[str, Any] = {"drive": self.drive, "context": self.context_length, "prefix": self.prefix}
        reservoir = self._reservoir(d if self.drive == "features" else gpt.embedding_size, seed)
        reservoir = None if reservoir is None else reservoir.to(gpt.device)
        width = d + (0 if reservoir is None else reservoir.size)
        if self.method == "ridge":
            return EchoLanguageModel(gpt, reservoir, RidgeReadout(width, V), join="concat", **settings)
        readout: Readout = SoftmaxReadout(width, d, tied=True, seed=seed)
        if self.method == "forward-forward":
            # By goodness every candidate costs a pass, too many for a vocabulary of words.
            readout = ForwardForwardReadout(width, V, hidden=self.hidden, predict="softmax", seed=seed)
        model = EchoLanguageModel(gpt, reservoir, readout, join="residual", **settings)
        return self._whitened(model, texts)

    def _train(self, model: Any, texts: Texts, plan: Any, observe: Observe, beside: Path | None) -> Trained:
        if self.method == "cooperative":
            teacher = copy.deepcopy(model.readout)
            if beside is not None and (beside / MEDIATOR).is_dir():
                teacher = EchoLanguageModel.load(beside / MEDIATOR, foundation=model.foundation).readout
            mediator = model.with_readout(teacher, "residual")
            return train_cooperatively(model, mediator, texts, self.window, plan, observe)
        rows, validation = model.rows(texts.train).kept(), model.rows(texts.valid).kept()
        if self.method == "ridge":
            statistics = RidgeStatistics.collect(rows, model.vocabulary_size)
            few = [(x[:ROWS_TO_CALIBRATE], y[:ROWS_TO_CALIBRATE]) for x, y in validation]
            return Trained(model.with_readout(RidgeReadout.fit(statistics).calibrate(few), "concat"))
        if self.method == "forward-forward":
            source = self._negatives(model)
            return Trained(model, train_forward_forward(model, rows, validation, source, plan, on_epoch=observe))
        return Trained(model, train_readout(model, rows, validation, plan, on_epoch=observe))

    def _reservoir(self, inputs: int, seed: int) -> Reservoir | DeepReservoir | None:
        if self.reservoir_size == 0:
            return None
        fixed: dict[str, Any] = {
            "topology": "sparse",
            "connectivity": self.connectivity,
            "spectral_radius": self.spectral_radius,
            "leak": spaced_leaks(self.fastest_leak, self.slowest_leak, self.reservoir_size),
            "input_scale": self.input_scale,
        }
        sizes = [inputs] + [self.reservoir_size] * (self.layers - 1)
        stack = [Reservoir(size, self.reservoir_size, seed=seed + n, **fixed) for n, size in enumerate(sizes)]
        return stack[0] if self.layers == 1 else DeepReservoir(stack)

    def _whitened(self, model: EchoLanguageModel, texts: Texts) -> EchoLanguageModel:
        """The model with its readout's inputs whitened by the training text."""
        rows, readout = model.rows(texts.train), model.readout
        if isinstance(readout, ForwardForwardReadout):
            readout.whiten(RidgeStatistics.collect(rows, model.vocabulary_size), self.shrinkage)
        elif isinstance(readout, SoftmaxReadout):
            readout.whiten(RidgeStatistics.of_inputs(inputs for inputs, _ in rows), self.shrinkage)
        return model

    def _negatives(self, model: EchoLanguageModel) -> Negatives:
        match self.negatives:
            case "uniform":
                return UniformNegatives()
            case "hard":
                return HardNegatives()
            case "self":
                return SelfGenerated(model)
            case "text":
                other = excerpts(load_corpus(self.negative_text).train[:100], 10_000)
                inputs, targets = (torch.cat(column) for column in zip(*model.rows(other), strict=True))
                return TextNegatives(KeptRows(inputs, targets))
        return FoundationNegatives(model.foundation)
