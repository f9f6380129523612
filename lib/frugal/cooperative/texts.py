"""Real text as data of cooperative training."""

from collections.abc import Iterable

import torch
from torch import Tensor

from frugal.corpora import Document, Tokenizer, encode_documents
from frugal.errors import InputError, check_whole


def text_windows(
    tokenizer: Tokenizer, documents: Iterable[Document | str], length: int, stride: int | None = None
) -> Tensor:
    """Excerpts [n, 1 + length] of documents, each as if a document began there; ends shorter than that are left out.

    Args:
        length: tokens of an excerpt.
        stride: tokens from the beginning of one to that of the next in a document; by default `length`.

    Raises:
        InputError: `length` or `stride` is not positive, or no document is long enough.

    Example:
        >>> from frugal.corpora import CharTokenizer
        >>> text_windows(CharTokenizer("ab"), ["ababb"], length=2)
        tensor([[2, 0, 1],
                [2, 0, 1]])
    """
    stride = length if stride is None else stride
    check_whole(length=length, stride=stride)
    encoded = [tokens[1:] for tokens in encode_documents(tokenizer, documents)]
    cut = [tokens.unfold(0, length, stride) for tokens in encoded if len(tokens) >= length]
    if not cut:
        longest = max(map(len, encoded), default=0)
        raise InputError(f"length={length}: the longest document has {longest} tokens; give longer texts")
    windows = torch.cat(cut)
    return torch.cat([torch.full((len(windows), 1), tokenizer.start_id), windows], 1)
