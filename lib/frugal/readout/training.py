"""Training a softmax readout on rows: what an epoch of AdamW or L-BFGS is, and what validation measures."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import LBFGS, AdamW, Optimizer

from frugal.errors import DivergedError, InputError, check_not_negative
from frugal.language_model import LOGITS_AT_ONCE
from frugal.readout.echo import EchoLanguageModel
from frugal.readout.reservoir_model import ReservoirLanguageModel
from frugal.readout.rows import Piece, Rows
from frugal.training import Epoch, EpochScore, Plan, check_plan, fit, half_cosine, run_epochs
from frugal.training.checkpoint import fingerprint
from frugal.training.loop import check_weights

SET_BEFORE_TRAINING = ("mean", "whitening", "log_frequency")  # buffers of a readout
Model = EchoLanguageModel | ReservoirLanguageModel  # what has a readout of its hidden states


@dataclass(frozen=True, kw_only=True)
class ReadoutPlan(Plan):
    """How a readout is trained; see `Plan`. An epoch of L-BFGS is 10 iterations over all rows.

    Attributes:
        learning_rate: AdamW's highest; it falls to nothing along half a cosine over all epochs.
        optimizer: "adamw", or "lbfgs" for readouts of few weights: it keeps 20 times as many numbers.
        weight_decay: AdamW's; with L-BFGS the factor of half the squared weights in the loss per token.

    >>> ReadoutPlan(epochs=3, optimizer="lbfgs").patience
    2
    """

    learning_rate: float = 2e-3
    batch_size: int = 512
    patience: int | None = 2
    optimizer: Literal["adamw", "lbfgs"] = "adamw"
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("typical values: 0 to 0.1", weight_decay=self.weight_decay)


def train_readout(
    model: Model,
    rows: Rows,
    validation: Rows,
    plan: ReadoutPlan | None = None,
    *,
    folder: Path | str | None = None,
    on_epoch: Callable[[EpochScore], None] | None = None,
) -> list[EpochScore]:
    """Train the model's softmax readout in place; it ends with the weights that did best on `validation`.

    Those may be the weights it came with: a residual readout never ends worse than the foundation there.

    Args:
        model: an echo or reservoir language model with a softmax readout; nothing else in it changes.
        rows: training rows, as `model.rows(documents)` gives them; those of an echo model have `kept()`, which
            holds them in memory if they are few.
        validation: rows of other documents.
        plan: how to train; by default as ReadoutPlan() says.
        folder: where the training's state is kept after each epoch; found there, it is gone on with.
        on_epoch: called with each new score; the model then has that epoch's weights.

    Returns:
        The scores before training and after each epoch.

    Raises:
        InputError: there is nothing to train, rows do not fit the model, the loss is not finite, or `folder` is
            that of another training.
        UnavailableError: `folder` is damaged.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> from frugal.corpora import CharTokenizer
        >>> from frugal.foundation import Foundation
        >>> from frugal.readout import SoftmaxReadout
        >>> small = GPT2Config(vocab_size=130, n_positions=32, n_embd=12, n_layer=1, bos_token_id=128, eos_token_id=128)
        >>> gpt = Foundation(GPT2LMHeadModel(small), CharTokenizer.ascii(), name="untrained")
        >>> model = EchoLanguageModel(gpt, readout=SoftmaxReadout(12, 130), join="concat", context=8)
        >>> rows, validation = model.rows(["some text to learn"]), model.rows(["another text"])
        >>> scores = train_readout(model, rows, validation, ReadoutPlan(epochs=2))
        >>> scores[-1].validation_nats < scores[0].validation_nats
        True
    """
    plan, readout = ReadoutPlan() if plan is None else plan, model.readout
    check_plan(plan, ReadoutPlan)
    if readout is None or not any(True for _ in readout.parameters()):
        raise InputError("train_readout: needs a model with a SoftmaxReadout; a ridge readout is fitted in closed form")
    check_rows(model, rows, validation)
    optimizer = _optimizer(readout, plan)
    train_epoch = _adamw_epoch if plan.optimizer == "adamw" else _lbfgs_epoch

    return run_epochs(
        readout,
        optimizer,
        plan,
        lambda epoch: train_epoch(model, rows, plan, optimizer, epoch),
        lambda: validate(model, validation),
        title="readout",
        folder=folder,
        given=what_is_trained(model, rows, validation),
        on_epoch=on_epoch,
    )


def what_is_trained(model: Model, rows: Rows, validation: Rows) -> dict[str, Any]:
    """What a readout's training follows from beside its plan."""
    assert model.readout is not None
    set_before = {name: values for name, values in model.readout.named_buffers() if name in SET_BEFORE_TRAINING}
    settings = {"class": type(model.readout).__name__, **model.readout.settings(), **set_before}
    given = {"rows": rows, "validation": validation, "readout": settings}
    if isinstance(model, EchoLanguageModel):
        settings["join"], given["foundation"] = model.join, model.foundation
    return given


