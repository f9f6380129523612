"""Convolutions are fully connected layers on patches."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from frugal.errors import InputError
from frugal.piecewise import Basis, BasisConvolution, BasisLayer, FourierBasis, PiecewiseBasis, Product
from frugal.piecewise.layers import kernels
from frugal.piecewise.layers.fully_connected import Form

BASES = [
    PiecewiseBasis(3, 4),
    PiecewiseBasis(2, 20),
    PiecewiseBasis(2, 3, continuous=False),
    PiecewiseBasis(4),
    FourierBasis(3),
]
KERNEL, CHANNELS, OUT = 3, 2, 5


def layer_on_patches(convolution: BasisConvolution) -> BasisLayer:
    """The fully connected layer that a convolution applies to each patch, inputs ordered as (channel, tap)."""
    inputs, form = CHANNELS * KERNEL**convolution.dimensions, convolution.form
    layer = BasisLayer(inputs, OUT, convolution.basis, form=form, alpha=convolution.alpha).double()
    taps = convolution.weight.detach().view(OUT, CHANNELS, convolution.basis.values_per_edge, -1)
    layer.weight.data = taps.permute(1, 3, 2, 0).flatten(0, 1)  # [C * taps, V, O]
    return layer


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("form", ["sum", "product"])
def test_a_convolution_is_one_layer_applied_to_every_patch(
    basis: Basis, stride: int, dimensions: int, form: Form
) -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"dimensions": dimensions, "stride": stride, "form": form, "alpha": 0.3}
    convolution = BasisConvolution(CHANNELS, OUT, KERNEL, basis, **settings).double()
    torch.nn.init.normal_(convolution.weight)
    x = torch.rand(4, CHANNELS, *[9] * dimensions, dtype=torch.float64) * 2 - 1
    y = convolution(x)
    image = x if dimensions == 2 else x[:, :, None]
    patches = functional.unfold(
        image, (KERNEL if dimensions == 2 else 1, KERNEL), stride=(stride if dimensions == 2 else 1, stride)
    )
    expected = layer_on_patches(convolution)(patches.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(y.flatten(2), expected)


@pytest.mark.parametrize("form", ["sum", "product"])
@pytest.mark.parametrize("basis", BASES[:2])
def test_kernel_tuples_dilation_and_groups_are_those_of_torch(basis: Basis, form: Form) -> None:
    """A convolution in groups is one for each; a dilated one has a kernel with taps that give nothing between."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"dimensions": 2, "form": form, "alpha": 0.3, "stride": (2, 1)}
    x = torch.rand(2, 4, 9, 8, dtype=torch.float64) * 2 - 1
    grouped = BasisConvolution(4, 6, (2, 3), basis, groups=2, dilation=(2, 1), padding=(1, 0), **settings).double()
    parts = []
    for group in range(2):
        wide = BasisConvolution(2, 3, (3, 3), basis, padding=(1, 0), **settings).double()
        wide.weight.data.zero_()
        wide.weight.data[:, :, ::2] = grouped.weight.data[3 * group : 3 * group + 3]
        parts.append(wide(x[:, 2 * group : 2 * group + 2]))
    torch.testing.assert_close(grouped(x), torch.cat(parts, dim=1))


def test_dilated_patches_are_the_dilated_convolution() -> None:
    convolution = BasisConvolution(2, 3, 3, PiecewiseBasis(2, 20), dilation=2).double()
    x = torch.rand(2, 2, 9, dtype=torch.float64)
    torch.testing.assert_close(convolution._on_patches(x), convolution._on_expanded(x))


@pytest.mark.parametrize("segments", [3, 30])
@pytest.mark.parametrize("form", ["sum", "product"])
def test_integer_codes_are_the_middles_of_their_segments(segments: int, form: Form) -> None:
    basis = PiecewiseBasis(3, segments)
    convolution = BasisConvolution(2, 3, 2, basis, form=form)
    codes = torch.randint(segments, (2, 2, 5))
    torch.testing.assert_close(convolution(codes), convolution((2 * codes + 1) / segments - 1))
    with pytest.raises(InputError, match=f"must be 0 to {segments - 1}"):
        convolution(codes + segments)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("settings", [{}, {"padding": 1}, {"form": "product"}, {"transposed": True}])
def test_codes_take_their_own_segment_in_every_precision(settings: dict[str, Any], dtype: torch.dtype) -> None:
    convolution = BasisConvolution(1, 1, 1, PiecewiseBasis(1, 700, continuous=False), **settings).to(dtype)
    pad = convolution.padding[0]
    y = convolution(torch.arange(700).view(1, 1, -1))[0, 0, pad : 700 + pad]
    torch.testing.assert_close(y, convolution.weight.flatten(), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("segments", [3, 30])
@pytest.mark.parametrize("settings", [{}, {"padding": 1}, {"form": "product"}, {"transposed": True}])
def test_an_empty_batch_is_fine(segments: int, settings: dict[str, Any]) -> None:
    convolution = BasisConvolution(2, 3, 2, PiecewiseBasis(3, segments), **settings)
    assert convolution(torch.rand(0, 2, 5)).shape == (0, *convolution(torch.rand(1, 2, 5)).shape[1:])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dimensions": 2.0}, "dimensions=2.0"),
        ({"basis": 5}, "basis of type int: must be a Basis"),
        ({"kernel_size": 2.0}, "kernel_size=2.0"),
        ({"kernel_size": (2, 2)}, r"kernel_size=\(2, 2\)"),
        ({"stride": 0}, "stride=0"),
        ({"padding": "same"}, "padding='same'"),
        ({"padding": -1}, "padding=-1"),
        ({"dilation": 0}, "dilation=0"),
        ({"groups": 3}, "groups=3: must divide"),
        ({"groups": True}, "groups=True"),
    ],
)
def test_sizes_that_cannot_be_used_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        BasisConvolution(**{"in_channels": 2, "out_channels": 4, "kernel_size": 2, "basis": BASES[0], **settings})


