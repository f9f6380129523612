"""Sampling directed by the mediator: M is about (P + G) / 2, so generator and mediator together know more of P than G.

Three ways, in rising faithfulness: `Extrapolated` goes beyond the mediator in log-probabilities,
`Inverted` solves the mixture for P token by token, `reweighted` solves it for whole sequences.
"""

import math

import torch
from torch import Tensor

from frugal.combine.mixture import TwoModels
from frugal.errors import InputError, check_list, check_number, is_number
from frugal.language_model import LanguageModel
from frugal.tensors import number_tensor

# Part of the mediator's probability left to a token that the inversion rules out.
RULED_OUT = 1e-6
# Stands for the logarithm of zero where it is multiplied: minus infinity times zero would be no number.
LOG_ZERO = -1e30


class Extrapolated(TwoModels):
    """log p = log G + lam (log M - log G) - log Z: the generator at lam 0, the mediator at 1, about the data at 2.

    Where G is near P, log M - log G is about half of log P - log G, hence 2. Classifier-free guidance has this form.
    What neither model ever writes keeps probability zero.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> generator, mediator = (NGram(2, CharTokenizer("ab")).fit([text]) for text in ("ab", "abab"))
        >>> tokens = torch.tensor([[2, 0]])
        >>> one = Extrapolated(generator, mediator, lam=1.0)
        >>> torch.allclose(one.log_probabilities(tokens), mediator.log_probabilities(tokens), atol=1e-5)
        True
    """

    def __init__(self, generator: LanguageModel, mediator: LanguageModel, *, lam: float = 2.0) -> None:
        if not (is_number(lam) and 0 <= lam <= 10):
            raise InputError(f"lam={lam}: must lie in 0 to 10; 0 is the generator, 1 the mediator, 2 about the data")
        super().__init__(generator, mediator)
        self.lam = lam

    def combine(self, log_first: Tensor, log_second: Tensor, log_ratio: Tensor) -> Tensor:
        first, second = log_first.clamp_min(LOG_ZERO), log_second.clamp_min(LOG_ZERO)
        return torch.lerp(first, second, self.lam).log_softmax(-1)


class Inverted(TwoModels):
    """The mixture solved for the data, token by token.

        a(s) = P(s) / (P(s) + G(s)) = 1 - G(s) / (2 M(s)),    P(v | s) = (M(v | s) - (1 - a) G(v | s)) / a

    With the exact mediator this is P. A learned one errs, and small a would blow its errors up: a is kept within
    bounds, what would be negative is set to about nothing, and the rest is normalised.

    Args:
        bounds: lowest and highest a; (0.1, 0.9) suits a learned mediator.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.combine import Mixture
        >>> from frugal.corpora import CharTokenizer
        >>> data, generator = (NGram(2, CharTokenizer("ab")).fit([text]) for text in ("abab", "aabb"))
        >>> exact = Inverted(generator, Mixture(data, generator), bounds=(1e-3, 1.0))
        >>> tokens = torch.tensor([[2, 0, 1]])
        >>> torch.allclose(exact.log_probabilities(tokens), data.log_probabilities(tokens), atol=1e-4)
        True
    """

    def __init__(
        self, generator: LanguageModel, mediator: LanguageModel, *, bounds: tuple[float, float] = (0.1, 0.9)
    ) -> None:
        check_list(check_number, bounds=bounds)
        if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= 1:
            raise InputError(f"bounds={bounds}: must be two numbers in (0, 1], the lower one first, such as (0.1, 0.9)")
        super().__init__(generator, mediator)
        self.bounds = bounds

    def combine(self, log_first: Tensor, log_second: Tensor, log_ratio: Tensor) -> Tensor:
        alpha = (1 - log_ratio.exp() / 2).clamp(*self.bounds).unsqueeze(-1)
        mediator = log_second.exp()
        data = ((mediator - (1 - alpha) * log_first.exp()) / alpha).maximum(RULED_OUT * mediator)
        smallest = torch.finfo(data.dtype).tiny  # so that what is merely ruled out keeps a logarithm
        likely = (data / data.sum(-1, keepdim=True)).clamp_min(smallest).log()
        return likely.masked_fill(mediator == 0, -math.inf)


def reweighted(log_generator: Tensor, log_mediator: Tensor) -> Tensor:
    """Weights [n], of mean 1, that make sequences drawn from the generator stand for the data.

        P(s) / G(s) = 2 M(s) / G(s) - 1, where that is positive

    Args:
        log_generator: log G(s) of each sequence, [n].
        log_mediator: log M(s), [n].

    Raises:
        InputError: the mediator finds no sequence likely enough to keep.

    Example:
        >>> log_generator, log_mediator = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.75, 0.25]).log()
        >>> reweighted(log_generator, log_mediator)  # as if the data were the first sequence alone
        tensor([2., 0.])
    """
    log_generator, log_mediator = (number_tensor("log-probabilities", each) for each in (log_generator, log_mediator))
    if log_generator.ndim != 1 or log_generator.shape != log_mediator.shape:
        shapes = list(log_generator.shape), list(log_mediator.shape)
        raise InputError(f"log_generator {shapes[0]}, log_mediator {shapes[1]}: must be of the same sequences, [n]")
    log_ratio = math.log(2) + log_mediator - log_generator
    if log_ratio.isnan().any():
        raise InputError(
            "log_generator, log_mediator: must be numbers, those of the generator finite, as of its samples"
        )
    if not (log_ratio > 0).any():
        raise InputError(
            "all weights are zero: the mediator thinks that none of the sequences could be data; draw more"
        )
    # exp(r) - 1 = exp(r) (1 - exp(-r)), whose logarithm bears any r.
    log_weights = torch.where(log_ratio > 0, log_ratio + (-(-log_ratio).expm1()).log(), -math.inf)
    return log_weights.softmax(0) * len(log_weights)
