"""h_t = a_t h_{t-1} + b_t for all t at once: a parallel scan, forward and backward."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx


def linear_recurrence(a: Tensor, b: Tensor) -> Tensor:
    """Return h [B, T, ...] for factors and inputs of that shape, from h = 0 before the first.

    Steps compose: two of them are one step with factor a_1 a_2 and input a_2 b_1 + b_2. So the pairs' recurrence is
    half as long, and its solution gives every second h (Blelloch, "Prefix sums and their applications", 1990): work
    in proportion to T, in 2 log2 T rounds. Differentiable as often as wanted.
    """
    return _Recurrence.apply(a, b)


def _scan(a: Tensor, b: Tensor) -> Tensor:
    length = a.shape[1]
    if length == 1:
        return b
    even = length - length % 2
    first_a, second_a = a[:, :even:2], a[:, 1:even:2]
    second_b = torch.addcmul(b[:, 1:even:2], second_a, b[:, :even:2])
    h = torch.empty_like(b)
    h[:, 1::2] = _scan(first_a * second_a, second_b)
    h[:, 0] = b[:, 0]
    h[:, 2::2] = torch.addcmul(b[:, 2::2], a[:, 2::2], h[:, 1 : length - 1 : 2])
    return h


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor, b: Tensor) -> Tensor:
        h = _scan(a, b)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The same recurrence backwards: s_t = g_t + a_{t+1} s_{t+1}; db = s, da_t = s_t h_{t-1}."""
        a, h = ctx.saved_tensors
        zero = torch.zeros_like(a[:, :1])
        following = torch.cat([a[:, 1:], zero], dim=1)
        s = linear_recurrence(following.flip(1), gradient.flip(1)).flip(1)
        return s * torch.cat([zero, h[:, :-1]], dim=1), s
