"""Forward-forward: layers that learn from their own activities, without backpropagation.

Nets of such layers, what they are tried on, where their negatives come from, and the readout trained in that way.
"""

from frugal.forward_forward.classifier import (
    BackpropClassifier,
    ForwardForwardClassifier,
    ImagePlan,
    UnsupervisedForwardForward,
)
from frugal.forward_forward.images import load_digits, load_images, mask_hybrids, read_mnist, stratified_split
from frugal.forward_forward.negatives import (
    FoundationNegatives,
    HardNegatives,
    MixedNegatives,
    Negatives,
    SelfGenerated,
    TextNegatives,
    UniformNegatives,
)
from frugal.forward_forward.net import ForwardForwardNet, Goodness
from frugal.forward_forward.readout import ForwardForwardReadout
from frugal.forward_forward.recurrent import RecurrentForwardForward
from frugal.forward_forward.sequences import ALPHABET, SequenceExperiment, SequenceResult, alphabet_of, clean_alphabet
from frugal.forward_forward.training import train_forward_forward

__all__ = [
    "ALPHABET",
    "BackpropClassifier",
    "ForwardForwardClassifier",
    "ForwardForwardNet",
    "ForwardForwardReadout",
    "FoundationNegatives",
    "Goodness",
    "HardNegatives",
    "ImagePlan",
    "MixedNegatives",
    "Negatives",
    "RecurrentForwardForward",
    "SelfGenerated",
    "SequenceExperiment",
    "SequenceResult",
    "TextNegatives",
    "UniformNegatives",
    "UnsupervisedForwardForward",
    "alphabet_of",
    "clean_alphabet",
    "load_digits",
    "load_images",
    "mask_hybrids",
    "read_mnist",
    "stratified_split",
    "train_forward_forward",
]
