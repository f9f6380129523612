"""What every model's methods look at before they compute: tokens of the vocabulary, and states of the model's own."""

from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from functools import wraps
from itertools import repeat, zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from frugal.errors import InputError, check_whole
from frugal.language_model.scores import TargetScores

if TYPE_CHECKING:
    from frugal.language_model.protocol import LanguageModel

GIVE_ROWS = ("log_probabilities", "step", "feed", "advance")  # methods that give numbers for the whole vocabulary
GO_ON = ("step", "feed", "advance", "hidden_step", "hidden_advance")  # methods that take a state
Form = tuple[bool, tuple[int, ...]]  # of one tensor: whether its numbers have a point, and its sizes
StateForm = tuple[type, list[Form | None]]
FEW_TOKENS = 16  # up to which Python finds the smallest and the largest faster than torch


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
