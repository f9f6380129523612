"""What a network over characters is: a map from codes to the logits of the next character, with a state.

Two kinds. A window network looks at the last `context_length` characters and nothing else. A sequence network reads on
without end and keeps a state of its own. Either takes streams of any length: `context_length` is no limit on a text.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from frugal.errors import InputError, check_whole
from frugal.piecewise.layers.basis import FourierBasis, PiecewiseBasis, check_codes
from frugal.piecewise.layers.fully_connected import BasisLayer, Initialize, Product, Switch
from frugal.piecewise.layers.normalisation import Normalisation, normalisation
from frugal.tensors import number_tensor
from frugal.training import check_fields

LayerKind = Literal[
    "continuous",
    "discontinuous",
    "polynomial",
    "fourier",
    "continuous_prod",
    "discontinuous_prod",
    "polynomial_prod",
    "product",
    "switch_continuous",
    "switch_discontinuous",
]


# A window network repeats every character in `context_length` windows: about this many codes are looked at in one go.
CODES_AT_ONCE = 2**14


@dataclass(frozen=True)
class Shape(ABC):
    """All that is needed to build a network, in plain values.

    Attributes:
        context_length: characters of a training example; all that a window network sees of a text.

    Raises:
        InputError: a field is of another type or no size that a net can have, or the fields do not go together.

    >>> from frugal.piecewise import preset
    >>> network = preset("small", context_length=8).build(characters=128)
    >>> tuple(network(torch.zeros(5, 8, dtype=torch.int64)).shape)  # logits of the next character
    (5, 128)
    """

    context_length: int = 16

    @abstractmethod
    def build(self, characters: int) -> "CharacterNetwork":
        """Return a network over codes 0 ... characters - 1, with weights drawn by torch's global generator."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name, value in vars(self).items():
            for count in value if isinstance(value, tuple) else (value,):
                if type(count) is int:
                    check_whole(0 if name in ("layers", "focus") else 1, **{name: count})


class CharacterNetwork(nn.Module, ABC):
    """Maps codes to logits of the next character.

    Attributes:
        predicts_all: whether `forward` predicts after each of the characters, [B, T] to [B, T, V], or only after the
            last of a window, [B, context_length] to [B, V].
        context_length: as in `Shape`.
        characters: how many codes there are: 0 ... characters - 1.

    >>> from frugal.piecewise import preset
    >>> network = preset("mamba", width=8, blocks=1).build(characters=128)
    >>> logits, state = network.advance(torch.zeros(5, 3, dtype=torch.int64), network.start(5, padding=0))
    >>> network.predicts_all, tuple(logits.shape)
    (True, (5, 3, 128))
    """

    predicts_all: bool

    def __init__(self, context_length: int, characters: int) -> None:
        super().__init__()
        self.context_length, self.characters = context_length, characters

    def checked(self, codes: Tensor) -> Tensor:
        """Return codes as torch indexes with them; raises InputError where they are not of this network's characters.

        Every network begins with it: a wrong code would take another character's weights, or none.
        """
        given = number_tensor("codes", codes)
        if given.is_floating_point():
            raise InputError(f"codes of {given.dtype}: must be whole numbers; give what the tokenizer encodes")
        check_codes(given, self.characters, "one for each character; encode with the tokenizer of this network")
        return given.long()

    @abstractmethod
    def forward(self, codes: Tensor) -> Tensor:
        """Return logits of what follows `codes`, an example or a batch's worth of them."""

    @abstractmethod
    def start(self, batch_size: int, padding: int) -> Any:
        """Return the state before the first character; `padding` is the code of what stands before a text."""

    @abstractmethod
    def advance(self, codes: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read codes [B, T] on from a state; return the logits after each, [B, T, V], and the new state."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


class WindowNetwork(CharacterNetwork):
    """A network that looks at a window of `context_length` characters; its state is the window's characters but one."""

    predicts_all = False

    def start(self, batch_size: int, padding: int) -> Tensor:
        return torch.full((batch_size, self.context_length - 1), padding, device=self.device)

    def advance(self, codes: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        read = torch.cat([state, codes], dim=1)
        windows = read.unfold(1, self.context_length, 1)  # [B, T, context_length], a view
        logits = self(windows.flatten(0, 1)).unflatten(0, codes.shape)
        return logits, read[:, read.shape[1] - self.context_length + 1 :]


def layer_of_kind(
    kind: LayerKind,
    inputs: int,
    outputs: int,
    nodes: int,
    segments: int,
    initialize: Initialize = "uniform",
    *,
    linear_extrapolation: bool = False,
) -> nn.Module:
    """Return a fully connected layer by the name of its kind; `segments` counts only where edges have some."""
    if kind == "product":
        if initialize != "uniform":
            raise InputError(f"initialize={initialize!r}: is for values at nodes; kind='product' takes 'uniform'")
        return Product(inputs, outputs)
    if kind == "fourier":
        return BasisLayer(inputs, outputs, FourierBasis(nodes), initialize=initialize)
    if kind.startswith("switch_"):
        continuous = kind == "switch_continuous"
        one_of = [PiecewiseBasis(nodes, segments, continuous, linear_extrapolation=linear_extrapolation)] * 2
        return Switch([BasisLayer(inputs, outputs, basis, initialize=initialize) for basis in one_of])
    name, _, product = kind.partition("_")
    basis = PiecewiseBasis(
        nodes,
        1 if name == "polynomial" else segments,
        name != "discontinuous" and nodes > 1,
        linear_extrapolation=linear_extrapolation,
    )
    return BasisLayer(inputs, outputs, basis, form="product" if product else "sum", initialize=initialize)


def chain_of_layers(
    sizes: Sequence[int],
    kind: LayerKind,
    nodes: int,
    segments: int,
    normalise: Normalisation,
    initialize: Initialize = "uniform",
) -> nn.Sequential:
    """Return layers from each size to the next, with a normalisation between any two."""
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        if modules:
            modules.append(normalisation(normalise, inputs))
        modules.append(layer_of_kind(kind, inputs, outputs, nodes, segments, initialize))
    return nn.Sequential(*modules)
