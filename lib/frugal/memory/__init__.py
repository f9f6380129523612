"""Memory: a vector store that can be trusted, and the language models that read and write it."""

from frugal.memory.datastore import Datastore
from frugal.memory.knn_lm import NearestNeighbourLM
from frugal.memory.mixture import Interpolation
from frugal.memory.model import MemoryGPT
from frugal.memory.store import AssociativeMemory
from frugal.memory.training import MemoryPlan, MemoryScore, train_memory, validate

__all__ = [
    "AssociativeMemory",
    "Datastore",
    "Interpolation",
    "MemoryGPT",
    "MemoryPlan",
    "MemoryScore",
    "NearestNeighbourLM",
    "train_memory",
    "validate",
]
