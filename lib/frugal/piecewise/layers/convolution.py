"""Convolutions whose every tap is an edge: expand each channel into its basis values, then convolve."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from frugal.errors import InputError, check_is, check_whole
from frugal.piecewise.layers.basis import Basis, PiecewiseBasis
from frugal.piecewise.layers.fully_connected import Form, Initialize, check_form, initial_weight, numbers_or_codes
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
    [out_channels, in_channels / groups * V, kernel ...], or [in_channels * V, out_channels / groups, kernel ...] when
    transposed. With form="product" the edges of a patch join as those of a `BasisLayer` do.

    kernel_size, stride, padding, dilation and groups are those of torch's convolutions; of the first four each is one
    number, or one for each axis. Integer codes stand for the middles of segments, as in a `BasisLayer`.

    Raises:
        InputError: a size of the wrong type or out of range, or what does not go together.

    >>> from frugal.piecewise import PiecewiseBasis
    >>> layer = BasisConvolution(2, 4, 3, PiecewiseBasis(nodes=3, segments=2), stride=2)
    >>> tuple(layer.weight.shape), tuple(layer(torch.rand(7, 2, 9)).shape)
    ((4, 10, 3), (7, 4, 4))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        basis: Basis,
        *,
        dimensions: int = 1,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        transposed: bool = False,
        form: Form = "sum",
        alpha: float = 1.0,
        initialize: Initialize = "uniform",
    ) -> None:
        super().__init__()
        check_whole(dimensions=dimensions)
        check_is(Basis, basis=basis)
        if dimensions > 2:
            raise InputError(f"dimensions={dimensions}: must be 1 or 2; make further axes channels")
        if basis.dimensions != 1:
            raise InputError(f"basis={basis}: a convolution's edges take one number each; use a one-coordinate basis")
        check_form(form, alpha)
        if form == "product" and transposed:
            raise InputError("form='product' with transposed=True: a spread input has no patch to multiply over")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.basis, self.dimensions, self.transposed = basis, dimensions, transposed
        self.form, self.alpha = form, alpha
        check_whole(in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise InputError(f"groups={groups}: must divide in_channels={in_channels} and out_channels={out_channels}")
        self.kernel_size = one_for_each_axis("kernel_size", kernel_size, dimensions)
        self.stride = one_for_each_axis("stride", stride, dimensions)
        self.dilation = one_for_each_axis("dilation", dilation, dimensions)
        self.padding = one_for_each_axis("padding", padding, dimensions, least=0)
        inputs, outputs = in_channels // groups, out_channels // groups
        weights = [
            initial_weight(basis, initialize, fan_in=inputs * self._taps, edges=(inputs, self._taps * outputs)).view(
                inputs * basis.values_per_edge, outputs, *self.kernel_size
            )
            for _ in range(groups)
        ]
        self.weight = nn.Parameter(torch.cat([w if transposed else w.transpose(0, 1).contiguous() for w in weights]))

    def forward(self, x: Tensor) -> Tensor:
        x = numbers_or_codes(x, self.weight)
        if x.dim() != self.dimensions + 2 or x.shape[1] != self.in_channels:
            raise InputError(
                f"input of shape {tuple(x.shape)}: expected [batch, {self.in_channels} channels] "
                f"and {self.dimensions} more axes"
            )
        if not x.is_floating_point():
            if not isinstance(self.basis, PiecewiseBasis):
                raise InputError(f"input of {x.dtype}: integer codes need a piecewise basis; give numbers")
            x = self.basis.of_codes(x)
        if min(self._size(x)) < 1 or min(x.shape[2:]) < 1:
            spans = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            raise InputError(
                f"input of shape {tuple(x.shape)}: too short, {spans} taps with padding={self.padding} give no output; "
                "give a longer one"
            )
        if not len(x):
            return self._on_expanded(x)
        if self.form == "product":
            outputs = self.out_channels + self.basis.values_per_edge  # of a tap, kept twice
            return in_chunks(self._products, x, 2 * outputs * self._taps * self.in_channels * math.prod(self._size(x)))
        plain = not self.transposed and not any(self.padding) and self.groups == 1
        if plain and choose_kernel("auto", self.basis) == "gather":
            return self._on_patches(x)
        return in_chunks(self._on_expanded, x, self.basis.values_per_edge * x[0].numel())

    def _expanded(self, x: Tensor) -> Tensor:
        return self.basis.expand(x).to(self.weight.dtype).movedim(-1, 2).flatten(1, 2)  # [B, C * V, ...]

    def _on_expanded(self, x: Tensor) -> Tensor:
        convolve = CONVOLUTIONS[self.dimensions, self.transposed]
        settings = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        return convolve(self._expanded(x), self.weight, **settings)

    def _products(self, x: Tensor) -> Tensor:
        """Multiply over the edges of each patch; those of padding are zero, which is a factor of one."""

        def axes(given: tuple[int, ...], across: int) -> tuple[int, ...]:
            return given if self.dimensions == 2 else (across, *given)

        values = self._expanded(x) if self.dimensions == 2 else self._expanded(x).unsqueeze(2)  # one row of an image
        patches = functional.unfold(
            values,
            axes(self.kernel_size, 1),
            dilation=axes(self.dilation, 1),
            padding=axes(self.padding, 0),
            stride=axes(self.stride, 1),
        )  # [B, C * V * taps, places]
        shape = (self.groups, self.in_channels // self.groups, self.basis.values_per_edge, self._taps)
        weight = self.weight.view(self.groups, -1, *shape[1:])
        edges = torch.einsum("bgcvtp,gocvt->bctgop", patches.unflatten(1, shape), weight).flatten(1, 2).flatten(2, 3)
        return product_of_edges(edges, self.alpha).unflatten(2, self._size(x))

    @property
    def _taps(self) -> int:
        return math.prod(self.kernel_size)

    def _size(self, x: Tensor) -> list[int]:
        """The output's length, or height and width."""

        def size(length: int, taps: int, stride: int, padding: int, dilation: int) -> int:
            span = dilation * (taps - 1) + 1 - 2 * padding
            return (length - 1) * stride + span if self.transposed else (length - span) // stride + 1

        settings = (self.kernel_size, self.stride, self.padding, self.dilation)
        return [*map(size, x.shape[2:], *settings)]

    def _on_patches(self, x: Tensor) -> Tensor:
        """Apply the fully connected layer to every patch: with many values per edge, far less than expanding them."""
        for axis, (size, stride, dilation) in enumerate(zip(self.kernel_size, self.stride, self.dilation, strict=True)):
            x = x.unfold(2 + axis, dilation * (size - 1) + 1, stride)[..., ::dilation]  # the taps become a last axis
        patches = x.movedim(1, 1 + self.dimensions)  # [B, out ..., C, taps ...]
        edges = self.weight.view(self.out_channels, self.in_channels, self.basis.values_per_edge, -1)
        weight = edges.permute(1, 3, 2, 0).flatten(0, 1)  # [C * taps, V, O]
        y = neuron_sums(self.basis, patches.reshape(-1, len(weight)), weight, "gather")
        return y.view(*patches.shape[: 1 + self.dimensions], -1).movedim(-1, 1)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, {self.basis}, dimensions={self.dimensions}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, groups={self.groups}, "
            f"transposed={self.transposed}, form={self.form!r}"
        )


def one_for_each_axis(name: str, given: int | Sequence[int], dimensions: int, least: int = 1) -> tuple[int, ...]:
    """Return one whole number for each axis."""
    numbers = given if isinstance(given, tuple | list) else (given,) * dimensions
    if len(numbers) != dimensions:
        raise InputError(f"{name}={given!r}: must be a whole number, or one for each of {dimensions} axes")
    for number in numbers:
        check_whole(least, **{name: number})
    return tuple(map(int, numbers))
