"""Fixed recurrent nets: construction, state collection, diagnostics, standard tasks."""

from frugal.reservoir.reservoir import Reservoir, StateCollector

__all__ = ["Reservoir", "StateCollector"]
