"""Approximate indexes by FAISS. They hold copies of keys under ids, and can be thrown away at any time.

An index can be kept as arrays, since building a large one takes minutes, and made from them again.

FAISS's pitfalls that are avoided here: a list index with a hash map is only right when filled with `add_with_ids`;
removals that fail do so silently, by a count; a graph cannot remove; duplicates of an id leave ghosts.
"""

from collections.abc import Mapping
from math import sqrt
from typing import Any, Self

import numpy as np

from frugal.memory.store.settings import Settings

POINTS_PER_CLUSTER = 39  # FAISS's k-means wants as many
SAMPLE_PER_CLUSTER = 64  # more make training slower, and recall hardly better
CODES = 256  # of each of a product quantiser's parts
LINKS = 32  # of each node of a graph
LARGEST_DEAD_SHARE = 0.25
RETRAIN_AFTER = 3  # times as many entries were added as the clusters were trained on


class IndexMismatchError(Exception):
    """An index does not hold what it was given."""


class InvertedLists:
    """IVF: keys in lists by their nearest of `num_clusters` centroids, of which a search visits `nprobe`.

    With `compressed`, lists hold product codes of `m` bytes instead of keys: Jegou, Douze and Schmid, "Product
    quantization for nearest neighbor search", 2011.
    """

    def __init__(self, index: Any, settings: Settings, trained_on: int, added: int = 0) -> None:
        """Around an index of FAISS that was trained on some entries, and has got more since."""
        self._index = index
        self.exact = settings.index != "compressed"
        self._trained_on, self._added = trained_on, added

    @classmethod
    def built(cls, ids: np.ndarray, keys: np.ndarray, settings: Settings) -> Self:
        faiss = _faiss()
        dim, metric, clusters = keys.shape[1], _faiss_metric(settings.metric), _clusters(settings, len(keys))
        quantizer = faiss.IndexFlat(dim, metric)
        if settings.index == "compressed":
            index: Any = faiss.IndexIVFPQ(quantizer, dim, clusters, settings.m, CODES.bit_length() - 1, metric)
            index.pq.cp.seed = settings.seed
        else:
            index = faiss.IndexIVFFlat(quantizer, dim, clusters, metric)
        index.cp.seed, index.cp.max_points_per_centroid = settings.seed, SAMPLE_PER_CLUSTER
        index.train(keys)
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        index.add_with_ids(keys, ids)
        lists = cls(index, settings, trained_on=len(keys))
        lists.nprobe = settings.nprobe
        return lists

    @classmethod
    def restored(cls, arrays: Mapping[str, np.ndarray], settings: Settings) -> Self:
        """From what `arrays` gave."""
        return cls(_faiss().deserialize_index(arrays["faiss"]), settings, *arrays["counts"].tolist())

    def arrays(self) -> dict[str, np.ndarray]:
        counts = np.array([self._trained_on, self._added])
        return {"faiss": _faiss().serialize_index(self._index), "counts": counts}

    def __len__(self) -> int:
        return self._index.ntotal

    @property
    def nprobe(self) -> int:
        return self._index.nprobe

    @nprobe.setter
    def nprobe(self, count: int) -> None:
        self._index.nprobe = min(count, self.num_clusters)

    @property
    def num_clusters(self) -> int:
        return self._index.nlist

    @property
    def stale(self) -> bool:
        return self._added > RETRAIN_AFTER * self._trained_on

    def add(self, ids: np.ndarray, keys: np.ndarray) -> None:
        self._index.add_with_ids(keys, ids)
        self._added += len(ids)

    def remove(self, ids: np.ndarray) -> None:
        removed = self._index.remove_ids(ids)
        if removed != len(ids):
            raise IndexMismatchError(f"the list index removed {removed} of {len(ids)} entries")

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        distances, ids = self._index.search(queries, k)
        return ids, distances


