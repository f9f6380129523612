"""Exact nearest neighbours among the rows of an array, by torch or by FAISS."""

import numpy as np
import torch

# Scores are computed for as many queries at a time as keep them within this many numbers.
SCORES_AT_ONCE = 2**24
NONE = -1


def nearest_by_torch(
    keys: np.ndarray,
    queries: np.ndarray,
    k: int,
    metric: str,
    *,
    positions: np.ndarray | None = None,
    before: np.ndarray | None = None,
    device: str = "cpu",
) -> np.ndarray:
    """Rows [Q, k] of `keys` [n, d] that are nearest to `queries` [Q, d], in no order; -1 where there are fewer.

    With `positions` [n] and `before` [Q], a query sees only rows whose position is below its own.
    """
    count = min(k, len(keys))
    found = np.full((len(queries), k), NONE)
    V = torch.from_numpy(keys).to(device)
    penalty = V.square().sum(1) / 2 if metric == "l2" else None  # argmin |q - v|^2 = argmax q v - |v|^2 / 2
    at_once = max(1, SCORES_AT_ONCE // len(keys))
    for begin in range(0, len(queries), at_once):
        piece = slice(begin, begin + at_once)
        scores = torch.from_numpy(queries[piece]).to(device) @ V.T  # [Q', n]
        if penalty is not None:
            scores -= penalty
        if positions is not None and before is not None:
            hidden = torch.from_numpy(positions[None] >= before[piece, None])
            scores.masked_fill_(hidden.to(device), -torch.inf)
        best = scores.topk(count, sorted=False)
        found[piece, :count] = torch.where(best.values > -torch.inf, best.indices, NONE).cpu().numpy()
    return found


def nearest_by_faiss(keys: np.ndarray, queries: np.ndarray, k: int, metric: str) -> np.ndarray:
    """As `nearest_by_torch`, for all rows."""
    import faiss

    found = np.full((len(queries), k), NONE)
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    found[:, : min(k, len(keys))] = faiss.knn(queries, keys, min(k, len(keys)), metric=kind)[1]
    return found


def ranked(
    keys: np.ndarray, queries: np.ndarray, candidates: np.ndarray, ids: np.ndarray, k: int, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of each query's candidate rows [Q, c], with exact distances, nearest first.

    Equal distances are ordered by id. Missing candidates are -1; they come last, at an infinite distance.
    """
    distances = distances_to(keys[candidates], queries, metric)
    distances[candidates == NONE] = np.inf
    order = np.lexsort((ids[candidates], distances))[:, :k]
    return np.take_along_axis(candidates, order, 1), np.take_along_axis(distances, order, 1)


def distances_to(keys: np.ndarray, queries: np.ndarray, metric: str) -> np.ndarray:
    """Distances [Q, c] of each query [Q, d] to its own keys [Q, c, d]."""
    if metric == "l2":
        difference = keys - queries[:, None]
        return np.einsum("qcd,qcd->qc", difference, difference)
    similarity = np.einsum("qcd,qd->qc", keys, queries)
    return 1 - similarity if metric == "cosine" else -similarity
