"""A model at another temperature: the baseline that every claim about sample quality has to beat."""

from typing import Any

from torch import Tensor

from frugal.errors import InputError, is_number
from frugal.language_model import LanguageModel, check_model

COLDEST, HOTTEST = 1e-30, 1e20  # beyond, quotients leave the numbers of float32; here all is on the likeliest, or equal


class Tempered(LanguageModel):
    """p(w | tokens) ~ p(w | tokens)^(1 / temperature), token by token.

    Below 1 samples get better and more alike; above 1 the reverse. Sweeping it draws the curve of quality against
    diversity that one trained model already offers.

    Caccia et al., "Language GANs Falling Short", ICLR 2020, arXiv 1811.02549.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer, encode_documents
        >>> model = NGram(2, CharTokenizer("ab")).fit(["abababb"])
        >>> [tokens] = encode_documents(model.tokenizer, ["ab"])
        >>> cold = Tempered(model, 0.5)
        >>> bool(cold.log_probabilities(tokens[None]).max() > model.log_probabilities(tokens[None]).max())
        True
    """

    def __init__(self, model: LanguageModel, temperature: float) -> None:
        check_model(model)
        if not (is_number(temperature) and COLDEST <= temperature <= HOTTEST):
            raise InputError(
                f"temperature={temperature}: must lie in {COLDEST} to {HOTTEST}; typical values lie in 0.5 to 1.2"
            )
        self.model, self.temperature = model, temperature
        self.tokenizer, self.vocabulary_size, self.device = model.tokenizer, model.vocabulary_size, model.device
        self.context_length = model.context_length

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        return self._tempered(self.model.log_probabilities(tokens)).log_softmax(-1)

    def start(self, batch_size: int) -> Any:
        return self.model.start(batch_size)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, state = self.model.step(tokens, state)
        return self._tempered(logits), state

    def advance(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        rows, state = self.model.advance(tokens, state)
        return self._tempered(rows).log_softmax(-1), state

    def _tempered(self, logits: Tensor) -> Tensor:
        """Less their largest, so that at any temperature one of them stays finite."""
        return (logits - logits.amax(-1, keepdim=True)) / self.temperature
