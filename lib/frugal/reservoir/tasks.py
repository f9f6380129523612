"""The field's standard tasks, series and protocols spelled out, so that scores can be compared.

A task takes a reservoir and drives it in float64; the readout is a `LinearMap`, whose `ridge` is not scaled by the
number of steps. `NRMSE` is the root mean squared error over the target's standard deviation. Series come from NumPy's
PCG64 with `seed`.
"""

import copy
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from frugal.errors import DivergedError, InputError, check_not_negative, check_positive, check_whole
from frugal.reservoir.collector import StateCollector
from frugal.reservoir.feedback import closed_loop
from frugal.reservoir.reservoir import Reservoir
from frugal.ridge import LinearMap
from frugal.tensors import number_tensor

Collector = TypeVar("Collector", bound=StateCollector)

USUAL_RIDGE = "typical values lie in 1e-14 to 1"
DRAWS = 20  # of inputs for a recursion that may diverge
DIVERGED = 10.0  # values of the recursion stay below 2 otherwise
LARGEST_LORENZ = 1e3  # its attractor lies within 60
LYAPUNOV_LORENZ = 0.9056  # largest exponent of the Lorenz system at the classical parameters, per unit of time


def mackey_glass(steps: int, seed: int = 0) -> Tensor:
    """The Mackey-Glass series with delay 17, [steps], squashed by tanh(x - 1).

    dx/dt = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x(t), fourth-order Runge-Kutta with step 0.1, the delayed value
    at half steps the mean of its neighbours, history 1.2 +- 0.1, 1000 time units dropped, every tenth point kept.

    >>> round(mackey_glass(1).item(), 6)
    0.067779
    """
    check_whole(steps=steps)
    check_whole(0, seed=seed)
    delay, dropped, every, h = 170, 10_000, 10, 0.1
    total = delay + 1 + dropped + every * steps
    x = np.empty(total)
    x[: delay + 1] = 1.2 + 0.2 * (np.random.default_rng(seed).random(delay + 1) - 0.5)
    pull = np.empty(total)  # 0.2 x / (1 + x^10), computed once for each point
    pull[: delay + 1] = 0.2 * x[: delay + 1] / (1 + x[: delay + 1] ** 10)
    for t in range(delay, total - 1):
        late, later = x[t - delay], x[t - delay + 1]
        half = (late + later) / 2
        d0, d1, d2 = pull[t - delay], 0.2 * half / (1 + half**10), pull[t - delay + 1]
        k1 = d0 - 0.1 * x[t]
        k2 = d1 - 0.1 * (x[t] + h / 2 * k1)
        k3 = d1 - 0.1 * (x[t] + h / 2 * k2)
        k4 = d2 - 0.1 * (x[t] + h * k3)
        x[t + 1] = x[t] + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        pull[t + 1] = 0.2 * x[t + 1] / (1 + x[t + 1] ** 10)
    return torch.from_numpy(np.tanh(x[delay + 1 + dropped :: every][:steps] - 1))


