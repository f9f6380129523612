"""The forward-forward readout: the next token by the goodness of every candidate, or by a softmax on the activities."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import LBFGS

from frugal.errors import InputError
from frugal.forward_forward.net import ForwardForwardNet, Goodness
from frugal.language_model import whole_tokens
from frugal.readout.base import Readout
from frugal.readout.softmax import SHRINKAGE, whitening_map
from frugal.ridge.statistics import RidgeStatistics

Prediction = Literal["goodness", "softmax"]
ITERATIONS = 50


class ForwardForwardReadout(Readout):
    """A forward-forward net on whitened states, whose candidates are the tokens.

    Real data is a state with the token that follows it, other data a state with a token from somewhere else (see
    `negatives`). A layer that tells them apart as well as can be has, by Bayes' rule, the logit

        G_l(v) = log p(v | state) - log q(v | state)

    for negatives that are drawn from q: what noise-contrastive estimation learns (Gutmann and Hyvarinen 2010). So the
    logits of the next token are the candidates' goodness, plus log q where q is not the same for all tokens:

        "goodness"  sum of mixture_l * G_l(v) over the layers, + mixture_0 * log frequency(v)
        "softmax"   the head, one linear layer on the scaled activities of a pass without a candidate

    The first costs V passes through the net for every state (the state's part of the first layer only once), the
    second one pass. The mixture is fitted by `calibrate`, the rest by `train_forward_forward`.

    Attributes:
        net: the layers, the candidates' table and the head.
        mean [D], whitening [D, D]: of the inputs; the identity at first.
        log_frequency: of the tokens in the training text, [V]; 0 at first.
        mixture: [1 + layers], the frequency's factor first; the layers' mean alone at first.

    Example:
        >>> readout = ForwardForwardReadout(6, 100, hidden=(8, 8))
        >>> readout(torch.rand(2, 6)).shape
        torch.Size([2, 100])
    """

    mean: Tensor
    whitening: Tensor
    log_frequency: Tensor
    mixture: Tensor

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        hidden: Sequence[int] = (256, 256),
        predict: Prediction = "goodness",
        goodness: Goodness | dict[str, Any] | None = None,
        peer: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Build the readout.

        Args:
            input_size: width D of the states.
            output_size: the vocabulary's size V.
            hidden: widths of the layers.
            predict: "goodness" or "softmax", as above; may be changed at any time.
            goodness: of the layers, also as a dictionary of its attributes.
            peer: strength of peer normalisation.
            seed: of the weights.
        """
        super().__init__(input_size, output_size)
        if predict not in ("goodness", "softmax"):
            raise InputError(f"predict={predict!r}: must be 'goodness' or 'softmax'")
        if isinstance(goodness, dict):
            if unknown := goodness.keys() - Goodness.__dataclass_fields__.keys():
                raise InputError(f"goodness={goodness}: {', '.join(unknown)} is no attribute of a Goodness")
            goodness = Goodness(**goodness)
        # On text the first layer is worth reading: without it, 30,000 characters gave 3.9 instead of 3.5 bits each.
        self.net = ForwardForwardNet(
            input_size, hidden, output_size, goodness=goodness, peer=peer, read_first=True, seed=seed
        )
        self.predict, self.seed = predict, seed
        self.register_buffer("mean", torch.zeros(input_size))
        self.register_buffer("whitening", torch.eye(input_size))
        self.register_buffer("log_frequency", torch.zeros(output_size))
        self.register_buffer("mixture", torch.tensor([0.0] + [1 / len(hidden)] * len(hidden)))

    def forward(self, inputs: Tensor) -> Tensor:
        whitened = self.whitened(inputs)
        if self.predict == "softmax":
            return self.net.head_logits(whitened)
        return torch.einsum("p, p...v -> ...v", self.mixture, self._parts(whitened))

    def whitened(self, inputs: Tensor) -> Tensor:
        """Inputs [.., D] with mean 0 and unit variance in all directions, as far as the statistics knew."""
        return (self.given_rows(inputs) - self.mean).to(self.mean) @ self.whitening

    def whiten(self, statistics: RidgeStatistics, shrinkage: float = SHRINKAGE) -> Self:
        """Set whitening and token frequencies from statistics of training rows; do so before training.

        `shrinkage` is as for SoftmaxReadout.whiten.
        """
        mean, whitening = whitening_map(statistics, self.input_size, shrinkage)
        self.mean.copy_(mean)
        self.whitening.copy_(whitening)
        counts = statistics.target_sums.clamp_min(0) + 0.5
        self.log_frequency.copy_((counts / counts.sum()).log())
        return self

    @torch.no_grad()
    def calibrate(self, rows: Iterable[tuple[Tensor, Tensor, Tensor | float]]) -> Self:
        """Fit the mixture to held-out rows (inputs [n, D], tokens [n], what is added to the logits [n, V] or 0).

        The logits are linear in it, so that the likelihood has one maximum; a few hundred rows are enough.

        Raises:
            InputError: no rows, inputs or additions that are not finite, or targets that are no tokens of theirs; the
                mixture stays as it was.
        """
        kept = []
        for inputs, targets, rest in rows:
            targets = whole_tokens(targets, "n", "calibrate", self.output_size)
            if inputs.shape[:-1] != targets.shape:
                raise InputError(f"targets of shape {list(targets.shape)}: must be a token for each row of the inputs")
            kept.append((self._parts(self.whitened(inputs)), targets, torch.as_tensor(rest)))
        mixture = self.mixture.clone().requires_grad_()
        optimizer = LBFGS([mixture], max_iter=ITERATIONS, line_search_fn="strong_wolfe")
        count = sum(len(targets) for _, targets, _ in kept)
        if not count or not all(parts.isfinite().all() and rest.isfinite().all() for parts, _, rest in kept):
            raise InputError(f"{count} rows to calibrate on: needs at least one, and no NaN or infinity")

        @torch.enable_grad()
        def loss_of_all() -> float:
            optimizer.zero_grad()
            losses = [
                cross_entropy(torch.einsum("p, pnv -> nv", mixture, parts) + rest, targets, reduction="sum") / count
                for parts, targets, rest in kept
            ]
            loss = torch.stack(losses).sum()
            loss.backward()
            return loss.item()

        before = loss_of_all()
        optimizer.step(loss_of_all)
        if loss_of_all() <= before:  # false also for what is not a number
            self.mixture.copy_(mixture.detach())
        return self

    def settings(self) -> dict[str, Any]:
        return {
            "input_size": self.input_size,
            "output_size": self.output_size,
            "hidden": list(self.net.hidden),
            "predict": self.predict,
            "goodness": asdict(self.net.goodness),
            "peer": self.net.peer,
            "seed": self.seed,
        }

    def _parts(self, whitened: Tensor) -> Tensor:
        """Log frequency and the layers' logits [P, .., V] of whitened inputs [.., D]."""
        logits = self.net.candidate_logits(whitened.reshape(-1, self.input_size))
        logits = logits.view(len(logits), *whitened.shape[:-1], self.output_size)
        return torch.cat([self.log_frequency.expand_as(logits[:1]), logits])
