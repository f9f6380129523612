"""Fixed recurrent nets: construction, state collection, diagnostics, standard tasks."""

from frugal.reservoir.deep import DeepReservoir
from frugal.reservoir.gpt_echo import gpt_echo, normalise_over_time
from frugal.reservoir.parallel import ParallelStates
from frugal.reservoir.reservoir import Reservoir, StateCollector

__all__ = ["DeepReservoir", "ParallelStates", "Reservoir", "StateCollector", "gpt_echo", "normalise_over_time"]
