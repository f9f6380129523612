"""Reservoirs under other people's data: kinds of input, given weights, copies, threads, and what is refused."""

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array, random_array
from scipy.sparse.linalg import eigs
from torch import Tensor

from frugal.errors import DivergedError, InputError
from frugal.reservoir import DeepReservoir, Reservoir, diagnostics, tasks
from frugal.reservoir.collector import StateCollector
from frugal.reservoir.gpt_echo import gpt_echo
from frugal.reservoir.reservoir import ONE_THREAD
from frugal.reservoir.spectrum import spectral_radius
from frugal.reservoir.topologies import TOPOLOGIES, shifts_matrix

D = torch.float64


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=D)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=5), st.booleans())
def test_a_list_of_series_is_each_of_them_alone(lengths: list[int], arrays: bool) -> None:
    reservoir = Reservoir(2, 12, leak=0.5, dtype=D)
    series = [noise(length, 2, seed=i) for i, length in enumerate(lengths)]
    washout = min(lengths) // 2
    states, last = reservoir.run([one.numpy() for one in series] if arrays else series, washout=washout)
    for i, one in enumerate(series):
        alone, end = reservoir.run(one[None])
        torch.testing.assert_close(torch.as_tensor(states[i]), alone[0, washout:], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(torch.as_tensor(last[i]), end[0], rtol=1e-12, atol=1e-12)
        assert isinstance(states[i], np.ndarray if arrays else Tensor)


def test_arrays_of_any_number_type_are_taken_and_arrays_come_back() -> None:
    reservoir = Reservoir(2, 12)
    for dtype in (np.float16, np.float64, np.int8, np.uint16, bool):
        inputs = (noise(1, 6, 2).numpy() > 0).astype(dtype)
        states, last = reservoir.run(inputs)
        assert isinstance(states, np.ndarray)
        expected, _ = reservoir.run(torch.from_numpy(inputs.astype(np.float32)))
        np.testing.assert_array_equal(states, expected.numpy())
        np.testing.assert_array_equal(last, expected[:, -1].numpy())


@pytest.mark.parametrize("topology", sorted(TOPOLOGIES))
def test_an_empty_batch_and_an_empty_series_give_empty_states(topology: str) -> None:
    for reservoir in (Reservoir(3, 16, topology=topology), DeepReservoir([Reservoir(3, 16, topology=topology)])):
        states, last = reservoir.run(torch.zeros(0, 5, 3))
        assert states.shape == (0, 5, 16)
        assert last.shape == (0, 16)
        state = torch.rand(2, 16)
        states, last = reservoir.run(torch.zeros(2, 0, 3, dtype=D), state)  # in another precision than the reservoir's
        assert states.shape == (2, 0, 16)
        assert torch.equal(last, state)
        assert last is not state


@pytest.mark.parametrize("lanes", [1, 3])
def test_weights_that_are_zero_or_change_later_count_in_every_kernel(lanes: int) -> None:
    reservoir = Reservoir(2, 24, topology="sparse", connectivity=0.5, dtype=D)
    inputs = noise(lanes, 10, 2)
    reservoir.run(inputs)
    weights = reservoir.recurrence.weights
    weights[weights.abs() < weights.abs().median()] = 0  # in the middle of rows too
    expected = Reservoir.from_matrices(reservoir.W, reservoir.W_in, reservoir.bias).run(inputs)[0]
    torch.testing.assert_close(reservoir.run(inputs)[0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_copies_and_loaded_weights_are_the_same_reservoir(copied) -> None:  # type: ignore[no-untyped-def]
    one, other = (Reservoir(2, 20, topology="sparse", connectivity=0.3, seed=seed, dtype=D) for seed in (0, 1))
    inputs = noise(1, 10, 2)
    expected, _ = one.run(inputs)
    assert torch.equal(copied(one).run(inputs)[0], expected)
    if one.recurrence.weights.shape != other.recurrence.weights.shape:
        other = Reservoir.from_matrices(torch.zeros(20, 20, dtype=D), torch.zeros(20, 2, dtype=D))
        width = one.recurrence.weights.shape[1]
        other.recurrence.sources = torch.zeros(20, width, dtype=torch.int32)
        other.recurrence.weights = torch.zeros(20, width, dtype=D)
    other.run(inputs)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.run(inputs)[0], expected)


@pytest.mark.parametrize("density", [0.1, 1.0])
def test_given_matrices_are_copied(density: float) -> None:
    W, W_in, bias = 0.1 * noise(20, 20) * (torch.rand(20, 20) < density), noise(20, 2), noise(20)
    leak = torch.full((20,), 0.5, dtype=D)
    reservoir = Reservoir.from_matrices(W, W_in, bias, leak=leak)
    before, _ = reservoir.run(noise(1, 5, 2))
    for given_tensor in (W, W_in, bias, leak):
        given_tensor.zero_()
    reservoir.W.zero_()
    assert torch.equal(reservoir.run(noise(1, 5, 2))[0], before)


def test_a_sparse_matrix_of_scipy_is_the_dense_one() -> None:
    W = 0.2 * random_array((40, 40), density=0.2, rng=np.random.default_rng(0))
    W_in = noise(40, 2).numpy()
    dense = Reservoir.from_matrices(torch.from_numpy(W.toarray()), W_in)
    for given_matrix in (W.tocsr(), W.tocsc(), W.tocoo(), coo_array(W)):
        reservoir = Reservoir.from_matrices(given_matrix, W_in)
        assert torch.equal(reservoir.W, dense.W)
        for lanes in (1, 3):
            torch.testing.assert_close(reservoir.run(noise(lanes, 6, 2))[0], dense.run(noise(lanes, 6, 2))[0])


@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr", "to_sparse_csc"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_sparse_tensor_is_the_dense_one(layout: str, dtype: torch.dtype) -> None:
    W = (0.2 * noise(40, 40) * (torch.rand(40, 40) < 0.2)).to(dtype)
    W_in, bias = noise(40, 2).to(dtype), noise(40).to(dtype)
    dense = Reservoir.from_matrices(W, W_in, bias)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse .* tensor support is in beta state")
        reservoir = Reservoir.from_matrices(getattr(W, layout)(), getattr(W_in, layout)(), bias.to_sparse())
    assert torch.equal(reservoir.W, dense.W)
    assert torch.equal(reservoir.run(noise(1, 6, 2))[0], dense.run(noise(1, 6, 2))[0])


def test_arrays_into_a_reservoir_of_bfloat16_give_arrays_of_float32() -> None:
    reservoir = Reservoir(2, 20, dtype=torch.bfloat16)
    expected, _ = reservoir.run(noise(1, 6, 2))
    for states in (reservoir.run(noise(1, 6, 2).numpy())[0], reservoir.run([noise(6, 2).numpy()])[0][0][None]):
        assert states.dtype == np.float32
        assert np.array_equal(states, expected.float().numpy())


def test_a_reservoir_is_loaded_as_what_it_was_saved_as(tmp_path: Path) -> None:
    one = Reservoir(2, 20)
    one.save(tmp_path / "one")
    DeepReservoir([one]).save(tmp_path / "stack")
    for kind, folder in ((DeepReservoir, "one"), (Reservoir, "stack"), (StateCollector, "one")):
        with pytest.raises(InputError, match=f"{folder} holds no {kind.__name__}: load it as the"):
            kind.load(tmp_path / folder)  # type: ignore[type-abstract]


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(sorted(TOPOLOGIES)), st.integers(1, 3), st.sampled_from([torch.float32, D]))
def test_states_that_grow_without_end_are_said(topology: str, lanes: int, dtype: torch.dtype) -> None:
    unbounded = Reservoir(
        1, 16, topology=topology, connectivity=0.5, spectral_radius=9.0, activation="identity", dtype=dtype
    )
    with pytest.raises(DivergedError, match="lower the spectral radius"):
        unbounded.run(torch.ones(lanes, 500, 1))
    states, last = unbounded.run(torch.ones(lanes, 20, 1))
    assert states.isfinite().all()
    last[0] = torch.nan
    assert unbounded.run(torch.ones(lanes, 20, 1), last)[0][0].isnan().any()


@pytest.mark.parametrize("topology", sorted(TOPOLOGIES))
@pytest.mark.parametrize("lanes", [1, 2])
def test_what_is_not_a_number_stays_so_in_both_precisions(topology: str, lanes: int) -> None:
    for dtype in (torch.float32, D):
        reservoir = Reservoir(1, 16, topology=topology, connectivity=0.5, dtype=dtype)
        reservoir.W_in[3] = torch.nan
        states, _ = reservoir.run(torch.ones(lanes, 3, 1))
        assert states[:, :, 3].isnan().all()


def test_weights_may_be_lists() -> None:
    W, W_in = [[0.1, 0.2], [0.3, 0.0]], [[1.0], [2.0]]
    one, other = (
        Reservoir.from_matrices(W, W_in, [0.5, 0.5]),
        Reservoir.from_matrices(*map(np.array, (W, W_in, [0.5] * 2))),
    )
    assert torch.equal(one.run(noise(1, 5, 1))[0], other.run(noise(1, 5, 1))[0])


def test_one_scale_for_each_input_scales_its_column() -> None:
    one, other = Reservoir(3, 20, dtype=D), Reservoir(3, 20, input_scale=[1.0, 0.0, 2.5], dtype=D)
    torch.testing.assert_close(other.W_in, one.W_in * torch.tensor([1.0, 0.0, 2.5], dtype=D))
    assert torch.equal(other.W, one.W)


@pytest.mark.parametrize("topology", sorted(TOPOLOGIES))
def test_an_activation_of_ones_own_is_used_in_every_form(topology: str, tmp_path) -> None:
    ours, theirs = (
        Reservoir(2, 16, topology=topology, activation=f, leak=0.5, dtype=D) for f in ("tanh", lambda x: torch.tanh(x))
    )
    for lanes in (1, 3):
        torch.testing.assert_close(theirs.run(noise(lanes, 6, 2))[0], ours.run(noise(lanes, 6, 2))[0])
    assert diagnostics.effective_spectral_radius(theirs) == pytest.approx(diagnostics.effective_spectral_radius(ours))
    with pytest.raises(InputError, match="cannot be saved"):
        theirs.save(tmp_path / "echo")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_a_reservoir_of_any_number_format_comes_back_from_its_weights(dtype: torch.dtype) -> None:
    reservoir = Reservoir(2, 16, leak=torch.linspace(0.1, 1, 16, dtype=dtype), dtype=dtype)
    back = Reservoir.from_saved(reservoir.config(), reservoir.state_dict())
    inputs = torch.ones(1, 5, 2, dtype=dtype)
    assert torch.equal(back.run(inputs)[0], reservoir.run(inputs)[0])


def test_a_reservoir_that_stands_in_a_stack_twice_is_saved(tmp_path) -> None:
    shared = Reservoir(16, 16, seed=1)
    deep = DeepReservoir([Reservoir(2, 16), shared, shared])
    deep.save(tmp_path / "echo")
    inputs = torch.rand(1, 5, 2)
    assert torch.equal(DeepReservoir.load(tmp_path / "echo").run(inputs)[0], deep.run(inputs)[0])


def test_layers_with_the_same_seed_are_warned_of() -> None:
    for topology in sorted(set(TOPOLOGIES) - {"ring"}):
        for radius, dtype in ((0.9, torch.float32), (0.3, torch.float32), (0.3, torch.bfloat16)):
            layers = [
                Reservoir(inputs, 16, topology=topology, connectivity=0.5, spectral_radius=r, dtype=dtype)
                for inputs, r in ((2, 0.9), (16, radius))
            ]
            with pytest.warns(UserWarning, match="give each layer its own seed"):
                DeepReservoir(layers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DeepReservoir([Reservoir(2, 16, spectral_radius=0.5), Reservoir(16, 16, seed=1)])
        DeepReservoir([Reservoir(2, 16, topology="ring"), Reservoir(16, 16, topology="ring", seed=1)])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 700), st.floats(0.05, 1), st.integers(0, 9))
