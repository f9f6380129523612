"""Does a reservoir forget, how fast, and how much of what it holds can be read out?"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from frugal.errors import InputError, check_whole
from frugal.reservoir.collector import StateCollector, one_stream
from frugal.reservoir.recurrence import ACTIVATIONS
from frugal.reservoir.reservoir import Reservoir
from frugal.reservoir.spectrum import spectral_radius
from frugal.tensors import number_tensor

# Trajectories count as together at this share of their first distance, and below the other all is rounding.
TOGETHER = 1e-8
ROUNDING = 1e-12
CONSTANT = 8 * torch.finfo(torch.float64).eps  # states that vary by less of their size vary by rounding alone


@dataclass(frozen=True)
class Forgetting:
    """How trajectories that start apart come together under the same inputs.

    Attributes:
        distances: [T, trials], distance after each step as a share of the distance at the start.
        rate: factor by which a difference shrinks in a step, geometric mean over the part that can be measured.
        half_life: steps in which a difference is halved; infinite where it does not shrink.
        echo_state: whether every trial came together to within TOGETHER: the echo state property, for these
            inputs and starts.
    """

    distances: Tensor
    rate: float
    half_life: float
    echo_state: bool


@torch.no_grad()
def forgetting(reservoir: StateCollector, inputs: Tensor | np.ndarray, *, trials: int = 8, seed: int = 0) -> Forgetting:
    """Run one stream `inputs` [T, d] from `trials` pairs of random states in [-1, 1] and watch the pairs.

    Computed in float64. Jaeger 2001 calls the coming together the echo state property; a finite experiment can
    refute it for an input, and support it, not prove it.

    Raises:
        InputError: the inputs are no stream of at least one step, or no trials.

    >>> inputs = torch.rand(200, 1, generator=torch.Generator().manual_seed(0))
    >>> forgetting(Reservoir(1, 30, spectral_radius=0.5), inputs).echo_state
    True
    """
    check_whole(trials=trials)
    check_whole(0, seed=seed)
    inputs = one_stream(inputs).double()
    if not len(inputs):
        raise InputError("inputs of no steps: forgetting is seen from step to step; give a stream of some hundred")
    reservoir = copy.deepcopy(reservoir).double()
    random = torch.Generator().manual_seed(int(seed))
    start = torch.rand(2 * trials, reservoir.state_size, generator=random, dtype=torch.float64) * 2 - 1
    lanes = inputs.expand(2 * trials, *inputs.shape)
    start = start.to(reservoir.like.device)
    pairs = [start.chunk(2), *(state.chunk(2) for _, state in reservoir.chunks(lanes, start, length=1))]
    lengths = torch.stack([(one - other).norm(dim=1) for one, other in pairs])
    distances = lengths[1:] / lengths[0]
    rate = _shrinkage(distances.mean(dim=1))
    half_life = math.log(0.5) / math.log(rate) if 0 < rate < 1 else math.inf
    return Forgetting(distances, rate, half_life, echo_state=bool((distances[-1] <= TOGETHER).all()))


def _shrinkage(distances: Tensor) -> float:
    """Mean factor a step in `distances` [T], over the steps before rounding takes over."""
    measurable = max(1, int((distances > ROUNDING).sum()))
    return float(distances[measurable - 1] ** (1 / measurable))


@torch.no_grad()
def lyapunov_exponent(
    reservoir: StateCollector, inputs: Tensor | np.ndarray, *, washout: int = 100, seed: int = 0
) -> float:
    """Largest conditional Lyapunov exponent per step, natural logarithm, along one stream `inputs` [T, d].

    Negative: differences die out, the inputs decide the state; positive: chaos. Benettin's method in float64: a
    difference of 1e-8 is measured and set back to that length after each step.

    Raises:
        InputError: no more inputs than the washout.

    >>> halving = Reservoir.from_matrices(0.5 * torch.eye(4), torch.ones(4, 1), activation="identity")
    >>> round(lyapunov_exponent(halving, torch.zeros(150, 1)), 6), round(math.log(0.5), 6)
    (-0.693147, -0.693147)
    """
    inputs = one_stream(inputs).double()
    check_whole(0, washout=washout, seed=seed)
    if len(inputs) <= washout:
        raise InputError(f"{len(inputs)} inputs: more than the washout of {washout} steps are needed")
    small = 1e-8
    reservoir = copy.deepcopy(reservoir).double()
    _, state = reservoir.run(inputs[None, :washout])
    random = torch.Generator().manual_seed(int(seed))
    direction = torch.randn(1, reservoir.state_size, generator=random, dtype=torch.float64).to(state.device)
    growth = 0.0
    for row in inputs[washout:]:
        pair = torch.cat((state, state + small * direction / direction.norm()))
        _, pair = reservoir.step(row.expand(2, -1), pair)
        state, direction = pair[:1], pair[1:] - pair[:1]
        length = float(direction.norm())
        if length == 0:
            return -math.inf
        growth += math.log(length / small)
    return growth / (len(inputs) - washout)


def effective_spectral_radius(reservoir: Reservoir) -> float:
    """Largest eigenvalue modulus of the linearised step at rest, (1 - a) I + a f'(0) W, leaks and slope included.

    Raises:
        InputError: it is no single reservoir; of a stack, its `layers` are.

    >>> round(effective_spectral_radius(Reservoir(1, 20, topology="ring", spectral_radius=0.8)), 6)
    0.8
    """
    if not isinstance(reservoir, Reservoir):
        kind = type(reservoir).__name__
        raise InputError(f"reservoir of type {kind}: must be one Reservoir; of a stack, give each of its `layers`")
    leak = reservoir.leak.double().unsqueeze(1)  # [N, 1]
    W = reservoir.W.double()
    activation = reservoir.activation
    activate = ACTIVATIONS[activation] if isinstance(activation, str) else activation
    slope = torch.func.grad(activate)(torch.zeros((), dtype=torch.float64))
    step = torch.diag(1 - leak[:, 0]) + leak * slope.to(W) * W
    return spectral_radius(step.cpu().numpy())


@dataclass(frozen=True)
class StateSpectrum:
    """Singular values of centred states, and how many directions they fill.

    Attributes:
        values: [N], falling, scaled by 1/sqrt(T): standard deviations along the principal axes.
        rank: directions above rounding.
        effective_rank: exponential of the entropy of the variances' shares; N if all are equal, 0 if nothing varies.
    """

    values: Tensor
    rank: int
    effective_rank: float


def state_spectrum(states: Tensor | np.ndarray) -> StateSpectrum:
    """Spectrum of `states` [T, N]; leave the washout away.

    Effective rank as in Roy and Vetterli, "The effective rank", EUSIPCO 2007, on variances.

    Raises:
        InputError: the states are no table of numbers, or hold NaN or infinity.

    >>> spectrum = state_spectrum(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    >>> spectrum.rank, round(spectrum.effective_rank, 6)
    (2, 2.0)
    """
    states = number_tensor("states", states)
    if states.ndim != 2 or not states.numel() or not states.isfinite().all():
        raise InputError(f"states of shape {list(states.shape)}: must be [T, N], some of them and all finite")
    centred = states.double() - states.double().mean(dim=0)
    values = torch.linalg.svdvals(centred) / math.sqrt(len(states))
    precision = states.dtype if states.is_floating_point() else torch.float64
    rounding = torch.finfo(precision).eps * max(states.shape) * values[0]
    if values[0] <= CONSTANT * states.double().abs().max():
        return StateSpectrum(torch.zeros_like(values), 0, 0.0)
    shares = (values / values[0]).square()
    shares /= shares.sum()
    entropy = -torch.special.xlogy(shares, shares).sum()
    return StateSpectrum(values, int((values > rounding).sum()), float(entropy.exp()))
