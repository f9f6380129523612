"""An associative memory: vectors with small values, found by their neighbours."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.numpy import load_file, save_file

from frugal.errors import InputError, UnavailableError
from frugal.files import appearing
from frugal.memory.arrays import Array, integers_of, like, one_for_each, plain, squared_norms, vectors_of
from frugal.memory.exact import NONE, exact_nearest, ranked
from frugal.memory.table import Table

METRICS = ("l2", "inner_product", "cosine")


class AssociativeMemory:
    """Up to `capacity` vectors of width `dim`, each with an id, a value, a namespace and a position.

    Ids are 64-bit, stay with their entry and are never given again. NumPy arrays and torch tensors go in; the same
    kind, on the same device, comes out. A namespace holds a row of a batch, a document or a stream; one search looks
    into one namespace for each query. A position says when an entry was written (by default: by counting writes), so
    that a query can be restricted to what was written before it.

    Distances are smaller for what is nearer: squared Euclidean ("l2"), 1 - cosine ("cosine"), or the negative inner
    product ("inner_product").

    Args:
        dim: width of the vectors.
        capacity: entries kept; what is written beyond it replaces others.
        metric: "l2", "cosine" or "inner_product".
        seed: of everything random: forgetting, clustering.
        device: where exact search computes.

    Raises:
        InputError: a value outside its range.
    """

    def __init__(self, dim: int, capacity: int, *, metric: str = "l2", seed: int = 0, device: str = "cpu") -> None:
        for name, count in (("dim", dim), ("capacity", capacity)):
            if count < 1:
                raise InputError(f"{name}={count}: must be a positive whole number")
        if metric not in METRICS:
            raise InputError(f"metric={metric!r}: unknown; choose one of {', '.join(METRICS)}")
        self.dim, self.capacity, self.metric, self.seed, self.device = dim, capacity, metric, seed, device
        self._table = Table(dim)
        self._clock = 0
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return self._table.size

    @property
    def clock(self) -> int:
        """Writes so far: the id, and the position unless given, of the next entry."""
        return self._clock

    def add(
        self,
        vectors: Array,
        values: Array | None = None,
        *,
        namespaces: Array | Sequence[int] | int = 0,
        positions: Array | Sequence[int] | None = None,
        mask: Array | None = None,
    ) -> Any:
        """Write vectors [.., dim], [n, dim] or [B, T, dim], and return their ids [..].

        Args:
            values: one payload for each vector, [.., *payload], of the shape and dtype that the first ones had.
            namespaces: one for all, one for each row [B], or one for each vector.
            positions: when each was written; by default `clock` and what follows.
            mask: where False, nothing is written and the id is -1: padding of ragged rows.

        Raises:
            InputError: something is not as described, or a number is not finite; then nothing is changed.
        """
        rows = vectors_of(vectors, self.dim, "vectors")
        shape = tuple(vectors.shape[:-1])
        chosen = self._mask(mask, shape)
        columns = {"vectors": rows, "namespaces": one_for_each(namespaces, shape, "namespaces")}
        if positions is not None:
            columns["positions"] = one_for_each(positions, shape, "positions")
        with self._lock:
            if values is not None or "values" in self._table:
                columns["values"] = self._values(values, shape)
            columns = {name: column[chosen] for name, column in columns.items()}
            ids = np.full(len(rows), NONE)
            ids[chosen] = self._write(columns)
        return like(vectors)(ids.reshape(shape))

    def search(
        self,
        queries: Array,
        k: int = 10,
        *,
        namespaces: Array | Sequence[int] | int | None = None,
        before: Array | Sequence[int] | int | None = None,
    ) -> tuple[Any, Any]:
        """The k nearest entries of each query [.., dim]: ids [.., k] and distances [.., k], nearest first.

        Args:
            namespaces: where each query looks: one for all, one for each row [B], or one for each query; None: everywhere.
            before: only entries at positions strictly before this are seen; one for all, each row or each query.

        Where there are fewer than k entries, ids are -1 and distances infinite.
        """
        rows = vectors_of(queries, self.dim, "queries")
        shape = tuple(queries.shape[:-1])
        if k < 1:
            raise InputError(f"k={k}: must be a positive whole number")
        where = None if namespaces is None else one_for_each(namespaces, shape, "namespaces")
        limit = None if before is None else one_for_each(before, shape, "before")
        with self._lock:
            slots, distances = self._nearest(rows, k, where, limit)
            ids = np.where(slots == NONE, NONE, self._table["ids"][slots]) if len(self) else slots
        back = like(queries)
        return back(ids.reshape(*shape, k)), back(distances.reshape(*shape, k))

    def get(self, ids: Array | Sequence[int] | int) -> Any:
        """Vectors [.., dim] of entries; zeros where an id is -1, as search gives it for no entry.

        Raises:
            InputError: an id that no entry has.
        """
        return like(ids)(self._column("vectors", ids))

    def __getitem__(self, entry: int) -> Any:
        return self.get([entry])[0]

    def values(self, ids: Array | Sequence[int] | int) -> Any:
        """Values [.., *payload] of entries; zeros where an id is -1."""
        if "values" not in self._table:
            raise InputError("this memory holds no values: give them to `add`")
        return like(ids)(self._column("values", ids))

    def ids(self, namespace: int | None = None) -> np.ndarray:
        """The ids of all entries, or of a namespace's, in ascending order."""
        with self._lock:
            ids = self._table["ids"]
            return np.sort(ids if namespace is None else ids[self._table["namespaces"] == namespace])

    def remove(self, ids: Array | Sequence[int] | int) -> None:
        """Remove entries; an id that no entry has is refused before anything is changed."""
        wanted = np.unique(integers_of(ids, "ids"))
        with self._lock:
            self._table.remove(self._slots(wanted))

    def save(self, folder: Path | str) -> None:
        """Write everything into `folder`, which appears whole."""
        with self._lock, appearing(Path(folder)) as temporary:
            temporary.mkdir()
            save_file({name: np.ascontiguousarray(c) for name, c in self._table.rows().items()}, temporary / "entries")
            config = {"dim": self.dim, "capacity": self.capacity, "metric": self.metric, "seed": self.seed}
            (temporary / "memory.json").write_text(json.dumps({"config": config, "clock": self._clock}))

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu") -> Self:
        """A memory as it was saved."""
        try:
            kept = json.loads((Path(folder) / "memory.json").read_text())
            rows = load_file(Path(folder) / "entries")
        except OSError as error:
            raise UnavailableError(f"{folder} holds no memory ({error})") from error
        memory = cls(**kept["config"], device=device)
        order = np.argsort(rows["ids"])
        memory._table.append({name: column[order] for name, column in rows.items()})
        memory._clock = kept["clock"]
        return memory

    def _write(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        """Append new entries and make room for them; their ids."""
        count = len(columns["vectors"])
        ids = np.arange(self._clock, self._clock + count)
        excess = len(self) + count - self.capacity
        if excess > 0:
            self._table.remove(self._table.slots(self._table.oldest(excess)))
        kept = slice(max(0, count - self.capacity), None)
        zeros = np.zeros(count)
        rows = {"positions": ids} | columns | {"ids": ids, "hits": zeros, "used": ids, "strength": zeros + 1}
        self._table.append({name: column[kept] for name, column in rows.items()})
        self._clock += count
        return ids

    def _nearest(
        self, queries: np.ndarray, k: int, namespaces: np.ndarray | None, before: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Slots and distances [Q, k], namespace by namespace."""
        slots, distances = np.full((len(queries), k), NONE), np.full((len(queries), k), np.inf, np.float32)
        if len(self) == 0:
            return slots, distances
        groups = [None] if namespaces is None else list(np.unique(namespaces))
        for group in groups:
            mine = slice(None) if group is None else np.flatnonzero(namespaces == group)
            rows = slice(None) if group is None else np.flatnonzero(self._table["namespaces"] == group)
            keys, ids = self._table["vectors"][rows], self._table["ids"][rows]
            if len(ids) == 0:
                continue
            limits = {} if before is None else {"positions": self._table["positions"][rows], "before": before[mine]}
            if self.metric == "cosine":
                keys, wanted = _unit(keys), _unit(queries[mine])
            else:
                wanted = queries[mine]
            candidates = exact_nearest(keys, wanted, k, self.metric, device=self.device, **limits)
            found, distances[mine] = ranked(keys, wanted, candidates, ids, k, self.metric)
            slots[mine] = found if group is None else np.where(found == NONE, NONE, rows[found])
        return slots, distances

    def _column(self, name: str, ids: Array | Sequence[int] | int) -> np.ndarray:
        wanted = integers_of(ids, "ids")
        with self._lock:
            missing = wanted == NONE
            rows = np.zeros((*wanted.shape, *self._table[name].shape[1:]), self._table[name].dtype)
            rows[~missing] = self._table[name][self._slots(wanted[~missing])]
        return rows

    def _slots(self, ids: np.ndarray) -> np.ndarray:
        slots = self._table.slots(ids)
        if (slots < 0).any():
            raise InputError(f"id {ids[slots < 0][0]}: no entry has it; it was removed, replaced or never given")
        return slots

    def _mask(self, mask: Array | None, shape: tuple[int, ...]) -> np.ndarray:
        if mask is None:
            return np.ones(shape, bool).reshape(-1)
        chosen = plain(mask, "mask")
        if chosen.dtype != bool or chosen.shape != shape:
            raise InputError(
                f"mask of dtype {chosen.dtype} and shape {list(chosen.shape)}: expected bool, {list(shape)}"
            )
        return chosen.reshape(-1)

    def _values(self, values: Array | None, shape: tuple[int, ...]) -> np.ndarray:
        if values is None:
            raise InputError("values are missing: this memory's entries have them")
        array = plain(values, "values")
        if array.shape[: len(shape)] != shape:
            raise InputError(
                f"values of shape {list(array.shape)}: expected one for each vector, {list(shape)} + payload"
            )
        array = array.reshape(-1, *array.shape[len(shape) :])
        if len(self) and "values" not in self._table:
            raise InputError("values were given, but this memory's first entries have none: give them always or never")
        if "values" in self._table:
            held = self._table["values"]
            if (array.dtype, array.shape[1:]) != (held.dtype, held.shape[1:]):
                raise InputError(
                    f"values of dtype {array.dtype} and payload {list(array.shape[1:])}: "
                    f"this memory's are {held.dtype}, {list(held.shape[1:])}"
                )
        return array


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt(np.maximum(squared_norms(vectors), np.finfo(np.float32).tiny))[:, None]
