"""A small LSTM language model: oracle, generator and mediator of the synthetic experiment."""

import math
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from frugal.corpora import Tokenizer
from frugal.device import choose_device
from frugal.errors import check_positive, check_whole
from frugal.language_model import HiddenStateModel, read_model, save_model

# A logit so low that its probability is zero at any temperature, and yet finite, so that zero times it is zero and not
# NaN.
NEVER = -1e30


class LSTMState(NamedTuple):
    """Hidden state and cell of each stream, both [B, H]."""

    hidden: Tensor
    cell: Tensor


class LSTMLanguageModel(nn.Module, HiddenStateModel):
    """Embedding, one LSTM layer, softmax. All of it is trained; it can be its own generator or mediator.

    Args:
        tokenizer: its tokens are embedded, and all but the special ones are predicted.
        hidden: units H of the LSTM, and width of the embedding.
        scale: standard deviation of the normal distribution that all weights are drawn from.
        special: predict the document start (where a document ends) and unknown characters too. A world of sequences
            of one length has neither: there they get probability zero.
        seed: of the weights.

    Example:
        >>> from frugal.corpora import CharTokenizer
        >>> model = LSTMLanguageModel(CharTokenizer("abc"), hidden=8)
        >>> logits, state = model.step(torch.tensor([0, 1]), model.start(2))
        >>> logits.shape
        torch.Size([2, 5])
    """

    never: Tensor

    def __init__(
        self, tokenizer: Tokenizer, hidden: int = 32, *, scale: float = 0.1, special: bool = True, seed: int = 0
    ) -> None:
        super().__init__()
        check_whole(hidden=hidden)
        check_whole(0, seed=seed)
        check_positive("typical values lie in 0.05 to 1", scale=scale)
        hidden, seed = int(hidden), int(seed)  # PyTorch takes no numbers of NumPy here
        self.tokenizer, self.vocabulary_size = tokenizer, tokenizer.vocabulary_size
        self.settings = {"hidden": hidden, "scale": scale, "special": special, "seed": seed}
        self.embedding = nn.Embedding(self.vocabulary_size, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.output = nn.Linear(hidden, self.vocabulary_size)
        never = torch.zeros(self.vocabulary_size)
        if not special:
            never[[i for i in (tokenizer.start_id, tokenizer.unknown_id) if i is not None]] = NEVER
        self.register_buffer("never", never, persistent=False)
        generator = torch.Generator().manual_seed(int(seed))
        with torch.no_grad():
            for weights in self.parameters():
                weights.normal_(0, scale, generator=generator)

    @property
    def device(self) -> torch.device:  # type: ignore[override]  # where its module has been moved
        return self.never.device

    def hidden(self, tokens: Tensor) -> Tensor:
        return self.lstm(self.embedding(tokens))[0]

    def head(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.output.weight, self.output.bias + self.never)

    def start(self, batch_size: int) -> LSTMState:
        nothing = self.output.weight.new_zeros(batch_size, self.lstm.hidden_size)
        return LSTMState(nothing, nothing)

    def hidden_step(self, tokens: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        state = LSTMState(*torch.lstm_cell(self.embedding(tokens), state, *self.lstm.all_weights[0]))
        return state.hidden, state

    def save(self, folder: Path | str, notes: str = "") -> None:
        """Write the model to a folder; `notes` go on its card: trained on what, with which scores."""
        card = f"# LSTM language model\n\n{self.lstm.hidden_size} units, one layer.\n\n{notes}"
        save_model(folder, self, self.state_dict(), self.settings, card)

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "cpu") -> Self:
        weights, config, tokenizer = read_model(folder, cls)
        model = cls(tokenizer, **config)
        model.load_state_dict(weights)
        return model.to(choose_device(device))


def with_zeros(log_probabilities: Tensor) -> Tensor:
    """Log-probabilities in which what a model never writes has minus infinity itself."""
    return log_probabilities.masked_fill(log_probabilities < NEVER / 2, -math.inf)
