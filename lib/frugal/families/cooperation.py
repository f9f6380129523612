"""Cooperative training of a family's model beside a mediator, which is kept with it."""

import copy
from dataclasses import replace
from typing import Any

from frugal.cooperative import CooperativePlan, CooperativeTrainer, text_windows
from frugal.corpora import encode_documents
from frugal.families.family import Observe, Trained
from frugal.families.texts import Texts
from frugal.readout.training import Model, validate
from frugal.training import EpochScore

MEDIATOR = "mediator"
SEQUENCES_SCORED = 32  # a score holds the probabilities of a whole vocabulary for all of them at once
OF_THE_EPOCH = ("epoch", "training_loss", "seconds", "out_of_time")


def train_cooperatively(
    model: Model, mediator: Model, texts: Texts, window: int, plan: CooperativePlan, observe: Observe
) -> Trained:
    """Train the model as generator; it ends with the epoch that predicts the validation text best.

    Args:
        model: with a softmax readout, the only part of it that changes.
        mediator: another readout, on the same reservoir and GPT where there are such, whose states both then share.
        texts: to learn from, and to choose the epoch by.
        window: tokens of an excerpt; fewer where the longest document is shorter.
        plan: how to train.
        observe: is told each score, with the mediator.
    """
    readout: Any = model.readout
    parts = (texts.train, texts.valid)
    longest = min(max(map(len, encode_documents(model.tokenizer, documents))) - 1 for documents in parts)
    data, held_out = (text_windows(model.tokenizer, documents, min(window, longest)) for documents in parts)
    rows = model.rows(texts.valid).kept()
    scores: list[EpochScore] = []
    best = copy.deepcopy(readout.state_dict())

    def judge(score: EpochScore) -> None:
        nonlocal best
        scores.append(replace(validate(model, rows), **{name: getattr(score, name) for name in OF_THE_EPOCH}))
        if min(scores, key=lambda each: each.validation_nats) is scores[-1]:
            best = copy.deepcopy(readout.state_dict())
        observe(scores[-1], **{MEDIATOR: mediator})

    judge(EpochScore())
    try:
        CooperativeTrainer(model, mediator, data, held_out[:SEQUENCES_SCORED], plan).train(judge)
    finally:  # also when it is interrupted
        readout.load_state_dict(best)
    return Trained(model, scores, {MEDIATOR: mediator})
