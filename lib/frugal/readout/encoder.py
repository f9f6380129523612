"""From tokens to what a readout sees: the foundation's features beside the echo's states, streamed.

    s_t = reservoir(x_t / rms(x_t), s_{t-1})

where x_t is the feature of token t (read in a short window of the foundation) or its embedding. The echo takes one step
per token and is carried on where the foundation's window ends.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from frugal.errors import InputError
from frugal.foundation import Foundation, WindowedFoundation
from frugal.foundation.windowed import WindowState
from frugal.reservoir import DeepReservoir, Reservoir

Drive = Literal["features", "tokens"]
Reset = Literal["document", "window", "never"]


class EchoState(NamedTuple):
    """What a stream keeps: how many tokens it took, the foundation's window, the reservoir's state [B, S]."""

    position: int
    window: WindowState
    echo: Tensor


class EchoEncoder:
    """Hidden states [feature; echo state], [.., d + N].

    Args:
        foundation: the frozen model.
        reservoir: None for no echo at all.
        drive: what drives it, scaled to unit mean square per token: the "features", which are made to predict the next
            token, or the foundation's embeddings of the "tokens" themselves.
        context: tokens per window of the foundation.
        stride, prefix: how far the windows advance, and what is read before each (see WindowedFoundation).
        reset: when the echo starts from nothing again: at each "document" (its start token), also at each
            "window" of the foundation (so that the echo never knows more than the window does), or "never".
    """

    def __init__(
        self,
        foundation: Foundation,
        reservoir: Reservoir | DeepReservoir | None,
        *,
        drive: Drive = "features",
        context: int,
        stride: int | None = None,
        prefix: str = "",
        reset: Reset = "document",
    ) -> None:
        for name, value, kind in (("drive", drive, Drive), ("reset", reset, Reset)):
            if value not in get_args(kind):
                raise InputError(f"{name}={value!r}: must be one of {', '.join(map(repr, get_args(kind)))}")
        input_size = foundation.hidden_size if drive == "features" else foundation.embedding_size
        if reservoir is not None and reservoir.input_size != input_size:
            raise InputError(
                f"the reservoir's input_size={reservoir.input_size}: must be {input_size}, the size of what drives it "
                f"(the {drive} of {foundation.name})"
            )
        if reservoir is not None and reservoir.like.device != foundation.device:
            raise InputError(
                f"the reservoir is on {reservoir.like.device}: must be on {foundation.device}, where {foundation.name} "
                "is; move it there with .to"
            )
        self.foundation, self.reservoir, self.drive, self.reset = foundation, reservoir, drive, reset
        self.windowed = WindowedFoundation(foundation, context, stride, prefix)
        self.feature_size = foundation.hidden_size
        self.width = self.feature_size + (0 if reservoir is None else reservoir.size)

    @property
    def identity(self) -> tuple[Any, ...]:
        """All that the hidden states follow from; models with equal ones have equal hidden states."""
        windowed = self.windowed
        reading = windowed.context, windowed.stride, windowed.text
        return self.foundation, self.reservoir, self.drive, self.reset, *reading

    def start(self, batch_size: int) -> EchoState:
        """The state of streams before their first token."""
        nothing = torch.zeros(batch_size, 0, device=self.foundation.device)
        echo = nothing if self.reservoir is None else self.reservoir.start(batch_size)
        return EchoState(0, self.windowed.start(batch_size), echo)

    def step(self, tokens: Tensor, state: EchoState) -> tuple[Tensor, EchoState]:
        """Hidden states [B, d + N] of one more token [B] per stream, and the new state."""
        features, window = self.windowed.hidden_step(tokens, state.window)
        tokens = tokens.unsqueeze(1)
        hidden, echo = self.join(tokens, features.float().unsqueeze(1), self.resets(tokens, state.position), state.echo)
        return hidden[:, 0], EchoState(state.position + 1, window, echo)

    def pieces(self, tokens: Tensor, state: EchoState) -> Iterator[tuple[Tensor, Tensor]]:
        """Hidden states of T more tokens [B, T], in pieces [B, n, d + N], each with the echo after it."""
        echo, begin = state.echo, 0
        resets = self.resets(tokens, state.position)
        for features in self.windowed.pieces(tokens, state.window):
            end = begin + features.shape[1]
            hidden, echo = self.join(tokens[:, begin:end], features.float(), resets[:, begin:end], echo)
            yield hidden, echo
            begin = end

    def after(self, tokens: Tensor, state: EchoState, echo: Tensor) -> EchoState:
        """The state after T more tokens [B, T], given the echo after them."""
        return EchoState(state.position + tokens.shape[1], self.windowed.after(tokens, state.window), echo)

    def join(self, tokens: Tensor, features: Tensor, resets: Tensor, echo: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states [B, n, d + N] of tokens [B, n] and their features [B, n, d], and the echo after them.

        The echo starts again from zero before the rows where `resets` [B, n] is true.
        """
        if self.reservoir is None:
            return features, echo
        inputs = features if self.drive == "features" else self.foundation.embed(tokens).float()
        inputs = inputs * inputs.square().mean(-1, keepdim=True).clamp_min(1e-12).rsqrt()
        places = resets.any(0).nonzero().flatten().tolist()
        states = []
        for begin, end in pairwise(sorted({0, *places, features.shape[1]})):
            echo = echo.masked_fill(resets[:, begin, None], 0)
            piece, echo = self.reservoir.run(inputs[:, begin:end], echo)
            states.append(piece)
        return torch.cat([features, torch.cat(states, 1).to(features)], -1), echo

    def resets(self, tokens: Tensor, position: int) -> Tensor:
        """Where the echo starts again from zero, [B, T], for tokens [B, T] that come after `position` others."""
        if self.reset == "never":
            return torch.zeros_like(tokens, dtype=torch.bool)
        borders = tokens == self.foundation.tokenizer.start_id
        if self.reset == "window":
            places = range(position, position + tokens.shape[1])
            borders = borders | torch.tensor([self.windowed.begins_window(t) for t in places], device=tokens.device)
        return borders
