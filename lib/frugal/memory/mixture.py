"""A model's own prediction mixed with what its nearest neighbours were followed by, and how the weights are found.

    p(w) = m_0 p_model(w) + sum over sources j of m_j p_j(w),
    p_j(w) proportional to the sum over its k nearest entries i with value w of exp(theta_j * cosine_i)

(Khandelwal et al., "Generalization through memorization", 2020, with the cosine in place of a distance.) All that a
mixture of given neighbours needs of a text is small, so that any setting is tried without running the model again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from frugal.baselines.cache import THETAS, Neighbours, best_setting, check_thetas, mixture_weights
from frugal.errors import InputError, check_list, check_number, check_whole
from frugal.language_model import log_mixed

COUNTS = (1, 8, 32, 128, 512)
GATE_STEPS = 60
SAME = 1e-6


class Retrieved(NamedTuple):
    """What was retrieved for a document of T tokens, and what its model says: all that a mixture needs to know."""

    own: Tensor  # [T], the model's log-probability of each token
    entropy: Tensor  # [T], of the model's distribution, in nats
    targets: Tensor  # [T]
    sources: tuple[Neighbours, ...]  # of the document itself, of the kept memory


@dataclass(frozen=True)
class Interpolation:
    """Inverse temperature and number of neighbours of each source, and the weights.

    `gate` [sources, features] are the logits of the sources' weights against the model's, which is 0; the features
    are 1, the model's entropy and the similarity of each source's nearest entry. All but the first column are zero
    where the weights do not adapt. Features beyond `limits` [2, features], the lowest and highest of the text that the
    gate was fitted to, count as these. A source without entries leaves its weight to the others.

    Examples:
        >>> mixture = Interpolation.constant(weights=(0.2, 0.3), thetas=(20, 40), counts=(512, 8))
        >>> some = Neighbours(torch.tensor([[0]]), torch.tensor([[0.9]]), torch.tensor([[7]]))
        >>> none = Neighbours(torch.tensor([[-1]]), torch.tensor([[-torch.inf]]), torch.tensor([[0]]))
        >>> mixture.weights(torch.tensor([2.0]), (some, some))
        tensor([[0.5000, 0.2000, 0.3000]])
        >>> mixture.weights(torch.tensor([2.0]), (some, none))  # the memory is empty
        tensor([[0.7143, 0.2857, 0.0000]])
    """

    thetas: tuple[float, ...]
    counts: tuple[int, ...]
    gate: Tensor
    limits: Tensor | None = None

    @classmethod
    def constant(cls, weights: Sequence[float], thetas: Sequence[float], counts: Sequence[int]) -> "Interpolation":
        """The same weights everywhere; 0 leaves a source out, and what they leave of 1 is the model's.

        Raises:
            InputError: a weight below 0, or nothing left.
        """
        check_list(check_number, weights=weights)
        check_list(check_thetas, thetas=thetas)
        check_list(check_whole, counts=counts)
        if not len(weights) == len(thetas) == len(counts):
            raise InputError(f"{len(weights)} weights, {len(thetas)} thetas, {len(counts)} counts: one for each source")
        if not (all(weight >= 0 for weight in weights) and sum(weights) < 1):
            raise InputError(f"weights={tuple(weights)}: must not be negative, and less than 1 together")
        shares = torch.tensor([1 - sum(weights), *weights], dtype=torch.float64)
        logits = shares.log()
        gate = torch.zeros(len(weights), 2 + len(weights))
        gate[:, 0] = logits[1:] - logits[0]
        return cls(tuple(thetas), tuple(counts), gate)

    @property
    def is_off(self) -> bool:
        return bool((self.gate[:, 0] == -torch.inf).all())

    def weights(self, entropy: Tensor, sources: Sequence[Neighbours]) -> Tensor:
        """Shares [T, 1 + sources] of the model and of each source."""
        features = gate_features(entropy, sources)
        if self.limits is not None:
            features = features.clamp(*self.limits.to(features))
        logits = features @ self.gate.to(features).T  # [T, sources]
        logits = logits.masked_fill(~torch.stack([source.found for source in sources], 1), -torch.inf)
        return pad(logits, (1, 0)).softmax(1)

    def log_probabilities(self, retrieved: Retrieved) -> Tensor:
        """Of each token of the document, [T]."""
        given, weights = self._probabilities(retrieved), self.weights(retrieved.entropy, retrieved.sources)
        return log_mixed((weights * given).sum(1), weights[:, 0], retrieved.own)

    def _probabilities(self, retrieved: Retrieved) -> Tensor:
        """Of each token by the model and by each source, [T, 1 + sources]."""
        settings = zip(retrieved.sources, self.thetas, self.counts, strict=True)
        columns = [source.probability(retrieved.targets, theta, k) for source, theta, k in settings]
        return torch.stack([retrieved.own.exp(), *columns], 1)

    @classmethod
    def fit(cls, retrieved: Sequence[Retrieved], *, adaptive: bool = True) -> "Interpolation":
        """The mixture that predicts validation documents best.

        Theta and k of each source are searched with that source alone beside the model, its weight found by
        expectation maximisation, which is convex in it; the weights of all together likewise. Adaptive weights
        start from there and ascend the same likelihood.

        Raises:
            InputError: there are no documents.
        """
        if not retrieved:
            raise InputError("retrieved: must hold at least one document")
        settings = [_best_setting(retrieved, j) for j in range(len(retrieved[0].sources))]
        thetas, counts = zip(*settings, strict=True)
        start = cls.constant([0.1] * len(settings), thetas, counts)
        given = torch.cat([start._probabilities(each) for each in retrieved]).cpu()
        found = torch.cat([torch.stack([source.found for source in each.sources], 1) for each in retrieved]).cpu()
        weights = mixture_weights(given, found)
        weights[0].clamp_min_(SAME)  # a model that never says the token keeps a logit all the same
        mixture = cls.constant((weights / weights.sum()).tolist()[1:], thetas, counts)
        if not adaptive:
            return mixture
        features = torch.cat([gate_features(each.entropy, each.sources) for each in retrieved]).cpu()
        return cls(thetas, counts, _adapt(mixture, features, given, found), torch.stack(features.aminmax(dim=0)))


def gate_features(entropy: Tensor, sources: Sequence[Neighbours]) -> Tensor:
    """What the weights may depend on, [T, 2 + sources]."""
    nearest = [source.similarity[:, 0].clamp_min(-1) for source in sources]
    return torch.stack([torch.ones_like(entropy), entropy, *nearest], 1)


def _best_setting(retrieved: Sequence[Retrieved], j: int) -> tuple[float, int]:
    """Theta and k of source j."""
    sources = [(each.sources[j], each.targets) for each in retrieved]
    most = max(source.tokens.shape[1] for source, _ in sources)
    candidates = (
        ((theta, k), torch.cat([source.probability(targets, theta, k) for source, targets in sources]))
        for theta in THETAS
        for k in sorted({min(k, most) for k in COUNTS})
    )
    own, found = torch.cat([each.own for each in retrieved]), torch.cat([source.found for source, _ in sources])
    return best_setting(own, found, candidates)[0]


def _adapt(mixture: Interpolation, features: Tensor, given: Tensor, found: Tensor) -> Tensor:
    """The gate with weights that depend on the features; a source that was left out stays out."""
    deviation, mean = torch.std_mean(features, 0, correction=0)
    deviation[deviation < SAME] = torch.inf  # what is the same everywhere has nothing to say
    standard = (features - mean) / deviation
    standard[:, 0] = 1
    gate = mixture.gate.clamp_min(-30).requires_grad_()
    optimizer = torch.optim.LBFGS([gate], max_iter=GATE_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = (standard @ gate.T).masked_fill(~found, -torch.inf)
        value = -(pad(logits, (1, 0)).softmax(1) * given).sum(1).log().mean()
        value.backward()
        return value

    optimizer.step(loss)
    scaled = gate.detach() / deviation
    scaled[:, 0] = gate.detach()[:, 0] - scaled @ mean
    return scaled