class Graph:
    """HNSW: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search", 2016.

    Removed entries stay as nodes that no search returns, until a quarter are dead.
    """

    exact = True

    def __init__(self, index: Any, ids: np.ndarray, alive: np.ndarray, ef_search: int) -> None:
        """Around a graph of FAISS whose nodes have these ids, and are alive or not."""
        self._index, self._ids, self._alive, self._ef_search = index, ids, alive, ef_search
        nodes = np.flatnonzero(alive)
        self._node = dict(zip(ids[nodes].tolist(), nodes.tolist(), strict=True))

    @classmethod
    def built(cls, ids: np.ndarray, keys: np.ndarray, settings: Settings) -> Self:
        index = _faiss().IndexHNSWFlat(keys.shape[1], LINKS, _faiss_metric(settings.metric))
        index.hnsw.efConstruction = settings.ef_construction
        graph = cls(index, ids[:0], np.empty(0, bool), settings.ef_search)
        graph.add(ids, keys)
        return graph

    @classmethod
    def restored(cls, arrays: Mapping[str, np.ndarray], settings: Settings) -> Self:
        """From what `arrays` gave."""
        index = _faiss().deserialize_index(arrays["faiss"])
        return cls(index, arrays["ids"], arrays["alive"], settings.ef_search)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"faiss": _faiss().serialize_index(self._index), "ids": self._ids, "alive": self._alive}

    def __len__(self) -> int:
        return len(self._node)

    @property
    def stale(self) -> bool:
        return len(self._node) < (1 - LARGEST_DEAD_SHARE) * len(self._ids)

    def add(self, ids: np.ndarray, keys: np.ndarray) -> None:
        first = len(self._ids)
        self._index.add(keys)
        self._ids = np.concatenate([self._ids, ids])
        self._alive = np.concatenate([self._alive, np.ones(len(ids), bool)])
        self._node.update(zip(ids.tolist(), range(first, first + len(ids)), strict=True))

    def remove(self, ids: np.ndarray) -> None:
        try:
            nodes = [self._node.pop(entry) for entry in ids.tolist()]
        except KeyError as error:
            raise IndexMismatchError(f"the graph does not hold entry {error}") from error
        self._alive[nodes] = False

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        faiss = _faiss()
        parameters = faiss.SearchParametersHNSW(efSearch=max(self._ef_search, k))
        if len(self._node) < len(self._ids):
            parameters.sel = faiss.IDSelectorBitmap(np.packbits(self._alive, bitorder="little"))
        distances, nodes = self._index.search(queries, k, params=parameters)
        return np.where(nodes < 0, -1, self._ids[nodes]), distances


# Of either, `search` gives ids and FAISS's distances [Q, k], -1 where it finds fewer. Distances are `exact` where it
# holds the keys themselves. A `stale` one should be built again.
Index = InvertedLists | Graph


def smallest_size(settings: Settings) -> int:
    """Entries from which on the index can be built; exact search serves before."""
    clusters = 1 if settings.num_clusters is None else settings.num_clusters
    if settings.index == "compressed":
        return POINTS_PER_CLUSTER * max(clusters, CODES)
    return POINTS_PER_CLUSTER * clusters if settings.index == "ivf" else 1


def build(ids: np.ndarray, keys: np.ndarray, settings: Settings) -> Index:
    kind = Graph if settings.index == "graph" else InvertedLists
    return kind.built(ids, keys, settings)


def restored(arrays: Mapping[str, np.ndarray], settings: Settings) -> Index:
    """An index as it was when it gave its arrays."""
    kind = Graph if settings.index == "graph" else InvertedLists
    return kind.restored(arrays, settings)


def _clusters(settings: Settings, size: int) -> int:
    """By default 4 sqrt(n), or as many as n entries can train."""
    usual = max(1, min(int(4 * sqrt(size)), size // POINTS_PER_CLUSTER))
    return usual if settings.num_clusters is None else settings.num_clusters


def _faiss() -> Any:
    """FAISS, whose type stubs lack much of it; imported late, since not every memory needs it."""
    import faiss

    return faiss


def _faiss_metric(metric: str) -> int:
    faiss = _faiss()
    return faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
