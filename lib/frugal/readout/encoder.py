"""From tokens to what a readout sees: the foundation's features beside the echo's states, streamed.

    x_t = feature of token t (a short window of the foundation), s_t = reservoir(x_t / rms(x_t), s_{t-1})

The echo takes one step per token and is carried on where the foundation's window ends.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from frugal.errors import InputError
from frugal.foundation import Foundation
from frugal.readout.windowed import WindowedFoundation, WindowState
from frugal.reservoir import DeepReservoir, Reservoir

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
        reservoir: driven by the features, scaled to unit mean square per token; None for no echo at all.
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
        context: int,
        stride: int | None = None,
        prefix: str = "",
        reset: Reset = "document",
    ) -> None:
        if reset not in ("document", "window", "never"):
            raise InputError(f"reset={reset!r}: must be 'document', 'window' or 'never'")
        if reservoir is not None and reservoir.input_size != foundation.hidden_size:
            raise InputError(
                f"the reservoir's input_size={reservoir.input_size}: must be {foundation.hidden_size}, "
                f"the hidden size of {foundation.name}"
            )
        if reservoir is not None and reservoir.like.device != foundation.device:
            raise InputError(
                f"the reservoir is on {reservoir.like.device}: must be on {foundation.device}, where {foundation.name} "
                "is; move it there with .to"
            )
        self.foundation, self.reservoir, self.reset = foundation, reservoir, reset
        self.windowed = WindowedFoundation(foundation, context, stride, prefix)
        self.feature_size = foundation.hidden_size
        self.width = self.feature_size + (0 if reservoir is None else reservoir.size)

    def start(self, batch_size: int) -> EchoState:
        """The state of streams before their first token."""
        nothing = torch.zeros(batch_size, 0, device=self.foundation.device)
        echo = nothing if self.reservoir is None else self.reservoir.start(batch_size)
        return EchoState(0, self.windowed.start(batch_size), echo)

    def step(self, tokens: Tensor, state: EchoState) -> tuple[Tensor, EchoState]:
        """Hidden states [B, d + N] of one more token [B] per stream, and the new state."""
        features, window = self.windowed.step(tokens, state.window)
        resets = self.resets(tokens.unsqueeze(1), state.position)
        hidden, echo = self.join(features.float().unsqueeze(1), resets, state.echo)
        return hidden[:, 0], EchoState(state.position + 1, window, echo)

    def pieces(self, tokens: Tensor, state: EchoState) -> Iterator[tuple[Tensor, Tensor]]:
        """Hidden states of T more tokens [B, T], in pieces [B, n, d + N], each with the echo after it."""
        echo, begin = state.echo, 0
        resets = self.resets(tokens, state.position)
        for features in self.windowed.pieces(tokens, state.window):
            end = begin + features.shape[1]
            hidden, echo = self.join(features.float(), resets[:, begin:end], echo)
            yield hidden, echo
            begin = end

    def after(self, tokens: Tensor, state: EchoState, echo: Tensor) -> EchoState:
        """The state after T more tokens [B, T], given the echo after them."""
        return EchoState(state.position + tokens.shape[1], self.windowed.after(tokens, state.window), echo)

    def join(self, features: Tensor, resets: Tensor, echo: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states [B, n, d + N] of features [B, n, d], and the echo after them.

        The echo starts anew before the rows where `resets` [B, n] is true.
        """
        if self.reservoir is None:
            return features, echo
        driven = features * features.square().mean(-1, keepdim=True).clamp_min(1e-12).rsqrt()
        places = resets.any(0).nonzero().flatten().tolist()
        states = []
        for begin, end in pairwise(sorted({0, *places, features.shape[1]})):
            echo = echo.masked_fill(resets[:, begin, None], 0)
            piece, echo = self.reservoir.run(driven[:, begin:end], echo)
            states.append(piece)
        return torch.cat([features, torch.cat(states, 1).to(features)], -1), echo

    def resets(self, tokens: Tensor, position: int) -> Tensor:
        """Where the echo starts anew, [B, T], for tokens [B, T] that come after `position` others."""
        if self.reset == "never":
            return torch.zeros_like(tokens, dtype=torch.bool)
        borders = tokens == self.foundation.tokenizer.start_id
        if self.reset == "window":
            places = range(position, position + tokens.shape[1])
            borders = borders | torch.tensor([self.windowed.begins_window(t) for t in places]).to(tokens.device)
        return borders