def narma10(steps: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs u[t] and targets y[t+1] of the tenth-order moving average task, both [steps], after 200 dropped.

    y[t+1] = 0.3 y[t] + 0.05 y[t] (y[t] + .. + y[t-9]) + 1.5 u[t-9] u[t] + 0.1 with u uniform in [0, 0.5].
    For some inputs the recursion diverges: those are drawn again, from the same generator, as is usual.
    Atiya and Parlos, IEEE Transactions on Neural Networks 11, 2000.

    Raises:
        InputError: every one of many draws diverges: the series is too long.

    >>> inputs, targets = narma10(100)
    >>> inputs.shape, targets.shape
    (torch.Size([100]), torch.Size([100]))
    """
    check_whole(steps=steps)
    check_whole(0, seed=seed)
    dropped = 200
    rng = np.random.default_rng(seed)
    for _ in range(DRAWS):
        u = rng.uniform(0, 0.5, steps + dropped)
        y = np.zeros(steps + dropped + 1)
        for t in range(9, len(u)):
            y[t + 1] = 0.3 * y[t] + 0.05 * y[t] * y[t - 9 : t + 1].sum() + 1.5 * u[t - 9] * u[t] + 0.1
            if y[t + 1] > DIVERGED:
                break
        else:
            return torch.from_numpy(u[dropped:]), torch.from_numpy(y[dropped + 1 :])
    raise InputError(f"steps={steps}: each of {DRAWS} draws diverges; take a shorter series or another seed")


def lorenz(steps: int, seed: int = 0, dt: float = 0.02) -> Tensor:
    """The Lorenz system [steps, 3], fourth-order Runge-Kutta with step `dt`, 1000 steps dropped.

    Raises:
        InputError: a `dt` that is not positive.
        DivergedError: a `dt` so large that the series leaves all bounds.

    >>> lorenz(5).shape
    torch.Size([5, 3])
    """
    check_whole(steps=steps)
    check_whole(0, seed=seed)
    check_positive("0.01 to 0.05 is usual", dt=dt)
    dropped = 1000
    state = np.array([1.0, 1.0, 1.0]) + 0.1 * np.random.default_rng(seed).standard_normal(3)
    path = np.empty((dropped + steps, 3))
    for t in range(len(path)):
        with np.errstate(over="ignore", invalid="ignore"):  # which is said below
            k1 = _lorenz_flow(state)
            k2 = _lorenz_flow(state + dt / 2 * k1)
            k3 = _lorenz_flow(state + dt / 2 * k2)
            k4 = _lorenz_flow(state + dt * k3)
            state = state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        path[t] = state
        if not np.abs(state).max() < LARGEST_LORENZ:
            raise DivergedError(f"dt={dt}: the series leaves all bounds after {t + 1} steps; 0.01 to 0.05 is usual")
    return torch.from_numpy(path[dropped:])


def _lorenz_flow(state: np.ndarray) -> np.ndarray:
    x, y, z = state
    return np.array([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])


@dataclass(frozen=True)
class MackeyGlassScore:
    """Attributes:
    one_step: NRMSE of the next value, on the test series.
    nrmse84: NRMSE after 84 steps of free run, over 100 starts.
    """

    one_step: float
    nrmse84: float


def score_mackey_glass(reservoir: Reservoir, *, ridge: float, fit: int = 2000, seed: int = 0) -> MackeyGlassScore:
    """Learn to continue the series, then run freely.

    Washout 1000, `fit` steps of fitting. Test on the series of `seed` + 500: 1000 steps given, then 100 starts 100
    steps apart, 84 steps of free run from each.

    Jaeger and Haas, "Harnessing nonlinearity", Science 304, 2004, whose 1000 units reached log10 NRMSE84 = -4.2.

    Args:
        ridge: penalty of `LinearMap.fit`.

    Raises:
        InputError: the reservoir does not take one input.

    >>> score_mackey_glass(Reservoir(1, 50, spectral_radius=1.0, bias_scale=0.2), ridge=1e-9).one_step < 0.01
    True
    """
    check_not_negative(USUAL_RIDGE, ridge=ridge)
    check_whole(fit=fit)
    reservoir = double(reservoir, input_size=1)
    washout, starts, apart, ahead = 1000, 100, 100, 84
    series = mackey_glass(washout + fit + 1, seed).unsqueeze(1)  # [T, 1]
    states, _ = reservoir.run(series[None, :-1])
    readout = LinearMap.fit(states[0, washout:], series[washout + 1 :], ridge)

    given = washout + starts * apart
    series = mackey_glass(given + ahead, seed + 500).unsqueeze(1)
    states, _ = reservoir.run(series[None, :given])
    guesses, truth = readout(states[0, washout:]), series[washout + 1 : given + 1]
    begin = torch.arange(starts) * apart + washout
    alone = series.new_empty(starts, ahead, 0)
    free, _ = closed_loop(reservoir, readout, alone, states[0, begin - 1], series[begin])  # [starts, ahead, 1]
    return MackeyGlassScore(nrmse(guesses, truth), nrmse(free[:, -1], series[begin + ahead], series.std()))


def score_narma10(reservoir: Reservoir, *, ridge: float, seed: int = 0) -> float:
    """NRMSE on the last 3000 of 8200 steps; washout 200, the next 2000 for fitting, 3000 left for validation.

    Args:
        ridge: penalty of `LinearMap.fit`.

    Raises:
        InputError: the reservoir does not take one input.

    >>> score_narma10(Reservoir(1, 50, spectral_radius=0.7, input_scale=0.05, bias_scale=0.2), ridge=1e-12) < 0.5
    True
    """
    check_not_negative(USUAL_RIDGE, ridge=ridge)
    reservoir = double(reservoir, input_size=1)
    inputs, targets = narma10(8200, seed)
    states, _ = reservoir.run(inputs[None, :, None])
    readout = LinearMap.fit(states[0, 200:2200], targets[200:2200, None], ridge)
    return nrmse(readout(states[0, 5200:]), targets[5200:, None])


def score_lorenz(reservoir: Reservoir, *, ridge: float, seed: int = 0) -> Tensor:
    """Valid prediction times of 20 free runs [20], in Lyapunov times, at most 18.1.

    Time step 0.02, each component standardised on the fitting part; washout 200, 5000 steps of fitting. Free runs of
    1000 steps start 500 steps apart, after 200 given steps; a prediction is valid until its root mean squared error
    over the components exceeds 0.4 standard deviations.

    Args:
        ridge: penalty of `LinearMap.fit`.

    Raises:
        InputError: the reservoir does not take three inputs.

    >>> score_lorenz(Reservoir(3, 50, spectral_radius=0.6, input_scale=0.2, bias_scale=0.5), ridge=1e-9).shape
    torch.Size([20])
    """
    check_not_negative(USUAL_RIDGE, ridge=ridge)
    reservoir = double(reservoir, input_size=3)
    washout, fit, starts, apart, given, ahead, dt = 200, 5000, 20, 500, 200, 1000, 0.02
    fitted = washout + fit
    series = lorenz(fitted + 1 + starts * apart + given + ahead, seed, dt)
    series = (series - series[:fitted].mean(dim=0)) / series[:fitted].std(dim=0)
    states, _ = reservoir.run(series[None, :fitted])
    readout = LinearMap.fit(states[0, washout:], series[washout + 1 : fitted + 1], ridge)
    windows = series[fitted + 1 :].unfold(0, given + ahead, apart)[:starts].transpose(1, 2)  # [starts, .., 3]
    _, state = reservoir.run(windows[:, : given - 1])
    free, _ = closed_loop(reservoir, readout, windows.new_empty(starts, ahead, 0), state, windows[:, given - 1])
    off = (free - windows[:, given:]).square().mean(dim=2).sqrt() > 0.4  # [starts, ahead]
    valid = torch.where(off.any(dim=1), off.int().argmax(dim=1), ahead)
    return valid * dt * LYAPUNOV_LORENZ


def nrmse(guesses: Tensor | np.ndarray, truth: Tensor | np.ndarray, deviation: Tensor | None = None) -> float:
    """Root mean squared error over the standard deviation of `truth`, or over the one given.

    Raises:
        InputError: no numbers, not as many guesses as true values, or true values that do not vary.
    """
    guesses, truth = number_tensor("guesses", guesses).double(), number_tensor("truth", truth).double()
    if guesses.shape != truth.shape:
        raise InputError(f"guesses {list(guesses.shape)} and truth {list(truth.shape)}: must be of one shape")
    if deviation is None and not (truth.numel() and truth.min() < truth.max()):
        raise InputError("truth: must hold two different numbers; where it does not vary, give the deviation")
    spread = float(truth.std() if deviation is None else deviation)
    check_positive("the standard deviation of the series is usual", deviation=spread)
    return float((guesses - truth).square().mean().sqrt()) / spread


def double(reservoir: Collector, input_size: int) -> Collector:
    """A float64 copy on the CPU; the task's inputs must fit."""
    if not isinstance(reservoir, StateCollector):
        raise InputError(f"reservoir of type {type(reservoir).__name__}: must be a Reservoir or a DeepReservoir")
    if reservoir.input_size != input_size:
        raise InputError(f"a reservoir with {reservoir.input_size} inputs: this task needs input_size={input_size}")
    return copy.deepcopy(reservoir).double().cpu()
