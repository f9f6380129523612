"""The synthetic experiment: data from a known random model, so that whatever is trained on them can be scored exactly.

A randomly drawn LSTM is the truth P. Since P(s) and G(s) can both be computed, quality, likelihood and divergences are
known and not judged. The set-up is that of SeqGAN (Yu et al., AAAI 2017) and of the CoT paper: 5000 symbols, length
20, 32 units, weights from N(0, 1), 10,000 sequences to learn from.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from frugal.combine.pair import same_tokens
from frugal.cooperative import world
from frugal.cooperative.lstm import LSTMLanguageModel, with_zeros
from frugal.cooperative.samples import draw
from frugal.device import choose_device
from frugal.errors import InputError, check_whole
from frugal.language_model import LOGITS_AT_ONCE, LanguageModel, check_model

# Worlds of at most so many sequences are listed for a score: more would take longer than a sample is worth.
MOST_LISTED = 2**13


@dataclass(frozen=True)
class OracleScores:
    """How a generator G compares with the oracle P, in nats per token unless said otherwise.

    Attributes:
        nll_oracle: -E_G log P: quality. A generator that repeats its best sequence wins it, so read it with `entropy`.
            Infinite if a sample holds a token that the oracle never writes.
        nll_test: -E_P log G: likelihood and diversity; at least `data_entropy`.
        entropy: H(G).
        data_entropy: H(P).
        jsd_step: exact Jensen-Shannon divergence of the next-token distributions, averaged over prefixes from P and
            from G, half and half. It does not saturate with the length.
        log_ratio_sum: what the original code calls "jsd": log-ratios of the chosen token's conditionals to their
            average, summed over the sequence. No divergence of sequences: it reaches T log 2.
        jsd: of whole sequences, nats per sequence, at most log 2; exact where the world can be listed, else a mean
            over the sequences drawn.
        exact: whether it is.
        outside: probability of the generator's sequences that hold a token which the oracle never writes, such as the
            document start; their share of the samples where the world cannot be listed.
    """

    nll_oracle: float
    nll_test: float
    entropy: float
    data_entropy: float
    jsd_step: float
    log_ratio_sum: float
    jsd: float
    exact: bool
    outside: float


class Oracle:
    """A random LSTM over sequences of one length.

    Args:
        vocabulary: number of symbols V.
        length: tokens T of a sequence.
        hidden: units of the LSTM.
        seed: of its weights.
        device: of all its models: "cpu", "cuda", "mps" or "auto".

    Attributes:
        model: the LSTM, a language model.

    Example:
        >>> oracle = Oracle(vocabulary=3, length=4, hidden=8)
        >>> oracle.sequences(5).shape  # each after the start token
        torch.Size([5, 5])
        >>> scores = oracle.compare(oracle.learner(hidden=8), count=100)
        >>> scores.exact, 0 < scores.jsd < 0.7
        (True, True)
    """

    def __init__(
        self, vocabulary: int = 50, length: int = 20, hidden: int = 32, seed: int = 0, *, device: str = "cpu"
    ) -> None:
        check_whole(length=length)
        self.vocabulary, self.length = vocabulary, length
        model = LSTMLanguageModel(world.symbols(vocabulary), hidden, scale=1.0, special=False, seed=seed)
        self.model = model.to(choose_device(device))

    def sequences(self, count: int, seed: int = 0) -> Tensor:
        """Data: sequences [count, 1 + T], each after the start token; they depend on the seed alone."""
        return sequences(self.model, count, self.length, seed)

    def learner(self, hidden: int = 32, seed: int = 0) -> LSTMLanguageModel:
        """An untrained LSTM over the same symbols: a generator or a mediator."""
        return LSTMLanguageModel(self.model.tokenizer, hidden, special=False, seed=seed).to(self.model.device)

    @torch.no_grad()
    def compare(self, generator: LanguageModel, count: int = 2000, seed: int = 1) -> OracleScores:
        """Score a generator on `count` sequences from the oracle and as many of its own.

        Give a seed that no training data were drawn with.
        """
        check_whole(count=count)
        check_model(generator)
        if not same_tokens(self.model, generator):
            raise InputError("generator: has other tokens than this oracle; build it by `oracle.learner`")
        data = self.sequences(count, seed)
        samples = sequences(generator, count, self.length, seed)
        of_data, of_samples = (Totals.collect(self.model, generator, tokens) for tokens in (data, samples))
        exact = self.vocabulary**self.length <= MOST_LISTED
        if exact:
            jsd, outside = self._listed(generator)
        else:
            jsd = sampled_divergence(of_data, of_samples)
            outside = (of_samples.log_p == -math.inf).double().mean().item()
        per_token = 1 / self.length
        return OracleScores(
            nll_oracle=-of_samples.log_p.mean().item() * per_token,
            nll_test=-of_data.log_g.mean().item() * per_token,
            entropy=-of_samples.log_g.mean().item() * per_token,
            data_entropy=-of_data.log_p.mean().item() * per_token,
            jsd_step=(of_data.jsd_steps + of_samples.jsd_steps).mean().item() / 2 * per_token,
            log_ratio_sum=(of_data.log_ratios_p + of_samples.log_ratios_g).mean().item() / 2,
            jsd=jsd,
            exact=exact,
            outside=outside,
        )

    def _listed(self, generator: LanguageModel) -> tuple[float, float]:
        """The divergence, and the probability of what the generator writes outside the oracle's world.

        There P is 0 and the middle of both G / 2, so that it adds log 2 / 2 times its probability.
        """
        tokens = world.every_sequence(self.vocabulary, self.length)
        log_p, log_g = (world.log_probabilities(model, tokens) for model in (self.model, generator))
        outside = max(0.0, 1 - log_g.exp().sum().item())
        return world.jensen_shannon(log_p, log_g).item() + outside * math.log(2) / 2, outside


@dataclass(frozen=True)
class Totals:
    """Sums over the tokens of each of n sequences, all [n]."""

    log_p: Tensor
    log_g: Tensor
    jsd_steps: Tensor
    log_ratios_p: Tensor
    log_ratios_g: Tensor

    @classmethod
    def collect(cls, oracle: LanguageModel, generator: LanguageModel, tokens: Tensor) -> "Totals":
        rows = max(1, LOGITS_AT_ONCE // (4 * tokens.shape[1] * oracle.vocabulary_size))
        pieces = [cls._of(oracle, generator, some) for some in tokens.split(rows)]
        return cls(*(torch.cat(column) for column in zip(*pieces, strict=True)))

    @staticmethod
    def _of(oracle: LanguageModel, generator: LanguageModel, tokens: Tensor) -> tuple[Tensor, ...]:
        inputs = tokens[:, :-1]
        p, g = (with_zeros(model.log_probabilities(inputs)) for model in (oracle, generator))  # [n, T, V]
        m = world.mixture(p, g)
        divergences = (world.weighted(p, p - m) + world.weighted(g, g - m)).sum(-1) / 2
        chosen_p, chosen_g, chosen_m = (rows.gather(-1, tokens[:, 1:, None]).squeeze(-1) for rows in (p, g, m))
        sums = (chosen_p, chosen_g, divergences, chosen_p - chosen_m, chosen_g - chosen_m)
        return tuple(values.double().sum(1) for values in sums)


def sampled_divergence(of_data: Totals, of_samples: Totals) -> float:
    """JSD(P || G) of whole sequences from log P and log G on samples of both."""
    terms = (
        of_data.log_p - world.mixture(of_data.log_p, of_data.log_g),
        of_samples.log_g - world.mixture(of_samples.log_p, of_samples.log_g),
    )
    return sum(term.mean().item() for term in terms) / 2


def sequences(model: LanguageModel, count: int, length: int, seed: int) -> Tensor:
    """Samples [count, 1 + T] of a model, the same for the same seed."""
    check_whole(0, seed=seed)
    return draw(model, count, length, generator=torch.Generator().manual_seed(int(seed))).tokens