def test_sparse_weights_are_those_of_whole_tables_drawn_at_once(size: int, connectivity: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.uniform(-1, 1, (size, size)) * (rng.random((size, size)) < connectivity)
    try:
        found = Reservoir(1, size, topology="sparse", connectivity=connectivity, seed=seed, dtype=D)
    except InputError:
        assert spectral_radius(weights) < 1e-9
        return
    np.testing.assert_allclose(found.W, weights * 0.9 / spectral_radius(weights), rtol=1e-6)
    np.testing.assert_array_equal(found.W_in, rng.uniform(-1, 1, (size, 1)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, D], ids=str)
@pytest.mark.parametrize("setting", ["spectral_radius", "input_scale", "bias_scale", "leak"])
@pytest.mark.parametrize("topology", ["fan_in", "ring", "hadamard"])
def test_settings_that_the_precision_does_not_hold_are_refused(dtype: torch.dtype, setting: str, topology: str) -> None:
    largest, smallest = torch.finfo(dtype).max, torch.finfo(dtype).tiny * torch.finfo(dtype).eps
    wrong = smallest / 4 if setting == "leak" else min(400 * largest, 1.7e308)
    if dtype == D and setting in ("spectral_radius", "leak"):  # which hold Python's own numbers
        part = {"spectral_radius": "W", "leak": "leak"}[setting]
        kept = getattr(Reservoir(1, 16, topology=topology, dtype=D, **{setting: 1e-300}), part)  # type: ignore[arg-type]
        assert kept.any()
        return
    with pytest.raises(InputError, match=f"{setting}=.*{dtype}"):
        Reservoir(1, 16, topology=topology, dtype=dtype, **{setting: wrong})  # type: ignore[arg-type]
    if setting == "leak":
        with pytest.raises(InputError, match=f"leak=0: must lie in .*{dtype}"):
            Reservoir.from_matrices(torch.eye(2, dtype=dtype), torch.ones(2, 1), leak=wrong)
    if setting == "spectral_radius":
        with pytest.raises(InputError, match=f"spectral_radius=.*{dtype}"):
            Reservoir(1, 16, topology=topology, dtype=dtype, spectral_radius=smallest / 1e4)


@settings(max_examples=20)
@given(st.integers(2, 500), st.integers(0, 5), st.floats(0.001, 1e6))
def test_weights_without_a_cycle_have_radius_zero(size: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(size)
    acyclic = scale * np.triu(rng.standard_normal((size, size)), 1)[order][:, order]
    assert spectral_radius(acyclic) == 0
    acyclic[order.argsort()[1], order.argsort()[0]] = 0.0
    acyclic[0, 0] = 0.5  # a cycle of one unit
    assert spectral_radius(acyclic) == pytest.approx(0.5)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 450), min_size=2, max_size=4), st.integers(0, 9), st.booleans())
