"""Exact nearest neighbours among the rows of an array, by torch or by FAISS.

Both are quick by multiplying matrices, |q - v|^2 = |q|^2 + |v|^2 - 2 q v, which loses digits where vectors are long
and their differences are short. So a few candidates more than asked for are compared by their differences, and a query
for which rounding may have hidden a nearer row is searched again without the shortcut.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NONE = -1
SURPLUS = 4
# Scores are computed for as many queries at a time as keep them within this many numbers.
SCORES_AT_ONCE = 2**24
# FAISS multiplies matrices from this many queries on; by default it waits for 128,000 numbers, which is slower.
BLAS_FROM = 8
# Candidates' keys are gathered and compared so many numbers at a time, which stay in the processor's cache.
COMPARED_AT_ONCE = 2**16
# Unit vectors of the same direction can differ by so much, squared, since they are rounded.
SAME_DIRECTION = 8 * float(np.finfo(np.float32).eps) ** 2


@dataclass(frozen=True)
class Searched:
    """What is searched: `keys` [n, d] with their `ids` [n] and `positions` [n]."""

    keys: np.ndarray
    ids: np.ndarray
    positions: np.ndarray


def exact_search(
    rows: Searched, queries: np.ndarray, k: int, metric: str, before: np.ndarray | None, *, by_torch: bool, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers and distances [Q, k] of the nearest rows, nearest first; -1 and infinity where there are fewer.

    With `before` [Q], a query sees only rows whose position is below its own.
    """
    if before is not None and rows.positions.max() < before.min():
        before = None
    if by_torch or before is not None:
        candidates, last = _by_torch(rows, queries, k + SURPLUS, metric, before, device)
    else:
        candidates, last = _by_faiss(rows.keys, queries, k + SURPLUS, metric)
    found, distances = ranked(rows.keys, rows.ids, queries, candidates, k, metric)
    worst = distances[:, -1]
    close = crowded(worst, metric, queries.shape[1])
    if metric == "l2":
        close = worst + _rounding(queries, worst) >= last
    doubtful = np.flatnonzero((last < np.inf) & close)
    if len(doubtful):
        limit = None if before is None else before[doubtful]
        candidates = _by_differences(rows, queries[doubtful], k, limit, device)
        found[doubtful], distances[doubtful] = ranked(rows.keys, rows.ids, queries[doubtful], candidates, k, metric)
    return found, distances


def crowded(worst: np.ndarray, metric: str, dim: int) -> np.ndarray | bool:
    """Whether so many rows lie so nearly in the direction of each query that products may hide the nearest ones.

    `worst` [Q] are the distances of the last that were found.
    """
    return metric == "cosine" and (worst > 0) & (worst <= _rounded(dim))


