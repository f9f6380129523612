"""Windows over token sequences: for scoring whole documents, and as training examples."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import ConcatDataset

from frugal.errors import InputError


class Window(NamedTuple):
    """Tokens begin..end are read; rows keep..end are this window's to answer for."""

    begin: int
    end: int
    keep: int


def strided_windows(length: int, context: int, stride: int) -> list[Window]:
    """Cut a document of `length` tokens into windows that together keep each row exactly once.

    Windows are at most `context` long and begin `stride` tokens after one another. Past the first window,
    each kept row sees at least `context - stride` tokens before it: a small stride costs time and gives
    context (https://huggingface.co/docs/transformers/perplexity).

    Raises:
        InputError: `length` is negative, `context` is not positive, or `stride` is not in 1..context.

    Example:
        >>> strided_windows(length=5, context=4, stride=2)
        [Window(begin=0, end=4, keep=0), Window(begin=2, end=5, keep=4)]
    """
    if length < 0:
        raise InputError(f"length={length}: must not be negative; give the document's number of tokens")
    if context < 1:
        raise InputError(f"context={context}: must be positive; typical values lie in 64 to 1024")
    if not 1 <= stride <= context:
        raise InputError(f"stride={stride}: must lie in 1 to context={context}; context / 2 is a usual choice")
    begins = range(0, max(0, length - context) + stride, stride) if length else ()
    # Behind the first, each keeps what the one before it did not reach.
    return [Window(begin, min(begin + context, length), begin + context - stride if begin else 0) for begin in begins]


def in_batches(windows: list[Window], size: int) -> Iterator[list[Window]]:
    """Up to `size` neighbours of equal length at a time.

    >>> [len(batch) for batch in in_batches(strided_windows(10, context=4, stride=4), size=2)]
    [2, 1]
    """
    for _, group in groupby(windows, key=lambda window: window.end - window.begin):
        equals = list(group)
        yield from (equals[at : at + size] for at in range(0, len(equals), size))


class Blocks(ConcatDataset[Any]):
    """Training examples (inputs [length], targets [length]), targets being the inputs one token later.

    Blocks start every `stride` tokens (every `length` by default) and are views: nothing is copied, however much
    they overlap. Given a list of documents, no block crosses a border between them; the end of a document that
    does not fill a block is left out. To fill blocks across borders, give the concatenated documents as one tensor.

    Raises:
        InputError: `length` or `stride` is not positive, or no document fills a block.

    Example:
        >>> import torch
        >>> blocks = Blocks(torch.arange(8), length=3)
        >>> len(blocks), blocks[1]
        (2, (tensor([3, 4, 5]), tensor([4, 5, 6])))
    """

    def __init__(self, tokens: Tensor | list[Tensor], length: int, stride: int | None = None) -> None:
        stride = length if stride is None else stride
        if length < 1 or stride < 1:
            raise InputError(f"length={length}, stride={stride}: must both be positive; stride = length tiles the text")
        documents = [tokens] if isinstance(tokens, Tensor) else tokens
        blocks: list[Any] = [each.unfold(0, length + 1, stride) for each in documents if len(each) > length]
        if not blocks:
            longest = max(map(len, documents), default=0)
            raise InputError(
                f"length={length}: a block takes {length + 1} tokens, but the longest document has {longest}; "
                "give a longer text or a smaller length"
            )
        super().__init__(blocks)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        block = super().__getitem__(index)
        return block[:-1], block[1:]
