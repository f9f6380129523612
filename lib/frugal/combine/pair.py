"""Two models side by side, such as generator and mediator: scored and stepped together.

Where both are readouts on one frozen trunk (two echo language models with one foundation and one reservoir), the trunk
runs once for both, so that sampling with the two costs one state update per token.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from frugal.corpora import Tokenizer
from frugal.errors import InputError
from frugal.language_model import HiddenStateModel, LanguageModel, check_model


class Pair:
    """Two language models over one vocabulary.

    Attributes:
        shared: both have the same hidden states, which no training changes.
    """

    def __init__(self, generator: LanguageModel, mediator: LanguageModel) -> None:
        for model in (generator, mediator):
            check_model(model)
        if generator is mediator:
            raise InputError("generator and mediator are one model: give two, the mediator best larger")
        if not same_tokens(generator, mediator):
            sizes = generator.vocabulary_size, mediator.vocabulary_size
            raise InputError(
                f"generator and mediator differ in vocabulary ({sizes[0]} and {sizes[1]} tokens), start token or "
                "device: build both with one tokeniser on one device"
            )
        self.generator, self.mediator = generator, mediator
        trunks = [model.trunk if isinstance(model, HiddenStateModel) else None for model in (generator, mediator)]
        self.shared = trunks[0] is not None and trunks[0] == trunks[1]

    def hidden(self, tokens: Tensor) -> Tensor:
        """Shared hidden states [B, T, d] of tokens [B, T]."""
        assert isinstance(self.generator, HiddenStateModel)
        return self.generator.hidden(tokens)

    def log_probabilities(self, model: LanguageModel, tokens: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Log-probabilities [B, T, V] by one of the two of what follows tokens [B, T].

        `hidden` are the tokens' hidden states, for models that share them.
        """
        if hidden is None:
            return model.log_probabilities(tokens)
        assert isinstance(model, HiddenStateModel)
        return model.head(hidden).float().log_softmax(-1)

    def scores(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities [B, T, V] by both."""
        hidden = self.hidden(tokens) if self.shared else None
        first, second = (self.log_probabilities(each, tokens, hidden) for each in (self.generator, self.mediator))
        return first, second

    def start(self, batch_size: int) -> Any:
        if self.shared:
            return self.generator.start(batch_size)
        return self.generator.start(batch_size), self.mediator.start(batch_size)

    def advance(self, tokens: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        """Take tokens [B, T] of each stream: log-probabilities [B, T, V] after each by both, and the new state."""
        if not self.shared:
            log_g, generator = self.generator.advance(tokens, state[0])
            log_m, mediator = self.mediator.advance(tokens, state[1])
            return log_g, log_m, (generator, mediator)
        assert isinstance(self.generator, HiddenStateModel)
        hidden, state = self.generator.hidden_advance(tokens, state)
        return *(self.log_probabilities(each, tokens, hidden) for each in (self.generator, self.mediator)), state


def same_tokens(first: LanguageModel, second: LanguageModel) -> bool:
    """Whether two models on one device mean the same text by every token."""
    one, other = first.tokenizer, second.tokenizer
    if first.vocabulary_size != second.vocabulary_size or one.start_id != other.start_id:
        return False
    return first.device == second.device and (one is other or tokenizer_files(one) == tokenizer_files(other))


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """What a tokeniser writes into a folder: all that it is."""
    with TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}
