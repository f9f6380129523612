"""What a memory is made with."""

from dataclasses import asdict, dataclass
from typing import Any

from frugal.errors import InputError, check_whole
from frugal.memory.store.eviction import POLICIES

KINDS = ("auto", "exact", "flat", "ivf", "compressed", "graph")
METRICS = ("l2", "inner_product", "cosine")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Those of an `AssociativeMemory`.

    Raises:
        InputError: a value is outside its range, or does not go with another.
    """

    dim: int
    capacity: int
    index: str
    metric: str
    num_clusters: int | None
    m: int
    ef_construction: int
    ef_search: int
    nprobe: int
    eviction: str
    seed: int
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_whole(dim=self.dim, capacity=self.capacity, m=self.m)
        check_whole(num_clusters=1 if self.num_clusters is None else self.num_clusters)
        check_whole(ef_construction=self.ef_construction, ef_search=self.ef_search, nprobe=self.nprobe)
        check_whole(0, seed=self.seed)
        for name, known in (("index", KINDS), ("metric", METRICS), ("eviction", POLICIES)):
            if getattr(self, name) not in known:
                raise InputError(f"{name}={getattr(self, name)!r}: unknown; choose one of {', '.join(known)}")
        if self.index == "compressed" and self.dim % self.m:
            raise InputError(f"m={self.m}: must divide dim={self.dim}; each of m bytes codes an equal part of a vector")
        if self.device != "cpu" and self.index not in ("exact", "auto"):
            raise InputError(
                f"device={self.device!r} with index={self.index!r}: only exact search runs there; use index='exact'"
            )

    @property
    def config(self) -> dict[str, Any]:
        """All but the device, which a file says nothing about."""
        return {name: value for name, value in asdict(self).items() if name != "device"}
