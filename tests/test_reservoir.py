"""Reservoirs: their weights, their states in every way of running them, saving, and bad input."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from frugal.errors import InputError, UnavailableError
from frugal.reservoir import DeepReservoir, Reservoir, StateCollector, gpt_echo, normalise_over_time
from frugal.reservoir.recurrence import ACTIVATIONS
from frugal.reservoir.spectrum import spectral_radius
from frugal.reservoir.topologies import TOPOLOGIES

D = torch.float64
TOPOLOGY_NAMES = sorted(TOPOLOGIES)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = D) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def reference(reservoir: Reservoir, inputs: Tensor, state: Tensor) -> Tensor:
    """The update written out, with the dense matrix."""
    states, W = [], reservoir.W
    for t in range(inputs.shape[1]):
        total = inputs[:, t] @ reservoir.W_in.T + state @ W.T + reservoir.bias
        state = (1 - reservoir.leak) * state + reservoir.leak * ACTIVATIONS[reservoir.activation](total)
        states.append(state)
    return torch.stack(states, dim=1)


@st.composite
def reservoirs(draw: st.DrawFn) -> Reservoir:
    size = draw(st.sampled_from([2, 4, 8, 32]))
    return Reservoir(
        draw(st.integers(1, 5)),
        size,
        topology=draw(st.sampled_from(TOPOLOGY_NAMES)),
        fan_in=draw(st.integers(1, size)),
        connectivity=1.0 if size < 8 else 0.3,
        spectral_radius=draw(st.sampled_from([0.3, 0.9, 1.2])),
        leak=draw(st.one_of(st.floats(0.01, 1), st.lists(st.floats(0.01, 1), min_size=size, max_size=size))),
        bias_scale=draw(st.sampled_from([0.0, 0.5])),
        activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
        seed=draw(st.integers(0, 3)),
        dtype=D,
    )


@settings(max_examples=60)
@given(reservoirs(), st.integers(1, 4), st.integers(1, 20), st.booleans())
def test_states_follow_the_update_written_out(reservoir: Reservoir, lanes: int, steps: int, given_state: bool) -> None:
    inputs = noise(lanes, steps, reservoir.input_size)
    start = noise(lanes, reservoir.size, seed=1) if given_state else reservoir.start(lanes)
    before = start.clone()
    states, last = reservoir.run(inputs, start)
    expected = reference(reservoir, inputs, start)
    torch.testing.assert_close(states, expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(last, expected[:, -1], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(start, before, rtol=0, atol=0)


@settings(max_examples=40)
@given(reservoirs(), st.integers(1, 3), st.integers(1, 20), st.integers(1, 7))
def test_run_step_and_chunks_agree(reservoir: Reservoir, lanes: int, steps: int, length: int) -> None:
    inputs = noise(lanes, steps, reservoir.input_size)
    states, last = reservoir.run(inputs)
    chunks = list(reservoir.chunks(inputs, length=length))
    torch.testing.assert_close(torch.cat([chunk for chunk, _ in chunks], dim=1), states, rtol=1e-9, atol=1e-10)
    state = reservoir.start(lanes)
    for t in range(steps):
        row, state = reservoir.step(inputs[:, t], state)
        torch.testing.assert_close(row, states[:, t], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(state, last, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("topology", TOPOLOGY_NAMES)
def test_plain_torch_gives_the_compiled_states(topology: str) -> None:
    reservoir = Reservoir(2, 64, topology=topology, leak=0.4, dtype=D)
    projected = noise(3, 20, 64)
    start = noise(3, 64, seed=1)
    compiled, plain = projected.clone(), projected.clone()
    reservoir.recurrence.advance(compiled, start, reservoir.leak, "tanh")
    reservoir.recurrence.advance_in_torch(plain, start, reservoir.leak, "tanh")
    torch.testing.assert_close(compiled, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("topology", TOPOLOGY_NAMES)
def test_single_precision_stays_within_1e_5_over_1000_steps(topology: str) -> None:
    settings = {"topology": topology, "spectral_radius": 0.9, "leak": 0.5, "input_scale": 0.3}
    single, twofold = Reservoir(1, 128, **settings), Reservoir(1, 128, **settings, dtype=D)
    inputs = noise(1, 1000, 1)
    states, _ = single.run(inputs)
    assert states.dtype == torch.float32
    assert (states - twofold.run(inputs)[0]).abs().max() < 1e-5


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_single_precision_activations_are_accurate_over_their_whole_range(activation: str) -> None:
    """A unit without memory shows its activation."""
    probe = Reservoir.from_matrices(torch.zeros(1, 1), torch.ones(1, 1), activation=activation)
    inputs = torch.cat((torch.linspace(-30, 30, 5001), torch.logspace(-30, 0, 1000), torch.tensor([1e30, -1e30])))
    states, _ = probe.run(inputs[None, :, None])
    expected = ACTIVATIONS[activation](inputs.double())
    torch.testing.assert_close(states.flatten().double(), expected, rtol=1e-6, atol=1e-6 if activation == "gelu" else 0)


def test_many_lanes_on_two_threads_give_the_states_of_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frugal.reservoir.reservoir.WORTH_A_THREAD", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for topology in TOPOLOGY_NAMES:
            reservoir = Reservoir(2, 32, topology=topology, dtype=D)
            inputs = noise(70, 30, 2)
            states, last = reservoir.run(inputs)
            alone, _ = reservoir.run(inputs[69:])
            torch.testing.assert_close(states[69:], alone, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(last, states[:, -1], rtol=0, atol=0)
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_states_do_not_depend_on_later_inputs() -> None:
    reservoir = Reservoir(2, 32)
    inputs = noise(1, 40, 2, dtype=torch.float32)
    changed = inputs.clone()
    changed[:, 25:] += 1
    one, other = reservoir.run(inputs)[0], reservoir.run(changed)[0]
    assert torch.equal(one[:, :25], other[:, :25])
    assert not torch.equal(one[:, 25], other[:, 25])


@pytest.mark.parametrize("topology", TOPOLOGY_NAMES)
@pytest.mark.parametrize("size", [16, 512])
def test_spectral_radius_is_the_one_asked_for(topology: str, size: int) -> None:
    reservoir = Reservoir(1, size, topology=topology, spectral_radius=0.73, dtype=D)
    assert torch.linalg.eigvals(reservoir.W).abs().max() == pytest.approx(0.73, rel=1e-4)


def test_spectral_radius_is_found_where_the_iteration_finds_nothing() -> None:
    assert spectral_radius(np.zeros((500, 500))) == 0


def test_topologies_connect_units_as_named() -> None:
    def entries(topology: str, **settings: float) -> Tensor:
        return Reservoir(1, 64, topology=topology, dtype=D, **settings).W  # type: ignore[arg-type]

    assert ((entries("fan_in", fan_in=5) != 0).sum(0) == 5).all()
    assert ((entries("fan_in", fan_in=5) != 0).sum(1) == 5).all()
    assert (entries("ring", spectral_radius=0.5) == 0.5 * torch.eye(64).roll(1, 0)).all()
    assert ((entries("diagonal") != 0).sum(1) == 2).all()
    assert 0.05 < (entries("sparse", connectivity=0.1) != 0).double().mean() < 0.15
    for topology in ("orthogonal", "hadamard"):
        W = entries(topology, spectral_radius=1.0)
        torch.testing.assert_close(W @ W.T, torch.eye(64, dtype=D))


def test_a_seed_draws_the_same_weights_in_every_precision() -> None:
    one, other = Reservoir(3, 50, seed=4), Reservoir(3, 50, seed=4, dtype=D)
    assert torch.equal(one.W, other.W.float())
    assert torch.equal(one.W_in, other.W_in.float())
    assert not torch.equal(one.W, Reservoir(3, 50, seed=5).W)


def test_weights_are_buffers_and_nothing_is_trained() -> None:
    reservoir = Reservoir(2, 20)
    assert not list(reservoir.parameters())
    assert {"W_in", "bias", "leak", "recurrence.weights"} <= set(reservoir.state_dict())


@pytest.mark.parametrize("density", [0.1, 1.0])
def test_given_matrices_are_used_as_given(density: float) -> None:
    keep = torch.rand(30, 30, generator=torch.Generator().manual_seed(0)) < density
    W, W_in, bias = noise(30, 30) * 0.1 * keep, noise(30, 2, seed=1), noise(30, seed=2)
    reservoir = Reservoir.from_matrices(W, W_in, bias, leak=0.3)
    assert torch.equal(reservoir.W, W)
    inputs = noise(2, 25, 2)
    torch.testing.assert_close(reservoir.run(inputs)[0], reference(reservoir, inputs, reservoir.start(2)))


def stack(read_out: str) -> DeepReservoir:
    layers = [Reservoir(3, 16, dtype=D), Reservoir(16, 24, topology="dense", leak=0.5, dtype=D)]
    return DeepReservoir(layers, read_out=read_out)


@pytest.mark.parametrize(("read_out", "width"), [("all", 40), ("top", 24)])
def test_a_stack_reads_out_what_its_layers_do_one_by_one(read_out: str, width: int) -> None:
    deep = stack(read_out)
    inputs = noise(2, 12, 3)
    lower, _ = deep.layers[0].run(inputs)
    upper, _ = deep.layers[1].run(lower)
    states, last = deep.run(inputs)
    assert states.shape == (2, 12, width)
    torch.testing.assert_close(states, torch.cat((lower, upper), dim=2)[..., -width:])
    torch.testing.assert_close(last, torch.cat((lower[:, -1], upper[:, -1]), dim=1))
    state = None
    for t in range(12):
        row, state = deep.step(inputs[:, t], state)
    torch.testing.assert_close(row, states[:, -1])


@pytest.mark.parametrize("collector", [*(Reservoir(3, 64, topology=t) for t in TOPOLOGY_NAMES), stack("top")])
def test_a_saved_reservoir_continues_a_stream_exactly(collector: StateCollector, tmp_path) -> None:
    inputs = noise(1, 30, 3)
    _, state = collector.run(inputs[:, :20])
    collector.save(str(tmp_path / "echo"))
    loaded = type(collector).load(tmp_path / "echo")
    assert torch.equal(loaded.run(inputs[:, 20:], state)[0], collector.run(inputs[:, 20:], state)[0])


def test_a_damaged_folder_is_refused_in_one_sentence(tmp_path) -> None:
    Reservoir(1, 8, fan_in=3).save(tmp_path / "echo")
    weights = tmp_path / "echo" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(UnavailableError, match="cannot be read as a saved reservoir"):
        Reservoir.load(tmp_path / "echo")


@pytest.mark.parametrize("topology", TOPOLOGY_NAMES)
def test_a_file_whose_arrays_do_not_fit_never_reaches_a_compiled_loop(topology: str, tmp_path) -> None:
    """As an earlier version or another program may have written it, without a checksum."""
    Reservoir(2, 64, topology=topology).save(tmp_path / "echo")
    path = tmp_path / "echo" / "model.safetensors"
    whole = load_file(path)
    save_file(whole, path)
    Reservoir.load(tmp_path / "echo")
    wrong = [{name: tensor[:-1].clone()} for name, tensor in whole.items()]
    wrong += [{name: tensor * float("nan")} for name, tensor in whole.items() if tensor.is_floating_point()]
    for name, tensor in whole.items():
        if not tensor.is_floating_point():
            wrong += [{name: tensor - 1000}, {name: tensor + 64}, {name: tensor.float()}]
    for change in wrong:
        save_file(whole | change, path)
        with pytest.raises(UnavailableError, match="cannot be read as a saved reservoir"):
            Reservoir.load(tmp_path / "echo")


def test_gpt_echo_forgets_within_a_few_tokens_as_the_original_does() -> None:
    original = gpt_echo(64, 256)
    layer = original.layers[0]
    assert spectral_radius(layer.W.double().numpy()) == pytest.approx(0.8, rel=1e-4)
    assert float(layer.W_in.abs().max()) == pytest.approx((6 / (256 + 64)) ** 0.5, rel=0.01)
    features = normalise_over_time(noise(1, 40, 64, dtype=torch.float32))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(1, 64))
    from_zeros, _ = original.run(features)
    from_elsewhere, _ = original.run(features, 0.1 * noise(1, 256, dtype=torch.float32))
    apart = (from_zeros - from_elsewhere).norm(dim=-1)[0]
    assert 0.3 < float((apart[10] / apart[0]) ** 0.1) < 0.55  # 0.44 was measured on the original


def test_reservoirpy_gives_the_same_states() -> None:
    nodes = pytest.importorskip("reservoirpy.nodes", reason="reservoirpy is not installed: nothing to compare with")
    ours = Reservoir(2, 100, topology="sparse", leak=0.3, bias_scale=0.2, input_scale=0.5, dtype=D)
    inputs = noise(1, 1000, 2)
    arrays = {"W": ours.W.numpy(), "Win": ours.W_in.numpy(), "bias": ours.bias.numpy()}
    theirs = torch.from_numpy(nodes.Reservoir(lr=0.3, **arrays).run(inputs[0].numpy()))
    assert (ours.run(inputs)[0][0] - theirs).abs().max() < 1e-12
    assert (ours.float().run(inputs)[0][0] - theirs).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"spectral_radius": -0.3}, "spectral_radius=-0.3: must be a positive number"),
        ({"spectral_radius": float("nan")}, "spectral_radius=nan"),
        ({"leak": 0.0}, r"leak=0: must lie in \(0, 1\]"),
        ({"leak": torch.linspace(0.5, 2, 16)}, r"leak=1\.1: must lie in \(0, 1\]"),
        ({"leak": [0.5, 0.5]}, r"expected one number, or one for each of 16 units"),
        ({"topology": "star"}, "topology='star': unknown; choose one of dense"),
        ({"activation": "relu"}, "activation='relu': unknown"),
        ({"fan_in": 17}, "fan_in=17: must not exceed size=16"),
        ({"fan_in": 0}, "fan_in=0: must be a whole number of at least 1"),
        ({"connectivity": 1.5}, "connectivity=1.5"),
        ({"input_scale": -1.0}, "input_scale=-1.0: must not be negative"),
        ({"topology": "sparse", "connectivity": 1e-9}, "spectral radius 0"),
    ],
)
def test_a_value_out_of_range_is_refused(wrong: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Reservoir(1, 16, **wrong)


@pytest.mark.parametrize(("topology", "size"), [("hadamard", 100), ("diagonal", 15)])
def test_a_size_that_the_topology_cannot_have_is_refused(topology: str, size: int) -> None:
    with pytest.raises(InputError, match=f"size={size}"):
        Reservoir(1, size, topology=topology)


def test_unusable_inputs_and_states_are_refused() -> None:
    reservoir = Reservoir(2, 16)
    with pytest.raises(InputError, match=r"expected \[B, T, 2\]"):
        reservoir.run(noise(1, 5, 3))
    with pytest.raises(InputError, match="NaN or infinity"):
        reservoir.run(torch.tensor([[[0.0, float("nan")]]]))
    with pytest.raises(InputError, match=r"expected \[1, 16\]"):
        reservoir.run(noise(1, 5, 2), torch.zeros(2, 16))
    with pytest.raises(InputError, match="must be a square matrix"):
        Reservoir.from_matrices(torch.zeros(3, 4), torch.zeros(3, 1))
    with pytest.raises(InputError, match="the layer below has 16 units"):
        DeepReservoir([Reservoir(2, 16), Reservoir(8, 16)])


def test_the_compiler_is_not_imported_before_a_state_is_needed() -> None:
    check = "import sys, frugal.reservoir as r; r.Reservoir(1, 20); assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)
