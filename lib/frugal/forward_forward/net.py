"""Layers that learn one by one, each from its own activities: Hinton's forward-forward algorithm (arXiv 2212.13345).

Nothing here uses automatic differentiation. The gradient of a layer's loss in the layer's own weights is one formula,
and there is no graph along which anything could reach another layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from frugal.errors import InputError, check_list, check_not_negative, check_positive, check_whole

CANDIDATE_SCALE = 0.25  # of a candidate's part in the first layer; the context's is 1
MEMORY = 0.9  # of the running means of the units' activities
SMALLEST = 1e-8  # keeps a layer that is silent from a division by zero


@dataclass(frozen=True)
class Goodness:
    """What a layer makes of its activities h [.., N]: how surely they come from real data.

        p(real) = sigmoid(sharpness * (g - threshold)),  g = mean of h^2, or their sum with N times the threshold

    Attributes:
        kind: "mean" or "sum"; the sum is the mean with N times the sharpness.
        threshold: per unit; real data is to lie above, everything else below.
        sharpness: how fast a distance from the threshold becomes certainty.

    Example:
        >>> goodness = Goodness("mean", threshold=1.0, sharpness=10.0)
        >>> goodness.logits(torch.tensor([[1.0, 1.0], [2.0, 0.0]])).tolist()
        [0.0, 10.0]
    """

    kind: Literal["mean", "sum"] = "mean"
    threshold: float = 1.0
    sharpness: float = 10.0

    def __post_init__(self) -> None:
        if self.kind not in ("mean", "sum"):
            raise InputError(f"goodness kind={self.kind!r}: must be 'mean' or 'sum' (of squares)")
        check_positive("0.5 to 20 is usual", threshold=self.threshold, sharpness=self.sharpness)

    def logits(self, activities: Tensor) -> Tensor:
        """Logits [..] of p(real) for activities [.., N]."""
        mean = activities.square().mean(-1)
        return self._factor(activities.shape[-1]) * (mean - self.threshold)

    def gradient(self, activities: Tensor, logit_gradient: Tensor) -> Tensor:
        """Gradient [n, N] at the layer's input sums; a unit that is off has activity 0, and so gradient 0."""
        width = activities.shape[-1]
        return activities * (2 / width * self._factor(width) * logit_gradient).unsqueeze(-1)

    def _factor(self, width: int) -> float:
        return self.sharpness * (width if self.kind == "sum" else 1)


