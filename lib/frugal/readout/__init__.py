"""What is trained on features and states: ridge and softmax readouts, and the language models made of them.

A map from states to the next token enters here, with its training and what it is probed with. What makes the states
belongs to `foundation` and `reservoir`.
"""

from frugal.readout.base import Readout
from frugal.readout.echo import EchoLanguageModel
from frugal.readout.encoder import EchoEncoder, EchoState
from frugal.readout.online import OnlineReadout
from frugal.readout.reservoir_model import ReservoirLanguageModel
from frugal.readout.residual import OnlineResidual
from frugal.readout.ridge import RidgeReadout
from frugal.readout.rows import EchoRows, KeptRows, Rows, StreamRows
from frugal.readout.softmax import SoftmaxReadout
from frugal.readout.training import ReadoutPlan, score_rows, train_readout

__all__ = [
    "EchoEncoder",
    "EchoLanguageModel",
    "EchoRows",
    "EchoState",
    "KeptRows",
    "OnlineReadout",
    "OnlineResidual",
    "Readout",
    "ReadoutPlan",
    "ReservoirLanguageModel",
    "RidgeReadout",
    "Rows",
    "SoftmaxReadout",
    "StreamRows",
    "score_rows",
    "train_readout",
]