@pytest.mark.parametrize("settings", [{}, {"form": "product"}, {"basis": PiecewiseBasis(2, 30)}])
def test_an_input_shorter_than_the_kernel_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="too short"):
        BasisConvolution(**{"in_channels": 2, "out_channels": 4, "kernel_size": 3, "basis": BASES[0], **settings})(
            torch.rand(1, 2, 2)
        )


@pytest.mark.parametrize(("length", "padding"), [(0, 0), (1, 2), (2, 2)])
def test_a_transposed_convolution_that_leaves_nothing_is_refused(length: int, padding: int) -> None:
    for settings in ({}, {"dimensions": 2}):
        convolution = BasisConvolution(2, 4, 3, BASES[0], transposed=True, padding=padding, **settings)
        with pytest.raises(InputError, match="give a longer one"):
            convolution(torch.rand(1, 2, *[length] * convolution.dimensions))
        shape = convolution(torch.rand(1, 2, *[5] * convolution.dimensions)).shape
        assert shape[2:] == tuple(convolution._size(torch.rand(1, 2, *[5] * convolution.dimensions)))


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("dimensions", [1, 2])
def test_a_transposed_convolution_is_the_adjoint_in_the_expanded_values(basis: Basis, dimensions: int) -> None:
    torch.manual_seed(0)
    forward = BasisConvolution(CHANNELS, OUT, KERNEL, basis, dimensions=dimensions, stride=2, transposed=True).double()
    x = torch.rand(2, CHANNELS, *[4] * dimensions, dtype=torch.float64)
    values = basis.expand(x).movedim(-1, 2).flatten(1, 2)
    y = forward(x)
    probe = torch.randn_like(y)
    convolve = functional.conv1d if dimensions == 1 else functional.conv2d
    back: Tensor = convolve(probe, forward.weight, stride=2)
    torch.testing.assert_close((y * probe).sum(), (values * back).sum())


@pytest.mark.parametrize("dimensions", [1, 2])
def test_patches_and_expansion_agree_in_values_and_gradients(dimensions: int) -> None:
    convolution = BasisConvolution(CHANNELS, OUT, KERNEL, PiecewiseBasis(2, 20), dimensions=dimensions, stride=2)
    convolution.double()
    x = (torch.rand(3, CHANNELS, *[8] * dimensions, dtype=torch.float64) * 2 - 1).requires_grad_()
    results = []
    for way in (convolution._on_patches, convolution._on_expanded):
        y = way(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, convolution.weight])])
    torch.testing.assert_close(results[0], results[1])


def test_padding_adds_edges_that_give_nothing() -> None:
    convolution = BasisConvolution(1, 1, 3, PiecewiseBasis(2, 2), padding=1)
    convolution.weight.data.fill_(1.0)  # every edge is the constant 1
    assert convolution(torch.zeros(1, 1, 4)).flatten().tolist() == pytest.approx([2, 3, 3, 2])


def test_padding_leaves_a_product_as_it_is() -> None:
    convolution = BasisConvolution(1, 1, 3, PiecewiseBasis(2, 2), padding=1, form="product")
    convolution.weight.data.fill_(1.0)  # every factor is 2
    assert convolution(torch.zeros(1, 1, 4)).flatten().tolist() == pytest.approx([3, 7, 7, 3])


def test_straight_edges_through_zero_make_a_product_convolution_of_plain_weights() -> None:
    plain = Product(CHANNELS * KERNEL**2, OUT, alpha=0.0)
    torch.nn.init.zeros_(plain.bias)
    convolution = BasisConvolution(
        CHANNELS, OUT, KERNEL, PiecewiseBasis(2), dimensions=2, stride=2, form="product", alpha=0.0
    )
    taps = plain.weight.detach().view(OUT, CHANNELS, 1, KERNEL, KERNEL)
    convolution.weight.data = torch.cat([-taps, taps], dim=2).flatten(1, 2)  # at -1 and at 1
    x = torch.rand(3, CHANNELS, 7, 7) * 2 - 1
    patches = functional.unfold(x, KERNEL, stride=2).transpose(1, 2)
    torch.testing.assert_close(convolution(x).flatten(2), plain(patches).transpose(1, 2))


@pytest.mark.parametrize("segments", [4, 40])
def test_autocast_gives_its_format_on_patches_and_on_expansion(segments: int) -> None:
    convolution = BasisConvolution(2, 3, 2, PiecewiseBasis(3, segments))
    for x in (torch.rand(2, 2, 5), torch.randint(segments, (2, 2, 5))):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = convolution(x)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), convolution(x), rtol=0, atol=0.03)


@pytest.mark.parametrize("form", ["sum", "product"])
def test_work_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch, form: Form) -> None:
    convolution = BasisConvolution(CHANNELS, OUT, KERNEL, PiecewiseBasis(2, 10), form=form).double()
    x = torch.rand(7, CHANNELS, 12, dtype=torch.float64)
    whole = convolution(x)
    monkeypatch.setattr(kernels, "CHUNK_BYTES", 4000)
    torch.testing.assert_close(convolution(x), whole)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="2 channels"):
        BasisConvolution(2, 3, 3, PiecewiseBasis(2, 2))(torch.rand(4, 3, 10))
    with pytest.raises(InputError, match="no patch to multiply over"):
        BasisConvolution(2, 3, 3, PiecewiseBasis(2, 2), transposed=True, form="product")
    with pytest.raises(InputError, match="dimensions=3"):
        BasisConvolution(2, 3, 3, PiecewiseBasis(2, 2), dimensions=3)