class ForwardForwardNet(nn.Module):
    """ReLU layers that tell real data from other data, and a linear softmax head on what they see.

    The first layer sees a context, scaled to unit mean square, and one of V candidates as a one-hot vector: the label
    laid over an image, the token that may follow a state. Later layers see the direction of the activities below
    them, not their length, which is the goodness there and would be all they need.

        h_1 = relu(W_1 x / rms(x) + c_v + b_1),    h_l = relu(W_l h_{l-1} / rms(h_{l-1}) + b_l)

    The head reads the scaled activities of a pass without a candidate. Of several layers the first is read neither
    for the goodness of a candidate nor by the head, as in the paper, unless `read_first` says so.

    Attributes:
        weights: [N_1, D], [N_2, N_1], ..; biases: [N_l]; candidates: c [V, N_1], or None.
        head: linear, from the activities that are read to the classes; zero at first.
        spread: running means of the units' activities on real data, for peer normalisation, [sum of N_l].

    Example:
        >>> net = ForwardForwardNet(input_size=4, hidden=(8, 8), classes=3)
        >>> right, wrong = torch.zeros(5, dtype=torch.int64), torch.ones(5, dtype=torch.int64)
        >>> net.set_gradients(torch.rand(5, 4), right, wrong).shape  # one loss a layer
        torch.Size([2])
    """

    spread: Tensor

    def __init__(
        self,
        input_size: int,
        hidden: Sequence[int],
        classes: int,
        *,
        candidates: bool = True,
        goodness: Goodness | None = None,
        peer: float = 0.0,
        read_first: bool = False,
        seed: int = 0,
    ) -> None:
        """Build the net.

        Args:
            input_size: width D of a context.
            hidden: widths of the layers.
            classes: outputs of the head, and the candidates.
            candidates: whether the first layer sees a candidate; without, real data differs by its contexts.
            goodness: by default the mean of squares with threshold 1.
            peer: strength of peer normalisation, which keeps a layer's units equally active on average, so that
                none is on or off for good; 0.03 in the author's code.
            read_first: whether the first of several layers is read too.
            seed: of the weights.
        """
        super().__init__()
        check_list(check_whole, hidden=hidden)
        check_whole(input_size=input_size)
        check_whole(2, classes=classes)
        check_whole(0, seed=seed)
        check_not_negative("0.03 is usual, 0 leaves peer normalisation out", peer=peer)
        if not (goodness is None or isinstance(goodness, Goodness)):
            raise InputError(f"goodness={goodness!r}: must be a Goodness, such as Goodness('sum', threshold=2.0)")
        self.goodness, self.peer = Goodness() if goodness is None else goodness, peer
        self.hidden = tuple(map(int, hidden))
        self.read = slice(0 if read_first or len(hidden) == 1 else 1, None)
        random = torch.Generator().manual_seed(int(seed))
        self.weights = nn.ParameterList(
            torch.randn(after, before, generator=random) / before**0.5
            for before, after in pairwise([input_size, *self.hidden])
        )
        self.biases = nn.ParameterList(torch.zeros(width) for width in self.hidden)
        table = CANDIDATE_SCALE * torch.randn(classes, self.hidden[0], generator=random)
        self.candidates = nn.Parameter(table) if candidates else None
        self.head = nn.Linear(sum(self.hidden[self.read]), classes)
        for values in self.head.parameters():
            nn.init.zeros_(values)
        self.register_buffer("spread", torch.full((sum(self.hidden),), 0.5))

    @property
    def layers(self) -> list[nn.Parameter]:
        """All that is trained but the head."""
        return [parameter for name, parameter in self.named_parameters() if "head" not in name]

    def context_part(self, contexts: Tensor) -> Tensor:
        """The first layer's sums [.., N_1] of contexts [.., D], without a candidate."""
        return linear(scaled(contexts), self.weights[0], self.biases[0])

    def activities(self, sums: Tensor) -> list[Tensor]:
        """Every layer's activities [.., N_l], given the first one's sums [.., N_1]."""
        found = [sums.relu()]
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            found.append(linear(scaled(found[-1]), weight, bias).relu())
        return found

    def pair_logits(self, contexts: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Every layer's logit of p(real), [L, n], for contexts [n, D], each with its candidate [n]."""
        sums = self.context_part(contexts)
        if candidates is not None:
            sums = sums + self._rows(candidates)
        return torch.stack([self.goodness.logits(layer) for layer in self.activities(sums)])

    def candidate_logits(self, contexts: Tensor, at_once: int = 2**22) -> Tensor:
        """The logits [L, n, V] of the layers that are read, for contexts [n, D] with every candidate.

        The contexts' part of the first layer is computed once for all candidates, and the candidates' part is the
        table as it stands. `at_once` bounds the numbers held at a time.
        """
        sums, table = self.context_part(contexts), self._table
        rows = max(1, at_once // table.numel())
        pieces = [
            torch.stack([self.goodness.logits(layer) for layer in self.activities(part[:, None] + table)[self.read]])
            for part in sums.split(rows)
        ]
        return torch.cat(pieces, 1)

    def representation(self, contexts: Tensor) -> Tensor:
        """Scaled activities [.., F] that are read, in a pass over contexts [.., D] without a candidate."""
        activities = self.activities(self.context_part(contexts))
        return torch.cat([scaled(layer) for layer in activities[self.read]], -1)

    def head_logits(self, contexts: Tensor) -> Tensor:
        """Logits [.., classes] of the head."""
        return self.head(self.representation(contexts))

    @torch.no_grad()
    def set_gradients(
        self, contexts: Tensor, right: Tensor | None, wrong: Tensor | None, wrong_contexts: Tensor | None = None
    ) -> Tensor:
        """Set each layer's gradient of its own loss, and update the running means.

        Args:
            contexts: of the real data, [n, D].
            right: its candidates [n]; None for a net without candidates.
            wrong: candidates of the other data, [n].
            wrong_contexts: contexts of the other data, [n, D]; by default those of the real data.

        Returns:
            The layers' losses [L]: the mean of softplus(-logit) over real and of softplus(logit) over other data.
            Of no data, losses and gradients are zero.
        """
        n, inputs = len(contexts), scaled(contexts)
        sums = other_sums = linear(inputs, self.weights[0], self.biases[0])
        if wrong_contexts is not None:
            others = scaled(wrong_contexts)
            other_sums = linear(others, self.weights[0], self.biases[0])
        if right is not None and wrong is not None:
            sums, other_sums = sums + self._rows(right), other_sums + self._rows(wrong)
        activities = self.activities(torch.cat([sums, other_sums]))  # [2n, N_l]
        gradients = [self._layer_gradient(place, layer, n) for place, layer in enumerate(activities)]
        first = gradients[0]
        if wrong_contexts is None:  # both halves have the same contexts
            self.weights[0].grad = (first[:n] + first[n:]).T @ inputs
        else:
            self.weights[0].grad = first.T @ torch.cat([inputs, others])
        if right is not None and wrong is not None:
            self._table.grad = torch.zeros_like(self._table).index_add_(0, torch.cat([right, wrong]), first)
        for place, gradient in enumerate(gradients):
            self.biases[place].grad = gradient.sum(0)
            if place:
                self.weights[place].grad = gradient.T @ scaled(activities[place - 1])
        return torch.stack([self._loss(layer, n) for layer in activities])

    @torch.no_grad()
    def set_head_gradient(self, contexts: Tensor, classes: Tensor, offset: Tensor | float = 0.0) -> Tensor:
        """Set the head's gradient of the cross-entropy; the probabilities [n, classes] that it gave.

        `offset` is added to the logits: those of another model, say, which the head is to correct.
        """
        representation = self.representation(contexts)
        probabilities = (self.head(representation) + offset).softmax(-1)
        error = probabilities.clone()
        error[torch.arange(len(classes), device=error.device), classes] -= 1
        error /= max(1, len(classes))
        self.head.weight.grad, self.head.bias.grad = error.T @ representation, error.sum(0)
        return probabilities

    @property
    def _table(self) -> nn.Parameter:
        if self.candidates is None:
            raise InputError("this net was built without candidates: there are none to choose from; use its head")
        return self.candidates

    def _rows(self, candidates: Tensor) -> Tensor:
        """The table's rows [n, N_1] of candidates [n]."""
        table = self._table
        if len(candidates) and not 0 <= int(candidates.min()) <= int(candidates.max()) < len(table):
            raise InputError(f"candidates {candidates.tolist()}: must lie in 0 to {len(table) - 1}")
        return table[candidates]

    def _layer_gradient(self, place: int, activities: Tensor, n: int) -> Tensor:
        """Gradient [2n, N_l] of one layer's loss at its own sums."""
        probability = self.goodness.logits(activities).sigmoid()
        probability[:n] -= 1
        gradient = self.goodness.gradient(activities, probability / max(1, 2 * n))
        if self.peer and n:
            mean = self.spread.split(self.hidden)[place]
            mean.lerp_(activities[:n].mean(0), 1 - MEMORY)
            # Passed through the ReLU as if it were not there: a unit that is always off could not come back otherwise.
            gradient[:n] += self.peer * 2 / len(mean) * (1 - MEMORY) / n * (mean - mean.mean())
        return gradient

    def _loss(self, activities: Tensor, n: int) -> Tensor:
        logits = self.goodness.logits(activities)
        logits[:n] *= -1
        return softplus(logits).sum() / max(1, 2 * n)


def scaled(vectors: Tensor) -> Tensor:
    """Vectors [.., D] at unit mean square: their direction."""
    return vectors * (vectors.square().mean(-1, keepdim=True) + SMALLEST).rsqrt()


def wrong_candidates(probabilities: Tensor, right: Tensor, generator: torch.Generator) -> Tensor:
    """One draw [n] from each row of probabilities [n, V], the right candidate [n] left out.

    Where the probabilities are no numbers it is any candidate: the step that they come from tells of it.
    """
    weights = probabilities + 1e-12
    weights.scatter_(1, right.unsqueeze(1), 0)
    times = torch.empty(weights.shape).exponential_(generator=generator)
    # As torch.multinomial draws: what comes first of events at these rates.
    return (weights.cpu() / times).argmax(1).to(right.device)


def uniform_wrong(classes: int, right: Tensor, generator: torch.Generator) -> Tensor:
    """Candidates [n], all equally likely but the right ones [n]."""
    shift = torch.randint(1, classes, right.shape, generator=generator).to(right.device)
    return (right + shift) % classes
