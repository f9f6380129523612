"""Language models made of other language models: guidance, steering, temperature, mixtures and ensembles.

They hold no weights of their own beyond a handful of numbers. A way to combine any models enters here; a model of one
family does not.
"""

from frugal.combine.directed import Extrapolated, Inverted, reweighted
from frugal.combine.ensemble import Ensemble
from frugal.combine.guided import Guided
from frugal.combine.mixture import Mixture
from frugal.combine.online import OnlineMixture
from frugal.combine.pair import Pair
from frugal.combine.steered import Steered
from frugal.combine.tempered import Tempered

__all__ = [
    "Ensemble",
    "Extrapolated",
    "Guided",
    "Inverted",
    "Mixture",
    "OnlineMixture",
    "Pair",
    "Steered",
    "Tempered",
    "reweighted",
]
