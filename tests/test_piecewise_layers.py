"""Fully connected layers: what an edge computes, told by plain loops, and that every kernel computes it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frugal.errors import InputError
from frugal.piecewise import (
    BasisConvolution,
    BasisLayer,
    FixedRotation,
    Fourier,
    FourierBasis,
    PiecewiseBasis,
    PiecewisePolynomial,
    Polynomial,
    PolynomialND,
    Product,
    Switch,
    TensorProductBasis,
    normalisation,
)
from frugal.piecewise.layers import kernels
from frugal.piecewise.networks import layer_of_kind
from piecewise_loops import layer_by_loops

KERNELS = ["dense", "gather", "reference"]


@st.composite
def bases(draw: st.DrawFn, most_nodes: int = 6, most_segments: int = 7) -> PiecewiseBasis:
    continuous = draw(st.booleans())
    return PiecewiseBasis(
        nodes=draw(st.integers(2 if continuous else 1, most_nodes)),
        segments=draw(st.integers(1, most_segments)),
        continuous=continuous,
        length=draw(st.sampled_from([0.5, 2.0, 3.0])),
        periodicity=draw(st.sampled_from([None, 2.0])),
        linear_extrapolation=draw(st.booleans()),
    )


def double_layer(basis: PiecewiseBasis | FourierBasis | TensorProductBasis, kernel: str = "auto") -> BasisLayer:
    layer = BasisLayer(3, 4, basis, kernel=kernel).double()  # type: ignore[arg-type]
    torch.nn.init.normal_(layer.weight)
    return layer


@settings(max_examples=60)
@given(bases(), st.sampled_from(KERNELS), st.integers(0, 2**31))
def test_every_kernel_agrees_with_plain_loops(basis: PiecewiseBasis, kernel: str, seed: int) -> None:
    torch.manual_seed(seed)
    layer = double_layer(basis, kernel)
    x = (torch.rand(5, 3, dtype=torch.float64) - 0.5) * basis.length * 1.3  # a few of them outside the domain
    expected = layer_by_loops(basis, x, layer.weight.detach())
    torch.testing.assert_close(layer(x), expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=30)
@given(bases(), st.integers(0, 2**31))
def test_kernels_agree_in_values_and_gradients(basis: PiecewiseBasis, seed: int) -> None:
    torch.manual_seed(seed)
    x = ((torch.rand(6, 3, dtype=torch.float64) - 0.5) * basis.length * 1.3).requires_grad_()
    weight = torch.randn(3, basis.values_per_edge, 4, dtype=torch.float64, requires_grad=True)
    results = []
    for kernel in KERNELS:
        y = kernels.neuron_sums(basis, x, weight, kernel)
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, weight])])
    for result in results[:2]:
        torch.testing.assert_close(result, results[2])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "basis",
    [
        PiecewiseBasis(3, 4),
        PiecewiseBasis(4, 2, continuous=False, linear_extrapolation=True),
        PiecewiseBasis(1, 3, continuous=False),
        PiecewiseBasis(2, 2, periodicity=2.0),
        TensorProductBasis(PiecewiseBasis(3, 2), 2),
    ],
)
def test_first_and_second_derivatives_agree_with_finite_differences(
    basis: PiecewiseBasis | TensorProductBasis, kernel: str
) -> None:
    torch.manual_seed(0)
    shape = (4, 2) if basis.dimensions == 1 else (4, 2, basis.dimensions)
    x = (torch.rand(shape, dtype=torch.float64) * 2 - 1).requires_grad_()
    weight = torch.randn(2, basis.values_per_edge, 3, dtype=torch.float64, requires_grad=True)
    inputs = (x, weight)
    assert torch.autograd.gradcheck(lambda x, weight: kernels.neuron_sums(basis, x, weight, kernel), inputs)
    assert torch.autograd.gradgradcheck(lambda x, weight: kernels.neuron_sums(basis, x, weight, kernel), inputs)


@pytest.mark.parametrize("kernel", KERNELS)
def test_work_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    torch.manual_seed(0)
    layer = double_layer(PiecewiseBasis(3, 4), kernel)
    x = torch.rand(17, 3, dtype=torch.float64, requires_grad=True)
    whole = layer(x)
    gradients = torch.autograd.grad(whole.square().sum(), [x, layer.weight])
    monkeypatch.setattr(kernels, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(kernels, "CACHE_BYTES", 300)
    parts = layer(x)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts.square().sum(), [x, layer.weight]), gradients)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_gpu_computes_the_same(kernel: str) -> None:
    torch.manual_seed(0)
    layer = double_layer(PiecewiseBasis(3, 40), kernel)
    x = (torch.rand(50, 3, dtype=torch.float64) * 2 - 1).requires_grad_()
    y = layer(x)
    expected = [y, *torch.autograd.grad(y.square().sum(), [x, layer.weight])]
    on_gpu = x.detach().cuda().requires_grad_()
    layer = layer.cuda()
    y = layer(on_gpu)
    result = [y, *torch.autograd.grad(y.square().sum(), [on_gpu, layer.weight])]
    torch.testing.assert_close([part.cpu() for part in result], expected)


@settings(max_examples=40)
@given(bases(most_nodes=8, most_segments=20), st.floats(-3, 3))
def test_the_basis_sums_to_one_everywhere(basis: PiecewiseBasis, x: float) -> None:
    total = basis.expand(torch.tensor([x], dtype=torch.float64)).sum()
    assert total.item() == pytest.approx(1, abs=1e-6 * max(1, (abs(x) * basis.segments) ** basis.nodes))


@settings(max_examples=40)
@given(bases(most_nodes=8, most_segments=20))
def test_a_weight_is_the_edges_value_at_its_node(basis: PiecewiseBasis) -> None:
    inward = 1e-9 * (basis.length / basis.segments)
    positions = basis.node_positions
    middles = basis.of_codes(torch.arange(basis.segments)).repeat_interleave(basis.nodes)
    if not basis.continuous:  # a knot has a node on either side: step a little towards the own segment's middle
        positions = positions + inward * (middles - positions).sign()
    inside = PiecewiseBasis(basis.nodes, basis.segments, basis.continuous, basis.length)
    torch.testing.assert_close(
        inside.expand(positions), torch.eye(basis.values_per_edge, dtype=torch.float64), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("nodes", [2, 3, 5])
def test_a_continuous_edge_is_continuous_and_a_discontinuous_one_jumps(nodes: int) -> None:
    knots = torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64)[:, None]

    def jumps(continuous: bool) -> Tensor:
        layer = double_layer(PiecewiseBasis(nodes, 4, continuous))
        return (layer((knots + 1e-9).expand(-1, 3)) - layer((knots - 1e-9).expand(-1, 3))).abs()

    assert jumps(continuous=True).max() < 1e-6
    assert jumps(continuous=False).min() > 1e-4


def test_a_sample_touches_only_the_nodes_of_its_segment() -> None:
    layer = PiecewisePolynomial(1, 1, nodes=2, segments=10)
    layer(torch.tensor([[0.33]])).backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.flatten().nonzero().flatten().tolist() == [6, 7]


@pytest.mark.parametrize("length", [0.5, 2.0, 4.0])
def test_weights_set_to_their_positions_make_the_identity_on_any_length(length: float) -> None:
    layer = PiecewisePolynomial(1, 1, nodes=2, segments=4, length=length)
    layer.weight.data = layer.basis.node_positions.float().view(1, -1, 1)
    x = torch.linspace(-length / 2, length / 2, 9)[:, None]
    torch.testing.assert_close(layer(x), x)


def test_outside_the_domain_an_edge_goes_on_as_polynomial_or_as_line() -> None:
    x = torch.tensor([[-2.0], [2.0]])
    square = {"nodes": 3, "segments": 1}
    weight = torch.tensor([1.0, 0.0, 1.0]).view(1, 3, 1)  # x squared
    for linear, expected in [(False, [4.0, 4.0]), (True, [3.0, 3.0])]:
        layer = PiecewisePolynomial(1, 1, **square, linear_extrapolation=linear)
        layer.weight.data = weight
        assert layer(x).flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("x", "mirrored"), [(-1.5, -0.5), (-1.0, -1.0), (0.3, 0.3), (1.5, 0.5), (2.0, 0.0), (3.0, -1.0)]
)
def test_periodicity_mirrors_the_input(x: float, mirrored: float) -> None:
    layer = PiecewisePolynomial(1, 1, nodes=2, segments=1, periodicity=2.0)
    layer.weight.data = torch.tensor([-1.0, 1.0]).view(1, 2, 1)
    assert layer(torch.tensor([[x]])).item() == pytest.approx(mirrored, abs=1e-6)


@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("nodes", [2, 3, 4])
@pytest.mark.parametrize("form", ["sum", "product"])
def test_integer_codes_are_the_middles_of_their_segments(nodes: int, continuous: bool, form: str) -> None:
    torch.manual_seed(0)
    layer = PiecewisePolynomial(4, 6, nodes, 128, continuous=continuous, form=form).double()  # type: ignore[arg-type]
    codes = torch.randint(0, 128, (10, 4))
    x = (codes.double() - 63.5) / 64
    torch.testing.assert_close(layer(codes), layer(x))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.uint64])
def test_codes_may_be_integers_of_any_kind(dtype: type) -> None:
    codes = np.arange(4, dtype=dtype).reshape(2, 2)
    basis = PiecewiseBasis(3, 4)
    for layer in (BasisLayer(2, 3, basis), BasisConvolution(2, 3, 1, basis)):
        given = codes if isinstance(layer, BasisLayer) else codes[None]
        assert torch.equal(layer(given), layer(torch.from_numpy(given.astype(np.int64))))
        with pytest.raises(InputError, match="codes from 2 to 5: must be 0 to 3"):
            layer(given + dtype(2))
    assert basis.of_codes(torch.from_numpy(codes)).flatten().tolist() == [-0.75, -0.25, 0.25, 0.75]


def test_codes_give_no_gradient_at_all_to_nodes_off_the_middle() -> None:
    layer = PiecewisePolynomial(1, 1, nodes=3, segments=100)
    layer(torch.tensor([[37]])).backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.flatten().nonzero().flatten().tolist() == [75]


def test_two_linear_segments_are_a_linear_layer_on_both_halves_of_a_relu() -> None:
    layer = PiecewisePolynomial(3, 2, nodes=2, segments=2)
    x = torch.randn(20, 3) * 5
    left, middle, right = layer.weight.unbind(1)
    expected = torch.relu(x) @ (right - middle) + torch.relu(-x) @ (left - middle) + middle.sum(0)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("segments", [2, 20])
def test_product_form_multiplies_edges_and_takes_the_linear_part_away(alpha: float, segments: int) -> None:
    basis = PiecewiseBasis(2, segments)
    layer = BasisLayer(3, 4, basis, form="product", alpha=alpha).double()
    torch.nn.init.normal_(layer.weight)
    x = torch.rand(5, 3, dtype=torch.float64)
    edges = torch.stack([layer_by_loops(basis, x[:, i : i + 1], layer.weight[i : i + 1].detach()) for i in range(3)])
    expected = (1 + edges).prod(0) - 1 - (1 - alpha) * edges.sum(0)
    torch.testing.assert_close(layer(x), expected)


def test_product_layer_without_its_linear_part_has_no_slope_at_zero() -> None:
    layer = Product(3, 2, alpha=0.0)
    x = torch.zeros(1, 3, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() == 0


def test_fourier_series_has_a_constant_then_pairs_of_waves() -> None:
    x = torch.rand(6, dtype=torch.float64)
    expected = [torch.full_like(x, 0.5)]
    expected += [f(2 * math.pi * k * x / 3) for k in (1, 2) for f in (torch.sin, torch.cos)]
    torch.testing.assert_close(FourierBasis(5, length=3.0).expand(x), torch.stack(expected, -1))
    assert Fourier(3, 4, 5)(torch.rand(2, 3)).shape == (2, 4)


@pytest.mark.parametrize("dimensions", [2, 3, 4, 5])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_layer_in_several_coordinates_reproduces_a_product_of_polynomials(dimensions: int, kernel: str) -> None:
    layer = PolynomialND(1, 1, 3, dimensions, segments=2, kernel=kernel).double()  # type: ignore[arg-type]
    powers = torch.arange(dimensions) % 3

    def product(points: Tensor) -> Tensor:
        return (points + 0.5).pow(powers).prod(-1)

    layer.weight.data = product(layer.basis.node_positions).view(1, -1, 1)  # type: ignore[attr-defined]
    x = torch.rand(20, 1, dimensions, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(layer(x)[:, 0], product(x[:, 0]))


def test_a_switch_multiplies_its_layers_and_trains_all_of_them() -> None:
    layers = [PiecewisePolynomial(3, 4, 2, 2) for _ in range(2)]
    switch = Switch(list(layers))
    x = torch.rand(5, 3)
    torch.testing.assert_close(switch(x), layers[0](x) * layers[1](x))
    assert sum(p.numel() for p in switch.parameters()) == 2 * 3 * 3 * 4


def test_fixed_rotation_gives_the_inputs_and_both_diagonals() -> None:
    rotation = FixedRotation(2, rotations=2)
    assert rotation(torch.tensor([[0.6, 0.2]]))[0].tolist() == pytest.approx([0.6, 0.4, 0.2, 0.2])
    assert FixedRotation(3, rotations=3).out_features == 3 + 3 * 2 * 2
    assert not list(rotation.parameters())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("maxabs", [-1.0, 0.25, 0.5]), ("maxcenter", [-1.0, 2 / 3, 1.0]), ("none", [-4.0, 1.0, 2.0])],
)
def test_normalisations_without_parameters(kind: str, expected: list[float]) -> None:
    y = normalisation(kind, 3)(torch.tensor([-4.0, 1.0, 2.0]))  # type: ignore[arg-type]
    assert y.tolist() == pytest.approx(expected, abs=1e-5)


def test_layer_normalisation_has_its_parameters_from_the_start() -> None:
    assert sorted(p.shape[0] for p in normalisation("layer", 7).parameters()) == [7, 7]


def test_initial_values_are_what_they_are_called() -> None:
    torch.manual_seed(0)
    uniform = PiecewisePolynomial(10, 20, 3, 4).weight
    assert uniform.abs().max() <= 0.1
    assert uniform.min() < 0
    constant = PiecewisePolynomial(10, 20, 3, 4, initialize="constant").weight
    assert (constant == constant[:, :1]).all()
    assert constant.min() >= 0
    line = PiecewisePolynomial(1, 1, 3, 4, initialize="linear")
    y = line(torch.linspace(-1, 1, 9)[:, None]).flatten()
    torch.testing.assert_close(y.diff(), y.diff()[:1].expand(8))
    assert y.diff()[0] != 0


@settings(max_examples=40)
@given(bases(), st.sampled_from(KERNELS), st.integers(1, 4), st.integers(0, 2**31))
def test_weights_that_no_sample_touches_have_a_gradient_of_exactly_zero(
    basis: PiecewiseBasis, kernel: str, samples: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = double_layer(basis, kernel).float()
    x = (torch.rand(samples, 3) - 0.5) * basis.length
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    untouched = (basis.expand(x) == 0).all(dim=0)  # [I, V]
    assert (gradient[untouched] == 0).all()


@settings(max_examples=15)
@given(bases(most_nodes=3), st.sampled_from(KERNELS), st.sampled_from([torch.float16, torch.bfloat16, torch.float64]))
def test_every_kernel_has_gradients_in_every_precision(basis: PiecewiseBasis, kernel: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = double_layer(basis, kernel)
    # Well within their segments: in half precision a place beside a border may be on either side of it.
    within = torch.randint(basis.segments, (4, 3)) + 0.3 + 0.4 * torch.rand(4, 3, dtype=torch.float64)
    x = ((within / basis.segments - 0.5) * basis.length).requires_grad_()
    expected = torch.autograd.grad(layer(x.to(dtype).double()).sum(), [layer.weight])
    y = layer.to(dtype)(x.to(dtype))
    found = torch.autograd.grad(y.sum(), [x, layer.weight])
    assert y.dtype == found[1].dtype == dtype
    assert found[0].isfinite().all()
    torch.testing.assert_close(found[1].double(), expected[0], rtol=0, atol=100 * torch.finfo(dtype).eps)


@settings(max_examples=20)
@given(
    st.integers(100, 400),
    st.sampled_from(KERNELS),
    st.sampled_from([torch.float16, torch.bfloat16]),
    st.booleans(),
    st.sampled_from([None, 2.0]),
)
def test_half_precision_finds_every_number_in_its_own_segment(
    segments: int, kernel: str, dtype: torch.dtype, rounded: bool, periodicity: float | None
) -> None:
    torch.manual_seed(0)
    layer = double_layer(PiecewiseBasis(2, segments, continuous=False, periodicity=periodicity), kernel).to(dtype)
    x = torch.cat([torch.rand(50, 3) * 2 - 1, torch.ones(1, 3), -torch.ones(1, 3)])
    x = x.to(dtype) if rounded else x
    with torch.no_grad():
        y = layer(x)
        expected = layer.double()(x.double())  # of the same, rounded weights
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=30 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("form", ["sum", "product"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_codes_take_their_own_segment_in_every_precision(form: str, dtype: torch.dtype) -> None:
    layer = PiecewisePolynomial(1, 1, 1, 700, continuous=False, form=form).to(dtype)  # type: ignore[arg-type]
    torch.testing.assert_close(layer(torch.arange(700)[:, None]), layer.weight[0], rtol=0.01, atol=0.01)


@settings(max_examples=40)
@given(
    bases(most_nodes=4),
    st.sampled_from(KERNELS),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 2**31),
)
def test_a_large_weight_costs_those_who_do_not_touch_it_no_digits(
    basis: PiecewiseBasis, kernel: str, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = double_layer(basis, kernel)
    layer.weight.data *= 10 ** (torch.rand_like(layer.weight) * 9 - 3)
    layer = layer.to(dtype)
    x = (torch.rand(20, 3) - 0.5) * basis.length
    with torch.no_grad():
        y, weight = layer(x), layer.weight.double()
        values = basis.expand(x.double())
        expected = torch.einsum("biv,ivo->bo", values, weight)
        touched = torch.einsum("biv,ivo->bo", (values != 0).double(), weight.abs())
    assert ((y - expected).abs() <= 100 * torch.finfo(dtype).eps * touched).all()


@pytest.mark.parametrize("segments", [3, 30])
@pytest.mark.parametrize("kernel", ["auto", *KERNELS])
def test_function_transforms_work_with_every_kernel(kernel: str, segments: int) -> None:
    layer = double_layer(PiecewiseBasis(3, segments), kernel)
    x = torch.rand(5, 3, dtype=torch.float64)
    expected = torch.stack([torch.autograd.functional.jacobian(layer, row) for row in x])
    torch.testing.assert_close(torch.func.vmap(torch.func.jacrev(layer))(x), expected)
    torch.testing.assert_close(torch.func.vmap(torch.func.jacfwd(layer))(x), expected)
    torch.testing.assert_close(torch.func.vmap(layer)(x), layer(x))


@pytest.mark.parametrize("segments", [4, 40])
@pytest.mark.parametrize("form", ["sum", "product"])
def test_batched_and_forward_derivatives_are_those_one_by_one(form: str, segments: int) -> None:
    torch.manual_seed(0)
    layer = BasisLayer(3, 2, PiecewiseBasis(3, segments), form=form).double()  # type: ignore[arg-type]
    torch.nn.init.normal_(layer.weight)
    x = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    functional, total = torch.autograd.functional, lambda x: layer(x).square().sum()
    jacobian = functional.jacobian(layer, x)
    for way in ({"vectorize": True}, {"vectorize": True, "strategy": "forward-mode"}):
        torch.testing.assert_close(functional.jacobian(layer, x, **way), jacobian)
    torch.testing.assert_close(functional.hessian(total, x, vectorize=True), functional.hessian(total, x))
    y = layer(x)
    rows = torch.eye(y.numel(), dtype=torch.float64).view(-1, *y.shape)
    for inputs in (x, layer.weight):
        one_by_one = torch.stack([torch.autograd.grad(y, inputs, row, retain_graph=True)[0] for row in rows])
        batched = torch.autograd.grad(y, inputs, rows, is_grads_batched=True, retain_graph=True)
        torch.testing.assert_close(batched[0], one_by_one)
    assert torch.autograd.gradcheck(layer, x, check_batched_grad=True, check_forward_ad=True)

    tangents = torch.randn_like(x), torch.randn_like(layer.weight)
    along = lambda x, weight: torch.func.functional_call(layer, {"weight": weight}, x)  # noqa: E731
    _, expected = torch.func.jvp(along, (x, layer.weight), tangents)
    with torch.autograd.forward_ad.dual_level():
        dual = [torch.autograd.forward_ad.make_dual(a, b) for a, b in zip((x, layer.weight), tangents, strict=True)]
        found = torch.autograd.forward_ad.unpack_dual(along(*dual)).tangent
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("segments", [4, 40])
def test_codes_may_be_mapped_over(segments: int) -> None:
    codes = torch.randint(segments, (6, 5, 3))
    for form in ("sum", "product"):
        layer = BasisLayer(3, 2, PiecewiseBasis(3, segments), form=form)  # type: ignore[arg-type]
        torch.testing.assert_close(torch.func.vmap(layer)(codes), layer(codes))
    convolution = BasisConvolution(5, 2, 2, PiecewiseBasis(3, segments))
    torch.testing.assert_close(torch.func.vmap(convolution)(codes[:, None])[:, 0], convolution(codes))


def test_autocast_gives_its_format_whatever_the_kernel() -> None:
    for x in (torch.rand(5, 3) * 2 - 1, torch.randint(4, (5, 3))):
        for segments in (4, 40):
            layer = PiecewisePolynomial(3, 2, 3, segments)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y = layer(x)
            y.sum().backward()
            assert y.dtype == torch.bfloat16
            torch.testing.assert_close(y.float(), layer(x), rtol=0, atol=0.03)
            assert layer.weight.grad is not None
            assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("form", ["sum", "product"])
def test_function_transforms_work_in_chunks(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = BasisLayer(3, 4, PiecewiseBasis(3, 4), form=form).double()  # type: ignore[arg-type]
    x = torch.rand(17, 3, dtype=torch.float64)
    expected = torch.func.grad(lambda x: layer(x).sum())(x)
    monkeypatch.setattr(kernels, "CHUNK_BYTES", 1000)
    torch.testing.assert_close(torch.func.grad(lambda x: layer(x).sum())(x), expected)


@pytest.mark.parametrize("segments", [4, 40])
def test_a_basis_may_be_shared_with_a_layer_without_memory(segments: int) -> None:
    for basis in (PiecewiseBasis(3, segments), TensorProductBasis(PiecewiseBasis(3, segments), 2)):
        with torch.device("meta"):
            BasisLayer(3, 4, basis, initialize="linear")
        layer = double_layer(basis)
        x = torch.rand(5, 3, *[2] * (basis.dimensions > 1), dtype=torch.float64)
        torch.testing.assert_close(layer(x), torch.einsum("biv,ivo->bo", basis.expand(x), layer.weight))
        assert BasisLayer(3, 4, basis, initialize="linear").weight.device.type == "cpu"


def test_products_of_an_empty_batch_are_empty() -> None:
    assert Product(2, 3)(torch.rand(0, 2)).shape == (0, 3)


def test_sizes_are_whole_numbers() -> None:
    with pytest.raises(InputError, match=r"in_features=2\.0"):
        Product(2.0, 3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"dimensions=2\.5"):
        TensorProductBasis(PiecewiseBasis(3), 2.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("batch", [(0,), (1,), (2, 0), (3, 2)])
def test_every_kernel_takes_every_batch_in_any_memory_order(kernel: str, batch: tuple[int, ...]) -> None:
    layer = double_layer(PiecewiseBasis(3, 4), kernel)
    x = torch.rand(3, *batch, dtype=torch.float64).movedim(0, -1).requires_grad_()
    y = layer(x)
    assert y.shape == (*batch, 4)
    torch.testing.assert_close(y, layer(x.contiguous()))
    gradients = torch.autograd.grad(y.sum(), [x, layer.weight])
    assert [g.shape for g in gradients] == [x.shape, layer.weight.shape]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_more_nodes_than_the_precision_bears_are_refused(dtype: torch.dtype) -> None:
    x = torch.linspace(-1, 1, 101, dtype=torch.float64).to(dtype)
    most = 681 if dtype == torch.float64 else 84
    for nodes in (2, most // 2, most):
        values = PiecewiseBasis(nodes).expand(x)
        assert (values.double().sum(-1) - 1).abs().max() < 8 * nodes * torch.finfo(dtype).eps
    for nodes in (most + 1, 2000):
        with pytest.raises(InputError, match="take more segments"):
            PiecewiseBasis(nodes).expand(x)


def test_leading_axes_are_kept_and_an_empty_batch_is_fine() -> None:
    layer = Polynomial(3, 4, 3)
    assert layer(torch.rand(2, 5, 3)).shape == (2, 5, 4)
    assert layer(torch.rand(3)).shape == (4,)
    for kernel in ("dense", "gather"):
        assert PiecewisePolynomial(3, 4, 2, 2, kernel=kernel)(torch.rand(0, 3)).shape == (0, 4)  # type: ignore[arg-type]


def test_what_is_not_a_number_stays_so_and_harms_nobody_else() -> None:
    for kernel in ("dense", "gather"):
        y = PiecewisePolynomial(2, 3, 3, 4, kernel=kernel)(torch.tensor([[float("nan"), 0.0], [0.1, 0.2]]))  # type: ignore[arg-type]
        assert y[0].isnan().all()
        assert y[1].isfinite().all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PiecewisePolynomial(2, 3, 1, 4), "nodes=1"),
        (lambda: PiecewisePolynomial(2, 3, 2, 0), "segments=0"),
        (lambda: PiecewisePolynomial(2, 3, 2, 2, length=0), "length=0"),
        (lambda: PiecewisePolynomial(2, 3, 2, 2, periodicity=-1), "periodicity=-1"),
        (lambda: PiecewisePolynomial(0, 3, 2, 2), "in_features=0"),
        (lambda: PiecewisePolynomial(2, 3, 2, 2, initialize="kaiming"), "initialize='kaiming'"),  # type: ignore[arg-type]
        (lambda: layer_of_kind("fourier", 2, 3, 5, 1, "linear"), "initialize='linear'"),
        (lambda: layer_of_kind("product", 2, 3, 2, 1, "constant"), "initialize='constant'"),
        (lambda: BasisLayer(2, 3, FourierBasis(5), initialize="constant"), "initialize='constant'"),
        (lambda: PiecewisePolynomial(2, 3, 2, 2, kernel="fast"), "kernel='fast'"),  # type: ignore[arg-type]
        (lambda: PiecewisePolynomial(2, 3, 2, 2, form="product", kernel="gather"), "kernel='gather'"),
        (lambda: PiecewisePolynomial(2, 3, 2, 2)(torch.rand(5, 4)), "in_features=2"),
        (lambda: PiecewisePolynomial(2, 3, 2, 8)(torch.tensor([[0, 8]])), "codes from 0 to 8"),
        (lambda: PolynomialND(2, 3, 2, 6), "dimensions=6"),
        (lambda: PolynomialND(2, 3, 2, 2)(torch.rand(5, 2, 3)), "2 coordinates"),
        (lambda: Fourier(2, 3, 0), "terms=0"),
        (lambda: FixedRotation(2, 0), "rotations=0"),
        (lambda: Switch([]), "layers"),
        (lambda: Switch([5]), "layers of type int: must be a Module"),  # type: ignore[list-item]
        (lambda: Switch(5), "layers=5"),  # type: ignore[arg-type]
        (lambda: Switch([Polynomial(2, 3, 2), Polynomial(2, 4, 2)])(torch.rand(5, 2)), "layers of one width"),
        (lambda: BasisLayer(2, 3, 5), "basis of type int: must be a Basis"),  # type: ignore[arg-type]
        (lambda: TensorProductBasis(FourierBasis(3), 2), "axis of type FourierBasis: must be a PiecewiseBasis"),  # type: ignore[arg-type]
        (lambda: PiecewisePolynomial(2, 3, 2, 2, length=math.inf), "length=inf"),
        (lambda: PiecewisePolynomial(2, 3, 2, 2, periodicity=math.inf), "periodicity=inf"),
        (lambda: FourierBasis(3, length=math.inf), "length=inf"),
        (lambda: normalisation("batch", 3), "normalisation='batch'"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(make, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=words):
        make()
