"""The forward-forward algorithm with feedback: a layer sees the one above as well (paper, section 3.4)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, one_hot, softplus
from torch.optim import Optimizer

from frugal.errors import check_list, check_whole
from frugal.forward_forward.classifier import ImageClassifier, ImagePlan
from frugal.forward_forward.net import Goodness, scaled, uniform_wrong
from frugal.forward_forward.optimizer import adamw

ITERATIONS = 8
COUNTED = range(2, 5)  # of the iterations 0..7: those whose goodness is summed for a label, the third to the fifth
OLD = 0.3  # of the activities; 0.7 of them are new


class Moment(NamedTuple):
    """One layer at one iteration: what came from below and above, and its activities before and after damping."""

    below: Tensor
    above: Tensor
    fresh: Tensor
    activities: Tensor


class RecurrentForwardForward(ImageClassifier):
    """The image is shown for eight iterations, as a film that does not move, with a label at the top.

        h_l <- 0.3 h_l + 0.7 relu(U_l h_{l-1} / rms(h_{l-1}) + D_l h_{l+1} / rms(h_{l+1}) + b_l)

    with the activities of the iteration before on the right, the image at l = 0 and the one-hot label above the last
    layer. Every layer's goodness is to be high for the right label and low for a wrong one, at every iteration; a
    label is scored by all layers' goodness at the third to fifth. All wrong labels are equally likely here, where the
    paper draws them from the net's own guesses, which cost ten times as much.

    Example:
        >>> images = torch.eye(4).repeat(20, 1)  # 4 pixels, one of which is lit: its number is the label
        >>> labels = torch.arange(4).repeat(20)
        >>> plan = ImagePlan(epochs=20, batch_size=10, learning_rate=1e-2)
        >>> RecurrentForwardForward(4, 4, (16,), plan=plan).fit(images, labels).error(images, labels)
        0.0
    """

    def __init__(
        self,
        pixels: int,
        classes: int = 10,
        hidden: Sequence[int] = (250, 250),
        *,
        goodness: Goodness | None = None,
        plan: ImagePlan | None = None,
    ) -> None:
        super().__init__(pixels, classes, plan)
        check_list(check_whole, hidden=hidden)
        self.goodness, self.hidden = Goodness() if goodness is None else goodness, tuple(hidden)
        random = torch.Generator().manual_seed(self.plan.seed)
        widths = [pixels, *hidden, classes]

        def weights(inputs: list[int], outputs: Sequence[int]) -> nn.ParameterList:
            pairs = zip(inputs, outputs, strict=True)
            return nn.ParameterList(torch.randn(n, m, generator=random) / (2 * m) ** 0.5 for m, n in pairs)

        self.up, self.down = weights(widths[:-2], hidden), weights(widths[2:], hidden)
        self.biases = nn.ParameterList(torch.zeros(width) for width in hidden)
        self.net = nn.ModuleList([self.up, self.down, self.biases])

    def _optimizer(self) -> Optimizer:
        weights = [*self.up, *self.down, *self.biases]
        return adamw([{"params": weights, "lr": self.plan.learning_rate, "weight_decay": 0.0}])

    @torch.no_grad()
    def _set_gradients(self, images: Tensor, labels: Tensor, places: Tensor, random: torch.Generator) -> Tensor:
        seen, labels = self._noisy(images[places], random), labels[places]
        wrong = uniform_wrong(self.classes, labels, random)
        film = self._film(torch.cat([seen, seen]), torch.cat([labels, wrong]))
        losses = []
        for place, moments in enumerate(zip(*film, strict=True)):
            below, above, fresh, activities = (torch.stack(values) for values in zip(*moments, strict=True))
            logits = self.goodness.logits(activities)  # [iterations, 2n]
            error = logits.sigmoid()
            error[:, : len(places)] -= 1
            gradient = self.goodness.gradient(activities, error / error.numel())
            gradient = (gradient * (1 - OLD) * (fresh > 0)).flatten(0, 1)  # what was kept is taken as given
            self.up[place].grad = gradient.T @ below.flatten(0, 1)
            self.down[place].grad = gradient.T @ above.flatten(0, 1)
            self.biases[place].grad = gradient.sum(0)
            logits[:, : len(places)] *= -1
            losses.append(softplus(logits).mean())
        return torch.stack(losses)

    def _scores(self, images: Tensor) -> Tensor:
        scores = []
        for label in range(self.classes):
            film = self._film(images, torch.full((len(images),), label, device=images.device))
            counted = [self.goodness.logits(layer.activities) for moment in COUNTED for layer in film[moment]]
            scores.append(torch.stack(counted).sum(0))
        return torch.stack(scores, 1)

    def _film(self, images: Tensor, labels: Tensor) -> list[list[Moment]]:
        """Per iteration and layer what it saw and did; it starts from a pass upwards without a label."""
        image, label = scaled(images), scaled(one_hot(labels, self.classes).to(images))
        states, below = [], image
        for up, bias in zip(self.up, self.biases, strict=True):
            states.append(linear(below, up, bias).relu())
            below = scaled(states[-1])
        film: list[list[Moment]] = []
        for _ in range(ITERATIONS):
            ends = [image, *(scaled(state) for state in states), label]
            moments = []
            for place, old in enumerate(states):
                below, above = ends[place], ends[place + 2]
                fresh = (linear(below, self.up[place], self.biases[place]) + linear(above, self.down[place])).relu()
                moments.append(Moment(below, above, fresh, OLD * old + (1 - OLD) * fresh))
            states = [moment.activities for moment in moments]
            film.append(moments)
        return film
