"""How well a language model predicts a text: bits per byte, perplexity, accuracy, and differences with intervals.

Bits per byte is the common currency: negative log-likelihood / (ln 2 * UTF-8 bytes of the same text). Every token
of a document is scored, the first one given the document start, so models with different tokenisers pay for
the same bytes. What a tokeniser loses (characters that it does not know, capitals, accents in another form) is charged.
Perplexity is per token and is never compared across tokenisers.

A measure of any language model enters here; what knows how a model works does not.
"""

import math
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from frugal.corpora import Document, Tokenizer, encode_documents, separate, text_of
from frugal.errors import InputError
from frugal.language_model import LOGITS_AT_ONCE, LanguageModel, TargetScores, gather_targets

MOST_NATS = math.log(sys.float_info.max)  # that have a perplexity
# A tokeniser that maps a rare character to "unknown", or a capital to a small letter, has not said which one it was.
# Naming it costs the logarithm of the number of Unicode scalar values, so that ignorance never looks like compression.
NATS_TO_NAME_A_CHARACTER = math.log(0x110000 - 0x800)
MOST_CHANGED = 0.1  # of a text's characters; a tokeniser that changes more of it is for other text

TOKENS_AT_ONCE = 4096  # of a stream
BLOCKS = 20  # that a document is cut into where the documents are too few to be drawn
FEWEST_DOCUMENTS = 5
LONGEST_NAME = 255  # of a file, in characters; a longer text is taken for what it says


@dataclass(frozen=True)
class DocumentScore:
    """Sums over one document: nats of all its tokens, and how many tokens ranked first or among the first five.

    These two are None where the tokens' probabilities are known but not their ranks. `blocks` are the nats of
    `BLOCKS` consecutive parts with equal shares of the tokens. `lost` counts the characters that the tokens do not give
    back, each of which is charged in the nats.
    """

    title: str
    nats: float
    tokens: int
    bytes: int
    top1: int | None
    top5: int | None
    blocks: tuple[float, ...]
    lost: int


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one text, and the protocol that gave them.

    `context` is the most tokens that a prediction could look back on (None: no limit), `stride` the number of
    tokens scored per window: every token but those of a document's first window has between
    `context - stride` and `context` tokens before it. `seconds` are of processor time. `carried` says that the
    documents were read as one stream (see `evaluate`); `measure` then names another column of a table. `f1` is the
    `macro_f1` of the tokens that were thought the most likely; None where these are not known.
    """

    documents: tuple[DocumentScore, ...]
    context: int | None
    stride: int | None
    seconds: float
    carried: bool = False
    f1: float | None = None

    @property
    def measure(self) -> str:
        """What tables call the bits per byte: static and adapting ones never share a column."""
        return "bits per byte, adapting" if self.carried else "bits per byte"

    @property
    def nats(self) -> float:
        return sum(document.nats for document in self.documents)

    @property
    def tokens(self) -> int:
        return sum(document.tokens for document in self.documents)

    @property
    def bytes(self) -> int:
        return sum(document.bytes for document in self.documents)

    @property
    def lost(self) -> int:
        """Characters that the tokens do not give back, each charged with the cost of naming it."""
        return sum(document.lost for document in self.documents)

    @property
    def bits_per_byte(self) -> float:
        return self.nats / (math.log(2) * self.bytes)

    @property
    def perplexity(self) -> float:
        """Per token of the model's own tokeniser."""
        nats = self.nats / self.tokens
        return math.inf if nats > MOST_NATS else math.exp(nats)

    @property
    def accuracy(self) -> float | None:
        """Share of tokens that were thought the most likely; None where ranks are not known."""
        return self._share([document.top1 for document in self.documents])

    @property
    def accuracy_top5(self) -> float | None:
        """Share of tokens that were thought one of the five most likely; None where ranks are not known."""
        return self._share([document.top5 for document in self.documents])

    def _share(self, counts: list[int | None]) -> float | None:
        known = [count for count in counts if count is not None]
        return sum(known) / self.tokens if len(known) == len(counts) else None


@dataclass(frozen=True)
class Difference:
    """Bits per byte of one model minus another's, with a bootstrap interval; negative favours the first.

    `unit` is what was drawn for the interval, "documents" or "blocks".
    """

    bits_per_byte: float
    low: float
    high: float
    unit: str


