"""The largest eigenvalue modulus of recurrent weights, without all eigenvalues where there are many."""

from typing import Any

import numpy as np

from frugal.errors import InputError
from frugal.tensors import number_tensor

# Up to the first size all eigenvalues take a fraction of a second, up to the second some seconds; they are exact.
EXACT_UP_TO, POSSIBLE_UP_TO = 400, 2000
# How far W v may be from lambda v, relative to |lambda|, for a modulus to count as verified.
RESIDUAL = 1e-6
# Arnoldi iterations: eigenvalues sought, how many must be found, vectors, restarts. They come in conjugate pairs and
# crowd near the rim: a few at once converge sooner than one, but once in thirty times past the largest. So more are
# sought, too, where products are cheap; of many units these alone, with more vectors.
SOUGHT = {5000: ((6, 6, 40, 100), (20, 10, 100, 20)), 10**9: ((20, 10, 200, 20),)}
GROWTH = 1000  # steps


def spectral_radius(matrix: Any, seed: int = 0) -> float:
    """Largest eigenvalue modulus of a square matrix [N, N]: a tensor, an array of NumPy or a sparse one of SciPy.

    A matrix's eigenvalues are those of its strongly connected components, each by itself: what runs from one to another
    has no part in them, but in their rounding, which may be large. A component that is one cycle has the geometric mean
    of its weights; small ones are solved completely. Large ones go through ARPACK's Arnoldi iteration, which needs
    products with vectors only, and the eigenvector found is checked by its residual. Where that finds none, all
    eigenvalues are computed up to 2,000 units; beyond, the growth over many steps is taken, good to a thousandth or so.

    Raises:
        InputError: the matrix is not square, or holds NaN or infinity.

    >>> spectral_radius([[0.0, 2.0], [8.0, 0.0]])
    4.0
    """
    from scipy.sparse import csr_array, issparse
    from scipy.sparse.csgraph import connected_components

    matrix = matrix if issparse(matrix) else number_tensor("matrix", matrix).detach().cpu().double().numpy()
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.shape[0]:
        raise InputError(f"matrix of shape {list(matrix.shape)}: must be square, [N, N]")
    edges = csr_array(matrix)
    edges.eliminate_zeros()
    if not np.isfinite(edges.data).all():
        raise InputError("matrix: must hold no NaN or infinity")
    matrix = edges if 2 * edges.nnz < np.prod(matrix.shape, dtype=float) else matrix
    _, component = connected_components(edges, connection="strong")
    sizes = np.bincount(component)
    radius = float(np.abs(edges.diagonal()[sizes[component] == 1]).max(initial=0))
    for units in np.split(np.argsort(component, kind="stable"), sizes.cumsum()[:-1]):
        if len(units) > 1:
            radius = max(radius, _radius_of_connected(matrix[units][:, units], seed))
    return radius


def _radius_of_connected(matrix: Any, seed: int) -> float:
    from scipy.sparse import issparse

    size = matrix.shape[0]
    if issparse(matrix) and matrix.nnz == size:  # one cycle
        return float(np.exp(np.log(np.abs(matrix.data)).mean()))
    if size > EXACT_UP_TO:
        plans = next((plans for most, plans in SOUGHT.items() if size <= most), ())
        found: list[float] = []
        for plan in plans:
            if issparse(matrix) or not found:
                found += _largest(matrix, seed, *plan)
        if found:
            return max(found) if max(found) > (1 + RESIDUAL) * found[0] else found[0]
    if size > POSSIBLE_UP_TO:
        return _growth(matrix, seed)
    every = np.linalg.eigvals(matrix.toarray() if issparse(matrix) else matrix)
    return float(np.abs(every).max())


def _largest(matrix: Any, seed: int, sought: int, enough: int, vectors: int, restarts: int) -> list[float]:
    """The largest modulus, if so many eigenvalues are found that it is among them, and it is verified; else none."""
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, eigs

    start, tolerance = np.random.default_rng(seed).standard_normal(matrix.shape[0]), RESIDUAL / 100
    try:
        found = eigs(matrix, k=sought, which="LM", v0=start, ncv=vectors, maxiter=restarts, tol=tolerance)
    except ArpackNoConvergence as error:
        found = error.eigenvalues, error.eigenvectors
    except ArpackError:
        return []
    values, eigenvectors = found
    if len(values) < enough:
        return []
    largest = np.abs(values).argmax()
    value, vector = values[largest], eigenvectors[:, largest]
    verified = np.linalg.norm(matrix @ vector - value * vector) <= RESIDUAL * abs(value)
    return [float(abs(value))] if verified else []


def _growth(matrix: Any, seed: int) -> float:
    """Factor by which vectors grow in a step, after as many that turn them to where they grow most."""
    rows, logs = np.random.default_rng(seed).standard_normal((matrix.shape[0], 4)), 0.0
    for step in range(2 * GROWTH):
        rows = matrix @ rows
        lengths = np.linalg.norm(rows, axis=0)
        rows /= lengths
        logs += np.log(lengths).mean() if step >= GROWTH else 0
    return float(np.exp(logs / GROWTH))


def scale_to(matrix: Any, radius: float, seed: int = 0) -> float:
    """The factor that gives `matrix` the spectral radius `radius`.

    Raises:
        InputError: the matrix has no eigenvalue but zero, so that no factor does.
    """
    present = spectral_radius(matrix, seed)
    if present < 1e-9:
        raise InputError(
            "the recurrent weights drawn have spectral radius 0: use more connections, more units or another seed"
        )
    return radius / present
