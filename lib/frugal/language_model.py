"""The one protocol that every language model implements, whatever family it belongs to.

Tokens are int64 tensors [B, T]. A document starts with the tokeniser's `start_id`, so that its first
real token is predicted too and every byte of a text is paid for by every model.

What every model can do enters here, with what saves and loads it; the models are in the rooms of their families.
"""

import inspect
import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby, repeat, zip_longest
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

import frugal
from frugal.corpora import Window, strided_windows
from frugal.corpora.tokenizers import Tokenizer, load_tokenizer
from frugal.device import DType
from frugal.errors import FrugalError, InputError, UnavailableError, check_whole
from frugal.files import appearing, load_tensors, put_back, save_tensors

# Nobody holds [tokens, V] for a whole text: logits are made and used in pieces of about this many numbers.
LOGITS_AT_ONCE = 2**25
GIVE_ROWS = ("log_probabilities", "step", "feed", "advance")  # methods that give numbers for the whole vocabulary
GO_ON = ("step", "feed", "advance", "hidden_step", "hidden_advance")  # methods that take a state
Form = tuple[bool, tuple[int, ...]]  # of one tensor: whether its numbers have a point, and its sizes
StateForm = tuple[type, list[Form | None]]
FEW_TOKENS = 16  # up to which Python finds the smallest and the largest faster than torch


class TargetScores(NamedTuple):
    """How well each token was predicted from those before it; row t is about token t + 1.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> model = NGram(2, CharTokenizer("ab")).fit(["abababab"])
        >>> scores = model.target_scores(torch.tensor([[2, 0, 1, 1]]))  # the start, then "abb"
        >>> scores.ranks
        tensor([[0, 0, 1]])
    """

    log_probabilities: Tensor  # [B, T-1], natural logarithm
    ranks: Tensor  # [B, T-1], how many tokens were ranked before it; 0 is a top-1 hit
    likeliest: Tensor  # [B, T-1], the token that was ranked first

    def cpu(self) -> "TargetScores":
        """The same in main memory."""
        return TargetScores(*(column.cpu() for column in self))


def whole_tokens(tokens: Tensor, axes: Sequence[str], taker: str, vocabulary_size: int | None) -> Tensor:
    """Tokens in int64, all of the vocabulary if its size is given; raises InputError where they are none, or others."""
    if not (type(tokens) is Tensor and tokens.ndim == len(axes) and tokens.dtype is torch.int64):  # seldom
        wanted = f"`{taker}` takes a tensor [{', '.join(axes)}] of whole numbers"
        if not isinstance(tokens, Tensor):
            raise InputError(f"tokens of type {type(tokens).__name__}: {wanted}")
        if tokens.ndim != len(axes) or tokens.dtype == torch.bool or tokens.is_floating_point() or tokens.is_complex():
            raise InputError(f"tokens of shape {list(tokens.shape)} and {tokens.dtype}: {wanted}")
        tokens = tokens.long()
    if vocabulary_size is not None:
        check_vocabulary(tokens, vocabulary_size)
    return tokens


def check_vocabulary(tokens: Tensor, vocabulary_size: int) -> None:
    """Raise InputError unless all tokens [..] are of a vocabulary; from a GPU two numbers are fetched, in one call."""
    low, high = _bounds(tokens)
    if low < 0 or high >= vocabulary_size:
        wrong = low if low < 0 else high
        raise InputError(f"token {wrong}: must lie in 0 to {vocabulary_size - 1}; use this model's own tokeniser")


def _bounds(tokens: Tensor) -> tuple[int, int]:
    """The smallest and the largest token [..]; 0 and 0 of none."""
    count = tokens.numel()
    if count == 1:  # nearly free, for the steps of a single stream
        token = int(tokens.item())
        return token, token
    found = tokens.flatten().tolist() if count <= FEW_TOKENS else torch.stack(tokens.aminmax()).tolist()
    return min(found, default=0), max(found, default=0)


