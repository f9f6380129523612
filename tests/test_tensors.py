"""What numbers come as: arrays, lists, integers and half precision give what a tensor gives, the rest one sentence."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from frugal.errors import InputError
from frugal.piecewise import (
    BasisConvolution,
    FixedRotation,
    Fourier,
    MaxAbs,
    MaxCenter,
    PiecewiseBasis,
    PiecewisePolynomial,
    Product,
    Switch,
)
from frugal.readout import KeptRows, OnlineReadout, RidgeReadout, SoftmaxReadout
from frugal.readout.probes import copied_share
from frugal.reservoir import Reservoir, closed_loop, normalise_over_time, run_parallel, teacher_forced
from frugal.reservoir.diagnostics import forgetting, lyapunov_exponent, state_spectrum
from frugal.reservoir.tasks import nrmse
from frugal.ridge import LinearMap, RidgeStatistics
from frugal.tensors import number_tensor


class Taker(NamedTuple):
    """A public function of numbers of some shape; integers mean something else to some, some compute as given."""

    takes: Callable[[Any], Any]
    shape: tuple[int, ...]
    codes: bool = False
    as_given: bool = False


def targets() -> Tensor:
    return torch.arange(8, dtype=torch.float64).unsqueeze(1)


def statistics(x: Any, y: Any) -> RidgeStatistics:
    found = RidgeStatistics.empty(3, 1)
    found.add(x, y)
    return found


def fitted() -> RidgeReadout:
    rows = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    return RidgeReadout.fit(RidgeStatistics.collect([(rows, rows[:, :1])], 1), dtype="float64")


def softmax() -> SoftmaxReadout:
    readout = SoftmaxReadout(3, 2)
    nn.init.normal_(readout.layers[-1].weight, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    return readout


def seeded(module: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return module()


def reservoir() -> Reservoir:
    return Reservoir(3, 16, fan_in=4, spectral_radius=0.5, dtype=torch.float64)


def online(x: Any, y: Any) -> Tensor:
    return OnlineReadout(3, 1).partial_fit(x, y).weight


def taught() -> OnlineReadout:
    return OnlineReadout(3, 1).partial_fit(torch.eye(3), torch.eye(3)[:, :1])


def first_part(x: Any) -> tuple[Any, ...]:
    return next(iter(reservoir().chunks(x, length=5)))


TAKERS = {
    "RidgeStatistics.add": Taker(lambda x: statistics(x, targets()), (8, 3)),
    "RidgeStatistics.add, values": Taker(lambda y: statistics(torch.ones(8, 3), y), (8, 1), codes=True),
    "RidgeStatistics.collect": Taker(lambda x: RidgeStatistics.collect([(x, targets())], 1), (8, 3)),
    "RidgeStatistics.of_inputs": Taker(lambda x: RidgeStatistics.of_inputs([x]), (8, 3)),
    "LinearMap.fit": Taker(lambda x: LinearMap.fit(x, targets(), ridge=1.0), (8, 3)),
    "LinearMap.fit, values": Taker(lambda y: LinearMap.fit(torch.eye(8), y, ridge=1.0), (8, 1)),
    "LinearMap": Taker(lambda x: LinearMap(torch.ones(3, 1).double(), torch.ones(3), torch.ones(1))(x), (8, 3)),
    "RidgeReadout.values": Taker(lambda x: fitted().values(x), (8, 3)),
    "RidgeReadout": Taker(lambda x: fitted()(x), (8, 3)),
    "SoftmaxReadout": Taker(lambda x: softmax()(x), (8, 3)),
    "OnlineReadout.partial_fit": Taker(lambda x: online(x, targets()), (8, 3)),
    "OnlineReadout.partial_fit, values": Taker(lambda y: online(torch.eye(8)[:, :3], y), (8, 1), codes=True),
    "OnlineReadout.predict": Taker(lambda x: taught().predict(x), (8, 3)),
    "KeptRows": Taker(lambda x: KeptRows(x, torch.arange(8)).inputs, (8, 3)),
    "copied_share": Taker(lambda x: copied_share([x] * 8, [torch.arange(8) % 2] * 8, [0])[0], (8, 3)),
    "Reservoir.run": Taker(lambda x: reservoir().run(x), (2, 8, 3)),
    "Reservoir.run of a state": Taker(lambda x: reservoir().run(torch.ones(2, 4, 3), x), (2, 16)),
    "Reservoir.step": Taker(lambda x: reservoir().step(x), (2, 3)),
    "Reservoir.chunks": Taker(first_part, (2, 8, 3)),
    "Reservoir.from_matrices": Taker(lambda x: Reservoir.from_matrices(x, torch.ones(3, 1)).W, (3, 3), codes=True),
    "run_parallel": Taker(lambda x: run_parallel(reservoir(), x, lanes=2).states, (400, 3)),
    "forgetting": Taker(lambda x: forgetting(reservoir(), x).distances, (8, 3)),
    "lyapunov_exponent": Taker(lambda x: lyapunov_exponent(reservoir(), x, washout=2), (8, 3)),
    "state_spectrum": Taker(lambda x: state_spectrum(x).values, (8, 3)),
    "teacher_forced": Taker(lambda x: teacher_forced(x, targets()), (8, 3)),
    "closed_loop": Taker(lambda x: closed_loop(reservoir(), lambda s: s[:, :1] + 0 * s[:, :1], x), (2, 8, 2)),
    "normalise_over_time": Taker(normalise_over_time, (2, 8, 3), as_given=True),
    "nrmse": Taker(lambda x: nrmse(x, torch.arange(24.0).view(8, 3)), (8, 3)),
    "PiecewisePolynomial": Taker(seeded(lambda: PiecewisePolynomial(3, 2, 3, 4)), (8, 3), codes=True),
    "PiecewisePolynomial, many segments": Taker(seeded(lambda: PiecewisePolynomial(3, 2, 3, 99)), (8, 3), codes=True),
    "Fourier": Taker(seeded(lambda: Fourier(3, 2, 5)), (8, 3), codes=True),
    "BasisConvolution": Taker(seeded(lambda: BasisConvolution(3, 2, 2, PiecewiseBasis(3, 4))), (2, 3, 8), codes=True),
    "Product": Taker(seeded(lambda: Product(3, 2)), (8, 3)),
    "Switch": Taker(seeded(lambda: Switch([Product(3, 2), Product(3, 2)])), (8, 3)),
    "FixedRotation": Taker(FixedRotation(3), (8, 3)),
    "MaxAbs": Taker(MaxAbs(), (8, 3), as_given=True),
    "MaxCenter": Taker(MaxCenter(), (8, 3), as_given=True),
}


def numbers(shape: tuple[int, ...], whole: bool = False) -> Tensor:
    """Numbers that half precision holds."""
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 4, shape, generator=random) / (1.0 if whole else 4.0)


def parts(result: Any) -> Iterator[Tensor]:
    """All numbers of a result, one after the other."""
    if isinstance(result, Tensor | np.ndarray | float):
        yield torch.as_tensor(result).detach().double()
        return
    for part in result if isinstance(result, tuple | list) else vars(result).values():
        yield from parts(part)


def same(one: Any, other: Any, rounding: float = 1e-6) -> None:
    for left, right in zip(parts(one), parts(other), strict=True):
        torch.testing.assert_close(left, right, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("name", TAKERS)
def test_arrays_lists_and_other_precisions_are_the_tensor(name: str) -> None:
    taker = TAKERS[name]
    x = numbers(taker.shape)
    expected = taker.takes(x.double())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = x.double().numpy()
        kept.flags.writeable = False
        turned = np.ascontiguousarray(x.double().numpy()[::-1])[::-1]  # as a view that runs backwards
        same(taker.takes(x.half()), expected, 1e-3 if taker.as_given else 1e-6)
        for given in (x, x.numpy(), kept, turned, x.numpy().astype(">f4"), x.tolist()):
            if name == "Reservoir.run" and isinstance(given, list):
                continue  # a list is one series after the other
            same(taker.takes(given), expected)
    assert torch.equal(x, numbers(taker.shape))


@pytest.mark.parametrize("name", [name for name, taker in TAKERS.items() if not taker.codes])
def test_whole_numbers_are_numbers(name: str) -> None:
    taker = TAKERS[name]
    x = numbers(taker.shape, whole=True)
    expected = taker.takes(x.double())
    for dtype in (torch.uint8, torch.int16, torch.int64):
        same(taker.takes(x.to(dtype)), expected)
    same(taker.takes(x.numpy().astype(np.uint16)), expected)


@pytest.mark.parametrize("name", TAKERS)
def test_what_are_no_real_numbers_are_refused_in_one_sentence(name: str) -> None:
    taker = TAKERS[name]
    x = numbers(taker.shape).numpy()
    for given in (torch.from_numpy(x).to(torch.complex64), x.astype(complex)):
        with pytest.raises(InputError, match="must be real"):
            taker.takes(given)
    if name != "Reservoir.from_matrices":  # whose weights may be sparse
        with pytest.raises(InputError, match="sparse"):
            taker.takes(torch.from_numpy(x).to_sparse())
    for given in (x.astype(object), x.astype(str), "words", x.astype("M8[s]")):
        with pytest.raises(InputError, match=r"must (hold|be) numbers"):
            taker.takes(given)


def learnt(tokens: Any) -> Tensor:
    return OnlineReadout(8, 3).partial_fit(torch.eye(8), tokens).weight


def calibrated(tokens: Any) -> list[float]:
    rows = torch.eye(8).repeat(4, 1)
    statistics = RidgeStatistics.collect([(rows, torch.arange(32) % 3)], 3)
    readout = RidgeReadout.fit(statistics, alphas=0.1).calibrate([(torch.eye(8), tokens)])
    return [float(readout.floor), float(readout.power)]


TOKEN_TAKERS: dict[str, Callable[[Any], Any]] = {
    "RidgeStatistics.add": lambda y: RidgeStatistics.collect([(torch.eye(8), y)], 3).cross,
    "OnlineReadout.partial_fit": learnt,
    "RidgeReadout.calibrate": calibrated,
    "KeptRows": lambda y: KeptRows(torch.eye(8), y).targets,
    "copied_share": lambda y: copied_share([torch.eye(8)] * 8, [y] * 8, [0])[0],
}


@pytest.mark.parametrize("name", TOKEN_TAKERS)
def test_tokens_of_any_whole_number_type_are_the_tokens(name: str) -> None:
    takes, tokens = TOKEN_TAKERS[name], np.array([0, 1, 2, 2, 1, 0, 1, 2])
    expected = torch.as_tensor(takes(torch.from_numpy(tokens)))
    for kind in ("int8", "int32", "uint8", "uint16", "uint32", "uint64", ">i4"):
        for given in (tokens.astype(kind), number_tensor("tokens", tokens.astype(kind))):
            assert torch.equal(torch.as_tensor(takes(given)), expected)
    assert torch.equal(torch.as_tensor(takes(tokens.tolist())), expected)
    for wrong in (tokens > 0, torch.from_numpy(tokens > 0), tokens - 1, np.full(8, 2**63, dtype=np.uint64)):
        with pytest.raises(InputError, match=r"(targets|tokens).* (must be tokens|tokens must lie in 0)"):
            takes(wrong)


def test_rows_of_different_lengths_are_no_table() -> None:
    with pytest.raises(InputError, match="inputs: list must hold numbers, in rows of one length"):
        number_tensor("inputs", [[1.0, 2.0], [3.0]])


def test_lists_keep_the_digits_that_floats_have() -> None:
    assert number_tensor("inputs", [[1e5 + 1e-9]]).item() == 1e5 + 1e-9
