"""Gradient training for all families: seeds, one loop, optimisers.

What any model may be trained with enters here; what one family alone trains with stays there.
"""

from frugal.training.loop import fit, seed_everything, warm_up_and_decay
from frugal.training.optimizers import Lion, OptimizerName, SparseLion, make_optimizer

__all__ = ["Lion", "OptimizerName", "SparseLion", "fit", "make_optimizer", "seed_everything", "warm_up_and_decay"]