def checked(method: Callable[..., Any]) -> Callable[..., Any]:
    """A model's method that takes tokens, for every shape of them: its own code never sees an empty batch.

    Of no streams [0, T] or no tokens [B, 0] there are no rows, [.., V], and the state stays as it is. Only `feed` needs
    a token of each stream: its logits are those after the last. What gives hidden states takes empty batches itself.

    Raises:
        InputError: tokens of another shape or type, or that the vocabulary does not have, or none where one is needed;
            or a state of another model, or of another number of streams.
    """
    name = method.__name__
    axes = "B" if name in ("step", "hidden_step") else "BT"
    gives_rows, goes_on = name in GIVE_ROWS, name in GO_ON
    passes_on = gives_rows and method.__qualname__.startswith("HiddenStateModel.")  # to what looks itself

    @wraps(method)
    def on_tokens(self: "LanguageModel", tokens: Tensor, *state: Any, **settings: Any) -> Any:
        tokens = whole_tokens(tokens, axes, name, None if passes_on else self.vocabulary_size)
        if goes_on and "state" in settings:
            state = (settings.pop("state"),)
        if tokens.numel() or not gives_rows:
            if goes_on and not passes_on:
                check_state(self, len(tokens), *state)
            return method(self, tokens, *state, **settings)
        if name == "feed" and len(tokens):
            raise InputError(f"tokens of shape {list(tokens.shape)}: `feed` takes at least one token of each stream")
        shape = tokens.shape[:1] if name == "feed" else tokens.shape
        rows = torch.empty(*shape, self.vocabulary_size, device=tokens.device)
        return (rows, *state) if state else rows

    return on_tokens


def check_state(model: "LanguageModel", streams: int, state: Any) -> None:
    """Raise InputError unless a state has the type and the sizes of this model's, for so many streams."""
    if model._state_form is None:
        model._state_form = _state_form(model.start(1))
    kind, forms = model._state_form
    parts = _parts(state) if type(state) is kind or isinstance(state, kind) else ()
    expected = forms, repeat(streams), repeat(model.vocabulary_size)
    if len(parts) != len(forms) or not all(map(_has_form, parts, *expected)) or not model._goes_on_from(state):
        name = type(model).__name__
        raise InputError(f"state: must be one of this {name} for {streams} streams; begin with `start({streams})`")


def _state_form(first: Any) -> StateForm:
    """What the states of a model have in common with its first, of one stream: a type, and what its tensors are like.

    None stands for what is no tensor, and for fields of any type: states of other models, which look themselves.
    """
    fields = {} if isinstance(first, Tensor) else getattr(type(first), "__annotations__", {})
    return type(first), [
        (part.is_floating_point(), tuple(part.shape[1:])) if isinstance(part, Tensor) and kind is not Any else None
        for part, kind in zip_longest(_parts(first), fields.values())
    ]


def _parts(state: Any) -> Sequence[Any]:
    """A tensor itself, the fields of a state, or those of all in a list."""
    if type(state) is Tensor:  # which is the quickest question
        return (state,)
    if isinstance(state, list):
        return [part for each in state for part in _parts(each)]
    return state if isinstance(state, tuple) else [*vars(state).values()] if is_dataclass(state) else ()


def _has_form(part: Any, form: Form | None, streams: int, vocabulary_size: int) -> bool:
    """Whether a tensor is of so many streams and of the sizes that are not 0 at first; whole numbers are tokens."""
    if form is None:
        return True
    is_float, sizes = form
    if not isinstance(part, Tensor) or part.is_floating_point() is not is_float:
        return False
    if part.shape != (streams, *sizes):
        grown = part.ndim == len(sizes) + 1 and len(part) == streams
        if not grown or any(size and given != size for given, size in zip(part.shape[1:], sizes, strict=True)):
            return False
    if part.dtype is not torch.int64:
        return True
    low, high = _bounds(part)
    return low >= 0 and high < vocabulary_size


def checked_start(start: Callable[..., Any]) -> Callable[..., Any]:
    """A model's `start` for any number of streams, 0 among them."""

    @wraps(start)
    def of_streams(self: "LanguageModel", batch_size: int) -> Any:
        check_whole(0, batch_size=batch_size)
        return start(self, batch_size)

    return of_streams


def checked_documents(document_scores: Callable[..., Any]) -> Callable[..., Any]:
    """A model's `document_scores` of documents that hold a token to score; of a start token alone there are no scores.

    Raises:
        InputError: a document without a start token, or of another shape or type than tokens [1 + T].
    """

    @wraps(document_scores)
    def of_documents(self: "LanguageModel", documents: Sequence[Tensor], **settings: Any) -> list[TargetScores]:
        documents = [whole_tokens(tokens, "T", "document_scores", self.vocabulary_size) for tokens in documents]
        lengths = [len(tokens) for tokens in documents]
        if 0 in lengths:
            raise InputError(f"documents: number {lengths.index(0)} holds no token; each begins with the start token")
        if all(length > 1 for length in lengths):
            return document_scores(self, documents, **settings) if lengths else []
        nothing = TargetScores(torch.zeros(0, dtype=torch.float64), *torch.zeros(2, 0, dtype=torch.int64))
        scores = iter(of_documents(self, [tokens for tokens in documents if len(tokens) > 1], **settings))
        return [next(scores) if length > 1 else nothing for length in lengths]

    return of_documents


