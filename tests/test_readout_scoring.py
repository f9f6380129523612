import pytest

from frugal.corpora import Document
from frugal.errors import InputError
from frugal.evaluate import evaluate
from frugal.readout import SoftmaxReadout
from frugal.readout.scoring import score_documents
from models import echo_model

DOCUMENTS = (Document("one", "the cat sat on the mat, and so did the dog"), Document("two", "no"))


def test_scores_from_cached_features_are_those_of_evaluate() -> None:
    model = echo_model().with_readout(SoftmaxReadout(44, 24, tied=True), "residual")
    expected, scores = evaluate(model, DOCUMENTS), score_documents(model, DOCUMENTS)
    for document, same in zip(expected.documents, scores.documents, strict=True):
        assert (same.title, same.tokens, same.bytes) == (document.title, document.tokens, document.bytes)
        assert same.nats == pytest.approx(document.nats, rel=2e-3)  # features are kept in float16


def test_rows_of_other_documents_are_refused() -> None:
    model = echo_model()
    with pytest.raises(InputError, match="give their own rows"):
        score_documents(model, DOCUMENTS, model.rows(DOCUMENTS[:1]))
