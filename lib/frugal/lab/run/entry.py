"""What papermill's entry point `frugal` names.

Papermill loads its engines while it is itself being imported, when a class derived from papermill's cannot be made
yet. This stands for the engine until its first use.
"""

from typing import Any


class LazyEngine:
    def __getattr__(self, name: str) -> Any:
        from frugal.lab.run.engine import FrugalEngine

        return getattr(FrugalEngine, name)


engine = LazyEngine()
