"""Language models over an associative memory: kNN-LM, and a GPT that reads and writes; their training and controls.

What knows of language and of a memory enters here. The memory itself, for any vectors, is `memory.store`.
"""

from frugal.memory.datastore import Datastore
from frugal.memory.knn_lm import NearestNeighbourLM
from frugal.memory.mixture import Interpolation
from frugal.memory.model import MemoryGPT
from frugal.memory.store import AssociativeMemory
from frugal.memory.training import MemoryPlan, MemoryScore, measure, train_memory, validate

__all__ = [
    "AssociativeMemory",
    "Datastore",
    "Interpolation",
    "MemoryGPT",
    "MemoryPlan",
    "MemoryScore",
    "NearestNeighbourLM",
    "measure",
    "train_memory",
    "validate",
]
