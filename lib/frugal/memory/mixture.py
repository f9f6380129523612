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

THETAS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
COUNTS = (1, 8, 32, 128, 512)
EM_STEPS, EM_TOLERANCE = 200, 1e-6
GATE_STEPS = 60
SAME = 1e-6


class Neighbours(NamedTuple):
    """The nearest entries of one source for each row, nearest first; where there are fewer, similarity is -inf."""

    ids: Tensor  # [T, k], -1 where there is none
    similarity: Tensor  # [T, k], cosine of the keys
    tokens: Tensor  # [T, k], the entries' values

    @property
    def found(self) -> Tensor:
        """Whether there is any, [T]."""
        return self.similarity[:, 0] > -torch.inf

    def weights(self, theta: float, k: int) -> Tensor:
        """The share of each of the k nearest, [T, k]; zeros where there is none at all."""
        return (theta * self.similarity[:, :k]).softmax(1).nan_to_num()

    def probability(self, targets: Tensor, theta: float, k: int) -> Tensor:
        """Of each row's target, [T]."""
        return (self.weights(theta, k) * (self.tokens[:, :k] == targets.unsqueeze(1))).sum(1)

    def with_shuffled_values(self, seed: int = 0) -> "Neighbours":
        """Each entry with the value of another, drawn at random from those before it: what are the values worth?

        From those before it, since a document's later entries would tell its future.
        """
        ids, place = self.ids.unique(return_inverse=True)  # in ascending order, which is that of writing
        values = torch.zeros_like(ids).scatter_(0, place.flatten(), self.tokens.flatten())
        drawn = torch.rand(len(ids), generator=torch.Generator().manual_seed(seed)).to(ids.device)
        earlier = (drawn * torch.arange(len(ids), device=ids.device)).long()
        return self._replace(tokens=values[earlier][place])

    def with_oracle_values(self, targets: Tensor) -> "Neighbours":
        """The nearest entry of each row holds the true token: the bound on what a better search could gain."""
        return self._replace(tokens=torch.cat([targets.unsqueeze(1), self.tokens[:, 1:]], 1))


class Trace(NamedTuple):
    """All that mixtures need to know of a document of T tokens."""

    own: Tensor  # [T], the model's log-probability of each token
    entropy: Tensor  # [T], of the model's distribution, in nats
    targets: Tensor  # [T]
    sources: tuple[Neighbours, ...]  # of the document itself, of the kept memory


@dataclass(frozen=True)
class Interpolation:
    """Inverse temperature and number of neighbours of each source, and the weights.

    `gate` [sources, features] are the logits of the sources' weights against the model's, which is 0; the features
    are 1, the model's entropy and the similarity of each source's nearest entry. All but the first column are zero
    where the weights do not adapt. A source without entries leaves its weight to the others.
    """

    thetas: tuple[float, ...]
    counts: tuple[int, ...]
    gate: Tensor

    @classmethod
    def constant(cls, weights: Sequence[float], thetas: Sequence[float], counts: Sequence[int]) -> "Interpolation":
        """The same weights everywhere; 0 leaves a source out."""
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
        logits = gate_features(entropy, sources) @ self.gate.T  # [T, sources]
        logits = logits.masked_fill(~torch.stack([source.found for source in sources], 1), -torch.inf)
        return pad(logits, (1, 0)).softmax(1)

    def log_probabilities(self, trace: Trace) -> Tensor:
        """Of each token of the document, [T]."""
        given = self._probabilities(trace)
        return (self.weights(trace.entropy, trace.sources) * given).sum(1).log()

    def _probabilities(self, trace: Trace) -> Tensor:
        pairs = zip(trace.sources, self.thetas, self.counts, strict=True)
        columns = [source.probability(trace.targets, theta, k) for source, theta, k in pairs]
        return torch.stack([trace.own.exp(), *columns], 1)

    @classmethod
    def fit(cls, traces: Sequence[Trace], *, adaptive: bool = True) -> "Interpolation":
        """The mixture that predicts validation documents best.

        Theta and k of each source are searched with that source alone beside the model, its weight found by
        expectation maximisation, which is convex in it; the weights of all together likewise. Adaptive weights
        start from there and ascend the same likelihood.
        """
        settings = [_best_setting(traces, j) for j in range(len(traces[0].sources))]
        thetas, counts = zip(*settings, strict=True)
        start = cls.constant([0.1] * len(settings), thetas, counts)
        given = torch.cat([start._probabilities(trace) for trace in traces])
        found = torch.cat([torch.stack([source.found for source in trace.sources], 1) for trace in traces])
        mixture = cls.constant(_expectation_maximisation(given, found).tolist()[1:], thetas, counts)
        return cls(thetas, counts, _adapt(mixture, traces, given, found)) if adaptive else mixture


def gate_features(entropy: Tensor, sources: Sequence[Neighbours]) -> Tensor:
    """What the weights may depend on, [T, 2 + sources]."""
    nearest = [source.similarity[:, 0].clamp_min(-1) for source in sources]
    return torch.stack([torch.ones_like(entropy), entropy, *nearest], 1)


def _best_setting(traces: Sequence[Trace], j: int) -> tuple[float, int]:
    """Theta and k of source j."""
    own = torch.cat([trace.own for trace in traces]).exp()
    found = torch.cat([trace.sources[j].found for trace in traces]).unsqueeze(1)
    most = max(trace.sources[j].tokens.shape[1] for trace in traces)
    best = (-torch.inf, THETAS[0], 1)
    for theta in THETAS:
        for k in sorted({min(k, most) for k in COUNTS}):
            of_source = torch.cat([trace.sources[j].probability(trace.targets, theta, k) for trace in traces])
            given = torch.stack([own, of_source], 1)
            weights = _masked(_expectation_maximisation(given, found), found)
            best = max(best, ((weights * given).sum(1).log().sum().item(), theta, k))
    return best[1:]


def _expectation_maximisation(given: Tensor, found: Tensor) -> Tensor:
    """Constant weights [C] of the components whose probabilities are `given` [T, C]; the first is always there.

    They are those of the rows where every source has entries that ever has any.
    """
    given = given[(found | ~found.any(0)).all(1)]
    weights = torch.full((given.shape[1],), 1 / given.shape[1], dtype=given.dtype)
    for _ in range(EM_STEPS):
        shares = weights * given
        before, weights = weights, (shares / shares.sum(1, keepdim=True)).mean(0)
        if (weights - before).abs().max() < EM_TOLERANCE:
            break
    return weights


def _masked(weights: Tensor, found: Tensor) -> Tensor:
    """Weights [T, C] in which sources without entries leave theirs to the others."""
    present = pad(found, (1, 0), value=True) * weights
    return present / present.sum(1, keepdim=True)


def _adapt(mixture: Interpolation, traces: Sequence[Trace], given: Tensor, found: Tensor) -> Tensor:
    """The gate with weights that depend on the features; a source that was left out stays out."""
    features = torch.cat([gate_features(trace.entropy, trace.sources) for trace in traces])
    deviation, mean = torch.std_mean(features, 0)
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
