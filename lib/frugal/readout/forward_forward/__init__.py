"""Forward-forward: layers that learn from their own activities, without backpropagation."""

from frugal.readout.forward_forward.classifier import (
    BackpropClassifier,
    ForwardForwardClassifier,
    ImageTraining,
    UnsupervisedForwardForward,
)
from frugal.readout.forward_forward.images import load_digits, load_images, mask_hybrids, read_mnist, stratified_split
from frugal.readout.forward_forward.net import ForwardForwardNet, Goodness
from frugal.readout.forward_forward.recurrent import RecurrentForwardForward
from frugal.readout.forward_forward.sequences import ALPHABET, SequenceExperiment, SequenceResult, clean_alphabet

__all__ = [
    "ALPHABET",
    "BackpropClassifier",
    "ForwardForwardClassifier",
    "ForwardForwardNet",
    "Goodness",
    "ImageTraining",
    "RecurrentForwardForward",
    "SequenceExperiment",
    "SequenceResult",
    "UnsupervisedForwardForward",
    "clean_alphabet",
    "load_digits",
    "load_images",
    "mask_hybrids",
    "read_mnist",
    "stratified_split",
]
