"""The largest eigenvalue modulus of recurrent weights, without all eigenvalues where there are many."""

from typing import Any

import numpy as np

from frugal.errors import InputError

# Up to here all eigenvalues of a dense matrix take a fraction of a second, and are exact.
EXACT_UP_TO = 400
# How far W v may be from lambda v, relative to |lambda|, for a modulus to count as verified.
RESIDUAL = 1e-6


def spectral_radius(matrix: Any, seed: int = 0) -> float:
    """Largest eigenvalue modulus of a square matrix [N, N], dense or SciPy sparse.

    A sparse matrix's eigenvalues are those of its strongly connected components, each by itself: what runs from one
    to another has no part in them, but in their rounding, which may be large. Small components are solved completely.
    Large ones go through ARPACK's Arnoldi iteration, which needs products with vectors only, and the eigenvector found
    is checked by its residual; where that fails, all eigenvalues are computed after all.
    """
    from scipy.sparse import csr_array, issparse
    from scipy.sparse.csgraph import connected_components

    if not issparse(matrix) and 2 * np.count_nonzero(matrix) >= matrix.size:
        return _radius_of_connected(matrix, seed)
    matrix = csr_array(matrix)
    matrix.eliminate_zeros()
    _, component = connected_components(matrix, connection="strong")
    sizes = np.bincount(component)
    radius = float(np.abs(matrix.diagonal()[sizes[component] == 1]).max(initial=0))
    for units in np.split(np.argsort(component, kind="stable"), sizes.cumsum()[:-1]):
        if len(units) > 1:
            radius = max(radius, _radius_of_connected(matrix[units][:, units], seed))
    return radius


def _radius_of_connected(matrix: Any, seed: int) -> float:
    from scipy.sparse import issparse
    from scipy.sparse.linalg import ArpackError, eigs

    size = matrix.shape[0]
    if size > EXACT_UP_TO:
        start = np.random.default_rng(seed).standard_normal(size)
        try:
            # Eigenvalues come in conjugate pairs and crowd near the rim: a few at once converge sooner than one.
            values, vectors = eigs(matrix, k=6, which="LM", v0=start, ncv=40, tol=RESIDUAL / 100)
            largest = np.abs(values).argmax()
            value, vector = values[largest], vectors[:, largest]
            if np.linalg.norm(matrix @ vector - value * vector) <= RESIDUAL * abs(value):
                return float(abs(value))
        except ArpackError:
            pass  # no convergence
    every = np.linalg.eigvals(matrix.toarray() if issparse(matrix) else np.asarray(matrix))
    return float(np.abs(every).max())


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
