"""The echo language model: a frozen GPT with a short view, an echo state beyond it, a trained readout."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from frugal.corpora import Document, encode_documents
from frugal.device import DType
from frugal.errors import InputError, UnavailableError
from frugal.files import appearing, load_tensors, save_tensors
from frugal.foundation import Foundation, WindowedFoundation, save_on_foundation, saved_foundation
from frugal.language_model import (
    KeptStateModel,
    class_name,
    class_named,
    read_model,
)
from frugal.readout.base import Readout, part
from frugal.readout.encoder import Drive, EchoEncoder, EchoState, Reset
from frugal.readout.ridge import RidgeReadout
from frugal.readout.rows import EchoRows
from frugal.reservoir import DeepReservoir, Reservoir

Join = Literal["foundation", "replace", "concat", "residual"]
RESERVOIRS: dict[str, type[Reservoir | DeepReservoir]] = {"Reservoir": Reservoir, "DeepReservoir": DeepReservoir}


class EchoLanguageModel(KeptStateModel):
    """Predicts the next token from a frozen foundation's features and the state of an echo of all that was read.

    The hidden state is [feature; echo state] (see EchoEncoder). The readout joins it to the foundation in one of
    four ways:

        "foundation"  head(feature)                         no readout: the echo is carried along, but not read
        "replace"     readout(state)                        the echo alone
        "concat"      readout([feature; state])
        "residual"    head(feature) + readout([feature; state])

    where `head` is the foundation's own. A tied readout gives hidden states instead of logits: head(readout(..)),
    and head(feature + readout(..)) for "residual". A softmax readout gives zeros until it is trained, so that
    "residual" starts as "foundation" exactly.

    Without a reservoir the readout sees the features alone: the control that has learned the same text but no echo.
    There is no limit on the length of a stream: the state carries what lies beyond the foundation's window.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> from frugal.corpora import CharTokenizer
        >>> from frugal.readout import SoftmaxReadout
        >>> small = GPT2Config(vocab_size=130, n_positions=32, n_embd=12, n_layer=1, bos_token_id=128, eos_token_id=128)
        >>> gpt = Foundation(GPT2LMHeadModel(small), CharTokenizer.ascii(), name="untrained")
        >>> readout = SoftmaxReadout(12 + 20, 130)  # feature and state, to the vocabulary
        >>> model = EchoLanguageModel(gpt, Reservoir(12, 20, seed=1), readout, join="residual", context=8)
        >>> model.log_probabilities(torch.zeros(1, 100, dtype=torch.int64)).shape
        torch.Size([1, 100, 130])
    """

    def __init__(
        self,
        foundation: Foundation,
        reservoir: Reservoir | DeepReservoir | None = None,
        readout: Readout | None = None,
        *,
        join: Join = "foundation",
        drive: Drive = "features",
        context: int = 64,
        stride: int | None = None,
        prefix: str = "",
        reset: Reset = "document",
    ) -> None:
        """Put the parts together; for the last five arguments see EchoEncoder. The readout moves to the foundation.

        Raises:
            InputError: the parts' sizes do not fit, or `join` and `readout` do not.
        """
        self.encoder = EchoEncoder(
            foundation, reservoir, drive=drive, context=context, stride=stride, prefix=prefix, reset=reset
        )
        self.foundation, self.reservoir = foundation, reservoir
        self.tokenizer, self.device = foundation.tokenizer, foundation.device
        self.vocabulary_size = foundation.vocabulary_size
        self.join, self.readout = join, readout
        self._check_readout()
        if readout is not None:
            readout.to(self.device)

    def with_readout(self, readout: Readout, join: Join) -> "EchoLanguageModel":
        """The same foundation and reservoir with another readout."""
        windowed = self.encoder.windowed
        return EchoLanguageModel(
            self.foundation,
            self.reservoir,
            readout,
            join=join,
            drive=self.encoder.drive,
            context=windowed.context,
            stride=windowed.stride,
            prefix=windowed.text,
            reset=self.encoder.reset,
        )

    def rows(self, documents: Iterable[Document | str]) -> EchoRows:
        """Training rows of documents: hidden states and next tokens; the features are cached on disk."""
        return EchoRows(self.encoder, encode_documents(self.tokenizer, documents))

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return self.encoder.width

    @property
    def columns(self) -> slice:
        """Those of the hidden state that the readout takes: the echo's alone for "replace", else all."""
        return slice(self.encoder.feature_size if self.join == "replace" else 0, None)

    @property
    def trunk(self) -> tuple[Any, ...]:
        return self.encoder.identity

    def hidden(self, tokens: Tensor) -> Tensor:
        return torch.cat(list(self.hidden_pieces(tokens)), 1)

    def hidden_pieces(self, tokens: Tensor) -> Iterator[Tensor]:
        for hidden, _ in self.encoder.pieces(tokens, self.encoder.start(len(tokens))):
            yield hidden

    def document_pieces(self, documents: Sequence[Tensor]) -> Iterator[Iterator[Tensor]]:
        rows = EchoRows(self.encoder, documents)
        for number in range(len(documents)):
            yield (hidden for hidden, _ in rows.of_documents([number]))

    def head(self, hidden: Tensor) -> Tensor:
        features = hidden[..., : self.encoder.feature_size]
        if self.readout is None:
            return self.foundation.logits(features)
        outputs = self.readout(hidden[..., self.columns])
        if self.readout.tied:
            return self.foundation.logits(features + outputs if self.join == "residual" else outputs)
        return self.foundation.logits(features) + outputs if self.join == "residual" else outputs

    def start(self, batch_size: int) -> EchoState:
        return self.encoder.start(batch_size)

    def hidden_step(self, tokens: Tensor, state: EchoState) -> tuple[Tensor, EchoState]:
        return self.encoder.step(tokens, state)

    def hidden_advance(self, tokens: Tensor, state: EchoState) -> tuple[Tensor, EchoState]:
        pieces = list(self.encoder.pieces(tokens, state))
        return torch.cat([hidden for hidden, _ in pieces], 1), self.encoder.after(tokens, state, pieces[-1][1])

    def save_state(self, path: Path, state: EchoState) -> None:
        """Write streams' state to one file: with `load_state` they go on where they stopped."""
        tensors = {"position": torch.tensor(state.position), "window": state.window.tokens, "echo": state.echo}
        with appearing(path) as temporary:
            save_tensors(tensors, temporary)

    def load_state(self, path: Path) -> EchoState:
        """Read what `save_state` wrote.

        Raises:
            UnavailableError: the file is missing or damaged.
            InputError: it is of a model with another window or another reservoir.
        """
        try:
            tensors = {name: tensor.to(self.device) for name, tensor in load_tensors(path).items()}
            position, window, echo = int(tensors["position"]), tensors["window"], tensors["echo"]
        except Exception as error:
            raise UnavailableError(f"{path} cannot be read as a stream's state ({error}): save it again") from error
        if window.shape[1] > self.encoder.windowed.context or echo.shape != self.start(len(window)).echo.shape:
            raise InputError(f"{path} holds the state of another model: load it with the model that saved it")
        return EchoState(position, self.encoder.windowed.resume(window), echo)

    def save(self, folder: Path | str, notes: str = "") -> None:
        """Write the model to a folder; `notes` go on its card: trained on what, with which scores.

        A packaged foundation is named, any other is saved along.
        """
        windowed, readout, reservoir = self.encoder.windowed, self.readout, self.reservoir
        config = {
            "join": self.join,
            "drive": self.encoder.drive,
            "context": windowed.context,
            "stride": windowed.stride,
            "prefix": windowed.text,
            "reset": self.encoder.reset,
            "readout": readout and {"class": class_name(type(readout)), **readout.settings()},
            "reservoir": reservoir and {"class": type(reservoir).__name__, **reservoir.config()},
        }
        parts = {"readout": readout, "reservoir": reservoir}
        weights = {
            f"{part}.{name}": values
            for part, module in parts.items()
            if module is not None
            for name, values in module.state_dict().items()
        }
        card = f"# Echo language model\n\n{self._summary()}\n\n{notes}"
        save_on_foundation(folder, self, weights, config, card)

    @classmethod
    def load(
        cls, folder: Path | str, *, foundation: Foundation | None = None, device: str = "cpu", dtype: DType = "auto"
    ) -> Self:
        """Read a model that `save` wrote.

        What earlier versions saved without echo and readout comes back as the WindowedFoundation that it is.

        Args:
            folder: where it was saved.
            foundation: the model's own foundation, if it is loaded already: several models can share it.
            device, dtype: for the foundation, where none is given.

        Raises:
            InputError: the folder holds another kind of model, or `foundation` is another one.
            UnavailableError: a file is missing or damaged.
        """
        weights, config, _ = read_model(folder, cls)
        foundation = saved_foundation(folder, config, foundation, device, dtype)
        if config["reservoir"] is None and config["readout"] is None:
            windows = {name: config[name] for name in ("context", "stride", "prefix")}
            return WindowedFoundation(foundation, **windows)  # type: ignore[return-value]
        reservoir, settings = None, config["reservoir"]
        if settings is not None:
            kind = RESERVOIRS[settings.pop("class")]
            reservoir = kind.from_saved(settings, part(weights, "reservoir.")).to(foundation.device)
        readout, settings = None, config["readout"]
        if settings is not None:
            readout = _readout_class(settings.pop("class"))(**settings)
            readout.load_state_dict(part(weights, "readout."))
        settings = {name: config[name] for name in ("join", "drive", "context", "stride", "prefix", "reset")}
        return cls(foundation, reservoir, readout, **settings)

    def _summary(self) -> str:
        """What the model is made of, for its card."""
        encoder = self.encoder
        echo = (
            "no echo" if self.reservoir is None else f"an echo of {self.reservoir.size} units driven by {encoder.drive}"
        )
        readout = "no readout" if self.readout is None else f"a {type(self.readout).__name__} {self.readout.settings()}"
        return (
            f"{self.foundation.name} with windows of {encoder.windowed.context} tokens (stride "
            f"{encoder.windowed.stride}), {echo} (reset: {encoder.reset}), {readout} (join: {self.join})."
        )

    def _check_readout(self) -> None:
        if self.join not in get_args(Join):
            raise InputError(f"join={self.join!r}: must be one of {', '.join(map(repr, get_args(Join)))}")
        if (self.readout is None) != (self.join == "foundation"):
            raise InputError(
                f"join={self.join!r} with readout={self.readout and type(self.readout).__name__}: 'foundation' goes "
                "without a readout, 'replace', 'concat' and 'residual' need one"
            )
        if self.readout is None and self.reservoir is None:
            raise InputError("no reservoir and no readout: this is the foundation alone; use a WindowedFoundation")
        if self.readout is None:
            return
        if self.join == "replace" and self.reservoir is None:
            raise InputError("join='replace' without a reservoir: there is no state to read; give a reservoir")
        if self.join == "residual" and isinstance(self.readout, RidgeReadout):
            raise InputError("join='residual': a ridge readout's logits are no correction; use a SoftmaxReadout")
        inputs = self.encoder.width - (self.columns.start or 0)
        outputs = self.foundation.hidden_size if self.readout.tied else self.vocabulary_size
        sizes = (self.readout.input_size, self.readout.output_size)
        if sizes != (inputs, outputs):
            raise InputError(f"a readout from {sizes[0]} to {sizes[1]}: join={self.join!r} needs {inputs} to {outputs}")


def _readout_class(name: str) -> type[Readout]:
    kind = class_named(name)
    if not issubclass(kind, Readout):
        raise InputError(f"{name!r} is no readout: the folder is damaged")
    return kind
