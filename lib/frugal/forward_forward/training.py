"""Training a forward-forward readout on rows, as `train_readout` trains a softmax readout."""

import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from frugal.errors import InputError
from frugal.forward_forward.negatives import Batch, Negatives
from frugal.forward_forward.optimizer import net_optimizer
from frugal.forward_forward.readout import ForwardForwardReadout
from frugal.language_model import LOGITS_AT_ONCE
from frugal.readout.echo import EchoLanguageModel
from frugal.readout.rows import Rows
from frugal.readout.training import EpochBatches, ReadoutPlan, check_rows, validate, what_is_trained
from frugal.training import Epoch, EpochScore, check_plan, run_epochs, take_steps, warm_up_and_decay

ROWS_TO_CALIBRATE = 512


def train_forward_forward(
    model: EchoLanguageModel,
    rows: Rows,
    validation: Rows,
    negatives: Negatives,
    plan: ReadoutPlan | None = None,
    *,
    folder: Path | str | None = None,
    on_epoch: Callable[[EpochScore], None] | None = None,
) -> list[EpochScore]:
    """Train the model's forward-forward readout in place, every layer by itself; it ends with its best weights.

    The head is trained in the same passes. Before the first epoch and after each one the mixture is calibrated on the
    first rows of `validation`, and the model is scored on all of them, by goodness or softmax as the readout predicts.

    Args:
        model: an echo language model with a forward-forward readout.
        rows: training rows, as `model.rows(documents)` gives them.
        validation: rows of other documents.
        negatives: where wrong data comes from.
        plan: how to train; `optimizer` must be "adamw", and `weight_decay` is the head's.
        folder: where the training's state is kept after each epoch; found there, it is gone on with.
        on_epoch: called with each new score, whose `training_loss` is the head's cross-entropy.

    Returns:
        The scores before training and after each epoch.

    Raises:
        InputError: the readout is of another kind, rows do not fit, a loss is not finite, or `folder` is that of
            another training.
        UnavailableError: `folder` is damaged.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> from frugal.corpora import CharTokenizer
        >>> from frugal.forward_forward import UniformNegatives
        >>> from frugal.foundation import Foundation
        >>> small = GPT2Config(vocab_size=130, n_positions=32, n_embd=12, n_layer=1, bos_token_id=128, eos_token_id=128)
        >>> gpt = Foundation(GPT2LMHeadModel(small), CharTokenizer.ascii(), name="untrained")
        >>> readout = ForwardForwardReadout(12, 130, hidden=(8, 8))
        >>> model = EchoLanguageModel(gpt, readout=readout, join="concat", context=8)
        >>> rows, validation = model.rows(["some text to learn"]), model.rows(["another text"])
        >>> scores = train_forward_forward(model, rows, validation, UniformNegatives(), ReadoutPlan(epochs=1))
        >>> [score.epoch for score in scores]
        [0, 1]
    """
    plan, readout = ReadoutPlan() if plan is None else plan, model.readout
    check_plan(plan, ReadoutPlan)
    if not isinstance(readout, ForwardForwardReadout):
        raise InputError("train_forward_forward: needs a model with a ForwardForwardReadout")
    if plan.optimizer != "adamw":
        raise InputError(f"optimizer={plan.optimizer!r}: every layer has its own loss, which takes 'adamw'")
    check_rows(model, rows, validation)
    if not isinstance(negatives, Negatives):
        raise InputError(f"negatives={negatives!r}: must be a source of them, such as UniformNegatives()")
    negatives.check(model)
    optimizer = net_optimizer(readout.net, plan.learning_rate, head_rate=1.0, head_decay=plan.weight_decay)

    def train_epoch(epoch: Epoch) -> float:
        random = torch.Generator().manual_seed(epoch.seed)
        negatives.begin_epoch(rows)
        nats = take_steps(
            lambda batch: _set_gradients(model, readout, batch[0], batch[1], negatives, random),
            EpochBatches(rows, plan.batch_size, epoch.seed),
            optimizer,
            steps=math.ceil(rows.count / plan.batch_size),
            seconds=epoch.seconds_left,
            schedule=epoch.part_of(warm_up_and_decay),
            title=f"epoch {epoch.number}",
            leave=False,
        )
        return sum(nats) / len(nats)

    def score() -> EpochScore:
        calibrate(model, validation)
        return validate(model, validation)

    return run_epochs(
        readout,
        optimizer,
        plan,
        train_epoch,
        score,
        title="forward-forward readout",
        folder=folder,
        given={**what_is_trained(model, rows, validation), "negatives": negatives},
        on_epoch=on_epoch,
    )


def calibrate(model: EchoLanguageModel, rows: Rows) -> None:
    """Fit the mixture of the model's forward-forward readout to the first few of these rows."""
    readout = model.readout
    assert isinstance(readout, ForwardForwardReadout)
    if readout.predict == "goodness":
        readout.calibrate(islice(_with_offsets(model, rows), math.ceil(ROWS_TO_CALIBRATE / _at_once(model))))


def _set_gradients(
    model: EchoLanguageModel,
    readout: ForwardForwardReadout,
    hidden: Tensor,
    targets: Tensor,
    negatives: Negatives,
    random: torch.Generator,
) -> float:
    """Gradients for one batch; the head's mean nats."""
    hidden, targets = hidden.to(model.device), targets.to(model.device)
    states = readout.whitened(hidden[:, model.columns])
    guesses = readout.net.set_head_gradient(states, targets, _offset(model, hidden))
    others, wrong = negatives.draw(Batch(hidden, targets, guesses), random)
    other_states = None if others is hidden else readout.whitened(others[:, model.columns])
    readout.net.set_gradients(states, targets, wrong, other_states)
    return -guesses.gather(1, targets.unsqueeze(1)).clamp_min(1e-30).log().mean().item()


def _offset(model: EchoLanguageModel, hidden: Tensor) -> Tensor | float:
    """What the model adds to the readout's logits."""
    if model.join != "residual":
        return 0.0
    return model.foundation.logits(hidden[:, : model.encoder.feature_size])


def _with_offsets(model: EchoLanguageModel, rows: Rows) -> Iterator[tuple[Tensor, Tensor, Tensor | float]]:
    """Inputs of the readout, targets, offsets; few enough at a time to hold all candidates' goodness."""
    for inputs, targets in rows:
        inputs, targets = inputs.to(model.device), targets.to(model.device)
        for hidden, following in zip(inputs.split(_at_once(model)), targets.split(_at_once(model)), strict=True):
            yield hidden[:, model.columns], following, _offset(model, hidden)


def _at_once(model: EchoLanguageModel) -> int:
    return max(1, min(ROWS_TO_CALIBRATE, LOGITS_AT_ONCE // model.vocabulary_size))
