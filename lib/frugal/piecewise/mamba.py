"""Mamba over characters, with linear or piecewise projections: a selective state space model.

Gu and Dao, "Mamba: linear-time sequence modeling with selective state spaces", 2023, algorithm 2.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from frugal.piecewise.layers.fully_connected import Initialize
from frugal.piecewise.layers.normalisation import Normalisation, normalisation
from frugal.piecewise.networks import CharacterNetwork, LayerKind, Shape, chain_of_layers

SHORTEST_STEP, LONGEST_STEP = 0.001, 0.1  # of a channel at the start, as in the paper's section 3.6
EMBEDDING_SCALE = 0.02  # standard deviation at the start, as in GPT-2


@dataclass(frozen=True)
class MambaShape(Shape):
    """Blocks of gated, selective state spaces; the head is the embedding, transposed.

    Attributes:
        context_length: characters in a training example; the model itself reads on for ever.
        width: of a character's vector.
        blocks: one after another, each with a shortcut around it.
        state: numbers that each channel remembers.
        expand: channels of a block, in widths.
        kernel_size: of the short convolution in front of the state space.
        kind: "linear" projections, or piecewise ones of two layers each.
        nodes, segments, normalise, initialize: of piecewise projections.
        original: as in the original, piecewise projections get inputs of any size, where the domain is [-1, 1], and
            embedding and step sizes start at torch's defaults.
    """

    context_length: int = 16
    width: int = 16
    blocks: int = 5
    state: int = 32
    expand: int = 2
    kernel_size: int = 4
    kind: Literal[LayerKind, "linear"] = "linear"
    nodes: int = 3
    segments: int = 2
    normalise: Normalisation = "maxabs"
    initialize: Initialize = "uniform"
    original: bool = False

    def build(self, characters: int) -> "Mamba":
        return Mamba(self, characters)

    def projection(self, inputs: int, outputs: int) -> nn.Module:
        """Return a map from `inputs` to `outputs` numbers."""
        if self.kind == "linear":
            return nn.Linear(inputs, outputs, bias=False)
        maps = chain_of_layers(
            (inputs, outputs, outputs), self.kind, self.nodes, self.segments, self.normalise, self.initialize
        )
        return maps if self.original else nn.Sequential(normalisation(self.normalise, inputs), maps)


class BlockState(NamedTuple):
    """What a block keeps of the past: inputs of its convolution [B, D, kernel_size - 1], its state space [B, D, N]."""

    inputs: Tensor
    state: Tensor


class Mamba(CharacterNetwork):
    """x + block(normalise(x)), block after block; its cost for a character does not depend on how many came before."""

    predicts_all = True

    def __init__(self, shape: MambaShape, characters: int) -> None:
        super().__init__(shape.context_length, characters)
        self.shape = shape
        self.embedding = nn.Embedding(characters, shape.width)
        if not shape.original:  # the head is the embedding too: large ones would begin with sure and wrong predictions
            nn.init.normal_(self.embedding.weight, std=EMBEDDING_SCALE)
        self.blocks = nn.ModuleList(MambaBlock(shape) for _ in range(shape.blocks))
        self.norms = nn.ModuleList(nn.RMSNorm(shape.width, eps=1e-5) for _ in range(shape.blocks + 1))

    def forward(self, codes: Tensor) -> Tensor:
        return self.advance(codes, self.start(len(codes)))[0]

    def start(self, batch_size: int, padding: int = 0) -> list[BlockState]:
        shape, zeros = self.shape, self.embedding.weight.new_zeros
        channels = shape.expand * shape.width
        one = BlockState(zeros(batch_size, channels, shape.kernel_size - 1), zeros(batch_size, channels, shape.state))
        return [one] * shape.blocks

    def advance(self, codes: Tensor, state: list[BlockState]) -> tuple[Tensor, list[BlockState]]:
        x, following = self.embedding(self.checked(codes)), []
        for block, norm, before in zip(self.blocks, self.norms, state, strict=False):
            change, after = block(norm(x), before)
            x = x + change
            following.append(after)
        return self.norms[-1](x) @ self.embedding.weight.t(), following


class MambaBlock(nn.Module):
    """A short convolution, a state space whose steps depend on the input, and a gate."""

    def __init__(self, shape: MambaShape) -> None:
        super().__init__()
        channels, rank = shape.expand * shape.width, math.ceil(shape.width / 16)
        self.selected = (rank, shape.state, shape.state)
        self.enter = shape.projection(shape.width, 2 * channels)
        self.convolution = nn.Conv1d(channels, channels, shape.kernel_size, groups=channels)
        self.select = shape.projection(channels, sum(self.selected))
        self.step = shape.projection(rank, channels)
        self.step_bias = nn.Parameter(torch.zeros(channels) if shape.original else first_step_bias(channels))
        self.log_decay = nn.Parameter(torch.arange(1.0, shape.state + 1).log().repeat(channels, 1))  # [D, N]
        self.skip = nn.Parameter(torch.ones(channels))
        self.leave = shape.projection(channels, shape.width)

    def forward(self, x: Tensor, before: BlockState) -> tuple[Tensor, BlockState]:
        inner, gate = self.enter(x).chunk(2, dim=-1)  # [B, T, D] each
        read = torch.cat([before.inputs, inner.transpose(1, 2)], dim=2)
        inner = functional.silu(self.convolution(read).transpose(1, 2))
        low_rank, to_state, from_state = self.select(inner).split(self.selected, dim=-1)
        step = functional.softplus(self.step(low_rank) + self.step_bias)  # [B, T, D]
        factor = torch.exp(step.unsqueeze(-1) * -self.log_decay.exp())  # [B, T, D, N]
        added = (step * inner).unsqueeze(-1) * to_state.unsqueeze(2)
        first = added[:, :1] + factor[:, :1] * before.state.unsqueeze(1)
        states = linear_recurrence(factor, torch.cat([first, added[:, 1:]], dim=1))
        y = (states @ from_state.unsqueeze(-1)).squeeze(-1) + self.skip * inner
        kept = read[:, :, read.shape[2] - before.inputs.shape[2] :]
        return self.leave(y * functional.silu(gate)), BlockState(kept, states[:, -1])


def first_step_bias(channels: int) -> Tensor:
    """The value whose softplus is log-uniform between the shortest and the longest step."""
    low, high = math.log(SHORTEST_STEP), math.log(LONGEST_STEP)
    step = torch.exp(torch.rand(channels) * (high - low) + low)
    return step + torch.log(-torch.expm1(-step))


def linear_recurrence(a: Tensor, b: Tensor) -> Tensor:
    """Return h_t = a_t h_{t-1} + b_t from h = 0, [B, T, ...], for factors a and inputs b of that shape.

    A parallel scan, or a loop where that is quicker. Differentiable as often as wanted.

    >>> linear_recurrence(torch.full((1, 3), 0.5), torch.ones(1, 3))
    tensor([[1.0000, 1.5000, 1.7500]])
    """
    return _Recurrence.apply(a, b)


def loop(a: Tensor, b: Tensor) -> Tensor:
    """One step after the other. Goes over memory once, the scan three times: on a CPU quicker where steps are large."""
    h = torch.empty_like(b)
    h[:, 0] = b[:, 0]
    for t in range(1, b.shape[1]):
        torch.addcmul(b[:, t], a[:, t], h[:, t - 1], out=h[:, t])
    return h


def scan(a: Tensor, b: Tensor) -> Tensor:
    """All steps in 2 log2 T rounds, with work in proportion to T.

    Steps compose: two of them are one step with factor a_1 a_2 and input a_2 b_1 + b_2. So the pairs' recurrence is
    half as long, and its solution gives every second h (Blelloch, "Prefix sums and their applications", 1990).
    """
    length = a.shape[1]
    if length == 1:
        return b
    even = length - length % 2
    first_a, second_a = a[:, :even:2], a[:, 1:even:2]
    second_b = torch.addcmul(b[:, 1:even:2], second_a, b[:, :even:2])
    h = torch.empty_like(b)
    h[:, 1::2] = scan(first_a * second_a, second_b)
    h[:, 0] = b[:, 0]
    h[:, 2::2] = torch.addcmul(b[:, 2::2], a[:, 2::2], h[:, 1 : length - 1 : 2])
    return h


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor, b: Tensor) -> Tensor:
        large_steps = a.device.type == "cpu" and a[:, 0].numel() >= a.shape[1]
        h = loop(a, b) if large_steps else scan(a, b)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The same recurrence backwards: s_t = g_t + a_{t+1} s_{t+1}; db = s, da_t = s_t h_{t-1}."""
        a, h = ctx.saved_tensors
        zero = torch.zeros_like(a[:, :1])
        backwards = torch.arange(a.shape[1] - 1, -1, -1, device=a.device)  # quicker than flip
        following = torch.cat([zero, a.index_select(1, backwards[:-1])], dim=1)
        s = linear_recurrence(following, gradient.index_select(1, backwards)).index_select(1, backwards)
        return s * torch.cat([zero, h[:, :-1]], dim=1), s
