"""A transformer whose maps are piecewise: each position attends over those before it and predicts what follows."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from frugal.errors import InputError
from frugal.piecewise.layers.fully_connected import Initialize
from frugal.piecewise.layers.normalisation import Normalisation, normalisation
from frugal.piecewise.networks import LayerKind, Shape, WindowNetwork, chain_of_layers, layer_of_kind


@dataclass(frozen=True)
class TransformerShape(Shape):
    """Characters to vectors, blocks of attention and maps with a shortcut around them, map to the characters.

    It learns to predict after every prefix of a window, so that a text shorter than a window needs no padding. Only
    if positions hold several characters, or if it is the original one, does it predict after whole windows alone.

    Attributes:
        context_length: characters in the window; a position holds `characters_per_position` of them.
        width: of a position's vector, and of each head.
        heads, blocks: of attention.
        embedding_width, inner_width, output_width: hidden layers of the maps before, in and after the blocks.
        kind, nodes, segments, normalise, initialize: of the piecewise maps.
        input_only: piecewise maps only before the blocks, plain ones with GELU after.
        original: as the original's code has it, attention runs across the heads of one position and never across
            positions, the positional code tells a sample's place in the batch, the prediction is made from the mean
            over the positions, and the logits are normalised.
    """

    context_length: int = 10
    characters_per_position: int = 1
    width: int = 8
    heads: int = 4
    blocks: int = 3
    embedding_width: int = 16
    inner_width: int = 128
    output_width: int = 100
    kind: LayerKind = "continuous"
    nodes: int = 3
    segments: int = 2
    normalise: Normalisation = "layer"
    initialize: Initialize = "uniform"
    input_only: bool = False
    original: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context_length % self.characters_per_position:
            raise InputError(
                f"context_length={self.context_length}: must be a multiple of "
                f"characters_per_position={self.characters_per_position}"
            )

    def build(self, characters: int) -> "Transformer":
        return Transformer(self, characters)

    def piecewise_maps(self, *sizes: int) -> nn.Sequential:
        """Return piecewise maps from each size to the next."""
        return chain_of_layers(sizes, self.kind, self.nodes, self.segments, self.normalise, self.initialize)

    def maps(self, *sizes: int) -> nn.Sequential:
        """Return the maps that stand behind the embedding: piecewise, or linear with GELU between them."""
        if not self.input_only:
            return self.piecewise_maps(*sizes)
        modules = [module for pair in pairwise(sizes) for module in (nn.Linear(*pair), nn.GELU())]
        return nn.Sequential(*modules[:-1])


class Transformer(WindowNetwork):
    """Embedding, attention blocks, output."""

    def __init__(self, shape: TransformerShape, characters: int) -> None:
        super().__init__(shape.context_length, characters)
        self.shape = shape
        self.predicts_all = not shape.original and shape.characters_per_position == 1
        entry, hidden = shape.characters_per_position, shape.embedding_width
        self.embedding = nn.Sequential(
            layer_of_kind(shape.kind, entry, hidden, shape.nodes, characters, shape.initialize),
            normalisation(shape.normalise, hidden),
            shape.piecewise_maps(hidden, hidden, shape.width),
        )
        self.blocks = nn.ModuleList(AttentionBlock(shape) for _ in range(shape.blocks))
        self.before = normalisation(shape.normalise, shape.width)
        self.readout = shape.maps(shape.width, shape.output_width, shape.output_width, characters)
        self.after = normalisation(shape.normalise, characters) if shape.original else nn.Identity()

    def forward(self, codes: Tensor) -> Tensor:
        x = self._vectors(codes)
        return self._logits(x if self.predicts_all else x[:, -1])

    def start(self, batch_size: int, padding: int) -> Tensor:
        return super().start(batch_size, padding)[:, : 0 if self.predicts_all else None]

    def advance(self, codes: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if not self.predicts_all:
            return super().advance(codes, state)
        read = torch.cat([state, codes], dim=1)
        # Vectors of all that fits into one window; every later one needs a window of its own.
        vectors = self._vectors(read[:, : self.context_length])[:, state.shape[1] :]
        if read.shape[1] > self.context_length:
            windows = read[:, 1:].unfold(1, self.context_length, 1)
            last = self._vectors(windows.flatten(0, 1))[:, -1]
            vectors = torch.cat([vectors, last.unflatten(0, windows.shape[:2])], dim=1)
        return self._logits(vectors), read[:, max(0, read.shape[1] - self.context_length + 1) :]

    def _logits(self, vectors: Tensor) -> Tensor:
        return self.after(self.readout(self.before(vectors)))

    def _vectors(self, codes: Tensor) -> Tensor:
        """The blocks' last vectors, [B, positions, width]; as in the original their mean, [B, 1, width]."""
        x = self.embedding(self.checked(codes).unflatten(1, (-1, self.shape.characters_per_position)))
        along = 0 if self.shape.original else 1
        code = sinusoids(x.shape[along], x.shape[2]).to(x)
        x = x + (code.unsqueeze(1) if self.shape.original else code)
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=1, keepdim=True) if self.shape.original else x


class AttentionBlock(nn.Module):
    """x + maps(attention(normalise(x)))."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.heads, self.original = shape.heads, shape.original
        wide = shape.heads * shape.width
        self.before = normalisation(shape.normalise, shape.width)
        self.queries, self.keys, self.values = (shape.maps(shape.width, wide) for _ in range(3))
        self.after = normalisation(shape.normalise, wide)
        self.maps = shape.maps(wide, shape.inner_width, shape.inner_width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        heads = [make(y).unflatten(2, (self.heads, -1)) for make in (self.queries, self.keys, self.values)]
        if not self.original:
            heads = [head.transpose(1, 2) for head in heads]  # [B, heads, positions, width]
        q, k, v = heads
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=not self.original)
        if not self.original:
            mixed = mixed.transpose(1, 2)
        return x + self.maps(self.after(mixed.flatten(2)))


def sinusoids(positions: int, width: int) -> Tensor:
    """Positional codes [positions, width]: sines and cosines of falling frequency (Vaswani et al. 2017, 3.5)."""
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(positions).unsqueeze(1) * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :width]
