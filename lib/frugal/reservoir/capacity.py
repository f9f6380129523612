"""How much of its past a reservoir holds: linear memory capacity and information processing capacity.

Both drive the reservoir by noise and ask a linear readout for functions of past inputs. In float64 throughout.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from frugal.errors import InputError, check_whole
from frugal.reservoir.collector import StateCollector
from frugal.reservoir.tasks import double
from frugal.ridge import LinearMap
from frugal.ridge.statistics import ROUNDING

# The search for one kind of product ends after so many lags in a row at which nothing was found.
PATIENCE = 3
TARGETS_AT_ONCE = 64

# A product of polynomials of past inputs: (lag, degree) of each factor.
Product = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class MemoryCapacity:
    """Attributes:
    by_lag: [K], squared correlation of the readout with the input k + 1 steps ago, on test data.
    total: sum of those above the noise level.
    bound: no reservoir of this size can have more; N for independent inputs (Jaeger 2002).
    """

    by_lag: Tensor
    total: float
    bound: int


def memory_capacity(
    reservoir: StateCollector, *, fit: int = 10_000, test: int = 10_000, washout: int = 1000, seed: int = 0
) -> MemoryCapacity:
    """Linear memory capacity: how well each of the last 2 N inputs can be read from the state.

    Inputs are uniform in [-1, 1]; the readout is fitted without a penalty on one stretch and judged on
    the next, and squared correlations below 4 / `test` count as none.

    Jaeger, "Short term memory in echo state networks", GMD report 152, 2002.

    Args:
        fit, test, washout: steps of each part.

    Raises:
        InputError: the reservoir does not take one input, the washout is shorter than the lags, or a number of steps
            is none.

    >>> from frugal.reservoir import Reservoir
    >>> ring = Reservoir(1, 20, topology="ring", spectral_radius=0.95, activation="identity")
    >>> 18 < memory_capacity(ring, fit=2000, test=2000).total < 20
    True
    """
    check_whole(2, fit=fit, test=test)
    check_whole(0, washout=washout, seed=seed)
    reservoir = double(reservoir, input_size=1)
    lags = 2 * reservoir.size
    if washout < lags:
        raise InputError(f"washout={washout}: must be at least {lags}, twice the reservoir's size")
    noise = np.random.default_rng(seed).uniform(-1, 1, washout + fit + test)
    states, _ = reservoir.run(torch.from_numpy(noise)[None, :, None])
    first, second = states[0, washout:].split((fit, test))
    delayed = np.lib.stride_tricks.sliding_window_view(noise, lags + 1)[washout - lags :, :lags]
    targets = torch.from_numpy(delayed[:, ::-1].copy())  # [T, lags], column k is the input k + 1 steps ago
    readout = LinearMap.fit(first, targets[:fit], ridge=0.0)
    by_lag = correlation(readout(second), targets[fit:]).square()
    return MemoryCapacity(by_lag, float(by_lag[by_lag > 4 / test].sum()), reservoir.size)


@dataclass(frozen=True)
class ProcessingCapacity:
    """Attributes:
    by_degree: [D], capacity for products of past inputs of total degree 1 to D.
    total: their sum.
    rank: independent directions of the states; the total cannot be more.
    """

    by_degree: Tensor
    total: float
    rank: int


def information_processing_capacity(
    reservoir: StateCollector,
    *,
    steps: int = 100_000,
    degree: int = 8,
    washout: int = 1000,
    seed: int = 0,
) -> ProcessingCapacity:
    """Capacity by degree: how much of every product of Legendre polynomials of past inputs the states hold.

    Inputs are uniform in [-1, 1]. A target's capacity is the share of its variance that a linear readout explains;
    what chance would explain is cut off at twice the chi-squared quantile of 1e-4. Products are searched by growing
    window: for each degree, the longest lag grows until nothing more is found.

    Dambre et al., "Information processing capacity of dynamical systems", Scientific Reports 2, 2012.

    Args:
        steps, washout: driven by noise; degree: highest of the products.

    Raises:
        InputError: the reservoir does not take one input.

    >>> from frugal.reservoir import Reservoir
    >>> line = Reservoir(1, 5, topology="ring", spectral_radius=0.5, activation="identity")
    >>> information_processing_capacity(line, steps=5000, degree=2).rank
    5
    """
    from scipy.stats import chi2

    check_whole(2, steps=steps)
    check_whole(degree=degree, washout=washout)
    check_whole(0, seed=seed)
    reservoir = double(reservoir, input_size=1)
    noise = np.random.default_rng(seed).uniform(-1, 1, washout + steps)
    states, _ = reservoir.run(torch.from_numpy(noise)[None, :, None])
    states = states[0, washout:]
    centred = states - states.mean(dim=0)
    centred *= centred.norm(dim=0) > ROUNDING * states.norm(dim=0)
    variances, axes = torch.linalg.eigh(centred.T @ centred)
    # The Gram matrix holds squares: below this, a direction is rounding.
    kept = variances > torch.finfo(torch.float64).eps * len(variances) * variances[-1]
    basis = centred @ (axes[:, kept] / variances[kept].sqrt())  # [T, rank], orthonormal
    rank = int(kept.sum())
    threshold = 2 * chi2.isf(1e-4, rank) / steps
    polynomials = legendre(noise, degree)  # [degree, T + washout]
    by_degree = torch.tensor(
        [sum(_capacities_of_degree(basis, polynomials, washout, total, threshold)) for total in range(1, degree + 1)]
    )
    return ProcessingCapacity(by_degree, float(by_degree.sum()), rank)


def _capacities_of_degree(
    basis: Tensor, polynomials: np.ndarray, washout: int, degree: int, threshold: float
) -> Iterator[float]:
    """The sum of capacities for each way of splitting `degree` over inputs, such as (2, 1) for degree 3."""
    for shape in partitions(degree, degree):
        lag, misses = len(shape) - 1, 0
        while misses < PATIENCE and lag < washout:
            found = 0.0
            for batch in batched(products(shape, lag), TARGETS_AT_ONCE):
                capacities = _capacities(basis, polynomials, washout, batch)
                found += float(capacities[capacities > threshold].sum())
            misses = 0 if found else misses + 1
            lag += 1
            yield found


def _capacities(basis: Tensor, polynomials: np.ndarray, washout: int, batch: tuple[Product, ...]) -> Tensor:
    """The share of each product's variance that lies in the span of `basis` [T, rank]."""
    steps = len(basis)
    targets = np.ones((len(batch), steps))
    for target, product in zip(targets, batch, strict=True):
        for lag, degree in product:
            target *= polynomials[degree - 1, washout - lag : washout - lag + steps]
    rows = torch.from_numpy(targets)
    return (rows @ basis).square().sum(dim=1) / (rows.var(dim=1, correction=0) * steps)


