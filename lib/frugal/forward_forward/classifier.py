"""Forward-forward classifiers of images: the label laid over the image, or no label and a linear read-out."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from frugal.device import choose_device
from frugal.errors import InputError, check_list, check_not_negative, check_whole
from frugal.forward_forward.images import mask_hybrids
from frugal.forward_forward.net import ForwardForwardNet, Goodness, uniform_wrong, wrong_candidates
from frugal.forward_forward.optimizer import net_optimizer
from frugal.tensors import number_tensor
from frugal.training import Epoch, EpochScore, Plan, check_plan, run_epochs, take_steps, warm_up_and_decay

IMAGES_AT_ONCE = 512
DARK = 17 / 255  # the highest pixel of scikit-learn's digits, and of black and white, given as bytes
Images = Tensor | np.ndarray | Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class ImagePlan(Plan):
    """How a classifier is trained; see `Plan`.

    Attributes:
        learning_rate: AdamW's highest; it rises over the first tenth and falls to nothing over the last fifth.
        noise: standard deviation of what is added to every pixel at every step; pixels lie in 0 to 1.

    Example:
        >>> ImagePlan(epochs=5).batch_size
        64
    """

    epochs: int = 60
    noise: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("typical values: 0 to 0.3", noise=self.noise)


@dataclass(frozen=True, kw_only=True)
class ImageScore(EpochScore):
    """What an epoch gave: the mean loss of each layer, and as `training_loss` their mean."""

    layers: list[float]


class ImageClassifier(ABC):
    """What the classifiers share: going through the images, the schedule, the prediction.

    Images are tensors, NumPy arrays or lists [n, pixels] of numbers in 0 to 1, or of bytes in 0 to 255; labels are
    whole numbers [n] of any integer type.

    Attributes:
        pixels: of an image; classes: number of labels; plan: how it is trained; net: all that is trained.
    """

    net: nn.Module
    fewest = 1  # images to learn from

    def __init__(self, pixels: int, classes: int, plan: ImagePlan | None) -> None:
        check_whole(pixels=pixels)
        check_whole(2, classes=classes)
        self.pixels, self.classes, self.plan = pixels, classes, ImagePlan() if plan is None else plan
        check_plan(self.plan, ImagePlan)

    def to(self, device: str) -> Self:
        """Move the net to "cpu", "cuda", "mps" or "auto"; it learns and predicts there, wherever the images lie."""
        self.net.to(choose_device(device))
        return self

    @property
    def _device(self) -> torch.device:
        return next(self.net.parameters()).device

    def fit(self, images: Images, labels: Images, on_epoch: Callable[[ImageScore], None] | None = None) -> Self:
        """Learn from images [n, pixels] and labels [n]; `on_epoch` is called with each score.

        A second call goes on from where the first came to; a new classifier begins again.

        Raises:
            InputError: images or labels of a wrong shape or kind, labels out of range, pixels that are not in 0 to 1.
        """
        images = self._images(images)
        if len(images) and 0 < images.max() <= DARK:
            warnings.warn(
                f"images: their highest pixel is {images.max():.3f} of 1, less than the noise; bytes are divided by "
                "255, so give pixels of another range as numbers in 0 to 1",
                stacklevel=2,
            )
        labels = self._labels(labels, len(images))
        if len(images) < self.fewest:
            raise InputError(f"{len(images)} images: a {type(self).__name__} learns from at least {self.fewest}")
        optimizer, plan = self._optimizer(), self.plan
        losses: list[Tensor] = []  # of the steps of the epoch at hand

        def train_epoch(epoch: Epoch) -> float:
            random = torch.Generator().manual_seed(epoch.seed)
            losses.clear()

            def set_gradients(places: Tensor) -> float:
                losses.append(self._set_gradients(images, labels, places, random))
                return losses[-1].mean().item()

            batches = torch.randperm(len(images), generator=random).split(plan.batch_size)
            means = take_steps(
                set_gradients,
                batches,
                optimizer,
                steps=len(batches),
                seconds=epoch.seconds_left,
                schedule=epoch.part_of(warm_up_and_decay),
                title="",
            )
            return sum(means) / len(means)

        run_epochs(
            self.net,
            optimizer,
            plan,
            train_epoch,
            lambda: ImageScore(layers=torch.stack(losses).mean(0).tolist()),
            title=type(self).__name__,
            keep_best=False,
            kind=ImageScore,
            on_epoch=on_epoch,
            progress=False,
        )
        return self

    @torch.no_grad()
    def predict(self, images: Images) -> Tensor:
        """Labels [n] of images [n, pixels], on the processor.

        Raises:
            InputError: what `fit` would not take either.
        """
        return torch.cat([self._scores(piece).argmax(-1) for piece in self._images(images).split(IMAGES_AT_ONCE)]).cpu()

    def error(self, images: Images, labels: Images) -> float:
        """Share of the images that get a wrong label."""
        predicted = self.predict(images)
        return (predicted != self._labels(labels, len(predicted)).cpu()).double().mean().item()

    @abstractmethod
    def _optimizer(self) -> Optimizer:
        """Of all that is trained, at its highest learning rates."""

    @abstractmethod
    def _set_gradients(self, images: Tensor, labels: Tensor, places: Tensor, random: torch.Generator) -> Tensor:
        """Gradients for the batch of all images and labels that is at these places; the layers' losses [L]."""

    @abstractmethod
    def _scores(self, images: Tensor) -> Tensor:
        """How well every label fits, [n, classes]."""

    def _noisy(self, images: Tensor, random: torch.Generator) -> Tensor:
        return images + self.plan.noise * torch.randn(images.shape, generator=random).to(images.device)

    def _images(self, given: Images) -> Tensor:
        """Images as the nets take them: float32, in 0 to 1."""
        images = number_tensor("images", given).detach().cpu()
        if images.ndim != 2 or images.shape[1] != self.pixels:
            raise InputError(
                f"images {tuple(images.shape)}: must be [n, {self.pixels}], one row of pixels for each image"
            )
        images = images.float() / (255 if images.dtype == torch.uint8 else 1)
        if not images.isfinite().all():
            raise InputError("images: some pixels are not finite; check the file they were read from")
        if len(images) and not 0 <= images.min() <= images.max() <= 1:
            raise InputError(
                f"images with pixels from {images.min():g} to {images.max():g}: must lie in 0 to 1; divide them by the "
                "highest that there can be, or give bytes (uint8)"
            )
        return images.to(self._device)

    def _labels(self, given: Images, count: int) -> Tensor:
        labels = number_tensor("labels", given).cpu()
        if labels.shape != (count,) or not count:
            raise InputError(f"labels {tuple(labels.shape)}: must be [{count}], one for each image, and at least one")
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise InputError(f"labels of type {labels.dtype}: must be whole numbers")
        labels = labels.long()  # torch compares no unsigned ones
        if not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise InputError(f"labels {int(labels.min())} to {int(labels.max())}: must lie in 0 to {self.classes - 1}")
        return labels.to(self._device)


