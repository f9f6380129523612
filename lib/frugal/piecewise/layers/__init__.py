"""Layers in which every edge is a function of its own, and what is done to them: normalise, refine, exchange weights.

They map numbers to numbers; what knows of characters stands in the room around.
"""

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

__all__ = [
    "Basis",
    "BasisConvolution",
    "BasisLayer",
    "FixedRotation",
    "Fourier",
    "FourierBasis",
    "MaxAbs",
    "MaxCenter",
    "PiecewiseBasis",
    "PiecewisePolynomial",
    "Polynomial",
    "PolynomialND",
    "Product",
    "Switch",
    "TensorProductBasis",
    "from_high_order_layers",
    "normalisation",
    "refined",
    "smoothed",
    "to_high_order_layers",
]
