"""Layers whose every link is a function of its own: piecewise polynomials, Fourier series, products of them."""

from frugal.piecewise.basis import Basis, FourierBasis, PiecewiseBasis, TensorProductBasis
from frugal.piecewise.convolution import BasisConvolution
from frugal.piecewise.exchange import from_high_order_layers, to_high_order_layers
from frugal.piecewise.layers import (
    BasisLayer,
    FixedRotation,
    Fourier,
    PiecewisePolynomial,
    Polynomial,
    PolynomialND,
    Product,
    Switch,
)
from frugal.piecewise.normalisation import MaxAbs, MaxCenter, normalisation
from frugal.piecewise.refinement import refined, smoothed

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
