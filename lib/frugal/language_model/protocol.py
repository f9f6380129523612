"""The one protocol that every language model implements, whatever family it belongs to.

Tokens are int64 tensors [B, T]. A document starts with the tokeniser's `start_id`, so that its first
real token is predicted too and every byte of a text is paid for by every model.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from frugal.corpora import Window, strided_windows
from frugal.corpora.tokenizers import Tokenizer
from frugal.errors import InputError
from frugal.language_model.checks import CHECKED, StateForm, check_vocabulary, checked, checked_documents, whole_tokens
from frugal.language_model.scores import LOGITS_AT_ONCE, TargetScores, gather_targets


class LanguageModel(ABC):
    """Predicts the next token from those before it, never from those after it.

    Every model answers an empty batch alike, and refuses tokens and states of others: its methods go through `checked`.

    Attributes:
        tokenizer: turns text into this model's tokens.
        vocabulary_size: width V of the logits; may exceed the tokeniser's own size.
        context_length: most tokens that `log_probabilities` takes at once; None where there is no limit, because the
            state is all the model keeps of the past.
        device: where the model computes and where it expects its tokens.
    """

    tokenizer: Tokenizer
    vocabulary_size: int
    context_length: int | None = None
    device: torch.device = torch.device("cpu")
    _state_form: StateForm | None = None  # of the first state, once one was given

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        for name, check in CHECKED.items():
            if name in vars(cls):
                setattr(cls, name, check(vars(cls)[name]))

    @abstractmethod
    def log_probabilities(self, tokens: Tensor) -> Tensor:
        """Log-probabilities [B, T, V]: row t is the distribution of token t + 1 given tokens 0..t."""

    @abstractmethod
    def start(self, batch_size: int) -> Any:
        """State of `batch_size` streams before their first token."""

    @abstractmethod
    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Take one token per stream, [B]; give the next token's logits [B, V] and the new state.

        The state passed in stays valid: a stream can be continued from it in two ways.
        """

    def _goes_on_from(self, state: Any) -> bool:
        """Whether a state is this model's, as far as the sizes that it had before the first token do not tell."""
        return True

    def save(self, folder: Path | str) -> None:
        """Write the model to a folder: weights, configuration, tokeniser, card.

        Raises:
            InputError: the model has nothing of its own to save.
        """
        name = type(self).__name__
        raise InputError(f"{folder}: the {name} has nothing learned of its own to save; save the models it is made of")

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "cpu") -> Self:
        """Read a model that `save` wrote."""
        raise InputError(f"{folder}: a {cls.__name__} is never saved; load the models it is made of and combine them")

    @checked
    def feed(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Take T >= 1 tokens per stream, [B, T]; give the logits after the last, [B, V], and the new state."""
        for t in range(tokens.shape[1]):
            logits, state = self.step(tokens[:, t], state)
        return logits, state

    @checked
    def advance(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Take tokens of each stream, [B, T]; give the log-probabilities after each, [B, T, V], and the new state.

        `step` one by one, in fewer calls where a model can.
        """
        rows = []
        for t in range(tokens.shape[1]):
            logits, state = self.step(tokens[:, t], state)
            rows.append(logits.log_softmax(-1))
        return torch.stack(rows, 1), state

    def target_scores(self, tokens: Tensor) -> TargetScores:
        """Score tokens 1..T-1 of each row [B, T] by those before them, in bounded memory."""
        tokens = whole_tokens(tokens, "BT", "target_scores", self.vocabulary_size)
        if not len(tokens) or tokens.shape[1] < 2:
            nothing = torch.empty(len(tokens), max(0, tokens.shape[1] - 1), device=tokens.device)
            return TargetScores(nothing, nothing.long(), nothing.long())
        return self._target_scores(tokens)

    def _target_scores(self, tokens: Tensor) -> TargetScores:
        """As `target_scores`, of one row or more of at least two tokens."""
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        at_once = max(1, LOGITS_AT_ONCE // self.vocabulary_size)
        if inputs.shape[1] > at_once and self.context_length is None:
            scores = [self._long_scores(*row, at_once) for row in zip(inputs.split(1), targets.split(1), strict=True)]
        else:
            rows = max(1, at_once // inputs.shape[1])
            pairs = zip(inputs.split(rows), targets.split(rows), strict=True)
            scores = [gather_targets(self.log_probabilities(x), y) for x, y in pairs]
        return TargetScores.joined(scores)

    def _long_scores(self, inputs: Tensor, targets: Tensor, at_once: int) -> TargetScores:
        """Scores of long rows, piece by piece: the state goes from one to the next."""
        state, scores = self.start(len(inputs)), []
        for x, y in zip(inputs.split(at_once, 1), targets.split(at_once, 1), strict=True):
            log_probabilities, state = self.advance(x, state)
            scores.append(gather_targets(log_probabilities, y))
        return TargetScores.joined(scores, dim=1)

    @checked_documents
    def document_scores(
        self,
        documents: Sequence[Tensor],
        *,
        context: int | None = None,
        stride: int | None = None,
        batch_tokens: int = 4096,
        progress: bool = False,
    ) -> list[TargetScores]:
        """Score tokens 1..T of each document [1 + T], [T] on the CPU, each document from the model's starting state.

        Args:
            context: most tokens to look back on; by default the model's own limit.
            stride: tokens scored per window, at most `context`; by default `context`, windows without overlap.
            batch_tokens: about how many tokens are scored in one call of the model.
            progress: show a progress bar.
        """
        context = self.context_length if context is None else context
        stride = context if stride is None else stride
        found = [
            TargetScores(torch.zeros(size, dtype=torch.float64), *torch.zeros(2, size, dtype=torch.int64))
            for size in (len(tokens) - 1 for tokens in documents)
        ]
        with tqdm(total=sum(len(each.ranks) for each in found), unit="token", disable=not progress) as bar:
            for batch in _window_batches(documents, context, stride, batch_tokens):
                # Right padding is harmless: a causal model's earlier rows cannot see it.
                tokens = pad_sequence(
                    [documents[d][window.begin : window.end + 1] for d, window in batch],
                    batch_first=True,
                    padding_value=self.tokenizer.start_id,
                )
                scores = self.target_scores(tokens.to(self.device)).cpu()
                for row, (d, window) in enumerate(batch):
                    kept = slice(window.keep - window.begin, window.end - window.begin)
                    for column, values in zip(found[d], scores, strict=True):
                        column[window.keep : window.end] = values[row, kept]
                    bar.update(window.end - window.keep)
        return found

    def target_log_probabilities(self, tokens: Tensor) -> Tensor:
        """Log-probability [B, T-1] of each token but the first, given those before it."""
        return self.target_scores(tokens).log_probabilities


class AdvancingModel(LanguageModel):
    """A language model whose one way to read, whole texts and token by token, is `advance`."""

    @abstractmethod
    def advance(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]: ...

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        return self.advance(tokens, self.start(len(tokens)))[0]

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        rows, state = self.advance(tokens.unsqueeze(1), state)
        return rows[:, 0], state


class HiddenStateModel(LanguageModel):
    """A language model that is a map from tokens to hidden states [.., d], then a head to logits [.., V]."""

    @property
    def trunk(self) -> tuple[Any, ...] | None:
        """What a frozen model's hidden states depend on: models with equal trunks have equal hidden states.

        None where training changes the hidden states.
        """
        return None

    @abstractmethod
    def hidden(self, tokens: Tensor) -> Tensor:
        """Hidden states [B, T, d]; row t depends on tokens 0..t only."""

    @abstractmethod
    def head(self, hidden: Tensor) -> Tensor:
        """Logits [.., V] of hidden states [.., d]."""

    @abstractmethod
    def hidden_step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """As `step`, but gives the hidden state [B, d] instead of the logits."""

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        return self.head(self.hidden(tokens)).float().log_softmax(-1)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden, state = self.hidden_step(tokens, state)
        return self.head(hidden).float(), state

    def hidden_advance(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """As `advance`, but gives the hidden states [B, T, d]."""
        states = []
        for t in range(tokens.shape[1]):
            hidden, state = self.hidden_step(tokens[:, t], state)
            states.append(hidden)
        return torch.stack(states, 1), state

    def advance(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden, state = self.hidden_advance(tokens, state)
        return self.head(hidden).float().log_softmax(-1), state

    def feed(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden, state = self.hidden_advance(tokens, state)
        return self.head(hidden[:, -1]).float(), state

    def hidden_pieces(self, tokens: Tensor) -> Iterator[Tensor]:
        """As `hidden`, in pieces [B, n, d]: more than one where the model can read long rows piece by piece."""
        yield self.hidden(tokens)

    def document_pieces(self, documents: Sequence[Tensor]) -> Iterator[Iterator[Tensor]]:
        """Hidden states before tokens 1..T of each document [1 + T], in pieces [n, d]; from disk if kept there."""
        for tokens in documents:
            yield (piece[0] for piece in self.hidden_pieces(tokens[None, :-1].to(self.device)))

    def document_hidden(self, documents: Sequence[Tensor]) -> Iterator[Tensor]:
        """As `document_pieces`, each document in one piece [T, d]."""
        for pieces in self.document_pieces(documents):
            yield torch.cat(list(pieces))

    def _target_scores(self, tokens: Tensor) -> TargetScores:
        begin, scores = 1, []
        for hidden in self.hidden_pieces(tokens[:, :-1]):
            scores.append(self.hidden_scores(hidden, tokens[:, begin : begin + hidden.shape[1]]))
            begin += hidden.shape[1]
        return TargetScores.joined(scores, dim=1)

    def hidden_scores(self, hidden: Tensor, targets: Tensor) -> TargetScores:
        """Scores of targets [..] by the hidden states [.., d] before them, in bounded memory."""
        check_vocabulary(targets, self.vocabulary_size)
        at_once = max(1, LOGITS_AT_ONCE // self.vocabulary_size)
        rows = zip(hidden.flatten(0, -2).split(at_once), targets.flatten().split(at_once), strict=True)
        pieces = [gather_targets(self.head(x).float().log_softmax(-1), y) for x, y in rows]
        return TargetScores(*(torch.cat(column).view(targets.shape) for column in zip(*pieces, strict=True)))


class KeptStateModel(HiddenStateModel):
    """A hidden-state model for streams of any length whose `document_pieces` come from disk.

    So a document is scored from there as well, without encoding it again.
    """

    context_length = None

    def document_scores(
        self, documents: Sequence[Tensor], *, context: int | None = None, progress: bool = False, **windows: Any
    ) -> list[TargetScores]:
        """As the protocol's; whole documents by the hidden states that are kept on disk."""
        if context is not None:
            return super().document_scores(documents, context=context, progress=progress, **windows)
        found = []
        texts = tqdm(documents, "documents", disable=not progress)
        for tokens, pieces in zip(texts, self.document_pieces(documents), strict=True):
            begin, scores = 1, []
            for hidden in pieces:
                targets = tokens[begin : begin + len(hidden)]
                scores.append(self.hidden_scores(hidden, targets.to(self.device)).cpu())
                begin += len(hidden)
            found.append(TargetScores.joined(scores))
        return found


def check_model(model: Any, *, hidden: bool = False, endless: bool = False) -> None:
    """Raise InputError unless this is a language model: if so asked, with hidden states, for streams of any length."""
    if not isinstance(model, HiddenStateModel if hidden else LanguageModel):
        wanted = " with hidden states, such as a GPT or a model with a readout" if hidden else ""
        raise InputError(f"a {type(model).__name__} is given: must be a language model{wanted}")
    if endless and model.context_length is not None:
        raise InputError(
            f"the model takes {model.context_length} tokens at once: give one for streams of any length, such as "
            "WindowedFoundation(foundation, context=64)"
        )


def _window_batches(
    documents: Sequence[Tensor], context: int | None, stride: int | None, batch_tokens: int
) -> Iterator[list[tuple[int, Window]]]:
    """Windows of all documents, (document, window), of equal length in batches of about `batch_tokens` tokens."""
    windows = []
    for d, tokens in enumerate(documents):
        length = len(tokens) - 1  # inputs; the last token is only a target
        whole = length if context is None else context
        windows += [(d, window) for window in strided_windows(length, whole, whole if stride is None else stride)]
    windows.sort(key=lambda item: item[1].end - item[1].begin)  # stable: order does not depend on the machine
    batch: list[tuple[int, Window]] = []
    for item in windows:
        longest = item[1].end - item[1].begin
        if batch and (len(batch) + 1) * longest > batch_tokens:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
