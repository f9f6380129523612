"""Guide text by state: every hidden state is drawn towards the mean state of a text.

    h' = (1 - weight) h + weight mean(h(guide))

Where `frugal.combine.Guided` lets a model read the guide before it writes, this shifts what its head sees: it
costs nothing per token and keeps no more of the guide than what its states have in common: style and vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from frugal.corpora import encode_documents
from frugal.errors import InputError, is_number
from frugal.language_model import HiddenStateModel, check_model


class Steered(HiddenStateModel):
    """A model whose hidden states lean towards those of a text; its recurrent state goes on untouched.

    Args:
        model: any model with hidden states.
        guide: the text.
        weight: 0 to 1; 0 is the model itself, at 1 nothing of the context is left.

    Example:
        >>> from frugal.cooperative import LSTMLanguageModel
        >>> from frugal.corpora import CharTokenizer
        >>> model = LSTMLanguageModel(CharTokenizer.ascii(), hidden=8)
        >>> tokens = torch.tensor([[97, 98]])
        >>> torch.equal(Steered(model, "a guide", weight=0.0).hidden(tokens), model.hidden(tokens))
        True
    """

    def __init__(self, model: HiddenStateModel, guide: str, *, weight: float = 0.2) -> None:
        check_model(model, hidden=True)
        if not (isinstance(guide, str) and guide.strip()):
            raise InputError(f"guide={guide!r}: must hold some text; leave the guide out to have none")
        if not (is_number(weight) and 0 <= weight <= 1):
            raise InputError(f"weight={weight}: must be from 0 to 1; typical values lie in 0.1 to 0.4")
        self.model, self.weight = model, weight
        self.tokenizer, self.vocabulary_size, self.device = model.tokenizer, model.vocabulary_size, model.device
        self.context_length = model.context_length
        [tokens] = encode_documents(self.tokenizer, [guide])
        if model.context_length is not None and len(tokens) > model.context_length:
            raise InputError(
                f"the guide has {len(tokens) - 1} tokens: must have fewer than the model's context of "
                f"{model.context_length}; shorten it"
            )
        with torch.no_grad():
            hidden = model.hidden(tokens[None].to(self.device))
        self.mean = hidden[0, 1:].mean(0)  # [d]; the state of the start token says nothing about the guide

    def hidden(self, tokens: Tensor) -> Tensor:
        return torch.lerp(self.model.hidden(tokens), self.mean, self.weight)

    def head(self, hidden: Tensor) -> Tensor:
        return self.model.head(hidden)

    def start(self, batch_size: int) -> Any:
        return self.model.start(batch_size)

    def hidden_step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden, state = self.model.hidden_step(tokens, state)
        return torch.lerp(hidden, self.mean, self.weight), state
