"""Layers whose every edge is a function of its own, such as a piecewise polynomial, and nets of them over characters.

`layers` holds what maps numbers to numbers. Shapes, networks, training examples and models over characters enter here.
"""

from frugal.piecewise.automaton import Automaton
from frugal.piecewise.language_model import PiecewiseLM
from frugal.piecewise.layers.basis import Basis, FourierBasis, PiecewiseBasis, TensorProductBasis
from frugal.piecewise.layers.convolution import BasisConvolution
from frugal.piecewise.layers.exchange import from_high_order_layers, to_high_order_layers
from frugal.piecewise.layers.fully_connected import (
    BasisLayer,
    FixedRotation,
    Fourier,
    PiecewisePolynomial,
    Polynomial,
    PolynomialND,
    Product,
    Switch,
)
from frugal.piecewise.layers.normalisation import MaxAbs, MaxCenter, normalisation
from frugal.piecewise.layers.refinement import refined, smoothed
from frugal.piecewise.networks import CharacterNetwork, Shape
from frugal.piecewise.presets import PRESETS, preset, preset_of_size, read_settings
from frugal.piecewise.search import SPACE, START, shape_at, trial_nats
from frugal.piecewise.training import Memorised, PiecewisePlan, PiecewiseScore, memorised, train
from frugal.piecewise.windows import Batches, BayesLimit, Windows, as_numbers, bayes_limit

__all__ = [
    "PRESETS",
    "SPACE",
    "START",
    "Automaton",
    "Basis",
    "BasisConvolution",
    "BasisLayer",
    "Batches",
    "BayesLimit",
    "CharacterNetwork",
    "FixedRotation",
    "Fourier",
    "FourierBasis",
    "MaxAbs",
    "MaxCenter",
    "Memorised",
    "PiecewiseBasis",
    "PiecewiseLM",
    "PiecewisePlan",
    "PiecewisePolynomial",
    "PiecewiseScore",
    "Polynomial",
    "PolynomialND",
    "Product",
    "Shape",
    "Switch",
    "TensorProductBasis",
    "Windows",
    "as_numbers",
    "bayes_limit",
    "from_high_order_layers",
    "memorised",
    "normalisation",
    "preset",
    "preset_of_size",
    "read_settings",
    "refined",
    "shape_at",
    "smoothed",
    "to_high_order_layers",
    "train",
    "trial_nats",
]
