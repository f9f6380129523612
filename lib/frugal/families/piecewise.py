"""The piecewise family: a net over characters whose every edge is a piecewise polynomial, by the name of its preset.

Train, keep, load, score, generate:

    >>> from frugal.evaluate import evaluate
    >>> from frugal.families import Kept, asked, keep_model, kept_model, read_texts
    >>> from frugal.generate import Sampling, generate
    >>> texts = read_texts("topics", characters=2_000, held_out_characters=400)
    >>> family, plan = asked("piecewise", {"network": "small", "context_length": 4, "epochs": 1})
    >>> trained = family.train(family.build(texts), texts, plan)
    >>> folder = keep_model(trained.model, Kept(name="mine", family="piecewise", text="topics"))
    >>> model, about, _ = kept_model("mine")
    >>> abs(evaluate(model, texts.test).nats / evaluate(trained.model, texts.test).nats - 1) < 1e-3
    True
    >>> text = generate(model, "The river", Sampling(max_tokens=8, seed=0))
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch

from frugal.corpora import CharTokenizer
from frugal.device import DType
from frugal.families.counted import tokenizer_for
from frugal.families.family import SECONDS, Family, Observe, Trained, known
from frugal.families.texts import Texts
from frugal.piecewise import PiecewiseLM, PiecewisePlan, Windows, preset, train
from frugal.training import seed_everything


@known
@dataclass(frozen=True, kw_only=True)
class PiecewiseFamily(Family):
    """A PiecewiseLM; any field of the network's shape is a setting too, such as width, layers, nodes or segments.

    Attributes:
        network: the preset: small, large_single_layer, large_double_layer, large_standard, piecewise_constant,
            no_hidden_layer, low_order_mlp, conv, tail_focus, dual_convolution, transformer,
            high_order_input_transformer, mamba or piecewise_mamba.
        alphabet: the characters of the training text, "learnt", or the 128 of "ascii".
        examples: most examples of an epoch, the first of the text; None takes all.
        shape: fields of the preset that are not as it has them.

    >>> PiecewiseFamily.from_values({"network": "small", "width": 12, "epochs": 3})[1]
    {'epochs': 3}
    """

    name: ClassVar[str] = "piecewise"
    of_training = frozenset({"characters", "examples"})

    network: str = "large_single_layer"
    alphabet: Literal["learnt", "ascii"] = "learnt"
    examples: int | None = None
    shape: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_values(cls, given: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        family, rest = super().from_values(given)
        of_shape = {each.name for each in dataclasses.fields(preset(family.network))}
        named = {name: tuple(value) if isinstance(value, list) else value for name, value in rest.items()}
        shape = family.shape | {name: named[name] for name in named if name in of_shape}
        preset(family.network, **shape)  # refuses what it does not have
        return replace(family, shape=shape), {name: value for name, value in rest.items() if name not in of_shape}

    def plan(self) -> PiecewisePlan:
        with torch.device("meta"):
            network = preset(self.network, **self.shape).build(len(CharTokenizer.ascii().alphabet))
        usual = PiecewisePlan(epochs=20, learning_rate=5e-4, batch_size=500, patience=3, plateau=1, seconds=SECONDS)
        return usual.suited_to(network)

    def _build(self, texts: Texts, device: str, dtype: DType, seed: int) -> PiecewiseLM:
        tokenizer = CharTokenizer.ascii() if self.alphabet == "ascii" else tokenizer_for(texts.train, "characters")
        seed_everything(seed)
        return PiecewiseLM(preset(self.network, **self.shape), tokenizer, device=device)

    def _train(self, model: Any, texts: Texts, plan: Any, observe: Observe, beside: Path | None) -> Trained:
        windows = Windows.for_network(model.network, model.tokenizer, texts.train, self.examples)
        valid = Windows.for_network(model.network, model.tokenizer, texts.valid)
        return Trained(model, train(model, windows, plan, valid=valid, on_epoch=observe))