class ForwardForwardClassifier(ImageClassifier):
    """Real data is an image with its label, other data the same image with a wrong one.

    `negatives` says how wrong labels are drawn: all equally likely ("uniform"), or as likely as the head thinks them
    ("hard"), which teaches the layers what the net still confuses. The label of an image is the one with most goodness
    or, with `read_by="softmax"`, the likeliest for the head, in one pass; the attribute may be changed at any time.

    Example:
        >>> images = torch.eye(4).repeat(20, 1)  # 4 pixels, one of which is lit: its number is the label
        >>> labels = torch.arange(4).repeat(20)
        >>> plan = ImagePlan(epochs=20, batch_size=10, learning_rate=1e-2)
        >>> ForwardForwardClassifier(4, 4, (16,), plan=plan).fit(images, labels).error(images, labels)
        0.0
    """

    net: ForwardForwardNet

    def __init__(
        self,
        pixels: int,
        classes: int = 10,
        hidden: Sequence[int] = (500, 500),
        *,
        goodness: Goodness | None = None,
        peer: float = 0.0,
        negatives: Literal["uniform", "hard"] = "hard",
        read_by: Literal["goodness", "softmax"] = "goodness",
        plan: ImagePlan | None = None,
    ) -> None:
        super().__init__(pixels, classes, plan)
        if negatives not in ("uniform", "hard"):
            raise InputError(f"negatives={negatives!r}: must be 'uniform' or 'hard'")
        check_reading(read_by)
        seed = self.plan.seed
        self.net = ForwardForwardNet(pixels, hidden, classes, goodness=goodness, peer=peer, seed=seed)
        self.negatives, self.read_by = negatives, read_by

    def _optimizer(self) -> Optimizer:
        return net_optimizer(self.net, self.plan.learning_rate)

    def _set_gradients(self, images: Tensor, labels: Tensor, places: Tensor, random: torch.Generator) -> Tensor:
        seen, labels = self._noisy(images[places], random), labels[places]
        probabilities = self.net.set_head_gradient(seen, labels)
        if self.negatives == "hard":
            wrong = wrong_candidates(probabilities, labels, random)
        else:
            wrong = uniform_wrong(self.classes, labels, random)
        return self.net.set_gradients(seen, labels, wrong)

    def _scores(self, images: Tensor) -> Tensor:
        if self.read_by == "softmax":
            return self.net.head_logits(images)
        check_reading(self.read_by)
        return self.net.candidate_logits(images).sum(0)