CHECKED: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    **dict.fromkeys((*GIVE_ROWS, *GO_ON, "hidden", "hidden_pieces", "states", "steps"), checked),
    "start": checked_start,
    "document_scores": checked_documents,
}


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
        return TargetScores(*(torch.cat(column) for column in zip(*scores, strict=True)))

    def _long_scores(self, inputs: Tensor, targets: Tensor, at_once: int) -> TargetScores:
        """Scores of long rows, piece by piece: the state goes from one to the next."""
        state, scores = self.start(len(inputs)), []
        for x, y in zip(inputs.split(at_once, 1), targets.split(at_once, 1), strict=True):
            log_probabilities, state = self.advance(x, state)
            scores.append(gather_targets(log_probabilities, y))
        return TargetScores(*(torch.cat(column, 1) for column in zip(*scores, strict=True)))

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
        return TargetScores(*(torch.cat(column, 1) for column in zip(*scores, strict=True)))

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
            found.append(TargetScores(*(torch.cat(column) for column in zip(*scores, strict=True))))
        return found


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


def pieces_in_windows(
    hidden: Callable[[Tensor], Tensor], seen: Tensor, known: int, *, context: int, stride: int, tokens_at_once: int
) -> Iterator[Tensor]:
    """Hidden states of the tokens of streams [B, T] from `known` on, each made in a short window of its own.

    Which window answers for a token is as `strided_windows` says, so that it depends on the stream's beginning alone.

    Args:
        hidden: states [B', n, d] of windows [B', n].
        seen: the streams, from a window's beginning.
        known: how many tokens of `seen` were answered for before.
        tokens_at_once: about how many are given to `hidden` in one call.

    Yields:
        Pieces [B, n, d].

    Example:
        >>> tokens = torch.arange(5)[None]
        >>> def places(windows):
        ...     return torch.arange(windows.shape[1]).expand(len(windows), -1).unsqueeze(-1)
        >>> pieces = pieces_in_windows(places, tokens, 0, context=4, stride=2, tokens_at_once=100)
        >>> torch.cat(list(pieces), 1).flatten().tolist()  # the last token is the third of its window
        [0, 1, 2, 3, 2]
    """
    windows = [window for window in strided_windows(seen.shape[1], context, stride) if window.end > known]
    for group in _groups(windows, max(1, tokens_at_once // (max(1, len(seen)) * context))):
        batch = torch.cat([seen[:, window.begin : window.end] for window in group])  # [len(group) * B, n]
        states = hidden(batch).chunk(len(group))
        yield torch.cat(
            [rows[:, max(window.keep, known) - window.begin :] for window, rows in zip(group, states, strict=True)],
            dim=1,
        )


def _groups(windows: list[Window], size: int) -> Iterator[list[Window]]:
    """Up to `size` neighbours of equal length at a time."""
    for _, group in groupby(windows, key=lambda window: window.end - window.begin):
        equals = list(group)
        yield from (equals[at : at + size] for at in range(0, len(equals), size))


def gather_targets(log_probabilities: Tensor, targets: Tensor) -> TargetScores:
    """Pick the targets' log-probabilities and ranks out of [.., V] for targets [..], and the likeliest tokens."""
    targets = targets.unsqueeze(-1)
    chosen = log_probabilities.gather(-1, targets)  # [.., 1]
    # Of equally likely tokens the first goes first, as in argmax: a model that knows nothing must not look all-knowing.
    token = torch.arange(log_probabilities.shape[-1], device=targets.device)
    ahead = (log_probabilities > chosen) | ((log_probabilities == chosen) & (token < targets))
    return TargetScores(chosen.squeeze(-1), ahead.sum(-1), log_probabilities.argmax(-1))


def class_name(kind: type) -> str:
    """What a saved model's configuration calls a class: "frugal.room:Class"."""
    return f"{'.'.join(kind.__module__.split('.')[:2])}:{kind.__name__}"


def class_named(name: str) -> Any:
    """The class that `class_name` called so; only rooms of this library are looked into.

    Earlier versions saved the bare name, or had the class in another room: then the public names of all are looked at.

    Raises:
        InputError: there is no such class.
    """
    named, _, kind = name.rpartition(":")
    for room in (named, *(f"frugal.{found.name}" for found in pkgutil.iter_modules(frugal.__path__))):
        if room.startswith("frugal.") and room.isprintable() and find_spec(room):
            found = getattr(import_module(room), kind, None)
            # What a room merely imports, such as a class of the standard library, is not to be had by a folder's word.
            if isinstance(found, type) and found.__module__.startswith("frugal."):
                return found
    raise InputError(f"{name!r} is no class of this library: the folder was saved by another version, or is damaged")


def load_model(folder: Path | str, *, device: str = "cpu", dtype: DType = "auto") -> LanguageModel:
    """Read a language model of any family from the folder that it was saved to.

    Args:
        folder: where it was saved.
        device: "cpu", "cuda", "mps" or "auto".
        dtype: that the GPT it stands on computes in: "float32", "bfloat16" or "auto".

    Raises:
        InputError: the folder does not hold a language model of this library, or `dtype` is for one on a GPT.
        UnavailableError: a file is missing or damaged.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> NGram(3, CharTokenizer("ab")).fit(["abab"]).save(Path("trigram"))
        >>> type(load_model("trigram")).__name__
        'NGram'
    """
    folder = Path(folder)
    put_back(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; give one that a model was saved to")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except Exception as error:
        raise UnavailableError(f"{folder} cannot be read as a saved model ({error}): save the model again") from error
    name = config.get("class") if isinstance(config, dict) else None
    kind = class_named(name) if isinstance(name, str) else None
    if kind is None or not issubclass(kind, LanguageModel):
        raise InputError(f"{folder} does not hold a language model of this library: its config.json names {name}")
    options: dict[str, Any] = {"device": device} if dtype == "auto" else {"device": device, "dtype": dtype}
    if not options.keys() <= inspect.signature(kind.load).parameters.keys():
        raise InputError(f"dtype={dtype!r}: a {kind.__name__} stands on no GPT; leave the dtype out")
    try:
        return kind.load(folder, **options)
    except FrugalError:
        raise
    except Exception as error:  # its files do not go together
        raise UnavailableError(f"{folder} cannot be read as a saved model ({error}): save the model again") from error


def check_on_cpu(kind: type, device: str) -> None:
    """Refuse to load a model of this kind onto any other device."""
    if device not in ("auto", "cpu"):
        raise InputError(f"device={device!r}: a {kind.__name__} runs on the CPU; leave the device out")


class HasTokenizer(Protocol):
    """What can be saved: a model of characters or tokens, whether it predicts the next or not."""

    tokenizer: Tokenizer


def save_model(
    folder: Path | str, model: HasTokenizer, weights: dict[str, Tensor], config: dict[str, Any], card: str
) -> None:
    """Write `model.safetensors`, `config.json`, the tokeniser's files and `card.md`; the folder appears whole.

    `config` holds plain values only; the model's class is added, so that `load_model` finds it.
    """
    with appearing(folder) as temporary:
        temporary.mkdir()
        save_tensors(weights, temporary / "model.safetensors")
        settings = {"class": class_name(type(model)), **config}
        (temporary / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        (temporary / "card.md").write_text(card.rstrip() + "\n", encoding="utf-8")
        model.tokenizer.save(temporary)


def read_model(folder: Path | str, kind: type[HasTokenizer]) -> tuple[dict[str, Tensor], dict[str, Any], Tokenizer]:
    """Read back what `save_model` wrote: weights, configuration, tokeniser.

    Raises:
        InputError: the folder holds a model of another class.
        UnavailableError: a file is missing or damaged.
    """
    put_back(Path(folder))
    try:
        config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        weights = load_tensors(Path(folder, "model.safetensors"))
    except Exception as error:
        raise UnavailableError(f"{folder} cannot be read as a saved model ({error}): save the model again") from error
    name = str(config.pop("class", None))
    if name.rpartition(":")[2] != kind.__name__:
        raise InputError(f"{folder} holds a {name}, not a {kind.__name__}: load it with `load_model`")
    return weights, config, load_tokenizer(Path(folder))
