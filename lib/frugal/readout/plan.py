"""How a softmax readout is trained, and what comes of each epoch."""

import math
from dataclasses import dataclass
from typing import Literal

from frugal.errors import InputError


@dataclass(frozen=True)
class TrainingPlan:
    """How a softmax readout is trained.

    Attributes:
        epochs: most passes over the training rows; with L-BFGS an epoch is 10 iterations over all of them.
        optimizer: "adamw", or "lbfgs" for readouts of few weights: it keeps 20 times as many numbers.
        learning_rate: AdamW's highest; it falls to nothing along half a cosine over all epochs.
        weight_decay: AdamW's; with L-BFGS the factor of half the squared weights in the loss per token.
        batch_size: rows per AdamW step.
        patience: epochs without a better validation score after which training stops.
        seed: of the order of the rows.
    """

    epochs: int = 8
    optimizer: Literal["adamw", "lbfgs"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    batch_size: int = 512
    patience: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.optimizer not in ("adamw", "lbfgs"):
            raise InputError(f"optimizer={self.optimizer!r}: must be 'adamw' or 'lbfgs'")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate={self.learning_rate}: must be positive; typical values: 1e-4 to 1e-2")
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay={self.weight_decay}: must not be negative; typical values: 0 to 0.1")


@dataclass(frozen=True)
class EpochScore:
    """Nats per token and share of tokens thought the likeliest; epoch 0 is before training.

    `training_nats` is the mean loss while the epoch went on, NaN for epoch 0.
    """

    epoch: int
    training_nats: float
    validation_nats: float
    validation_accuracy: float

    @property
    def validation_perplexity(self) -> float:
        return math.exp(self.validation_nats)