def check_reading(read_by: str) -> None:
    if read_by not in ("goodness", "softmax"):
        raise InputError(f"read_by={read_by!r}: must be 'goodness' or 'softmax'")


class UnsupervisedForwardForward(ImageClassifier):
    """Real data is an image, other data a hybrid of two; only the linear read-out ever sees a label.

    `shape` is the images' (height, width), `blurs` how smooth the masks of the hybrids are.

    Example:
        >>> images = torch.eye(4).repeat(20, 1)  # 4 pixels, one of which is lit: its number is the label
        >>> labels = torch.arange(4).repeat(20)
        >>> plan = ImagePlan(epochs=20, batch_size=10, learning_rate=1e-2)
        >>> UnsupervisedForwardForward((2, 2), 4, (16, 16), plan=plan).fit(images, labels).error(images, labels)
        0.0
    """

    net: ForwardForwardNet
    fewest = 2  # of which a hybrid is made

    def __init__(
        self,
        shape: tuple[int, int],
        classes: int = 10,
        hidden: Sequence[int] = (500, 500),
        *,
        goodness: Goodness | None = None,
        peer: float = 0.03,
        blurs: int = 2,
        plan: ImagePlan | None = None,
    ) -> None:
        check_list(check_whole, 2, shape=shape)
        if len(shape) != 2:
            raise InputError(f"shape={shape}: must be the images' (height, width)")
        check_whole(0, blurs=blurs)
        pixels = shape[0] * shape[1]
        super().__init__(pixels, classes, plan)
        seed = self.plan.seed
        self.net = ForwardForwardNet(pixels, hidden, classes, candidates=False, goodness=goodness, peer=peer, seed=seed)
        self.shape, self.blurs = shape, blurs

    def _optimizer(self) -> Optimizer:
        return net_optimizer(self.net, self.plan.learning_rate)

    def _set_gradients(self, images: Tensor, labels: Tensor, places: Tensor, random: torch.Generator) -> Tensor:
        first = images[places]
        second = images[(places + torch.randint(1, len(images), places.shape, generator=random)) % len(images)]
        hybrids = mask_hybrids(first, second, self.shape, random, self.blurs)
        # Where the two are equal, or the mask leaves one of them as it is, what comes out is an image and no hybrid.
        mixed = (hybrids != first).any(1) & (hybrids != second).any(1)
        hybrids, seen = self._noisy(hybrids, random), self._noisy(first, random)
        self.net.set_head_gradient(seen, labels[places])
        return self.net.set_gradients(seen[mixed], None, None, hybrids[mixed])

    def _scores(self, images: Tensor) -> Tensor:
        return self.net.head_logits(images)


class BackpropClassifier(ImageClassifier):
    """The same layers and head, trained by the head's error alone, which goes back through all of them: the control.

    Example:
        >>> images = torch.eye(4).repeat(20, 1)  # 4 pixels, one of which is lit: its number is the label
        >>> labels = torch.arange(4).repeat(20)
        >>> plan = ImagePlan(epochs=20, batch_size=10, learning_rate=1e-2)
        >>> BackpropClassifier(4, 4, (16,), plan).fit(images, labels).error(images, labels)
        0.0
    """

    net: ForwardForwardNet

    def __init__(
        self, pixels: int, classes: int = 10, hidden: Sequence[int] = (500, 500), plan: ImagePlan | None = None
    ) -> None:
        super().__init__(pixels, classes, plan)
        self.net = ForwardForwardNet(pixels, hidden, classes, candidates=False, seed=self.plan.seed)

    def _optimizer(self) -> Optimizer:
        return net_optimizer(self.net, self.plan.learning_rate)

    def _set_gradients(self, images: Tensor, labels: Tensor, places: Tensor, random: torch.Generator) -> Tensor:
        loss = cross_entropy(self.net.head_logits(self._noisy(images[places], random)), labels[places])
        loss.backward()
        return loss.detach().unsqueeze(0)

    def _scores(self, images: Tensor) -> Tensor:
        return self.net.head_logits(images)
