"""Networks of fully connected layers: a piecewise layer for the characters, then piecewise or plain layers."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from frugal.piecewise.layers.basis import middles, precise
from frugal.piecewise.layers.fully_connected import Initialize, PiecewisePolynomial
from frugal.piecewise.layers.normalisation import Normalisation, normalisation
from frugal.piecewise.networks import LayerKind, Shape, WindowNetwork, layer_of_kind


@dataclass(frozen=True)
class MLPShape(Shape):
    """A piecewise input layer, `layers` hidden maps of `width` to `width`, and a map to the characters.

    Before every map but the first stands a normalisation. With `layers=0` there are still two maps, with a hidden
    vector between them. A layer norm lets values beyond the domain through, where polynomials of high order explode:
    edges go on along their tangents there.

    Attributes:
        width: of every hidden vector.
        layers: hidden maps.
        kind: of the hidden maps and of the last; "relu" for plain linear maps behind a ReLU.
        nodes: per segment, of the hidden maps and of the last.
        segments: of the hidden maps.
        output_segments: of the last map; default: as the hidden ones.
        entry: "piecewise" is a piecewise layer on all characters of the window; "embedding" a vector for each.
        input_nodes: of a piecewise entry.
        input_segments: of a piecewise entry; default: one for each character, which makes it a sum of embeddings.
        input_continuous: whether neighbouring characters share a node.
        normalise, initialize: of all piecewise maps.
        original: as the code of language-interpolation has it, where that differs from its description. There `nodes`
            reached only the last map, hidden ones having `input_nodes`; edges went on as polynomials beyond the
            domain; plain maps had no ReLU before the first of them; and embeddings were averaged over the window,
            which forgets the order of its characters.
    """

    width: int = 250
    layers: int = 1
    kind: Literal[LayerKind, "relu"] = "continuous"
    nodes: int = 2
    segments: int = 2
    output_segments: int | None = None
    entry: Literal["piecewise", "embedding"] = "piecewise"
    input_nodes: int = 2
    input_segments: int | None = None
    input_continuous: bool = True
    normalise: Normalisation = "layer"
    initialize: Initialize = "uniform"
    original: bool = False

    def build(self, characters: int) -> "MLP":
        return MLP(self, characters)


class MLP(WindowNetwork):
    """entry -> [normalise -> map] x layers -> normalise -> map to the characters."""

    def __init__(self, shape: MLPShape, characters: int) -> None:
        super().__init__(shape.context_length, characters)
        entry = PiecewiseEntry if shape.entry == "piecewise" else EmbeddingEntry
        modules: list[nn.Module] = [entry(shape, characters)]
        for place in range(shape.layers + 1):
            last = place == shape.layers
            outputs = characters if last else shape.width
            modules.append(normalisation(shape.normalise, shape.width))
            if shape.kind == "relu":
                if place or not shape.original:
                    modules.append(nn.ReLU())
                modules.append(nn.Linear(shape.width, outputs))
                continue
            nodes = shape.input_nodes if shape.original and not last else shape.nodes
            segments = shape.output_segments if last and shape.output_segments else shape.segments
            tangent = nodes > 2 and not shape.original  # straight lines are their tangents
            modules.append(
                layer_of_kind(
                    shape.kind, shape.width, outputs, nodes, segments, shape.initialize, linear_extrapolation=tangent
                )
            )
        self.maps = nn.Sequential(*modules)

    def forward(self, codes: Tensor) -> Tensor:
        return self.maps(self.checked(codes))


class PiecewiseEntry(nn.Module):
    """Codes [B, T] to a hidden vector [B, width], by an edge from every character to every neuron."""

    def __init__(self, shape: MLPShape, characters: int) -> None:
        super().__init__()
        self.characters = characters
        self.layer = PiecewisePolynomial(
            shape.context_length,
            shape.width,
            shape.input_nodes,
            characters if shape.input_segments is None else shape.input_segments,
            continuous=shape.input_continuous,
            initialize=shape.initialize,
        )

    def forward(self, codes: Tensor) -> Tensor:
        if self.layer.basis.segments == self.characters:
            return self.layer(codes)
        return self.layer(middles(codes, self.characters, precise(self.layer.weight.dtype)))


class EmbeddingEntry(nn.Module):
    """Codes [B, T] to a hidden vector [B, width]: a linear map of embeddings, or only their mean as in the original."""

    def __init__(self, shape: MLPShape, characters: int) -> None:
        super().__init__()
        size = shape.width if shape.original else max(1, shape.width // 4)
        self.embedding = nn.Embedding(characters, size)
        self.join = None if shape.original else nn.Linear(shape.context_length * size, shape.width)

    def forward(self, codes: Tensor) -> Tensor:
        vectors: Tensor = self.embedding(codes)  # [B, T, size]
        return torch.mean(vectors, dim=1) if self.join is None else self.join(vectors.flatten(1))
