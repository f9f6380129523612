"""Context mixing: what it learns while it reads, against counts of its own, and its files."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from frugal.baselines import ContextMixing, NGram
from frugal.baselines.context_mixing import Tables
from frugal.corpora import BytePairTokenizer, CharTokenizer, encode_documents
from frugal.errors import InputError
from frugal.evaluate import evaluate
from frugal.language_model import load_model

TEXT = "the cat sat on the mat. the dog sat on the log. a cat and a dog met on a mat. " * 4
OTHER = "quick zebras jump over lazy foxes, and lazy foxes jump over quick zebras. " * 6


def mixing(orders: int = 4, **settings: int) -> ContextMixing:
    return ContextMixing(orders, CharTokenizer.learn([TEXT, OTHER]), **{"slots": 2**14, **settings})


def test_what_is_read_is_learnt_after_it_is_scored() -> None:
    model = mixing().fit([TEXT])
    first, again = (evaluate(model, [OTHER] * n, carry=True) for n in (1, 2))
    assert again.documents[0].nats == pytest.approx(first.documents[0].nats, rel=1e-6)
    assert again.documents[1].nats < 0.3 * again.documents[0].nats


def test_a_frozen_model_learns_nothing_while_it_reads() -> None:
    model = mixing().fit([TEXT]).frozen()
    scores = evaluate(model, [OTHER, OTHER])
    assert scores.documents[0].nats == pytest.approx(scores.documents[1].nats, rel=1e-6)
    _, state = model.advance(torch.zeros(1, 5, dtype=torch.int64), model.start(1))
    assert state.tables[0] is model.tables


def test_a_stream_s_learning_changes_neither_the_model_nor_the_state_it_came_from() -> None:
    model = mixing().fit([TEXT])
    tokens = encode_documents(model.tokenizer, [OTHER])[0][None]
    before = model.log_probabilities(tokens)
    _, state = model.advance(tokens, model.start(1))
    once, _ = model.advance(tokens, state)
    torch.testing.assert_close(model.log_probabilities(tokens), before, rtol=0, atol=0)
    torch.testing.assert_close(model.advance(tokens, state)[0], once, rtol=0, atol=0)


def test_a_count_comes_nearer_to_what_it_saw_by_ever_smaller_steps() -> None:
    """One context, of no token: after the start and n times the left half, the root's chance of a right bit."""
    model = ContextMixing(1, CharTokenizer("ab"), slots=2**12)
    for n in (1, 2, 5):
        tables = model.tables.copy()
        history = model._beginning(1)[0]
        model._read(np.zeros(n, np.int64), tables, history, learn=True, wanted=False)  # a, a, ..
        chance = 0.5
        for seen in range(n):
            chance += (0 - chance) / (seen + 1.6)
        assert np.isclose(tables.chance[tables.seen == n].min(), chance)


def test_it_learns_more_from_a_text_than_a_kneser_ney_model_of_the_same_contexts() -> None:
    held_out = "a dog sat on the mat. the cat met a dog on the log. "
    model = ContextMixing(6, CharTokenizer.learn([TEXT]), slots=2**16).fit([TEXT])
    peer = NGram(6, model.tokenizer).fit([TEXT])
    assert evaluate(model.frozen(), held_out).bits_per_byte < evaluate(peer, held_out).bits_per_byte


def test_a_full_table_gives_up_what_was_seen_least() -> None:
    text = "".join(
        chr(97 + letter) for letter in torch.randint(26, (3000,), generator=torch.Generator().manual_seed(0))
    )
    small = ContextMixing(4, CharTokenizer.learn([text]), slots=2**8).fit([text])
    assert (small.tables.seen > 0).sum() <= 2**8
    assert evaluate(small.frozen(), text[:200]).bits_per_byte < 6


def test_text_in_two_fits_is_text_in_one() -> None:
    once, twice = mixing().fit([TEXT, OTHER]), mixing().fit([TEXT]).fit([OTHER])
    assert evaluate(twice, OTHER).bits_per_byte == pytest.approx(evaluate(once, OTHER).bits_per_byte, rel=0.1)


def test_byte_pairs_are_read_as_well() -> None:
    tokenizer = BytePairTokenizer.train([TEXT], 270)
    model = ContextMixing(3, tokenizer, slots=2**14).fit([TEXT])
    unread = ContextMixing(3, tokenizer, slots=2**14)
    assert evaluate(model, "the cat sat").bits_per_byte < 0.5 * evaluate(unread, "the cat sat").bits_per_byte
    assert [bool(model.is_word[i]) for i in (tokenizer.encode("t")[0], tokenizer.encode(" ")[0])] == [True, False]


def test_a_saved_model_comes_back_with_all_it_has_learnt(tmp_path: Path) -> None:
    model = mixing().fit([TEXT])
    model.save(tmp_path / "kept")
    again = load_model(tmp_path / "kept")
    assert isinstance(again, ContextMixing)
    assert evaluate(again, [OTHER], carry=True).nats == evaluate(model, [OTHER], carry=True).nats
    assert again.parameter_count == model.parameter_count


def test_an_empty_table_is_the_uniform_distribution_over_the_leaves() -> None:
    tables = Tables.empty(2, 4, 5)
    assert np.isclose(tables.refined[:, 0], 1 / (1 + math.exp(12))).all()
    rows = ContextMixing(2, CharTokenizer("ab"), slots=4).log_probabilities(torch.tensor([[2]])).exp()
    torch.testing.assert_close(rows, torch.full((1, 1, 4), 0.25), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("orders", "slots", "complaint"), [(0, 4, "orders=0"), (33, 4, "orders=33"), (3, 5, "slots=5"), (3, 2, "slots=2")]
)
def test_sizes_that_cannot_be_are_refused(orders: int, slots: int, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        ContextMixing(orders, CharTokenizer("ab"), slots=slots)


def test_a_text_without_a_token_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to count"):
        mixing().fit([""])
