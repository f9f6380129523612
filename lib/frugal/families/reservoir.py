"""The reservoir family: a fixed random reservoir that reads the text itself, a readout that is trained, and no GPT.

Train, keep, load, score, generate:

    >>> from frugal.evaluate import evaluate
    >>> from frugal.families import Kept, asked, keep_model, kept_model, read_texts
    >>> from frugal.generate import Sampling, generate
    >>> texts = read_texts("topics", characters=2_000, held_out_characters=400)
    >>> family, plan = asked("reservoir", {"reservoir_size": 60, "tokens": "characters", "epochs": 1})
    >>> trained = family.train(family.build(texts), texts, plan)
    >>> folder = keep_model(trained.model, Kept(name="mine", family="reservoir", text="topics"))
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
from frugal.corpora import encode_in_a_row
from frugal.device import DType, choose_device
from frugal.errors import InputError, check_whole
from frugal.families.cooperation import MEDIATOR, train_cooperatively
from frugal.families.counted import tokenizer_for
from frugal.families.family import SECONDS, Family, Observe, Trained, known
from frugal.families.texts import Texts
from frugal.readout import ReadoutPlan, ReservoirLanguageModel, SoftmaxReadout, train_readout
from frugal.readout.reservoir_model import TO_WHITEN
from frugal.reservoir import Reservoir
from frugal.training import Plan


@known
@dataclass(frozen=True, kw_only=True)
class ReservoirFamily(Family):
    """A ReservoirLanguageModel: see there for what it computes.

    Attributes:
        method: how the readout is trained: "softmax" by gradient, "cooperative" with a mediator.
        tokens: "pairs", byte pairs learnt from the training text, or "characters".
        vocabulary: most byte pairs.
        reservoir_size: units.
        fan_in: connections that lead to a unit.
        spectral_radius: largest eigenvalue of the recurrent weights.
        fastest_leak, slowest_leak: of the units, whose leaks are spaced evenly between on a logarithmic scale.
        input_scale: how hard the inputs drive the units.
        hidden: widths of the readout's hidden layers.
        window: tokens of an excerpt of the cooperative training; fewer where documents are shorter.

    >>> ReservoirFamily(method="cooperative").plan().steps
    800
    """

    name: ClassVar[str] = "reservoir"
    ranges: ClassVar = {"vocabulary": (257, math.inf)}
    of_training = frozenset({"characters", "method", "window"})

    method: Literal["softmax", "cooperative"] = "softmax"
    tokens: Literal["pairs", "characters"] = "pairs"
    vocabulary: int = 1000
    reservoir_size: int = 512
    fan_in: int = 10
    spectral_radius: float = 0.6
    fastest_leak: float = 1.0
    slowest_leak: float = 1.0
    input_scale: float = 2.0
    hidden: tuple[int, ...] = (128,)
    window: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_leaks(self.fastest_leak, self.slowest_leak)
        for width in self.hidden:
            check_whole(hidden=width)
        for setting, typical in (("spectral_radius", "0.1 to 1.5"), ("input_scale", "0.1 to 2")):
            value = getattr(self, setting)
            if not 0 < value < math.inf:  # units that the text does not drive would all say the same
                raise InputError(f"{setting}={value}: must be positive; typical values lie in {typical}")
        if self.fan_in > self.reservoir_size:
            raise InputError(
                f"fan_in={self.fan_in}: must not exceed reservoir_size={self.reservoir_size}; a unit has no more "
                "sources"
            )

    def plan(self) -> Plan:
        if self.method == "cooperative":
            return CooperativePlan(
                steps=800, epochs=8, batch_size=64, learning_rate=1e-2, mediator_rate=5e-3, seconds=SECONDS
            )
        return ReadoutPlan(epochs=6, learning_rate=2e-3, batch_size=256, patience=3, seconds=SECONDS)

    def _build(self, texts: Texts, device: str, dtype: DType, seed: int) -> ReservoirLanguageModel:
        tokenizer = tokenizer_for(texts.train, self.tokens, self.vocabulary)
        V, place = tokenizer.vocabulary_size, choose_device(device)
        reservoir = Reservoir(
            V,
            self.reservoir_size,
            fan_in=self.fan_in,
            spectral_radius=self.spectral_radius,
            leak=spaced_leaks(self.fastest_leak, self.slowest_leak, self.reservoir_size),
            input_scale=self.input_scale,
            seed=seed,
            device=place,
        )
        readout = SoftmaxReadout(self.reservoir_size, V, hidden=self.hidden, seed=seed)
        model = ReservoirLanguageModel(tokenizer, reservoir, readout)
        return model.whiten(encode_in_a_row(tokenizer, texts.train)[None, :TO_WHITEN].long())

    def _train(self, model: Any, texts: Texts, plan: Any, observe: Observe, beside: Path | None) -> Trained:
        if self.method == "softmax":
            rows, validation = model.rows(texts.train), model.rows(texts.valid)
            return Trained(model, train_readout(model, rows, validation, plan, on_epoch=observe))
        teacher = copy.deepcopy(model.readout)
        if beside is not None and (beside / MEDIATOR).is_dir():
            teacher = ReservoirLanguageModel.load(beside / MEDIATOR).readout
        return train_cooperatively(model, model.with_readout(teacher), texts, self.window, plan, observe)


def check_leaks(fastest: float, slowest: float) -> None:
    """Raise InputError unless units can have leaks between these."""
    if not 0 < slowest <= fastest <= 1:
        raise InputError(
            f"slowest_leak={slowest}, fastest_leak={fastest}: must lie above 0 and not above 1, and the slowest not "
            "above the fastest"
        )


def spaced_leaks(fastest: float, slowest: float, units: int) -> torch.Tensor:
    """A leak for each unit, [units], spaced evenly on a logarithmic scale.

    >>> spaced_leaks(1.0, 0.01, 3)
    tensor([1.0000, 0.1000, 0.0100])
    """
    return torch.logspace(math.log10(fastest), math.log10(slowest), units)
