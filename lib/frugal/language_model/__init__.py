"""The one protocol that every language model implements, whatever family it belongs to.

What every model can do enters here, with what saves and loads it; the models are in the rooms of their families.
"""

from frugal.language_model.checks import check_vocabulary, whole_tokens
from frugal.language_model.protocol import (
    AdvancingModel,
    HiddenStateModel,
    KeptStateModel,
    LanguageModel,
    check_model,
)
from frugal.language_model.saving import (
    HasTokenizer,
    check_on_cpu,
    class_name,
    class_named,
    load_model,
    read_model,
    save_model,
)
from frugal.language_model.scores import LOGITS_AT_ONCE, TargetScores, gather_targets, log_mixed
from frugal.language_model.windows import pieces_in_windows

__all__ = [
    "LOGITS_AT_ONCE",
    "AdvancingModel",
    "HasTokenizer",
    "HiddenStateModel",
    "KeptStateModel",
    "LanguageModel",
    "TargetScores",
    "check_model",
    "check_on_cpu",
    "check_vocabulary",
    "class_name",
    "class_named",
    "gather_targets",
    "load_model",
    "log_mixed",
    "pieces_in_windows",
    "read_model",
    "save_model",
    "whole_tokens",
]
