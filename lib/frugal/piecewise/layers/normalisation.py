"""Normalisations between layers, over the features of one sample; they keep activations near the domain [-1, 1]."""

from typing import Literal

from torch import Tensor, nn

from frugal.errors import InputError
from frugal.tensors import number_tensor

Normalisation = Literal["layer", "maxabs", "maxcenter", "none"]


def normalisation(kind: Normalisation, features: int) -> nn.Module:
    """Return the module for a name: its parameters, if it has any, exist from the start.

    >>> normalisation("maxabs", 8)
    MaxAbs()
    >>> [tuple(weight.shape) for weight in normalisation("layer", 8).parameters()]
    [(8,), (8,)]
    """
    match kind:
        case "layer":
            return nn.LayerNorm(features)
        case "maxabs":
            return MaxAbs()
        case "maxcenter":
            return MaxCenter()
        case "none":
            return nn.Identity()
    raise InputError(f"normalisation={kind!r}: must be one of layer, maxabs, maxcenter, none")


def _with_points(x: Tensor) -> Tensor:
    numbers = number_tensor("input", x)
    return numbers if numbers.is_floating_point() else numbers.float()


class MaxAbs(nn.Module):
    """x / (max |x| + eps) over the last axis.

    >>> import torch
    >>> MaxAbs()(torch.tensor([1.0, -4.0])).round(decimals=3)
    tensor([ 0.2500, -1.0000])
    """

    eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        x = _with_points(x)
        return x / (x.abs().amax(dim=-1, keepdim=True) + self.eps)


class MaxCenter(nn.Module):
    """(x - middle) / (max x - middle + eps) over the last axis, where middle = (max x + min x) / 2.

    >>> import torch
    >>> MaxCenter()(torch.tensor([1.0, 2.0, 5.0])).round(decimals=3)
    tensor([-1.0000, -0.5000,  1.0000])
    """

    eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        x = _with_points(x)
        largest, smallest = x.amax(dim=-1, keepdim=True), x.amin(dim=-1, keepdim=True)
        middle = (largest + smallest) / 2
        return (x - middle) / (largest - middle + self.eps)
