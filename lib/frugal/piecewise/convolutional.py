"""Networks of piecewise convolutions: with a wide view that is sharpest at its end, and by joining neighbours."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from frugal.errors import InputError
from frugal.piecewise.layers.basis import PiecewiseBasis, middles
from frugal.piecewise.layers.convolution import BasisConvolution
from frugal.piecewise.layers.fully_connected import Initialize, PiecewisePolynomial
from frugal.piecewise.layers.normalisation import Normalisation, normalisation
from frugal.piecewise.networks import Shape, WindowNetwork, chain_of_layers


@dataclass(frozen=True)
class ConvolutionShape(Shape):
    """Convolutions on one another, each shortening the window; a linear map reads the last level and ends of others.

    Attributes:
        channels, kernel_sizes, strides: of each convolution.
        segments: of the edges of each convolution but the first, which has one for each character.
        focus: how many of the last positions of each convolution's input the linear map sees as well.
        nodes, continuous, periodicity: of all edges.
        normalise: over the channels of each position, before every convolution but the first and before the last map.
        initialize: of all edges.
        original: a focus of 0 means all positions, as in the original, instead of none.
    """

    context_length: int = 10_000
    channels: tuple[int, ...] = (10, 100, 100)
    kernel_sizes: tuple[int, ...] = (10, 10, 10)
    strides: tuple[int, ...] = (10, 10, 10)
    segments: tuple[int, ...] = (10, 10)
    focus: tuple[int, ...] = (0, 0, 0)
    nodes: int = 2
    continuous: bool = True
    periodicity: float | None = 2.0
    normalise: Normalisation = "maxabs"
    initialize: Initialize = "uniform"
    original: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = map(len, (self.channels, self.kernel_sizes, self.strides, self.focus, (0, *self.segments)))
        if len(set(counts)) > 1:
            raise InputError(
                f"channels={self.channels}: kernel_sizes, strides and focus must have one value for each convolution, "
                "segments one for each but the first"
            )
        if self.lengths[-1] < 1:
            raise InputError(
                f"context_length={self.context_length}: too few for these convolutions; their levels are {self.lengths}"
            )

    @property
    def lengths(self) -> list[int]:
        """Positions of every level, the window first."""
        lengths = [self.context_length]
        for kernel_size, stride in zip(self.kernel_sizes, self.strides, strict=True):
            lengths.append((lengths[-1] - kernel_size) // stride + 1)
        return lengths

    @property
    def seen(self) -> list[int]:
        """How many of the last positions of every level the linear map sees."""
        lengths = self.lengths
        ends = [
            length if self.original and focus == 0 else min(focus, length)
            for focus, length in zip(self.focus, lengths[:-1], strict=True)
        ]
        return [*ends, lengths[-1]]

    def build(self, characters: int) -> "FocusedConvolution":
        return FocusedConvolution(self, characters)


class FocusedConvolution(WindowNetwork):
    """Level by level: convolve, normalise; then a linear map of the chosen ends of all levels."""

    def __init__(self, shape: ConvolutionShape, characters: int) -> None:
        super().__init__(shape.context_length, characters)
        self.seen = shape.seen
        channels = (1, *shape.channels)
        self.convolutions = nn.ModuleList(
            BasisConvolution(
                channels[level],
                channels[level + 1],
                shape.kernel_sizes[level],
                PiecewiseBasis(shape.nodes, segments, shape.continuous, periodicity=shape.periodicity),
                stride=shape.strides[level],
                initialize=shape.initialize,
            )
            for level, segments in enumerate((characters, *shape.segments))
        )
        self.normalisations = nn.ModuleList(normalisation(shape.normalise, count) for count in shape.channels)
        inputs = sum(count * seen for count, seen in zip(channels, shape.seen, strict=True))
        self.readout = nn.Linear(inputs, characters)

    def forward(self, codes: Tensor) -> Tensor:
        codes = self.checked(codes)
        level = middles(codes, self.characters, self.readout.weight.dtype).unsqueeze(1)  # [B, 1, T]
        levels, level = [level], codes.unsqueeze(1)  # the first convolution has a segment for each character
        for convolution, normalise in zip(self.convolutions, self.normalisations, strict=True):
            level = normalise(convolution(level).movedim(1, -1)).movedim(-1, 1)
            levels.append(level)
        ends = [level[:, :, level.shape[2] - seen :] for level, seen in zip(levels, self.seen, strict=True)]
        return self.readout(torch.cat([end.flatten(1) for end in ends], dim=1))


@dataclass(frozen=True)
class DualConvolutionShape(Shape):
    """A vector for each character; neighbours are joined by one and the same network until one vector is left.

    Attributes:
        width: of the vectors, and of the joining network's hidden layers.
        layers: hidden maps of the joining network.
        nodes, segments: of its edges, which are discontinuous.
        normalise, initialize: of all piecewise maps.
        original: a character's vector is a function of a single number that is learned for it, as in the original.
    """

    context_length: int = 16
    width: int = 1024
    layers: int = 2
    nodes: int = 3
    segments: int = 2
    normalise: Normalisation = "maxabs"
    initialize: Initialize = "uniform"
    original: bool = False

    def build(self, characters: int) -> "DualConvolution":
        return DualConvolution(self, characters)


class DualConvolution(WindowNetwork):
    """Halves the window again and again; where its length is odd, zeros stand in front."""

    def __init__(self, shape: DualConvolutionShape, characters: int) -> None:
        super().__init__(shape.context_length, characters)
        width = shape.width
        settings = (shape.nodes, shape.segments, shape.normalise, shape.initialize)
        self.entry: nn.Module = PiecewisePolynomial(1, 1 if shape.original else width, 2, characters)
        if shape.original:
            self.entry = nn.Sequential(self.entry, chain_of_layers((1, width), "discontinuous", *settings))
        self.normalise = normalisation(shape.normalise, width)
        self.join = chain_of_layers((2 * width, *[width] * (shape.layers + 2)), "discontinuous", *settings)
        self.readout = nn.Linear(width, characters)

    def forward(self, codes: Tensor) -> Tensor:
        vectors = self.normalise(self.entry(self.checked(codes).unsqueeze(-1)))  # [B, T, width]
        while vectors.shape[1] > 1:
            vectors = nn.functional.pad(vectors, (0, 0, vectors.shape[1] % 2, 0))
            vectors = self.normalise(self.join(vectors.unflatten(1, (-1, 2)).flatten(2)))
        return self.readout(vectors[:, 0])
