"""Feedback and noise: outputs that a reservoir reads a step later, and states that are disturbed."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frugal.errors import InputError
from frugal.readout import OnlineReadout
from frugal.reservoir import DeepReservoir, Reservoir, closed_loop, teacher_forced
from frugal.ridge import LinearMap

D = torch.float64


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=D)


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(0, 6), st.integers(0, 2), st.integers(1, 2), st.booleans())
def test_a_closed_loop_reads_what_teacher_forcing_shows_where_the_readout_is_right(
    batch: int, steps: int, width: int, outputs: int, arrays: bool
) -> None:
    """Its own outputs, given as targets, drive the reservoir to the same states, in one piece or two."""
    reservoir = Reservoir(width + outputs, 20, leak=0.5, bias_scale=0.3, dtype=D)
    readout = LinearMap(noise(20, outputs), torch.zeros(20).double(), noise(outputs))
    inputs = noise(batch, steps, width)
    given_inputs = inputs.numpy() if arrays else inputs
    found, last = closed_loop(reservoir, readout, given_inputs)
    assert isinstance(found, np.ndarray if arrays else Tensor)
    assert isinstance(last, np.ndarray if arrays else Tensor)
    states, state = reservoir.run(teacher_forced(inputs, torch.as_tensor(found)))
    torch.testing.assert_close(torch.as_tensor(found), readout(states))
    torch.testing.assert_close(torch.as_tensor(last), state)

    half = steps // 2
    first, between = closed_loop(reservoir, readout, inputs[:, :half])
    end = first[:, -1] if half else None
    second, _ = closed_loop(reservoir, readout, inputs[:, half:], between, end)
    torch.testing.assert_close(torch.cat([first, second], 1), torch.as_tensor(found))


def test_targets_of_the_step_before_stand_beside_the_inputs() -> None:
    inputs, targets = noise(2, 4, 3), noise(2, 4, 2, seed=1)
    joined = teacher_forced(inputs, targets)
    assert torch.equal(joined[:, :, :3], inputs)
    assert torch.equal(joined[:, 1:, 3:], targets[:, :-1])
    assert not joined[:, 0, 3:].any()
    assert np.array_equal(teacher_forced(inputs[0].numpy(), targets[0].numpy()), joined[0].numpy())


def first(states: Tensor) -> Tensor:
    return states[:, :1]


def fails_at(step: int) -> Callable[[Tensor], Tensor]:
    """A readout that gives NaN at that step."""
    calls = iter(range(1, 1000))
    return lambda states: first(states) * (math.nan if next(calls) == step else 1)


def test_a_readout_may_give_arrays_and_a_reservoir_of_bfloat16_takes_them() -> None:
    reservoir, inputs = Reservoir(2, 16, dtype=torch.bfloat16), noise(1, 5, 1)
    expected, end = closed_loop(reservoir, first, inputs)
    for arrays in (inputs, inputs.numpy()):
        found, last = closed_loop(reservoir, lambda states: first(states).float().numpy(), arrays)
        assert isinstance(found, type(arrays))
        np.testing.assert_array_equal(torch.as_tensor(found).float(), expected.float())
        np.testing.assert_array_equal(torch.as_tensor(last).float(), end.float())
    joined = teacher_forced(inputs[0].numpy(), noise(5, 1).bfloat16())
    assert np.array_equal(joined[1:, 1:], noise(5, 1).bfloat16().double().numpy()[:-1])


@pytest.mark.parametrize("kind", ["ridge", "online"])
def test_an_output_that_depends_on_its_past_is_generated(kind: str) -> None:
    """A leaky sum with a longer memory than the reservoir has, on inputs that were not fitted."""
    inputs = noise(1, 1500, 1).tanh()
    targets = torch.zeros(1, 1500, 1, dtype=D)
    for t in range(1500):
        targets[:, t] = 0.98 * targets[:, t - 1] + 0.05 * inputs[:, t] if t else 0.05 * inputs[:, t]
    reservoir = Reservoir(2, 60, spectral_radius=0.3, input_scale=[0.5, 0.2], dtype=D)
    states, last = reservoir.run(teacher_forced(inputs, targets)[:, :1000])
    if kind == "ridge":
        readout = LinearMap.fit(states[0, 50:], targets[0, 50:1000], ridge=1e-6)
    else:
        readout = OnlineReadout(60, 1, tokens=False).partial_fit(states[0, 50:], targets[0, 50:1000])
    found, _ = closed_loop(reservoir, readout, inputs[:, 1000:], last, targets[:, 999])
    assert float((found - targets[:, 1000:]).square().mean().sqrt() / targets[:, 1000:].std()) < 0.05


@settings(max_examples=15)
@given(st.sampled_from(["fan_in", "sparse", "dense", "hadamard"]), st.integers(1, 3), st.booleans())
def test_noise_is_added_to_the_sums_inside_the_activation(topology: str, lanes: int, deep: bool) -> None:
    """As inputs of its own, one for each unit, would be; and the same seed draws the same."""
    layers = [Reservoir(2, 16, topology=topology, leak=0.5, bias_scale=0.2, connectivity=0.5, dtype=D)]
    layers += [Reservoir(16, 16, topology=topology, leak=0.7, connectivity=0.5, seed=1, dtype=D)] * deep
    reservoir = DeepReservoir(layers) if deep else layers[0]
    inputs = noise(lanes, 9, 2)
    torch.manual_seed(3)
    found, last = reservoir.run(inputs, noise=0.1)
    torch.manual_seed(3)
    expected = []
    for layer in layers:
        drawn = torch.empty(lanes, 9, 16, dtype=D).normal_(0, 0.1)
        by_noise = Reservoir.from_matrices(
            layer.W, torch.cat([layer.W_in, torch.eye(16, dtype=D)], 1), layer.bias, leak=layer.leak
        )
        inputs, _ = by_noise.run(torch.cat([inputs, drawn], 2))
        expected.append(inputs)
    torch.testing.assert_close(found, torch.cat(expected, 2))
    torch.testing.assert_close(last, found[:, -1])


def test_noise_does_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frugal.reservoir.reservoir.WORTH_A_THREAD", 1)
    reservoir, threads, found = Reservoir(2, 30), torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            torch.manual_seed(0)
            found.append(reservoir.run(torch.zeros(4, 5, 2), noise=0.1)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: teacher_forced(torch.ones(3, 1), torch.ones(4, 1)), r"inputs \[3, 1\] and targets \[4, 1\]"),
        (lambda: closed_loop(Reservoir(2, 16), torch.nn.Identity(), torch.ones(1, 3, 2)), "with d less than"),
        (lambda: closed_loop(Reservoir(2, 16), torch.nn.Identity(), torch.ones(3, 1)), r"expected \[B, T, d\]"),
        (lambda: closed_loop(Reservoir(2, 16), torch.nn.Linear(16, 3), torch.ones(1, 3, 1)), r"outputs \[1, 3\]"),
        (lambda: closed_loop(Reservoir(1, 16), lambda s: s[:, :1] / 0, torch.ones(1, 3, 0)), "NaN or infinity"),
        *(
            (lambda steps=steps: closed_loop(Reservoir(1, 16), fails_at(steps), torch.ones(1, 3, 0)), "NaN or infinity")
            for steps in (1, 2, 3)
        ),
        (
            lambda: closed_loop(Reservoir(1, 16), lambda s: s[:, :1].double() + 1e39, torch.ones(1, 1, 0)),
            "beyond",
        ),
        *(
            (
                lambda wrong=wrong: closed_loop(Reservoir(2, 16), first, torch.ones(2, 3, 1), None, wrong),
                "output of shape",
            )
            for wrong in (torch.ones(1), torch.ones(1, 1), torch.ones(2, 2), np.ones(2), 0.5)
        ),
        (lambda: closed_loop(Reservoir(2, 16), lambda s: "words", torch.ones(2, 3, 1)), "outputs: str .* must hold"),
        (lambda: Reservoir(1, 16).run(torch.ones(1, 3, 1), noise=-0.1), "noise=-0.1"),
        (lambda: Reservoir(1, 16).run(torch.ones(1, 3, 1), noise=float("nan")), "noise=nan"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(make, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=says):
        make()
