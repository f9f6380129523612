"""Sequences drawn from a model, and the part of it that can be trained on them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from frugal.errors import InputError, check_whole
from frugal.language_model import HiddenStateModel, LanguageModel


class Samples(NamedTuple):
    """Sequences drawn from a model, and what its trunk made of them if it is a HiddenStateModel."""

    tokens: Tensor  # [n, 1 + T], beginning with the start token
    hidden: Tensor | None  # [n, T, d]: of all tokens but the last


@torch.no_grad()
def draw(model: LanguageModel, count: int, length: int, *, generator: torch.Generator | None = None) -> Samples:
    """Draw `count` sequences of `length` tokens from a model, all at once.

    Drawn on the CPU, so that a seed gives the same sequences whatever device the model is on.

    Raises:
        InputError: a number that is none.

    Example:
        >>> from frugal.cooperative import Oracle
        >>> draw(Oracle(vocabulary=3, length=4).model, count=5, length=4).tokens.shape
        torch.Size([5, 5])
    """
    check_whole(count=count, length=length)
    tokens = torch.full((count,), model.tokenizer.start_id, device=model.device)
    state, drawn, hidden = model.start(count), [tokens], []
    for _ in range(length):
        if isinstance(model, HiddenStateModel):
            row, state = model.hidden_step(tokens, state)
            logits = model.head(row).float()
            hidden.append(row)
        else:
            logits, state = model.step(tokens, state)
        tokens = chosen(logits, generator)
        drawn.append(tokens)
    return Samples(torch.stack(drawn, 1), torch.stack(hidden, 1) if hidden else None)


def chosen(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """A draw [..] from each softmax of logits [.., V]; where they are no numbers, the place of one that is none.

    The largest of logits with Gumbel noise is such a draw, at half the cost of torch.multinomial.
    """
    noise = torch.empty(logits.shape).exponential_(generator=generator).log_()
    return (logits - noise.to(logits.device)).argmax(-1)


def trained_part(model: LanguageModel) -> nn.Module:
    """What gradient descent may change in a model: all of it, or an echo language model's readout.

    Raises:
        InputError: there is nothing.
    """
    part = model if isinstance(model, nn.Module) else getattr(model, "readout", None)
    if not isinstance(part, nn.Module) or not any(values.requires_grad for values in part.parameters()):
        raise InputError(
            f"a {type(model).__name__} has nothing to train by gradient: give an LSTMLanguageModel, or an "
            "EchoLanguageModel with a SoftmaxReadout"
        )
    return part
