"""Quality and diversity of written text, where no truth is known."""

from collections.abc import Sequence
from typing import NamedTuple

from frugal.errors import InputError, check_whole
from frugal.evaluate import evaluate
from frugal.language_model import LanguageModel


class TextQuality(NamedTuple):
    """Of some texts: bits per byte under a judge (less is better), share of distinct pieces (more is more diverse)."""

    bits_per_byte: float
    distinct: float


def text_quality(texts: Sequence[str], judge: LanguageModel, piece: int = 4) -> TextQuality:
    """Judge texts by a language model that none of their writers has seen, and by how little they repeat.

    Args:
        texts: as long as those that they are compared with, and as many: the share of distinct pieces depends on both.
        piece: characters of a piece.

    Raises:
        InputError: no text is as long as a piece, or `piece` is no number of characters.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> judge = NGram(3, CharTokenizer.ascii()).fit(["the cat sat on the mat"])
        >>> text_quality(["ab" * 4], judge).distinct  # two distinct pieces of five
        0.4
    """
    check_whole(piece=piece)
    pieces = [text[at : at + piece] for text in texts for at in range(len(text) - piece + 1)]
    if not pieces:
        raise InputError(f"texts: none has {piece} characters; let the model write more")
    return TextQuality(evaluate(judge, [text for text in texts if text]).bits_per_byte, len(set(pieces)) / len(pieces))