def test_the_radius_of_a_block_triangular_matrix_is_the_largest_of_its_blocks(
    sizes: list[int], seed: int, mixed: bool
) -> None:
    rng, ends = np.random.default_rng(seed), np.cumsum(sizes)
    W = np.triu(rng.standard_normal((ends[-1], ends[-1])))
    blocks = [
        scale * rng.standard_normal((n, n)) / n**0.5 for n, scale in zip(sizes, (0.1, 0.3, 0.2, 0.4), strict=False)
    ]
    for end, block in zip(ends, blocks, strict=True):
        W[end - len(block) : end, end - len(block) : end] = block
    order = rng.permutation(ends[-1]) if mixed else np.arange(ends[-1])
    expected = max(np.abs(np.linalg.eigvals(block)).max() for block in blocks)
    assert spectral_radius(W[order][:, order]) == pytest.approx(expected, rel=1e-6)
    assert spectral_radius(torch.from_numpy(W)) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 99), st.sampled_from(["float32", "float64"]))
def test_with_one_source_for_each_unit_the_radius_is_that_of_the_cycles(size: int, seed: int, precision: str) -> None:
    W = Reservoir(1, size, fan_in=1, spectral_radius=0.8, seed=seed, dtype=getattr(torch, precision)).W.double()
    sources, cycles = W.abs().argmax(1), []
    weights, left = W.abs().amax(1), set(range(size))
    while left:
        first = unit = left.pop()
        logs = [weights[unit].log()]
        while (unit := int(sources[unit])) != first:
            left.remove(unit)
            logs.append(weights[unit].log())
        cycles.append(float(torch.stack(logs).mean().exp()))
    assert max(cycles) == pytest.approx(0.8, rel=1e-6)


