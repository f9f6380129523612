"""What is trained on features and states: ridge and softmax readouts, and the echo language model made of them."""

from frugal.readout.base import Readout
from frugal.readout.echo import EchoLanguageModel
from frugal.readout.encoder import EchoEncoder, EchoState
from frugal.readout.plan import EpochScore, TrainingPlan
from frugal.readout.ridge import RidgeReadout
from frugal.readout.rows import EchoRows, KeptRows, Rows
from frugal.readout.softmax import SoftmaxReadout
from frugal.readout.training import score_rows, train_readout

__all__ = [
    "EchoEncoder",
    "EchoLanguageModel",
    "EchoRows",
    "EchoState",
    "EpochScore",
    "KeptRows",
    "Readout",
    "RidgeReadout",
    "Rows",
    "SoftmaxReadout",
    "TrainingPlan",
    "score_rows",
    "train_readout",
]
