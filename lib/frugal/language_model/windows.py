"""Streams of any length, read in short windows."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from frugal.corpora import strided_windows
from frugal.corpora.windows import in_batches


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
    for group in in_batches(windows, max(1, tokens_at_once // (max(1, len(seen)) * context))):
        batch = torch.cat([seen[:, window.begin : window.end] for window in group])  # [len(group) * B, n]
        states = hidden(batch).chunk(len(group))
        yield torch.cat(
            [rows[:, max(window.keep, known) - window.begin :] for window, rows in zip(group, states, strict=True)],
            dim=1,
        )