def ranked(
    keys: np.ndarray, ids: np.ndarray, queries: np.ndarray, candidates: np.ndarray, k: int, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of each query's candidate rows [Q, c], c >= k, by their true distances, nearest first.

    Equal distances are ordered by id. Missing candidates are -1; they come last, at an infinite distance.
    """
    distances = np.empty(candidates.shape, np.float32)
    at_once = max(1, COMPARED_AT_ONCE // max(1, candidates.shape[1] * keys.shape[1]))
    for begin in range(0, len(queries), at_once):
        piece = slice(begin, begin + at_once)
        distances[piece] = distances_to(keys.take(candidates[piece], axis=0, mode="wrap"), queries[piece], metric)
    distances[candidates == NONE] = np.inf
    order = np.lexsort((ids.take(candidates, mode="wrap"), distances))[:, :k]
    return np.take_along_axis(candidates, order, 1), np.take_along_axis(distances, order, 1)


def distances_to(keys: np.ndarray, queries: np.ndarray, metric: str) -> np.ndarray:
    """Distances [Q, c] of each query [Q, d] to its own keys [Q, c, d]."""
    if metric == "inner_product":
        return -np.einsum("qcd,qd->qc", keys, queries)
    differences = keys - queries[:, None]
    squares = np.einsum("qcd,qcd->qc", differences, differences)
    if metric == "l2":
        return squares
    without = np.where(queries.any(1), 0, 0.5)[:, None]  # a query without direction is 1 from everything
    return np.where(squares <= SAME_DIRECTION, 0, squares / 2 + without)  # |u - v|^2 = 2 - 2 u v


def _rounding(queries: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """How far off |q|^2 + |v|^2 - 2 q v can be for a v at most so far from q."""
    reach = np.linalg.norm(queries, axis=1) + np.sqrt(distances)  # |v| <= |q| + |q - v|
    return _rounded(queries.shape[1]) * reach**2


def _rounded(dim: int) -> float:
    """How far off the product of two unit vectors can be."""
    return float(np.finfo(np.float32).eps) * (16 + dim**0.5)


def _by_faiss(keys: np.ndarray, queries: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Candidates [Q, k], and the distance [Q] of the last one; infinite if all rows are among them."""
    import faiss

    kind, count = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT, min(k, len(keys))
    threshold = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = BLAS_FROM * keys.shape[1]
    try:
        distances, nearest = faiss.knn(queries, keys, count, metric=kind)
    finally:
        faiss.cvar.distance_compute_blas_threshold = threshold
    if count == k:
        return nearest, distances[:, -1]
    return _padded(nearest, k), np.full(len(queries), np.inf)


def _by_torch(
    rows: Searched, queries: np.ndarray, k: int, metric: str, before: np.ndarray | None, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """As `_by_faiss`, of the rows before each query's limit."""
    V = torch.from_numpy(rows.keys).to(device)
    sizes = V.square().sum(1) if metric == "l2" else torch.zeros(1, device=device)

    def scores(q: Tensor) -> Tensor:
        return torch.addmm(sizes, q, V.T, alpha=-2)  # |q - v|^2 - |q|^2, or -2 q v: ordered like distances

    found, last = _smallest(scores, rows, queries, k, before, device)
    return found, last + np.einsum("qd,qd->q", queries, queries)


def _by_differences(rows: Searched, queries: np.ndarray, k: int, before: np.ndarray | None, device: str) -> np.ndarray:
    """The k nearest rows [Q, k] by |q - v|, without the shortcut."""
    V = torch.from_numpy(rows.keys).to(device)

    def scores(q: Tensor) -> Tensor:
        return torch.cdist(q, V, compute_mode="donot_use_mm_for_euclid_dist")

    return _smallest(scores, rows, queries, k, before, device)[0]


def _smallest(
    scores: Callable[[Tensor], Tensor],
    rows: Searched,
    queries: np.ndarray,
    k: int,
    before: np.ndarray | None,
    device: str,
) -> tuple[np.ndarray, np.ndarray]:
    """The rows [Q, k] of the smallest scores [Q, n], and the last score [Q]; infinite if no row is left out."""
    size = len(rows.keys)
    count, at_once = min(k, size), max(1, SCORES_AT_ONCE // size)
    found, last = np.full((len(queries), k), NONE), np.full(len(queries), np.inf, np.float32)
    for begin in range(0, len(queries), at_once):
        piece = slice(begin, begin + at_once)
        table = scores(torch.from_numpy(queries[piece]).to(device))
        if before is not None:
            hidden = torch.from_numpy(rows.positions[None] >= before[piece, None])
            table.masked_fill_(hidden.to(device), torch.inf)
        best = table.topk(count, largest=False)
        found[piece, :count] = torch.where(best.values < torch.inf, best.indices, NONE).cpu().numpy()
        if count == k:
            last[piece] = best.values[:, -1].cpu().numpy()
    return found, last


def _padded(found: np.ndarray, k: int) -> np.ndarray:
    return np.pad(found, ((0, 0), (0, k - found.shape[1])), constant_values=NONE)
