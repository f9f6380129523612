"""Whether a memory's settings make sense."""

from frugal.errors import InputError, check_whole
from frugal.memory.store.eviction import POLICIES
from frugal.memory.store.search import KINDS

METRICS = ("l2", "inner_product", "cosine")


def check_settings(
    *,
    dim: int,
    capacity: int,
    index: str,
    metric: str,
    num_clusters: int | None,
    m: int,
    ef_construction: int,
    ef_search: int,
    nprobe: int,
    eviction: str,
    seed: int,
    device: str,
) -> None:
    """Refuse what an `AssociativeMemory` cannot be made of.

    Raises:
        InputError: a value is outside its range, or does not go with another.
    """
    check_whole(dim=dim, capacity=capacity, num_clusters=1 if num_clusters is None else num_clusters, m=m)
    check_whole(ef_construction=ef_construction, ef_search=ef_search, nprobe=nprobe)
    check_whole(0, seed=seed)
    for name, value, known in (("index", index, KINDS), ("metric", metric, METRICS), ("eviction", eviction, POLICIES)):
        if value not in known:
            raise InputError(f"{name}={value!r}: unknown; choose one of {', '.join(known)}")
    if index == "compressed" and dim % m:
        raise InputError(f"m={m}: must divide dim={dim}; each of m bytes codes an equal part of a vector")
    if device != "cpu" and index not in ("exact", "auto"):
        raise InputError(f"device={device!r} with index={index!r}: only exact search runs there; use index='exact'")
