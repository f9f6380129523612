"""Cooperative training on text: excerpts, reservoir models with two readouts, noise of the gradient."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frugal.combine import Extrapolated, Inverted, Tempered, reweighted
from frugal.cooperative import (
    CooperativePlan,
    CooperativeTrainer,
    Oracle,
    gradient_noise,
    text_quality,
    text_windows,
)
from frugal.errors import DivergedError, InputError
from frugal.readout import ReservoirLanguageModel, RidgeReadout, SoftmaxReadout
from frugal.reservoir import DeepReservoir, Reservoir
from models import TEXTS, Uniform, characters, lstm, reservoir_model


@settings(max_examples=25)
@given(st.lists(st.text("acd ", max_size=30), min_size=1, max_size=4), st.integers(1, 8), st.integers(1, 8))
def test_excerpts_are_pieces_of_documents_after_the_start_token(texts: list[str], length: int, stride: int) -> None:
    tokenizer = characters()
    expected = [text[at : at + length] for text in texts for at in range(0, len(text) - length + 1, stride)]
    if not expected:
        with pytest.raises(InputError, match="the longest document has"):
            text_windows(tokenizer, texts, length, stride)
        return
    windows = text_windows(tokenizer, texts, length, stride)
    assert (windows[:, 0] == tokenizer.start_id).all()
    assert [tokenizer.decode(row) for row in windows] == expected


def test_a_saved_reservoir_model_predicts_the_same(tmp_path: Path) -> None:
    model = reservoir_model()
    tokens = text_windows(model.tokenizer, TEXTS, 12)
    model.save(tmp_path / "model", notes="Trained on nothing.")
    torch.testing.assert_close(
        ReservoirLanguageModel.load(tmp_path / "model").log_probabilities(tokens), model.log_probabilities(tokens)
    )


def test_a_reservoir_model_of_unfitting_parts_is_refused() -> None:
    tokenizer = characters()
    V = tokenizer.vocabulary_size
    with pytest.raises(InputError, match=f"input_size=3: must be {V}"):
        ReservoirLanguageModel(tokenizer, Reservoir(3, 10), SoftmaxReadout(10, V))
    with pytest.raises(InputError, match="must lead from 10 units"):
        ReservoirLanguageModel(tokenizer, Reservoir(V, 10), SoftmaxReadout(9, V))
    with pytest.raises(InputError, match="reservoir of type DeepReservoir: must be a Reservoir"):
        ReservoirLanguageModel(tokenizer, DeepReservoir([Reservoir(V, 10)]), SoftmaxReadout(10, V))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="readout of type RidgeReadout: must be a SoftmaxReadout"):
        ReservoirLanguageModel(tokenizer, Reservoir(V, 10), RidgeReadout(10, V))  # type: ignore[arg-type]
    wild = Reservoir(V, 10, spectral_radius=1e30, activation="identity")
    model, tokens = ReservoirLanguageModel(tokenizer, wild, SoftmaxReadout(10, V)), torch.zeros(1, 9, dtype=torch.int64)
    with pytest.raises(DivergedError, match="lower the spectral radius"):
        model.hidden(tokens)
    last = torch.full((1, 10), 1e30)
    with pytest.raises(DivergedError, match="lower the spectral radius"):
        model.hidden_step(tokens[:, 0], last)


def test_two_readouts_on_one_reservoir_learn_a_text_together() -> None:
    generator = reservoir_model()
    mediator = ReservoirLanguageModel(
        generator.tokenizer, generator.reservoir, SoftmaxReadout(30, generator.vocabulary_size, hidden=(16,))
    )
    windows = text_windows(generator.tokenizer, TEXTS, 12, 1)
    before = generator.target_log_probabilities(windows).mean().item()
    training = CooperativeTrainer(
        generator, mediator, windows, windows, CooperativePlan(steps=60, batch_size=16, learning_rate=0.03)
    )
    assert training.pair.shared
    log = training.train()
    assert -log[-1].validation_nats > before + 0.5


def test_tempering_sharpens_and_blunts() -> None:
    model, tokens = lstm(), text_windows(characters(), TEXTS, 12)
    assert torch.allclose(Tempered(model, 1.0).log_probabilities(tokens), model.log_probabilities(tokens), atol=1e-6)
    entropies = [
        -(rows.exp() * rows).sum(-1).mean().item()
        for rows in (Tempered(model, temperature).log_probabilities(tokens) for temperature in (0.5, 1.0, 2.0))
    ]
    assert entropies == sorted(entropies)
    with pytest.raises(InputError, match=r"temperature=0.0: must lie in 1e-30 to"):
        Tempered(model, 0.0)


def test_repetition_costs_diversity_and_the_judge_knows_nothing_of_it() -> None:
    judge = Uniform(characters())
    varied, dull = text_quality(["abcdef", "ghijkl"], judge), text_quality(["ababab", "ababab"], judge, piece=2)
    assert (varied.distinct, dull.distinct) == (1.0, 0.2)
    known = text_quality(["the cat", "the dog", ""], judge)
    assert known.bits_per_byte == pytest.approx(math.log2(judge.vocabulary_size))
    with pytest.raises(InputError, match="none has 4 characters"):
        text_quality(["abc"], judge)
    for piece in (0, -1, 2.0):
        with pytest.raises(InputError, match=f"piece={piece}: must be a whole number of at least 1"):
            text_quality(["abcdef"], judge, piece=piece)  # type: ignore[arg-type]


def test_whitening_gives_the_readout_states_of_unit_variance() -> None:
    model, tokens = reservoir_model(), text_windows(characters(), TEXTS, 12, 1)
    states = model.whiten(tokens, shrinkage=1e-6).readout.whitened(model.hidden(tokens)).flatten(0, 1)
    assert states.mean(0).abs().max() < 1e-3
    assert states.var(0).median().item() == pytest.approx(1, abs=0.1)


def test_ways_of_directing_refuse_what_makes_no_sense() -> None:
    with pytest.raises(InputError, match="lam=-1"):
        Extrapolated(lstm(0), lstm(1), lam=-1)
    with pytest.raises(InputError, match="bounds="):
        Inverted(lstm(0), lstm(1), bounds=(0.9, 0.1))
    with pytest.raises(InputError, match="all weights are zero"):
        reweighted(torch.zeros(3), torch.full((3,), -9.0))


def test_the_exact_sum_is_less_noisy_than_reinforce() -> None:
    oracle = Oracle(4, 6, 8, seed=0)
    noise = gradient_noise(oracle.learner(8, seed=1), oracle.learner(8, seed=2), oracle.sequences(50), batches=12)
    assert noise["exact sum"].variance < 0.1 * noise["REINFORCE"].variance
    with pytest.raises(InputError, match="batches=1"):
        gradient_noise(oracle.learner(8), oracle.learner(8, seed=1), oracle.sequences(50), batches=1)
