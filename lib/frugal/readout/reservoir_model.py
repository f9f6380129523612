"""An echo language model without a GPT: a fixed reservoir reads the tokens themselves, a trained readout predicts.

    s_t = reservoir(one_hot(token_t), s_{t-1}),    log p(token_{t+1} | ..) = log_softmax(readout(s_t))

A step is one state update, so free-running samples are cheap enough to be drawn at every step of a training.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from frugal.corpora import Document, Tokenizer, encode_in_a_row
from frugal.device import choose_device
from frugal.errors import InputError, check_is
from frugal.language_model import HiddenStateModel, read_model, save_model, whole_tokens
from frugal.readout.base import part
from frugal.readout.rows import StreamRows
from frugal.readout.softmax import SoftmaxReadout
from frugal.reservoir import Reservoir
from frugal.ridge import RidgeStatistics

TO_WHITEN = 8192  # tokens of a text are enough to whiten a readout by


class ReservoirLanguageModel(HiddenStateModel):
    """Reservoir and readout over a small vocabulary, such as characters.

    Args:
        tokenizer: of V tokens.
        reservoir: takes V inputs; fixed.
        readout: from the reservoir's size to V logits; the only part that is trained. Several models with readouts of
            their own may have one reservoir.

    Raises:
        InputError: the sizes do not fit, or it is a stack of reservoirs or a readout of another kind.

    Example:
        >>> from frugal.corpora import CharTokenizer
        >>> tokenizer = CharTokenizer("abc")
        >>> model = ReservoirLanguageModel(tokenizer, Reservoir(5, 20, seed=1), SoftmaxReadout(20, 5))
        >>> model.log_probabilities(tokenizer.encode("abca")[None]).shape
        torch.Size([1, 4, 5])
    """

    def __init__(self, tokenizer: Tokenizer, reservoir: Reservoir, readout: SoftmaxReadout) -> None:
        check_is(Reservoir, reservoir=reservoir)
        check_is(SoftmaxReadout, readout=readout)
        V, N = tokenizer.vocabulary_size, reservoir.size
        if reservoir.input_size != V:
            raise InputError(f"the reservoir's input_size={reservoir.input_size}: must be {V}, one for each token")
        if (readout.input_size, readout.output_size) != (N, V) or readout.tied:
            raise InputError(
                f"a readout from {readout.input_size} to {readout.output_size}: must lead from {N} units to {V} tokens"
            )
        self.tokenizer, self.vocabulary_size, self.device = tokenizer, V, reservoir.like.device
        self.reservoir, self.readout = reservoir, readout.to(self.device)

    def with_readout(self, readout: SoftmaxReadout) -> "ReservoirLanguageModel":
        """The same reservoir with another readout."""
        return ReservoirLanguageModel(self.tokenizer, self.reservoir, readout)

    def rows(self, documents: Iterable[Document | str]) -> StreamRows:
        """Training rows of documents, read one after the other: states and next tokens."""
        return StreamRows(self, encode_in_a_row(self.tokenizer, documents), self.hidden_size)

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return self.reservoir.size

    @property
    def trunk(self) -> tuple[Reservoir]:
        return (self.reservoir,)

    def hidden(self, tokens: Tensor) -> Tensor:
        return self.reservoir.run(self._inputs(tokens))[0]

    def head(self, hidden: Tensor) -> Tensor:
        return self.readout(hidden)

    def start(self, batch_size: int) -> Tensor:
        return self.reservoir.start(batch_size)

    def hidden_step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        # For one step of many streams: torch takes them side by side, the compiled loop in turn.
        fixed = self.reservoir
        states = (fixed.W_in.T[tokens] + fixed.bias).unsqueeze(1)  # [B, 1, N]
        after = fixed.recurrence.advance_in_torch(states, state, fixed.leak, fixed.activation)
        if fixed.activation != "tanh":  # which is bounded
            fixed.check_grown(after, state, 1)
        return after, after

    def hidden_advance(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.reservoir.run(self._inputs(tokens), state)

    @torch.no_grad()
    def whiten(self, tokens: Tensor, shrinkage: float = 0.01) -> Self:
        """Whiten the readout by the states of tokens [B, T], such as some training data; do so before training."""
        states = self.hidden(whole_tokens(tokens, "BT", "whiten", None).to(self.device)).flatten(0, 1)
        self.readout.whiten(RidgeStatistics.of_inputs([states]), shrinkage)
        return self

    def save(self, folder: Path | str, notes: str = "") -> None:
        """Write the model, its reservoir included; `notes` go on its card: trained on what, with which scores."""
        parts = {"reservoir": self.reservoir, "readout": self.readout}
        weights = {f"{name}.{key}": t for name, module in parts.items() for key, t in module.state_dict().items()}
        config = {"reservoir": self.reservoir.config(), "readout": self.readout.settings()}
        card = f"# Reservoir language model\n\n{self.reservoir.size} units read tokens one by one.\n\n{notes}"
        save_model(folder, self, weights, config, card)

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "cpu") -> Self:
        weights, config, tokenizer = read_model(folder, cls)
        readout = SoftmaxReadout(**config["readout"])
        readout.load_state_dict(part(weights, "readout."))
        reservoir = Reservoir.from_saved(config["reservoir"], part(weights, "reservoir."))
        return cls(tokenizer, reservoir.to(choose_device(device)), readout)

    def _inputs(self, tokens: Tensor) -> Tensor:
        return one_hot(tokens, self.vocabulary_size).to(self.reservoir.like)
