"""Cooperative training: a generator follows a mediator of data and samples; the worlds to test it in; its rivals."""

from frugal.cooperative.guided import ExtrapolatedModel, InvertedModel, reweighted
from frugal.cooperative.judged import Judged, judged
from frugal.cooperative.lstm import LSTMLanguageModel
from frugal.cooperative.mixture import MixtureModel
from frugal.cooperative.oracle import Oracle, OracleScores
from frugal.cooperative.pair import Pair, Samples, draw
from frugal.cooperative.reservoir_model import ReservoirLanguageModel
from frugal.cooperative.rivals import LikelihoodTrainer, ReinforceTrainer, ScheduledSamplingTrainer
from frugal.cooperative.steered import SteeredModel
from frugal.cooperative.tempered import TemperedModel
from frugal.cooperative.texts import text_windows
from frugal.cooperative.trainer import CooperativePlan, CooperativeTrainer
from frugal.cooperative.training import Plan, Progress
from frugal.cooperative.variance import GradientNoise, gradient_noise

__all__ = [
    "CooperativePlan",
    "CooperativeTrainer",
    "ExtrapolatedModel",
    "GradientNoise",
    "InvertedModel",
    "Judged",
    "LSTMLanguageModel",
    "LikelihoodTrainer",
    "MixtureModel",
    "Oracle",
    "OracleScores",
    "Pair",
    "Plan",
    "Progress",
    "ReinforceTrainer",
    "ReservoirLanguageModel",
    "Samples",
    "ScheduledSamplingTrainer",
    "SteeredModel",
    "TemperedModel",
    "draw",
    "gradient_noise",
    "judged",
    "reweighted",
    "text_windows",
]
