"""Which unit listens to which: every topology draws its weights and sets their spectral radius.

Weights are drawn in float64 by NumPy's PCG64, so that a seed means the same numbers in every precision and on
every device.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator

from frugal.errors import InputError, is_number
from frugal.reservoir.recurrence import Dense, Gather, Hadamard, Recurrence, Shifts
from frugal.reservoir.spectrum import scale_to

ROWS_AT_ONCE = 256  # of a sparse matrix to be drawn


def check_connectivity(connectivity: float) -> None:
    """Raise InputError unless it is a share of connections."""
    if not (is_number(connectivity) and 0 < connectivity <= 1):
        raise InputError(f"connectivity={connectivity!r}: must be a number in (0, 1]; typical values are 0.01 to 0.2")


@dataclass(frozen=True)
class Plan:
    """What a topology is to be built to: N units, spectral radius, and how many connections."""

    size: int
    spectral_radius: float
    fan_in: int
    connectivity: float


def dense(plan: Plan, rng: Generator) -> Recurrence:
    """Every unit listens to every unit; weights uniform."""
    weights = rng.uniform(-1, 1, (plan.size, plan.size))
    weights *= scale_to(weights, plan.spectral_radius)
    return Dense(torch.from_numpy(weights))


def sparse(plan: Plan, rng: Generator) -> Recurrence:
    """Each connection exists with probability `connectivity`; weights uniform.

    All weights are drawn before all connections. A second generator that begins there keeps only some rows in memory.
    """
    from scipy.sparse import csr_array, vstack

    later, rows = copy.deepcopy(rng), []
    later.bit_generator.advance(plan.size**2)  # type: ignore[attr-defined]
    for begin in range(0, plan.size, ROWS_AT_ONCE):
        shape = (min(ROWS_AT_ONCE, plan.size - begin), plan.size)
        rows.append(csr_array(rng.uniform(-1, 1, shape) * (later.random(shape) < plan.connectivity)))
    rng.bit_generator.state = later.bit_generator.state
    weights = csr_array(vstack(rows))
    weights *= scale_to(weights, plan.spectral_radius)
    return Gather.of_sparse(weights)


def fan_in(plan: Plan, rng: Generator) -> Recurrence:
    """Each unit listens to `fan_in` others and is heard by as many; weights uniform.

    The sources lie at the same random distances around the circle for all units. That costs no accuracy against
    independent sources (benchmarks/reservoir_tasks.py) and lets a step read memory in order.
    """
    if plan.fan_in > plan.size:
        raise InputError(f"fan_in={plan.fan_in}: must not exceed size={plan.size}; a unit has no more sources")
    offsets = np.sort(rng.choice(plan.size, plan.fan_in, replace=False))
    weights = rng.uniform(-1, 1, (plan.fan_in, plan.size))
    weights *= scale_to(shifts_matrix(offsets, weights), plan.spectral_radius)
    return Shifts(torch.from_numpy(offsets), torch.from_numpy(weights))


def ring(plan: Plan, rng: Generator) -> Recurrence:
    """A simple cycle with equal weights: unit i listens to unit i - 1. Eigenvalues lie on a circle.

    Rodan and Tino, "Minimum complexity echo state network", IEEE Transactions on Neural Networks 22, 2011.
    """
    weights = torch.full((1, plan.size), plan.spectral_radius, dtype=torch.float64)
    return Shifts(torch.tensor([plan.size - 1]), weights)


def orthogonal(plan: Plan, rng: Generator) -> Recurrence:
    """A random rotation, drawn evenly, times the spectral radius."""
    rotation, upper = np.linalg.qr(rng.standard_normal((plan.size, plan.size)))
    rotation *= np.sign(np.diag(upper)) * plan.spectral_radius
    return Dense(torch.from_numpy(rotation))


def hadamard(plan: Plan, rng: Generator) -> Recurrence:
    """Three random sign changes, each followed by a fast Walsh-Hadamard transform: orthogonal, N log N a step.

    Dong et al., "Reservoir computing meets recurrent kernels and structured transforms", NeurIPS 2020.
    """
    if plan.size & (plan.size - 1):
        raise InputError(f"size={plan.size}: the hadamard topology needs a power of two, such as 512 or 1024")
    signs = rng.choice([-1.0, 1.0], (3, plan.size)) / math.sqrt(plan.size)
    signs[0] *= plan.spectral_radius
    return Hadamard(torch.from_numpy(signs))


def diagonal(plan: Plan, rng: Generator) -> Recurrence:
    """N/2 independent complex modes, eigenvalues even in the disc; units i and i + N/2 are real and imaginary part.

    With activation "identity" this is the linear diagonal reservoir: every linear reservoir in its eigenbasis.
    """
    if plan.size % 2:
        raise InputError(f"size={plan.size}: the diagonal topology needs an even size, two units for each complex mode")
    modes = np.sqrt(rng.random(plan.size // 2)) * np.exp(2j * np.pi * rng.random(plan.size // 2))
    modes *= plan.spectral_radius / np.abs(modes).max()
    itself = np.concatenate((modes.real, modes.real))
    partner = np.concatenate((-modes.imag, modes.imag))
    return Shifts(torch.tensor([0, plan.size // 2]), torch.from_numpy(np.stack((itself, partner))))


TOPOLOGIES: dict[str, Callable[[Plan, Generator], Recurrence]] = {
    builder.__name__: builder for builder in (dense, sparse, fan_in, ring, orthogonal, hadamard, diagonal)
}


def shifts_matrix(offsets: np.ndarray, weights: np.ndarray) -> Any:
    """The sparse matrix in which unit i listens to units i + offsets[k] with weights[k, i]."""
    from scipy.sparse import csr_array

    fan_in, size = weights.shape
    units = np.tile(np.arange(size), (fan_in, 1))
    sources = (units + offsets[:, None]) % size
    return csr_array((weights.ravel(), (units.ravel(), sources.ravel())), shape=(size, size))
