"""The compiled loops: one lane of states at a time, in place.

Every kernel takes `states` [T, N] that hold the projected inputs W_in x + b and overwrites row t with the state
after step t; `state` [N] holds the state before the first step and, afterwards, the one after the last. The kernels
release Python's lock and start no threads of their own, so that lanes can run side by side without ever waiting
for each other. This module alone imports numba, and is imported when the first state is computed.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

IDENTITY, TANH, GELU, FAST_TANH = range(4)
INVERSE_ROOT_2 = 1 / math.sqrt(2)

# tanh(x) = x P(x^2) / Q(x^2) for |x| <= 9, fitted by reweighted least squares on the relative error; in float32 the
# result is within 4e-7 of tanh, relatively too, and a rational function is something a compiler can vectorise.
LIMIT = np.float32(9)
ONE = np.float32(1)
P1, P2, P3, P4 = (np.float32(p) for p in (0.1338098049, 0.003495534416, 2.060818406e-05, 1.335341260e-08))
Q1, Q2, Q3, Q4 = (np.float32(q) for q in (0.4671429694, 0.02587677911, 0.0003285546263, 7.776046687e-07))

# Sums may be reordered, but NaN and infinity must come out as what they are: so not all of fastmath.
# Without NumPy's error model every division is guarded by a branch, and no loop with a division is vectorised.
FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}
compiled = numba.njit(cache=True, fastmath=FASTMATH, nogil=True, error_model="numpy")


@compiled
def fast_tanh(x: np.float32) -> np.float32:
    """tanh in single precision, by the rational function above."""
    x = LIMIT if x > LIMIT else x
    x = -LIMIT if x < -LIMIT else x
    z = x * x
    numerator = (((P4 * z + P3) * z + P2) * z + P1) * z + ONE
    denominator = (((Q4 * z + Q3) * z + Q2) * z + Q1) * z + ONE
    return x * numerator / denominator


@compiled
def activate(row: Array, activation: int) -> None:
    """Apply an activation to a row, in place."""
    if activation == FAST_TANH:
        for i in range(len(row)):
            row[i] = fast_tanh(row[i])
    elif activation == TANH:
        for i in range(len(row)):
            row[i] = math.tanh(row[i])
    elif activation == GELU:
        for i in range(len(row)):
            row[i] = row[i] * (1 + math.erf(row[i] * INVERSE_ROOT_2)) / 2


@compiled
def settle(row: Array, state: Array, leak: Array, activation: int) -> None:
    """Turn a row of sums into the new state: activation, then leak."""
    activate(row, activation)
    for i in range(len(row)):
        row[i] = (1 - leak[i]) * state[i] + leak[i] * row[i]
    for i in range(len(row)):
        state[i] = row[i]


@compiled
def dense(states: Array, state: Array, leak: Array, activation: int, weights: Array) -> None:
    """Every unit listens to every unit, with `weights` [N, N]."""
    size = len(state)
    for t in range(len(states)):
        row = states[t]
        for i in range(size):
            weight = weights[i]
            total = row[i]
            for j in range(size):
                total += weight[j] * state[j]
            row[i] = total
        settle(row, state, leak, activation)


@compiled
def gather(states: Array, state: Array, leak: Array, activation: int, sources: Array, weights: Array) -> None:
    """Unit i listens to units `sources[:, i]` with `weights[:, i]`, both [K, N]."""
    for t in range(len(states)):
        row = states[t]
        for k in range(len(sources)):
            source, weight = sources[k], weights[k]
            for i in range(len(row)):
                row[i] += weight[i] * state[source[i]]
        settle(row, state, leak, activation)


@compiled
def shifts(states: Array, state: Array, leak: Array, activation: int, offsets: Array, weights: Array) -> None:
    """Unit i listens to units i + `offsets` around the circle, with `weights[:, i]` [K, N].

    The state is kept twice in a row, so that what unit i listens to lies at i + offset without wrapping: the loop
    over i then reads memory in order, four times as fast as a gather.
    """
    size = len(state)
    twice = np.concatenate((state, state))
    first, second = twice[:size], twice[size:]
    for t in range(len(states)):
        row = states[t]
        for k in range(len(offsets)):
            source, weight = twice[offsets[k] : offsets[k] + size], weights[k]
            for i in range(size):
                row[i] += weight[i] * source[i]
        settle(row, first, leak, activation)
        for i in range(size):
            second[i] = row[i]
    state[:] = first


@compiled
def hadamard(states: Array, state: Array, leak: Array, activation: int, signs: Array) -> None:
    """Three rounds of signs [3, N] and Walsh-Hadamard transform; the scale is part of the signs."""
    size = len(state)
    work = np.empty_like(state)
    for t in range(len(states)):
        row = states[t]
        work[:] = state
        for k in range(3):
            sign = signs[k]
            for i in range(size):
                work[i] *= sign[i]
            half = 1
            while half < size:
                for start in range(0, size, 2 * half):
                    low, high = work[start : start + half], work[start + half : start + 2 * half]
                    for i in range(half):
                        a, b = low[i], high[i]
                        low[i] = a + b
                        high[i] = a - b
                half *= 2
        for i in range(size):
            row[i] += work[i]
        settle(row, state, leak, activation)


@compiled
def gather_lanes(states: Array, state: Array, leak: Array, activation: int, sources: Array, weights: Array) -> None:
    """As `gather`, for lanes in step: `states` [L, T, N], `state` [L, N]; `sources` and `weights` [N, K].

    Inside, the lanes lie beside each other, so that each weight is read once and meets them all in one sweep.
    """
    lanes, steps, size = states.shape
    old, new = state.T.copy(), np.empty((size, lanes), state.dtype)
    lengths = np.empty(size, np.int64)  # rows are padded with zeros at their end
    for i in range(size):
        lengths[i] = sources.shape[1]
        while lengths[i] > 0 and weights[i, lengths[i] - 1] == 0:
            lengths[i] -= 1
    for t in range(steps):
        for lane in range(lanes):
            for i in range(size):
                new[i, lane] = states[lane, t, i]
        for i in range(size):
            total = new[i]
            for k in range(lengths[i]):
                weight = weights[i, k]
                source = old[sources[i, k]]
                for lane in range(lanes):
                    total[lane] += weight * source[lane]
            activate(total, activation)
        for i in range(size):
            for lane in range(lanes):
                new[i, lane] = (1 - leak[i]) * old[i, lane] + leak[i] * new[i, lane]
        old, new = new, old
        for lane in range(lanes):
            for i in range(size):
                states[lane, t, i] = old[i, lane]
    for lane in range(lanes):
        for i in range(size):
            state[lane, i] = old[i, lane]
