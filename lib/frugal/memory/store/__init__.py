"""A store of vectors and their values that can be trusted: stable ids, search, policies, files.

What holds for any vectors enters here; what knows of language stands in the room above.
"""

from frugal.memory.store.change import Text
from frugal.memory.store.memory import AssociativeMemory

__all__ = ["AssociativeMemory", "Text"]
