"""Memory: a vector store that can be trusted, and the language models that read and write it."""

from frugal.memory.store import AssociativeMemory

__all__ = ["AssociativeMemory"]
