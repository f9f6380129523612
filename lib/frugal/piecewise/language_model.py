"""`PiecewiseLM`: any network over characters as a `LanguageModel`."""

import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from frugal.corpora import Tokenizer
from frugal.device import choose_device
from frugal.errors import InputError
from frugal.language_model import AdvancingModel, TargetScores, read_model, save_model
from frugal.piecewise.layers.refinement import refined_weights
from frugal.piecewise.networks import CODES_AT_ONCE, Shape
from frugal.piecewise.presets import shape_of

# What kinds of layer may become one another: all but this of their names must be the same.
BASES = re.compile("discontinuous|continuous|polynomial")
ANOTHER = "makes another network; only the order, the segments and the continuity of edges change"


class PiecewiseLM(AdvancingModel):
    """A character network as a language model; before a text's first character its window holds document starts.

    Args:
        shape: of the network, such as `preset("large_single_layer", width=200)`.
        tokenizer: one code per token: a `CharTokenizer`.
        device: "cpu", "cuda", "mps" or "auto".

    >>> from frugal.corpora import CharTokenizer
    >>> from frugal.piecewise import preset
    >>> model = PiecewiseLM(preset("small", context_length=8), CharTokenizer.ascii())
    >>> model.parameter_count
    34540
    >>> tokens = model.tokenizer.encode("a text of any length")[None]
    >>> tuple(model.log_probabilities(tokens).shape)
    (1, 20, 130)
    """

    def __init__(self, shape: Shape, tokenizer: Tokenizer, *, device: str = "cpu") -> None:
        self.shape, self.tokenizer = shape, tokenizer
        self.vocabulary_size = tokenizer.vocabulary_size
        self.network = shape.build(self.vocabulary_size)
        self.network.to(choose_device(device))

    @property
    def device(self) -> torch.device:  # type: ignore[override]  # where training has left the network
        return self.network.device

    def parameters(self) -> Iterator[nn.Parameter]:
        """The network's weights, as torch's modules give them."""
        return self.network.parameters()

    @property
    def parameter_count(self) -> int:
        """How many numbers the weights hold."""
        return sum(weight.numel() for weight in self.parameters())

    def start(self, batch_size: int) -> Any:
        return self.network.start(batch_size, self.tokenizer.start_id)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, state = self.network.advance(tokens[:, None], state)
        return logits[:, 0], state

    def feed(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        for part in tokens.split(self._length(len(tokens)), dim=1):
            logits, state = self.network.advance(part, state)
        return logits[:, -1], state

    def advance(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        rows = []
        for part in tokens.split(self._length(len(tokens)), dim=1):
            logits, state = self.network.advance(part, state)
            rows.append(logits.log_softmax(-1))
        return torch.cat(rows, 1), state

    def _target_scores(self, tokens: Tensor) -> TargetScores:
        """As the protocol's, in bounded memory for rows of any length."""
        return self._long_scores(tokens[:, :-1], tokens[:, 1:], self._length(len(tokens)))

    def refined(self, **changes: Any) -> Self:
        """Return an hp-refined copy, of another order or with other segments: `changes` are those fields of the shape.

        More nodes and multiples of the segments keep its predictions, so that training can go on from them; any other
        change gives edges that are as near as possible. See `refinement.refined`.

        Raises:
            InputError: the changes make another network.
        """
        other = [name for name, value in changes.items() if not self._refines(name, value)]
        if other:
            raise InputError(f"{other[0]}={changes[other[0]]!r}: {ANOTHER}")
        try:
            finer = type(self)(replace(self.shape, **changes), self.tokenizer)
            finer.network.to(next(self.parameters()))  # its device and number format
            finer.network.load_state_dict(refined_weights(self.network, finer.network))
            for new, old in zip(finer.parameters(), self.parameters(), strict=True):
                new.requires_grad_(old.requires_grad)
            finer.network.train(self.network.training)
        except (AttributeError, RuntimeError, TypeError) as error:
            raise InputError(f"{changes}: {ANOTHER}") from error
        return finer

    def _refines(self, name: str, value: Any) -> bool:
        """Whether a change of this field of the shape leaves all but the edges' functions as it is."""
        if name == "kind":
            return BASES.sub("", str(value)) == BASES.sub("", str(getattr(self.shape, name, None)))
        return name.endswith(("nodes", "segments", "continuous"))

    def save(self, folder: Path | str, notes: str = "") -> None:
        """Write weights, shape, tokeniser and a card that ends with `notes`."""
        card = f"# {type(self.shape).__name__}\n\n{self.parameter_count:,} weights. {self.shape}\n\n{notes}"
        config = {"shape": type(self.shape).__name__, **asdict(self.shape)}
        save_model(folder, self, self.network.state_dict(), config, card)

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "cpu") -> Self:
        weights, config, tokenizer = read_model(folder, cls)
        model = cls(shape_of(config), tokenizer)
        model.network.load_state_dict(weights, assign=True)  # in the number format in which they were saved
        model.network.to(choose_device(device))
        return model

    def _length(self, batch_size: int) -> int:
        return max(1, CODES_AT_ONCE // (batch_size * self.network.context_length))
