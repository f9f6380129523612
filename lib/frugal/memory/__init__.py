"""Memory: a vector store that can be trusted, and the language models that read and write it."""

from frugal.memory.mixture import Mixture
from frugal.memory.model import MemoryGPT
from frugal.memory.neighbours import NearestNeighbourLM
from frugal.memory.store import AssociativeMemory
from frugal.memory.texts import TextMemory
from frugal.memory.training import MemoryPlan, MemoryScore, train_memory, validate

__all__ = [
    "AssociativeMemory",
    "MemoryGPT",
    "MemoryPlan",
    "MemoryScore",
    "Mixture",
    "NearestNeighbourLM",
    "TextMemory",
    "train_memory",
    "validate",
]
