"""Forward-forward: layers that learn from their own activities, without backpropagation."""

from frugal.readout.forward_forward.classifier import (
    ForwardForwardClassifier,
    ImageTraining,
    UnsupervisedForwardForward,
)
from frugal.readout.forward_forward.images import load_digits, mask_hybrids, read_mnist, stratified_split
from frugal.readout.forward_forward.net import ForwardForwardNet, Goodness
from frugal.readout.forward_forward.recurrent import RecurrentForwardForward

__all__ = [
    "ForwardForwardClassifier",
    "ForwardForwardNet",
    "Goodness",
    "ImageTraining",
    "RecurrentForwardForward",
    "UnsupervisedForwardForward",
    "load_digits",
    "mask_hybrids",
    "read_mnist",
    "stratified_split",
]