def evaluate(
    model: LanguageModel,
    text: str | Document | Iterable[Document | str],
    *,
    context: int | None = None,
    stride: int | None = None,
    batch_tokens: int = 4096,
    fresh: bool = False,
    carry: bool = False,
    progress: bool = False,
) -> Scores:
    """Score every token of `text`, one document at a time, each from the model's starting state.

    With `carry` the documents are one stream instead, in their order: the model's state goes from one into the next,
    and each token is scored before the model reads it. So a model whose state holds what it has learnt adapts to the
    text while it is scored, and an echo or a cache remembers the documents before.

    Args:
        model: any `LanguageModel`.
        text: one text, or documents that are kept apart.
        context: most tokens to look back on; default: the model's own limit.
        stride: tokens scored per window, at most `context`; default: `context`, windows without overlap.
        batch_tokens: about how many tokens are scored in one call of the model.
        fresh: compute everything, also what a model keeps on disk, so that `seconds` are those of scoring a new text.
        carry: read the documents as one stream, which is never cut into windows.
        progress: show a progress bar.

    Raises:
        InputError: the text is empty or the name of a file, the context is out of range or given for a stream, the
            model answers NaN, or its tokeniser changes more than a tenth of the text's characters. Fewer are charged,
            each with the cost of naming it.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> model = NGram(3, CharTokenizer.ascii()).fit(["the cat sat on the mat. " * 20])
        >>> scores = evaluate(model, ["the cat", "the mat"])
        >>> scores.bytes, scores.bits_per_byte < 1
        (14, True)
    """
    documents = _as_documents(text)
    if carry and (context is not None or stride is not None):
        raise InputError(
            f"carry with context={context}, stride={stride}: a stream is not cut into windows; leave them out"
        )
    context, stride = _checked_windows(model, context, stride)
    started = time.process_time()
    encoded = encode_documents(model.tokenizer, documents)
    lost = _lost(model.tokenizer, documents, encoded)
    document_scores = LanguageModel.document_scores if fresh else type(model).document_scores
    with torch.inference_mode():
        if carry:
            found = _stream_scores(model, encoded, progress)
        else:
            found = document_scores(
                model, encoded, context=context, stride=stride, batch_tokens=batch_tokens, progress=progress
            )
    return _summed(documents, lost, encoded, found, context, stride, time.process_time() - started, carry)


def sum_scores(
    tokenizer: Tokenizer, documents: Sequence[Document | str], scores: Sequence[TargetScores | Tensor]
) -> Scores:
    """Sum up what is known already of each document's tokens, such as the probabilities of a mixture of cached ones.

    Args:
        tokenizer: whose tokens they are.
        documents: text, none of it empty.
        scores: of each document's tokens, [T]; or their log-probabilities alone: then accuracies are None, since these
            know nothing of ranks.

    Raises:
        InputError: they are of other documents, or a log-probability is NaN.

    Example:
        >>> from frugal.corpora import CharTokenizer
        >>> scores = sum_scores(CharTokenizer.ascii(), ["cat"], [torch.tensor([0.5, 0.5, 0.25]).log()])
        >>> round(scores.bits_per_byte, 3), scores.accuracy  # (1 + 1 + 2 bits) / 3 bytes
        (1.333, None)
    """
    documents = _as_documents(documents)
    encoded = encode_documents(tokenizer, documents)
    known = [each.cpu() for each in scores]
    expected = [len(tokens) - 1 for tokens in encoded]
    given = [len(each if isinstance(each, Tensor) else each.ranks) for each in known]
    if given != expected:
        raise InputError(f"scores of {given} tokens: the documents have {expected}; give those of each document")
    return _summed(documents, _lost(tokenizer, documents, encoded), encoded, known, None, None, 0.0)


def macro_f1(truth: Tensor, predicted: Tensor) -> float:
    """The mean, over all tokens that stand in either, of 2 * hits / (times it was true + times it was predicted).

    A rare token weighs as much as a frequent one. Both are [T]; scikit-learn calls it `f1_score(average="macro")`.

    Example:
        >>> macro_f1(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 1]))  # 2/3, 2/4 and 0
        0.38888888888888884
    """
    tokens, codes = np.unique(torch.stack([truth, predicted]).numpy(), return_inverse=True)
    true, told = codes.reshape(2, -1)
    times, hits = (np.bincount(counted, minlength=len(tokens)) for counted in (codes.ravel(), true[true == told]))
    return float((2 * hits / times).mean())


