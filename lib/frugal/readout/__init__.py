"""What is trained on features and states: ridge and softmax readouts, and the echo language model made of them."""

from frugal.readout.base import Readout
from frugal.readout.echo import EchoLanguageModel
from frugal.readout.encoder import EchoEncoder, EchoState
from frugal.readout.forward_forward.negatives import (
    FoundationNegatives,
    HardNegatives,
    MixedNegatives,
    Negatives,
    SelfGenerated,
    TextNegatives,
    UniformNegatives,
)
from frugal.readout.forward_forward.readout import ForwardForwardReadout
from frugal.readout.forward_forward.training import train_forward_forward
from frugal.readout.plan import EpochScore, TrainingPlan
from frugal.readout.ridge import RidgeReadout
from frugal.readout.ridge_path import RidgePath
from frugal.readout.rows import EchoRows, KeptRows, Rows
from frugal.readout.softmax import SoftmaxReadout
from frugal.readout.square_root import SquareRootPath, SquareRootStatistics
from frugal.readout.statistics import RidgeStatistics
from frugal.readout.training import score_rows, train_readout

__all__ = [
    "EchoEncoder",
    "EchoLanguageModel",
    "EchoRows",
    "EchoState",
    "EpochScore",
    "ForwardForwardReadout",
    "FoundationNegatives",
    "HardNegatives",
    "KeptRows",
    "MixedNegatives",
    "Negatives",
    "Readout",
    "RidgePath",
    "RidgeReadout",
    "RidgeStatistics",
    "Rows",
    "SelfGenerated",
    "SoftmaxReadout",
    "SquareRootPath",
    "SquareRootStatistics",
    "TextNegatives",
    "TrainingPlan",
    "UniformNegatives",
    "score_rows",
    "train_forward_forward",
    "train_readout",
]
