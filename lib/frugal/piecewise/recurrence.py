"""h_t = a_t h_{t-1} + b_t for all t, forward and backward: a parallel scan, or a loop where that is quicker."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx


def linear_recurrence(a: Tensor, b: Tensor) -> Tensor:
    """Return h [B, T, ...] for factors and inputs of that shape, from h = 0 before the first.

    Differentiable as often as wanted.
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