def check_rows(model: Model, rows: Rows, validation: Rows) -> None:
    """Raise InputError unless both have the width of this model's hidden states, and its tokens, and are of its own."""
    for name, given in (("rows", rows), ("validation", validation)):
        if given.largest >= model.vocabulary_size:
            raise InputError(
                f"{name}: tokens must lie in 0 to {model.vocabulary_size - 1}; use the model's own tokeniser"
            )
        if given.width != model.hidden_size:
            raise InputError(f"{name} of width {given.width}: this model's have {model.hidden_size}")
        known = given.trunk is None or given.trunk == model.trunk  # equal parts are one and the same, nearly always
        if not known and fingerprint(given.trunk) != fingerprint(model.trunk):
            raise InputError(f"{name}: hold hidden states of another model; take those of `model.rows(documents)`")


def validate(model: Model, rows: Rows) -> EpochScore:
    """The score of the model as it is."""
    nats, accuracy = score_rows(model, rows)
    return EpochScore(validation_nats=nats, validation_accuracy=accuracy)


@torch.no_grad()
def score_rows(model: Model, rows: Rows) -> tuple[float, float]:
    """Nats per token, and share of tokens thought the likeliest."""
    nats = hits = 0.0
    for inputs, targets in _small_pieces(model, rows):
        logits = model.head(inputs).float()
        nats += cross_entropy(logits, targets, reduction="sum").item()
        hits += (logits.argmax(-1) == targets).sum().item()
    return nats / rows.count, hits / rows.count


def _optimizer(readout: nn.Module, plan: ReadoutPlan) -> Optimizer:
    if plan.optimizer == "adamw":
        return AdamW(readout.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    return LBFGS(readout.parameters(), max_iter=10, history_size=10, line_search_fn="strong_wolfe")


def _adamw_epoch(model: Model, rows: Rows, plan: ReadoutPlan, optimizer: Optimizer, epoch: Epoch) -> float:
    """One pass over the rows in random order; the mean loss."""

    def loss(_: nn.Module, batch: Piece) -> Tensor:
        inputs, targets = batch
        return cross_entropy(model.head(inputs).float(), targets)

    assert model.readout is not None
    losses = fit(
        model.readout,
        loss,
        EpochBatches(rows, plan.batch_size, epoch.seed),
        optimizer,
        steps=math.ceil(rows.count / plan.batch_size),
        seconds=epoch.seconds_left,
        schedule=epoch.part_of(half_cosine),
        device=model.device.type,
        title=f"epoch {epoch.number}",
        leave=False,
    )
    return sum(losses) / len(losses)


def _lbfgs_epoch(model: Model, rows: Rows, plan: ReadoutPlan, optimizer: Optimizer, epoch: Epoch) -> float:
    """Ten iterations, each over all rows; the loss before them."""
    parameters = optimizer.param_groups[0]["params"]

    @torch.enable_grad()
    def loss_of_all() -> float:
        optimizer.zero_grad()
        penalty = plan.weight_decay / 2 * sum(values.square().sum() for values in parameters)
        penalty.backward()
        total = penalty.item()
        for inputs, targets in _small_pieces(model, rows):
            loss = cross_entropy(model.head(inputs).float(), targets, reduction="sum") / rows.count
            loss.backward()
            total += loss.item()
        return total

    before = float(optimizer.step(loss_of_all))
    if not math.isfinite(before):
        raise DivergedError(
            f"epoch {epoch.number}: the loss is {before}; check the states for huge values, or whiten the readout"
        )
    check_weights(f"epoch {epoch.number}", parameters)
    return before


@dataclass(frozen=True)
class EpochBatches:
    """One epoch's batches, as often as they are asked for."""

    rows: Rows
    size: int
    seed: int

    def __iter__(self) -> Iterator[Piece]:
        return self.rows.batches(self.size, self.seed)


def _small_pieces(model: Model, rows: Rows) -> Iterator[Piece]:
    """All rows, in pieces whose logits are made at once."""
    at_once = max(1, LOGITS_AT_ONCE // model.vocabulary_size)
    for inputs, targets in rows:
        inputs, targets = inputs.to(model.device), targets.to(model.device)
        yield from zip(inputs.split(at_once), targets.split(at_once), strict=True)