def bootstrap_difference(
    first: Scores, second: Scores, *, samples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Difference:
    """Paired bootstrap by document of `first` minus `second` in bits per byte.

    Documents are drawn with replacement, the same for both models; nats and bytes are summed before dividing, so
    long documents weigh as much as they do in the score itself. Fewer than `FEWEST_DOCUMENTS` are too few to draw
    from: then the units are `BLOCKS` consecutive parts of each. Such an interval speaks for these documents alone,
    and not for others like them.

    Source: Künsch, The jackknife and the bootstrap for general stationary observations, Annals of Statistics 17, 1989.

    Raises:
        InputError: the two were scored on different texts.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> texts = ["the cat sat on the mat. ", "a dog sat on the log. "]
        >>> trigram, unigram = (evaluate(NGram(n, CharTokenizer.ascii()).fit(texts), texts) for n in (3, 1))
        >>> difference = bootstrap_difference(trigram, unigram)
        >>> difference.low <= difference.bits_per_byte <= difference.high < 0
        True
    """
    if [(d.title, d.bytes) for d in first.documents] != [(d.title, d.bytes) for d in second.documents]:
        raise InputError("the two scores are of different documents: evaluate both models on the same text")
    pairs = list(zip(first.documents, second.documents, strict=True))
    unit = "documents" if len(pairs) >= FEWEST_DOCUMENTS else "blocks"
    if unit == "documents":
        nats, size = np.array([a.nats - b.nats for a, b in pairs]), np.array([a.bytes for a, _ in pairs])
    else:
        nats = np.concatenate([np.subtract(a.blocks, b.blocks) for a, b in pairs])
        size = np.repeat([a.bytes / BLOCKS for a, _ in pairs], BLOCKS)
    low, high = bootstrap_interval(nats, size, samples=samples, level=level, seed=seed)
    return Difference(first.bits_per_byte - second.bits_per_byte, low, high, unit)


def bootstrap_interval(
    nats: np.ndarray, size: np.ndarray, *, samples: int, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Where bits per byte lie in draws, with replacement, of units with so many nats [n] and bytes [n]."""
    drawn = np.random.default_rng(seed).integers(len(size), size=(samples, len(size)))
    bits_per_byte = nats[drawn].sum(1) / (math.log(2) * size[drawn].sum(1))
    low, high = np.quantile(bits_per_byte, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(scores: Mapping[str, Scores], first: str, second: str, *, seed: int = 0) -> dict[str, Any]:
    """One row of a table of differences: the names, and `bootstrap_difference` with its 95 % interval.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> texts = ["the cat sat on the mat. ", "a dog sat on the log. "]
        >>> scores = {f"{n}-gram": evaluate(NGram(n, CharTokenizer.ascii()).fit(texts), texts) for n in (3, 1)}
        >>> compare(scores, "3-gram", "1-gram")["high"] < 0
        True
    """
    found = bootstrap_difference(scores[first], scores[second], seed=seed)
    return {
        "first": first,
        "second": second,
        "bits per byte": found.bits_per_byte,
        "low": found.low,
        "high": found.high,
        "drawn": found.unit,
    }


def _stream_scores(model: LanguageModel, documents: Sequence[Tensor], progress: bool) -> list[TargetScores]:
    """Scores of tokens 1..T of each document [1 + T], all of which one stream of the model reads."""
    at_once = max(1, min(TOKENS_AT_ONCE, LOGITS_AT_ONCE // model.vocabulary_size))
    state, found = model.start(1), []
    with tqdm(total=sum(map(len, documents)), unit="token", disable=not progress) as bar:
        for tokens in documents:
            pieces = []
            for begin in range(0, len(tokens), at_once):
                read = tokens[begin : begin + at_once].to(model.device)
                following = tokens[begin + 1 : begin + 1 + at_once].to(model.device)
                rows, state = model.advance(read.unsqueeze(0), state)
                pieces.append(gather_targets(rows[0, : len(following)], following).cpu())
                bar.update(len(read))
            found.append(TargetScores.joined(pieces))
    return found


def _as_documents(text: str | Document | Iterable[Document | str]) -> list[Document]:
    if isinstance(text, str) and 0 < len(text) <= LONGEST_NAME and text.isprintable() and Path(text).is_file():
        raise InputError(f"text={text!r}: names a file; give what is in it, such as load_corpus({text!r}).test")
    parts = enumerate(separate(text))
    documents = [part if isinstance(part, Document) else Document(f"text {i}", part) for i, part in parts]
    empty = [document.title for document in documents if not text_of(document)]
    if empty or not documents:
        raise InputError(f"nothing to score: {empty[0] if empty else 'the text'} is empty; give some text")
    return documents


class _Lost(NamedTuple):
    """What the tokens of a document lose: which of them [T] are unknown, and how many other characters are lost."""

    unknown: Tensor
    others: int


def _lost(tokenizer: Tokenizer, documents: Sequence[Document], encoded: Sequence[Tensor]) -> list[_Lost]:
    """What the tokens [1 + T] of each document lose; more than a tenth of all characters is refused or warned of."""
    found = []
    for document, tokens in zip(documents, encoded, strict=True):
        unknown = (tokens[1:] == (-1 if tokenizer.unknown_id is None else tokenizer.unknown_id)).cpu()
        changed = _changed(tokenizer, document.text, tokens)
        found.append(_Lost(unknown, max(0, changed - int(unknown.sum()))))
    others, size = sum(each.others for each in found), sum(len(document.text) for document in documents)
    if others > MOST_CHANGED * size:
        raise InputError(
            f"the model's tokeniser changes or leaves out {others} of {size} characters: bits per byte of what is left "
            "would say nothing; take a model whose tokeniser keeps the text"
        )
    strange = sum(int(each.unknown.sum()) for each in found)
    if strange > MOST_CHANGED * size:
        warnings.warn(f"{strange} of {size} characters are unknown to the model; naming each is charged", stacklevel=3)
    return found


def _changed(tokenizer: Tokenizer, text: str, tokens: Tensor) -> int:
    """Characters of the text that its tokens change, leave out or add to, counted word by word."""
    if tokenizer.decode(tokens) == text:
        return 0

    def back(piece: str) -> str:
        return tokenizer.decode(tokenizer.encode(piece))

    # White space goes with the word after it, and comes after a word that is kept: some tokenisers give back a space
    # between two words only.
    before = next((word for word in islice(re.finditer(r"\S+", text), 100) if back(word[0]) == word[0]), None)
    kept = before[0] if before else ""
    changed = 0
    for word, times in Counter(re.findall(r"\s*\S+|\s+", text)).items():
        given, found = Counter(word), Counter(back(kept + word).removeprefix(kept))
        changed += times * max((given - found).total(), (found - given).total())
    return max(1, changed)


def _checked_windows(model: LanguageModel, context: int | None, stride: int | None) -> tuple[int | None, int | None]:
    """Context and stride; by default the model's own limit, and windows without overlap."""
    limit = model.context_length
    if context is not None and (context < 1 or (limit is not None and context > limit)):
        most = f"at most {limit}, this model's limit" if limit else "at least 1"
        raise InputError(f"context={context}: must be {most}; leave it out for the longest possible")
    context = limit if context is None else context
    if stride is not None and (context is None or not 1 <= stride <= context):
        raise InputError(f"stride={stride}: must be from 1 to the context ({context}); leave it out for no overlap")
    return context, context if stride is None else stride


def _summed(
    documents: Sequence[Document],
    lost: Sequence[_Lost],
    encoded: Sequence[Tensor],
    found: Sequence[TargetScores | Tensor],
    context: int | None,
    stride: int | None,
    seconds: float,
    carried: bool = False,
) -> Scores:
    """Scores of documents, whose tokens are [1 + T], from what was found of each."""
    likeliest = [each.likeliest for each in found if not isinstance(each, Tensor)]
    # An unknown token is none that can be predicted.
    truth = [tokens[1:].cpu().masked_fill(each.unknown, -1) for tokens, each in zip(encoded, lost, strict=True)]
    f1 = macro_f1(torch.cat(truth), torch.cat(likeliest)) if len(likeliest) == len(truth) else None
    summed = tuple(map(_document_score, documents, lost, found))
    return Scores(summed, context, stride, seconds, carried, f1)


def _document_score(document: Document, lost: _Lost, found: TargetScores | Tensor) -> DocumentScore:
    """Sums over a document from the log-probability [T] of each token, and its rank where that is known.

    An unknown token pays for itself. What else is lost has no place of its own, and all tokens share its cost.
    """
    log_probabilities, ranks = (found, None) if isinstance(found, Tensor) else found[:2]
    names = lost.unknown.double() + lost.others / len(lost.unknown)
    costs = names * NATS_TO_NAME_A_CHARACTER - log_probabilities.cpu().double()
    nats = costs.sum().item()
    if math.isnan(nats):
        raise InputError(f"the model answered NaN on {document.title!r}: its weights or states are damaged")
    return DocumentScore(
        title=document.title,
        nats=nats,
        tokens=len(costs),
        bytes=len(document.text.encode()),
        top1=None if ranks is None else int(((ranks < 1) & ~lost.unknown).sum()),
        top5=None if ranks is None else int(((ranks < 5) & ~lost.unknown).sum()),
        blocks=tuple(part.sum().item() for part in costs.tensor_split(BLOCKS)),
        lost=lost.others + int(lost.unknown.sum()),
    )
