"""Cooperative training: a generator follows a mediator, which learns from data and from the generator's samples.

What trains a generator of sequences enters here, the methods it is compared with among them, and the worlds in which
the result can be computed exactly.
"""

from frugal.cooperative.baselines import LikelihoodTrainer, ReinforceTrainer, ScheduledSamplingTrainer
from frugal.cooperative.lstm import LSTMLanguageModel
from frugal.cooperative.oracle import Oracle, OracleScores
from frugal.cooperative.quality import TextQuality, text_quality
from frugal.cooperative.samples import Samples, draw
from frugal.cooperative.texts import text_windows
from frugal.cooperative.trainer import CooperativePlan, CooperativeTrainer
from frugal.cooperative.training import SequencePlan, SequenceScore
from frugal.cooperative.variance import GradientNoise, gradient_noise

__all__ = [
    "CooperativePlan",
    "CooperativeTrainer",
    "GradientNoise",
    "LSTMLanguageModel",
    "LikelihoodTrainer",
    "Oracle",
    "OracleScores",
    "ReinforceTrainer",
    "Samples",
    "ScheduledSamplingTrainer",
    "SequencePlan",
    "SequenceScore",
    "TextQuality",
    "draw",
    "gradient_noise",
    "text_quality",
    "text_windows",
]
