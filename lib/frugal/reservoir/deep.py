"""Reservoirs stacked on each other."""

import itertools
import warnings
from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from frugal.errors import InputError
from frugal.reservoir.collector import StateCollector
from frugal.reservoir.reservoir import Reservoir


class DeepReservoir(StateCollector):
    """Reservoirs in a stack: the first reads the inputs, each other the states of the one below, step by step.

    Gallicchio, Micheli, Pedrelli, "Deep reservoir computing: a critical experimental analysis", Neurocomputing, 2017.

    Args:
        layers: from the input upwards; each layer's `input_size` is the size of the layer below.
        read_out: "all" layers' states side by side, or the "top" layer's.

    Raises:
        InputError: no layers, sizes that do not fit, or another `read_out`.

    Example:
        >>> import torch
        >>> stack = DeepReservoir([Reservoir(2, 30), Reservoir(30, 20, seed=1)])
        >>> stack.run(torch.rand(1, 5, 2))[0].shape
        torch.Size([1, 5, 50])
    """

    KEY = "layers"

    def __init__(self, layers: Sequence[Reservoir], *, read_out: str = "all") -> None:
        super().__init__()
        if not (isinstance(layers, Sequence) and layers and all(isinstance(layer, Reservoir) for layer in layers)):
            raise InputError("layers: must be a list of at least one reservoir")
        for below, above in itertools.pairwise(layers):
            if above.input_size != below.size:
                raise InputError(
                    f"a layer takes {above.input_size} inputs but the layer below has {below.size} units: "
                    "make each layer's input_size the size of the layer below"
                )
        for (i, one), (j, other) in itertools.combinations(enumerate(layers), 2):
            alike = one.W_in.shape == other.W_in.shape and torch.equal(one.W_in, other.W_in.to(one.W_in))
            if not alike and one.recurrence.same_draws(other.recurrence):  # one layer may stand there twice
                warnings.warn(
                    f"layers {i} and {j} have the same recurrent weights, but for their scale: give each layer its own "
                    "seed",
                    stacklevel=2,
                )
        if read_out not in ("all", "top"):
            raise InputError(f"read_out={read_out!r}: must be 'all' or 'top'")
        self.layers = nn.ModuleList(layers)
        self.read_out = read_out
        self.input_size = layers[0].input_size
        self.widths = [layer.size for layer in layers]
        self.state_size = sum(self.widths)
        self.size = self.state_size if read_out == "all" else self.widths[-1]

    @property
    def like(self) -> Tensor:
        return cast(Reservoir, self.layers[0]).like

    @property
    def lanes_in_step(self) -> int:
        return max(cast(Reservoir, layer).lanes_in_step for layer in self.layers)

    def collect(self, inputs: Tensor, state: Tensor, states: Tensor, noise: float = 0.0) -> Tensor:
        read, last = [], []
        for layer, before in zip(self.layers, state.split(self.widths, dim=1), strict=True):
            inputs, after = cast(Reservoir, layer).run(inputs, before, noise=noise)
            read.append(inputs)
            last.append(after)
        torch.cat(read if self.read_out == "all" else read[-1:], dim=2, out=states)
        return torch.cat(last, dim=1)

    @property
    def identity(self) -> tuple[Any, ...]:
        """All that its states follow from; see `frugal.training.checkpoint.fingerprint`."""
        return self.read_out, list(self.layers)

    def config(self) -> dict[str, Any]:
        return {"read_out": self.read_out, "layers": [cast(Reservoir, layer).config() for layer in self.layers]}

    @classmethod
    def from_saved(cls, config: dict[str, Any], weights: dict[str, Tensor]) -> Self:
        layers = []
        for index, layer in enumerate(config["layers"]):
            prefix = f"layers.{index}."
            mine = {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}
            layers.append(Reservoir.from_saved(layer, mine))
        return cls(layers, read_out=config["read_out"])
