"""Training a softmax readout on rows: validation after each epoch, early stopping, best weights kept, resumable."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import LBFGS, AdamW, Optimizer

from frugal.errors import InputError
from frugal.language_model import LOGITS_AT_ONCE
from frugal.readout.checkpoint import keep, resume
from frugal.readout.echo import EchoLanguageModel
from frugal.readout.plan import EpochScore, TrainingPlan
from frugal.readout.rows import Piece, Rows
from frugal.training import fit


def train_readout(
    model: EchoLanguageModel,
    rows: Rows,
    validation: Rows,
    plan: TrainingPlan | None = None,
    *,
    folder: Path | None = None,
    after_epoch: Callable[[EpochScore], None] | None = None,
) -> list[EpochScore]:
    """Train the model's softmax readout in place; it ends with the weights that did best on `validation`.

    Those may be the weights it came with: a residual readout never ends worse than the foundation there.

    Args:
        model: an echo language model with a softmax readout; nothing else in it changes.
        rows: training rows, as `model.rows(documents)` gives them; its `kept()` holds them in memory if they are few.
        validation: rows of other documents.
        plan: how to train; by default as TrainingPlan() says.
        folder: where the training's state is kept after each epoch; found there, it is gone on with.
        after_epoch: called with each new score; the model then has that epoch's weights.

    Returns:
        The scores before training and after each epoch.

    Raises:
        InputError: there is nothing to train, rows do not fit the model, the loss is not finite, or `folder` is
            that of another training.
        UnavailableError: `folder` is damaged.
    """
    plan, readout = plan or TrainingPlan(), model.readout
    if readout is None or not any(True for _ in readout.parameters()):
        raise InputError("train_readout: needs a model with a SoftmaxReadout; a ridge readout is fitted in closed form")
    check_rows(model, rows, validation)
    optimizer = _optimizer(readout, plan)
    train_epoch = _adamw_epoch if plan.optimizer == "adamw" else _lbfgs_epoch

    def one_epoch(epoch: int) -> float:
        return train_epoch(model, rows, plan, optimizer, epoch)

    return run_epochs(model, one_epoch, validation, plan, optimizer, folder, after_epoch)


def check_rows(model: EchoLanguageModel, rows: Rows, validation: Rows) -> None:
    """Raise InputError unless both have the width of this model's hidden states."""
    for name, given in (("rows", rows), ("validation", validation)):
        if given.width != model.encoder.width:
            raise InputError(f"{name} of width {given.width}: this model's have {model.encoder.width}")


def run_epochs(
    model: EchoLanguageModel,
    train_epoch: Callable[[int], float],
    validation: Rows,
    plan: TrainingPlan,
    optimizer: Optimizer,
    folder: Path | None,
    after_epoch: Callable[[EpochScore], None] | None,
) -> list[EpochScore]:
    """Call `train_epoch(epoch)`, which gives the training loss, until the plan or its patience is at an end.

    The rest is as `train_readout` says.
    """
    readout = model.readout
    assert readout is not None
    if folder is not None and folder.is_dir():
        scores, best = resume(folder, readout, plan, optimizer)
    else:
        scores, best = [EpochScore(0, math.nan, *score_rows(model, validation))], _copy(readout)
    try:
        while len(scores) <= plan.epochs and len(scores) - 1 - _best_epoch(scores) < plan.patience:
            loss = train_epoch(len(scores))
            scores.append(EpochScore(len(scores), loss, *score_rows(model, validation)))
            if _best_epoch(scores) == scores[-1].epoch:
                best = _copy(readout)
            if folder is not None:
                keep(folder, readout, plan, optimizer, scores, best)
            if after_epoch is not None:
                after_epoch(scores[-1])
    finally:  # also when it is interrupted
        readout.load_state_dict(best)
    return scores


@torch.no_grad()
def score_rows(model: EchoLanguageModel, rows: Rows) -> tuple[float, float]:
    """Nats per token, and share of tokens thought the likeliest."""
    nats = hits = 0.0
    for inputs, targets in _small_pieces(model, rows):
        logits = model.head(inputs).float()
        nats += cross_entropy(logits, targets, reduction="sum").item()
        hits += (logits.argmax(-1) == targets).sum().item()
    return nats / rows.count, hits / rows.count


def _best_epoch(scores: list[EpochScore]) -> int:
    return min(scores, key=lambda score: score.validation_nats).epoch


def _optimizer(readout: nn.Module, plan: TrainingPlan) -> Optimizer:
    if plan.optimizer == "adamw":
        return AdamW(readout.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    return LBFGS(readout.parameters(), max_iter=10, history_size=10, line_search_fn="strong_wolfe")


def _adamw_epoch(model: EchoLanguageModel, rows: Rows, plan: TrainingPlan, optimizer: Optimizer, epoch: int) -> float:
    """One pass over the rows in random order; the mean loss."""

    def loss(_: nn.Module, batch: Piece) -> Tensor:
        inputs, targets = batch
        return cross_entropy(model.head(inputs).float(), targets)

    def half_cosine(done: float) -> float:
        return (1 + math.cos(math.pi * (epoch - 1 + done) / plan.epochs)) / 2

    for group in optimizer.param_groups:
        group["lr"] = plan.learning_rate
    assert model.readout is not None
    losses = fit(
        model.readout,
        loss,
        _Batches(rows, plan.batch_size, plan.seed + epoch),
        optimizer,
        steps=math.ceil(rows.count / plan.batch_size),
        schedule=half_cosine,
        device=model.device.type,
        title=f"epoch {epoch}",
    )
    return sum(losses) / len(losses)


def _lbfgs_epoch(model: EchoLanguageModel, rows: Rows, plan: TrainingPlan, optimizer: Optimizer, epoch: int) -> float:
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
        raise InputError(
            f"epoch {epoch}: the loss is {before}; check the states for huge values, or whiten the readout"
        )
    return before


@dataclass(frozen=True)
class _Batches:
    """One epoch's batches, as often as they are asked for."""

    rows: Rows
    size: int
    seed: int

    def __iter__(self) -> Iterator[Piece]:
        return self.rows.batches(self.size, self.seed)


def _small_pieces(model: EchoLanguageModel, rows: Rows) -> Iterator[Piece]:
    """All rows, in pieces whose logits are made at once."""
    at_once = max(1, LOGITS_AT_ONCE // model.vocabulary_size)
    for inputs, targets in rows:
        inputs, targets = inputs.to(model.device), targets.to(model.device)
        yield from zip(inputs.split(at_once), targets.split(at_once), strict=True)


def _copy(readout: nn.Module) -> dict[str, Tensor]:
    return {name: values.clone() for name, values in readout.state_dict().items()}