def test_the_radius_of_many_units_with_few_sources_is_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sources: the moduli crowd so that no iteration tells them apart."""
    rng = np.random.default_rng(0)
    matrix = shifts_matrix(np.sort(rng.choice(700, 2, replace=False)), rng.uniform(-1, 1, (2, 700)))
    expected = np.abs(np.linalg.eigvals(matrix.toarray())).max()
    assert spectral_radius(matrix) == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr("frugal.reservoir.spectrum.SOUGHT", {})
    assert spectral_radius(matrix) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr("frugal.reservoir.spectrum.POSSIBLE_UP_TO", 600)
    assert spectral_radius(matrix) == pytest.approx(expected, rel=3e-3)


def test_the_largest_of_crowded_eigenvalues_is_found() -> None:
    """Of these weights a search for six eigenvalues finds six that are not the largest."""
    W = Reservoir(1, 2000, seed=1, dtype=D).recurrence
    weights = shifts_matrix(W.offsets.numpy(), W.weights.numpy())
    found = eigs(weights, k=30, ncv=150, v0=np.ones(2000), return_eigenvectors=False)
    assert np.abs(found).max() == pytest.approx(0.9, rel=1e-6)


def test_what_has_no_radius_is_refused_in_one_sentence() -> None:
    for wrong, says in (
        (torch.ones(2, 3), "must be square"),
        (np.zeros((0, 0)), "must be square"),
        ([[1.0]] * 2, "must be square"),
        (torch.full((2, 2), torch.nan), "no NaN or infinity"),
        (torch.ones(2, 2).to_sparse(), "must become dense"),
        ("words", "must hold numbers"),
    ):
        with pytest.raises(InputError, match=says):
            spectral_radius(wrong)
    assert spectral_radius(Reservoir(1, 20, spectral_radius=0.7, dtype=torch.bfloat16).W) == pytest.approx(
        0.7, rel=0.02
    )


def test_what_runs_from_cycle_to_cycle_has_no_part_in_the_radius() -> None:
    W = np.triu(np.random.default_rng(0).standard_normal((600, 600)), 2)
    pairs = np.arange(0, 600, 2)
    W[pairs, pairs + 1] = W[pairs + 1, pairs] = 0.1
    assert spectral_radius(W) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reservoir(1, 16, dtype=torch.int64),
        lambda: gpt_echo(4, 50.0),
        lambda: gpt_echo(4, seed=-1),
        lambda: tasks.narma10(10, seed=-1),
        lambda: tasks.mackey_glass(1.5),
        lambda: tasks.lorenz(10, seed=0.5),
    ],
)
def test_sizes_and_seeds_of_another_type_are_refused_in_one_sentence(make: Callable[[], Any]) -> None:
    with pytest.raises(InputError, match=r"must be a (whole number|floating-point type)"):
        make()


def test_overlapping_runs_leave_the_number_of_threads_as_it_was() -> None:
    threads, first, second, seen = torch.get_num_threads(), Barrier(2), Barrier(2), []
    torch.set_num_threads(2)

    def overlap(wait: bool) -> None:
        with ONE_THREAD as before:
            seen.append((before, torch.get_num_threads()))
            first.wait()
            if wait:
                second.wait()
        if not wait:
            second.wait()

    try:
        runs = [Thread(target=overlap, args=(wait,)) for wait in (True, False)]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        later = Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert seen == [(2, 1), (2, 1), 2]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Reservoir(1, 16.0), "size=16.0"),  # type: ignore[arg-type]
        (lambda: Reservoir(True, 16), "input_size=True"),
        (lambda: Reservoir(1, 16, activation=["tanh"]), r"activation=\['tanh'\]: unknown"),  # type: ignore[arg-type]
        (
            lambda: Reservoir(1, 16, dtype=torch.float8_e4m3fn),
            "dtype=torch.float8_e4m3fn: must be a floating-point type",
        ),
        (lambda: gpt_echo(4, 16, connectivity=20), "connectivity=20: must be a number in"),
        (lambda: gpt_echo(4, 16, spectral_radius=-0.8), "spectral_radius=-0.8: must be positive"),
        (lambda: Reservoir(1, 16, seed=-1), "seed=-1"),
        (lambda: Reservoir(1, 16, seed=1.5), "seed=1.5"),  # type: ignore[arg-type]
        (lambda: Reservoir(1, 16, spectral_radius=float("inf")), "spectral_radius=inf"),
        (lambda: Reservoir(1, 16, dtype="float64"), "dtype='float64': must be a floating-point type"),  # type: ignore[arg-type]
        (lambda: Reservoir(1, 16, topology=["ring"]), "topology=.*: unknown"),  # type: ignore[arg-type]
        (lambda: DeepReservoir(Reservoir(2, 13)), "layers: must be a list"),  # type: ignore[arg-type]
        (lambda: Reservoir(1, 16, spectral_radius="0.9"), "spectral_radius='0.9': must be a positive number"),  # type: ignore[arg-type]
        (lambda: Reservoir(1, 16, connectivity=None), "connectivity=None: must be a number in"),  # type: ignore[arg-type]
        (lambda: Reservoir(1, 16, input_scale="a"), "input_scale='a': must be numbers"),  # type: ignore[arg-type]
        (lambda: Reservoir(1, 16, leak=[0.5, [0.1]]), "leak=.*: must be numbers"),  # type: ignore[list-item]
        (lambda: Reservoir(1, 16, device="gpu"), "device='gpu': must be one of"),
        (lambda: Reservoir.from_matrices([[0.1, 0.2], [0.3]], [[1.0]]), "W, W_in=.*: must be numbers"),
        (lambda: Reservoir(3, 16, input_scale=[1.0, 2.0]), "one for each of 3 inputs"),
        (lambda: Reservoir(2, 16, input_scale=[1.0, -2.0]), "input_scale=-2.0"),
        (lambda: Reservoir(2, 16, bias_scale=float("inf")), "bias_scale=inf"),
        (lambda: Reservoir.from_matrices(np.eye(2, dtype=int), torch.ones(2, 1)), "W of torch.int64: must be one of"),
        (lambda: Reservoir.from_matrices(coo_array(np.eye(2) > 0), torch.ones(2, 1)), "W of bool: must be one of"),
        (lambda: Reservoir.from_matrices(coo_array(np.eye(2) * 1j), torch.ones(2, 1)), "W of complex128: must be"),
        (lambda: Reservoir.from_matrices(torch.full((2, 2), torch.nan), torch.ones(2, 1)), "W: must hold"),
        (lambda: Reservoir.from_matrices(torch.eye(2), torch.full((2, 1), torch.inf)), "W_in: must hold"),
        (lambda: Reservoir(1, 16).run([torch.ones(3)]), r"a series of shape \[3\]"),
        (lambda: Reservoir(1, 16).run(["words"]), "inputs: str of <U5 must hold numbers"),
        (lambda: Reservoir(1, 16).run(torch.ones(1, 3, 1), washout=4), "washout=4"),
        (lambda: Reservoir(1, 16).run([torch.ones(3, 1)], torch.zeros(2, 16)), r"state of shape \[2, 16\]"),
        (lambda: Reservoir(1, 16).run([torch.ones(3, 1)], torch.zeros(())), r"state of shape \[\]: expected \[1, 16\]"),
        (lambda: Reservoir(1, 16).run(torch.ones(1, 3, 1), noise=torch.tensor(0.1)), "noise=.*: must be a number"),  # type: ignore[call-overload]
        (lambda: Reservoir(1, 16).run(torch.full((1, 2, 1), 1e39, dtype=D)), "beyond torch.float32"),
        (lambda: Reservoir(1, 16).run(torch.ones(1, 2, 1, dtype=torch.complex64)), "must be real"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(make, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=says):
        make()
