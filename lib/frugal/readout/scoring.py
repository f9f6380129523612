"""Scores of echo language models from cached features: as `frugal.evaluate`, without encoding a text again."""

import time
from collections.abc import Sequence

import torch

from frugal.corpora import Document, encode_documents
from frugal.errors import InputError
from frugal.evaluate import Scores, document_score
from frugal.language_model import LOGITS_AT_ONCE, TargetScores, gather_targets
from frugal.readout.echo import EchoLanguageModel
from frugal.readout.rows import Rows


def score_documents(model: EchoLanguageModel, documents: Sequence[Document], rows: Rows | None = None) -> Scores:
    """What `evaluate(model, documents)` gives, from features on disk.

    Args:
        model: an echo language model, with any readout or none.
        documents: held-out text, none of them empty.
        rows: `model.rows(documents)` or its `kept()`, where they are at hand.

    Raises:
        InputError: the rows are not those of the documents.
    """
    started = time.perf_counter()
    scores = score_each_row(model, model.rows(documents) if rows is None else rows)
    return sum_by_document(model, documents, scores, time.perf_counter() - started)


@torch.no_grad()
def score_each_row(model: EchoLanguageModel, rows: Rows) -> TargetScores:
    """Log-probability and rank [n] of each row's next token."""
    at_once = max(1, LOGITS_AT_ONCE // model.vocabulary_size)
    pieces = [
        gather_targets(model.head(x.to(model.device)).float().log_softmax(-1), y.to(model.device))
        for inputs, targets in rows
        for x, y in zip(inputs.split(at_once), targets.split(at_once), strict=True)
    ]
    return TargetScores(*(torch.cat(column).cpu() for column in zip(*pieces, strict=True)))


def sum_by_document(
    model: EchoLanguageModel, documents: Sequence[Document], scores: TargetScores, seconds: float
) -> Scores:
    """Sums over documents of scores [n] of all their tokens, in the documents' order.

    Raises:
        InputError: there are more or fewer scores than tokens.
    """
    encoded = encode_documents(model.tokenizer, documents)
    lengths = [len(tokens) - 1 for tokens in encoded]
    if sum(lengths) != len(scores.ranks):
        raise InputError(f"{len(scores.ranks)} rows: these documents have {sum(lengths)} tokens; give their own rows")
    columns = (column.split(lengths) for column in scores)
    summed = tuple(
        document_score(*parts, unknown_id=model.tokenizer.unknown_id)
        for parts in zip(documents, encoded, *columns, strict=True)
    )
    return Scores(summed, context=None, stride=None, seconds=seconds)
