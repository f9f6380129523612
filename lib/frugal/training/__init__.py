"""Gradient training for all families: seeds, plans, one loop of epochs and one of steps, optimisers.

What any model may be trained with enters here; what one family alone trains with stays there.
"""

from frugal.training.epochs import Epoch, EpochScore, run_epochs
from frugal.training.loop import fit, half_cosine, seed_everything, take_steps, warm_up_and_decay
from frugal.training.optimizers import Lion, OptimizerName, SparseLion, make_optimizer
from frugal.training.plan import Plan, check_fields, check_plan
from frugal.training.search import Trial, search

__all__ = [
    "Epoch",
    "EpochScore",
    "Lion",
    "OptimizerName",
    "Plan",
    "SparseLion",
    "Trial",
    "check_fields",
    "check_plan",
    "fit",
    "half_cosine",
    "make_optimizer",
    "run_epochs",
    "search",
    "seed_everything",
    "take_steps",
    "warm_up_and_decay",
]
