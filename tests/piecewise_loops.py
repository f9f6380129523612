"""Piecewise layers in plain loops over floats: what an edge computes, from its definition alone."""

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from frugal.piecewise import PiecewiseBasis


def edge_by_loops(basis: PiecewiseBasis, x: float, w: Sequence[float]) -> float:
    """The value at x of the edge with weights w."""
    return sum(w[v] * value for v, value in functions_by_loops(basis, x).items())


def functions_by_loops(basis: PiecewiseBasis, x: float) -> dict[int, float]:
    """The functions of the basis that live in the segment of x, by number, and their values."""
    if basis.periodicity is not None:
        period = basis.periodicity
        x = (x + period / 2) % (2 * period)
        x = (2 * period - x if x > period else x) - period / 2
    n, half = basis.nodes, basis.length / 2
    nodes = [-math.cos(math.pi * j / (n - 1)) for j in range(n)] if n > 1 else [0.0]
    k = min(max(math.floor(basis.segments * (x + half) / basis.length), 0), basis.segments - 1)
    left = -half + k * basis.length / basis.segments
    t = 2 * (x - left) * basis.segments / basis.length - 1

    def polynomial(j: int, t: float) -> float:
        return math.prod((t - nodes[m]) / (nodes[j] - nodes[m]) for m in range(n) if m != j)

    def value(j: int) -> float:
        if basis.linear_extrapolation and abs(t) > 1:
            end, step = math.copysign(1, t), 1e-5
            slope = (polynomial(j, end + step) - polynomial(j, end - step)) / (2 * step)
            return polynomial(j, end) + slope * (t - end)
        return polynomial(j, t)

    return {k * (n - 1 if basis.continuous else n) + j: value(j) for j in range(n)}


def layer_by_loops(basis: PiecewiseBasis, x: Tensor, weight: Tensor) -> Tensor:
    """The fully connected layer [B, I] -> [B, O] with weights [I, V, O]."""
    result = torch.zeros(x.shape[0], weight.shape[2], dtype=x.dtype)
    for b, i, o in product(range(x.shape[0]), range(x.shape[1]), range(weight.shape[2])):
        result[b, o] += edge_by_loops(basis, x[b, i].item(), weight[i, :, o].tolist())
    return result
