"""One family, one text, one model: what `frugal train` trains, with the same calls for every family.

A family's settings, how its untrained model is built and how it is trained enter here, and how it is kept. How a model
works, and what its training is, belongs to its own room.
"""

from frugal.cards import Kept  # which `keep_model` takes
from frugal.families.counted import EnsembleFamily, NGramFamily, TreesFamily
from frugal.families.echo import EchoFamily
from frugal.families.family import FAMILIES, Asked, Family, Trained, asked, asked_on, settings_table
from frugal.families.kept import keep_model, kept_model, name_for
from frugal.families.memory import MemoryFamily, NeighboursFamily
from frugal.families.piecewise import PiecewiseFamily
from frugal.families.reservoir import ReservoirFamily
from frugal.families.texts import Texts, read_texts, whole_text

__all__ = [
    "FAMILIES",
    "Asked",
    "EchoFamily",
    "EnsembleFamily",
    "Family",
    "Kept",
    "MemoryFamily",
    "NGramFamily",
    "NeighboursFamily",
    "PiecewiseFamily",
    "ReservoirFamily",
    "Texts",
    "Trained",
    "TreesFamily",
    "asked",
    "asked_on",
    "keep_model",
    "kept_model",
    "name_for",
    "read_texts",
    "settings_table",
    "whole_text",
]
