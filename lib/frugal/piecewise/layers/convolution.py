"""Convolutions whose every tap is an edge: expand each channel into its basis values, then convolve."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from frugal.errors import InputError
from frugal.piecewise.layers.basis import Basis
from frugal.piecewise.layers.fully_connected import Form, Initialize, check_form, initial_weight
from frugal.piecewise.layers.kernels import choose_kernel, in_chunks, neuron_sums, product_of_edges

CONVOLUTIONS: dict[tuple[int, bool], Callable[..., Tensor]] = {
    (1, False): functional.conv1d,
    (2, False): functional.conv2d,
    (1, True): functional.conv_transpose1d,
    (2, True): functional.conv_transpose2d,
}


class BasisConvolution(nn.Module):
    """y = sum over channels c, taps k of f_ock(x_c at that tap), for any one-coordinate basis; no bias.

    Input [B, in_channels, length] for dimensions=1, [B, in_channels, height, width] for 2; `transposed` turns it
    round. Padding adds taps whose edges give zero. The weight has torch's layout, each channel taking V places:
    [out_channels, in_channels * V, kernel ...], or [in_channels * V, out_channels, kernel ...] when transposed.
    With form="product" the edges of a patch join as those of a `BasisLayer` do.

    >>> from frugal.piecewise import PiecewiseBasis
    >>> layer = BasisConvolution(2, 4, 3, PiecewiseBasis(nodes=3, segments=2), stride=2)
    >>> tuple(layer.weight.shape), tuple(layer(torch.rand(7, 2, 9)).shape)
    ((4, 10, 3), (7, 4, 4))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        basis: Basis,
        *,
        dimensions: int = 1,
        stride: int = 1,
        padding: int = 0,
        transposed: bool = False,
        form: Form = "sum",
        alpha: float = 1.0,
        initialize: Initialize = "uniform",
    ) -> None:
        super().__init__()
        if dimensions not in (1, 2):
            raise InputError(f"dimensions={dimensions}: convolutions run over 1 or 2 axes")
        if basis.dimensions != 1:
            raise InputError(f"basis={basis}: a convolution's edges take one number each; use a one-coordinate basis")
        check_form(form)
        if form == "product" and transposed:
            raise InputError("form='product' with transposed=True: a spread input has no patch to multiply over")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.basis, self.dimensions, self.transposed = basis, dimensions, transposed
        self.form, self.alpha = form, alpha
        self.stride, self.padding = stride, padding
        edges = (in_channels, self._taps * out_channels)
        weight = initial_weight(basis, initialize, fan_in=in_channels * self._taps, edges=edges).view(
            in_channels * basis.values_per_edge, out_channels, *[kernel_size] * dimensions
        )
        self.weight = nn.Parameter(weight if transposed else weight.transpose(0, 1).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != self.dimensions + 2 or x.shape[1] != self.in_channels:
            raise InputError(
                f"input of shape {tuple(x.shape)}: expected [batch, {self.in_channels} channels] "
                f"and {self.dimensions} more axes"
            )
        if self.form == "product":
            outputs = self.out_channels + self.basis.values_per_edge  # of a tap, kept twice
            return in_chunks(self._products, x, 2 * outputs * self._taps * self.in_channels * math.prod(self._size(x)))
        if choose_kernel("auto", self.basis) == "gather" and not self.transposed and not self.padding:
            return self._on_patches(x)
        return in_chunks(self._on_expanded, x, self.basis.values_per_edge * x[0].numel())

    def _expanded(self, x: Tensor) -> Tensor:
        return self.basis.expand(x).movedim(-1, 2).flatten(1, 2)  # [B, C * V, ...]

    def _on_expanded(self, x: Tensor) -> Tensor:
        convolve = CONVOLUTIONS[self.dimensions, self.transposed]
        return convolve(self._expanded(x), self.weight, stride=self.stride, padding=self.padding)

    def _products(self, x: Tensor) -> Tensor:
        """Multiply over the edges of each patch; those of padding are zero, which is a factor of one."""

        def axes(given: int, across: int) -> tuple[int, int]:
            return (given if self.dimensions == 2 else across, given)

        values = self._expanded(x) if self.dimensions == 2 else self._expanded(x).unsqueeze(2)  # one row of an image
        patches = functional.unfold(
            values, axes(self.kernel_size, 1), padding=axes(self.padding, 0), stride=axes(self.stride, 1)
        )  # [B, C * V * taps, places]
        shape = (self.in_channels, self.basis.values_per_edge, self._taps)
        weight = self.weight.view(self.out_channels, *shape)
        edges = torch.einsum("bcvtp,ocvt->bctop", patches.unflatten(1, shape), weight).flatten(1, 2)
        return product_of_edges(edges, self.alpha).unflatten(2, self._size(x))

    @property
    def _taps(self) -> int:
        return self.kernel_size**self.dimensions

    def _size(self, x: Tensor) -> list[int]:
        """The output's length, or height and width."""
        return [(length + 2 * self.padding - self.kernel_size) // self.stride + 1 for length in x.shape[2:]]

    def _on_patches(self, x: Tensor) -> Tensor:
        """Apply the fully connected layer to every patch: with many values per edge, far less than expanding them."""
        for axis in range(2, 2 + self.dimensions):
            x = x.unfold(axis, self.kernel_size, self.stride)  # the taps become a last axis
        patches = x.movedim(1, 1 + self.dimensions)  # [B, out ..., C, taps ...]
        edges = self.weight.view(self.out_channels, self.in_channels, self.basis.values_per_edge, -1)
        weight = edges.permute(1, 3, 2, 0).flatten(0, 1)  # [C * taps, V, O]
        y = neuron_sums(self.basis, patches.reshape(-1, len(weight)), weight, "gather")
        return y.view(*patches.shape[: 1 + self.dimensions], -1).movedim(-1, 1)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, {self.basis}, dimensions={self.dimensions}, "
            f"stride={self.stride}, padding={self.padding}, transposed={self.transposed}, form={self.form!r}"
        )
