"""Fixed recurrent nets: construction, state collection, diagnostics, standard tasks.

What makes states of inputs by weights that are not trained enters here, and what measures such states.
"""

from frugal.reservoir.collector import StateCollector
from frugal.reservoir.deep import DeepReservoir
from frugal.reservoir.feedback import closed_loop, teacher_forced
from frugal.reservoir.gpt_echo import gpt_echo, normalise_over_time
from frugal.reservoir.parallel import ParallelStates, run_parallel
from frugal.reservoir.reservoir import Reservoir

__all__ = [
    "DeepReservoir",
    "ParallelStates",
    "Reservoir",
    "StateCollector",
    "closed_loop",
    "gpt_echo",
    "normalise_over_time",
    "run_parallel",
    "teacher_forced",
]