def partitions(total: int, largest: int) -> Iterator[tuple[int, ...]]:
    """Every way to write `total` as a sum of parts up to `largest`, parts falling."""
    if total == 0:
        yield ()
    for part in range(min(total, largest), 0, -1):
        for rest in partitions(total - part, part):
            yield (part, *rest)


def products(shape: tuple[int, ...], last: int) -> Iterator[Product]:
    """Every product of polynomials with the degrees of `shape` at distinct lags, the largest lag being `last`."""
    for lags in itertools.combinations(range(last), len(shape) - 1):
        for degrees in sorted(set(itertools.permutations(shape))):
            yield tuple(zip((*lags, last), degrees, strict=True))


def batched(items: Iterator[Product], length: int) -> Iterator[tuple[Product, ...]]:
    """Pieces of at most `length` items, in their order."""
    while batch := tuple(itertools.islice(items, length)):
        yield batch


def legendre(inputs: np.ndarray, degree: int) -> np.ndarray:
    """Legendre polynomials 1 to `degree` of `inputs` [T], [degree, T], of unit variance for uniform inputs."""
    from scipy.special import eval_legendre

    return np.stack([np.sqrt(2 * d + 1) * eval_legendre(d, inputs) for d in range(1, degree + 1)])


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson correlation of the columns of two [T, K]; 0 where one does not vary."""
    one, other = one - one.mean(dim=0), other - other.mean(dim=0)
    spread = one.norm(dim=0) * other.norm(dim=0)
    return torch.where(spread > 0, (one * other).sum(dim=0) / spread, 0.0)
