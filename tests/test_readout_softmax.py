import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from frugal.errors import DivergedError, InputError, UnavailableError
from frugal.readout import (
    EchoLanguageModel,
    KeptRows,
    ReadoutPlan,
    ReservoirLanguageModel,
    RidgeReadout,
    SoftmaxReadout,
    score_rows,
    train_readout,
)
from frugal.readout import training as readout_training
from frugal.readout.rows import StreamRows
from frugal.reservoir import Reservoir
from frugal.ridge import RidgeStatistics
from frugal.training import EpochScore
from models import TEXTS, characters, echo_model, random_gpt2, reservoir_model

WIDTH, V, D = 44, 273, 24  # of echo_model: [feature; state], vocabulary, feature


def some_rows(n: int = 400, seed: int = 0) -> KeptRows:
    """Random hidden states whose next token is planted: the largest of eight projections."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, WIDTH, generator=generator)
    planted = torch.randn(WIDTH, 8, generator=torch.Generator().manual_seed(99))
    return KeptRows(inputs, (inputs @ planted).argmax(-1))


def untrained(join: str = "concat", readout: SoftmaxReadout | None = None) -> EchoLanguageModel:
    readout = readout or SoftmaxReadout(WIDTH, V)
    return echo_model().with_readout(readout, join)  # type: ignore[arg-type]


def weights_of(model: EchoLanguageModel) -> dict[str, Tensor]:
    assert model.readout is not None
    return {name: values.clone() for name, values in model.readout.state_dict().items()}


def test_training_recovers_a_planted_softmax() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8_000, WIDTH, generator=generator)
    planted = torch.randn(V, WIDTH, generator=generator) * (torch.arange(V) < 4).unsqueeze(1) * 0.5
    planted_bias = torch.where(torch.arange(V) < 4, 0.0, -30.0)
    tokens = torch.multinomial((inputs @ planted.T + planted_bias).softmax(-1), 1, generator=generator).squeeze(1)
    rows, validation = KeptRows(inputs[:7_000], tokens[:7_000]), KeptRows(inputs[7_000:], tokens[7_000:])
    model = untrained()
    plan = ReadoutPlan(epochs=3, optimizer="lbfgs", weight_decay=1e-4)
    train_readout(model, rows, validation, plan)
    assert model.readout is not None
    learnt = model.readout.layers[-1].weight[:4]  # known up to what all tokens share
    truth = planted[:4] - planted[:4].mean(0)
    assert torch.nn.functional.cosine_similarity((learnt - learnt.mean(0)).flatten(), truth.flatten(), dim=0) > 0.95


@pytest.mark.parametrize("optimizer", ["adamw", "lbfgs"])
def test_a_weight_that_the_last_step_of_an_epoch_spoils_is_said(
    optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, make = untrained(), readout_training._optimizer
    spoilt = torch.full((sum(values.numel() for values in weights_of(model).values()),), math.inf)

    def spoiling(readout: torch.nn.Module, plan: ReadoutPlan) -> torch.optim.Optimizer:
        made = make(readout, plan)
        made.register_step_post_hook(lambda *_: torch.nn.utils.vector_to_parameters(spoilt, readout.parameters()))
        return made

    monkeypatch.setattr(readout_training, "_optimizer", spoiling)
    before, rows = weights_of(model), some_rows()
    with pytest.raises(DivergedError, match="epoch 1: a weight is not finite after the last step"):
        train_readout(model, rows, rows, ReadoutPlan(epochs=1, optimizer=optimizer))
    assert all(torch.equal(values, before[name]) for name, values in weights_of(model).items())


@pytest.mark.parametrize("optimizer", ["adamw", "lbfgs"])
@pytest.mark.parametrize(
    "readout",
    [
        lambda: SoftmaxReadout(WIDTH, V),
        lambda: SoftmaxReadout(WIDTH, V, rank=6),
        lambda: SoftmaxReadout(WIDTH, V, hidden=(16, 12)),
        lambda: SoftmaxReadout(WIDTH, D, tied=True),
    ],
    ids=["linear", "low rank", "hidden layers", "tied"],
)
def test_every_form_learns_with_every_optimiser(readout: object, optimizer: str) -> None:
    model = untrained("concat", readout())  # type: ignore[operator]
    plan = ReadoutPlan(epochs=4, optimizer=optimizer, learning_rate=0.03, batch_size=32)  # type: ignore[arg-type]
    scores = train_readout(model, some_rows(), some_rows(seed=1), plan)
    assert scores[-1].validation_nats < scores[0].validation_nats - 0.5
    assert scores[-1].validation_perplexity == pytest.approx(math.exp(scores[-1].validation_nats))


def test_low_rank_and_tied_readouts_have_the_weights_they_promise() -> None:
    def count(readout: SoftmaxReadout) -> int:
        return sum(values.numel() for values in readout.parameters())

    assert count(SoftmaxReadout(WIDTH, V)) == WIDTH * V + V
    assert count(SoftmaxReadout(WIDTH, V, rank=5)) == 5 * (WIDTH + V) + V
    assert count(SoftmaxReadout(WIDTH, D, tied=True)) == WIDTH * D + D
    assert SoftmaxReadout(WIDTH, V, hidden=(16,), rank=5)(torch.zeros(2, 3, WIDTH)).shape == (2, 3, V)
    assert SoftmaxReadout(WIDTH, D, tied=True)(torch.zeros(3, WIDTH)).shape == (3, D)


@pytest.mark.parametrize("readout", [SoftmaxReadout(WIDTH, V), SoftmaxReadout(WIDTH, D, tied=True)])
def test_a_residual_starts_as_the_foundation_exactly(readout: SoftmaxReadout) -> None:
    foundation, residual = echo_model(), untrained("residual", readout)
    tokens = torch.randint(V - 3, (2, 15), generator=torch.Generator().manual_seed(3))
    assert torch.equal(residual.log_probabilities(tokens), foundation.log_probabilities(tokens))


def test_a_residual_never_ends_worse_than_it_began() -> None:
    model = untrained("residual")
    noise = torch.Generator().manual_seed(0)
    rows, validation = (
        KeptRows(torch.randn(100, WIDTH, generator=noise), torch.randint(V, (100,), generator=noise)) for _ in "ab"
    )
    scores = train_readout(model, rows, validation, ReadoutPlan(learning_rate=0.3))
    assert score_rows(model, validation)[0] <= scores[0].validation_nats
    assert len(scores) == 3  # before training, and two epochs without a gain


def test_the_best_weights_are_kept_not_the_last() -> None:
    model, seen = untrained(), []
    scores = train_readout(
        model,
        some_rows(60),
        some_rows(200, seed=1),
        ReadoutPlan(epochs=30, learning_rate=0.05, batch_size=8),
        on_epoch=lambda score: seen.append((score, weights_of(model))),
    )
    best = min(seen, key=lambda item: item[0].validation_nats)
    assert best[0] != scores[-1]
    for name, values in weights_of(model).items():
        assert torch.equal(values, best[1][name])


@pytest.mark.parametrize("optimizer", ["adamw", "lbfgs"])
def test_an_interrupted_training_goes_on_where_it_stopped(tmp_path: Path, optimizer: str) -> None:
    def interrupt(score: EpochScore) -> None:
        if score.epoch == 2:
            raise KeyboardInterrupt

    plan = ReadoutPlan(epochs=4, batch_size=64, optimizer=optimizer)  # type: ignore[arg-type]
    whole, halves = untrained(), untrained()
    expected = train_readout(whole, some_rows(), some_rows(seed=1), plan, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_readout(halves, some_rows(), some_rows(seed=1), plan, folder=tmp_path / "halves", on_epoch=interrupt)
    resumed = train_readout(untrained(), some_rows(), some_rows(seed=1), plan, folder=tmp_path / "halves")
    # The dot products of L-BFGS round by where in memory their vectors lie.
    tolerance = 0 if optimizer == "adamw" else 1e-3
    wanted = [pytest.approx(score.validation_nats, rel=tolerance) for score in expected]
    assert [score.validation_nats for score in resumed] == wanted


def test_the_folder_of_another_training_is_refused(tmp_path: Path) -> None:
    plan = ReadoutPlan(epochs=1)
    train_readout(untrained(), some_rows(), some_rows(), plan, folder=tmp_path / "state")
    wider, residual = SoftmaxReadout(WIDTH, V, rank=3), SoftmaxReadout(WIDTH, V)
    for model, rows, validation, other, names in (
        (untrained(), some_rows(), some_rows(), ReadoutPlan(epochs=2), "epochs"),
        (untrained(), some_rows(seed=7), some_rows(), plan, "rows"),
        (untrained(), some_rows(n=100), some_rows(), plan, "rows"),
        (untrained(), some_rows(), some_rows(seed=7), plan, "validation"),
        (untrained("concat", wider), some_rows(), some_rows(), plan, "readout"),
        (untrained("residual", residual), some_rows(), some_rows(), plan, "readout"),
    ):
        with pytest.raises(InputError, match=f"holds another training, which differs in {names}:"):
            train_readout(model, rows, validation, other, folder=tmp_path / "state")
    (tmp_path / "state" / "training.safetensors").write_bytes(b"torn")
    with pytest.raises(UnavailableError, match="remove it to start again"):
        train_readout(untrained(), some_rows(), some_rows(), plan, folder=tmp_path / "state")


def test_rows_of_other_echoes_or_windows_are_another_training(tmp_path: Path) -> None:
    texts = ["the cat sat on the mat", "a dog sat on the log"]
    plan, tokenizer = ReadoutPlan(epochs=1), echo_model().tokenizer

    def train(model: EchoLanguageModel, texts: list[str] = texts) -> None:
        readout = SoftmaxReadout(model.encoder.width, model.vocabulary_size)
        model = model.with_readout(readout, "concat")
        rows = model.rows(texts)
        train_readout(model, rows, rows, plan, folder=tmp_path / "state")

    model = echo_model()
    train(model)
    train(echo_model())
    assert tokenizer is not model.tokenizer
    other = copy.deepcopy(model.reservoir)
    assert other is not None
    other.leak.mul_(0.5)
    settings = {"context": model.encoder.windowed.context}
    for changed in (
        EchoLanguageModel(model.foundation, other, **settings),
        EchoLanguageModel(model.foundation, model.reservoir, context=settings["context"] - 1),
        EchoLanguageModel(model.foundation, model.reservoir, reset="never", **settings),
        EchoLanguageModel(model.foundation, model.reservoir, prefix="the", context=settings["context"] - 2),
    ):
        with pytest.raises(InputError, match="which differs in rows, validation:"):
            train(changed)
    with pytest.raises(InputError, match="which differs in rows, validation:"):
        train(model, texts[:1])


def test_whitened_inputs_have_unit_variance_in_all_directions() -> None:
    mixing = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(4))
    inputs = some_rows(5000).inputs @ mixing + 3
    statistics = RidgeStatistics.collect([(inputs, torch.zeros(5000, dtype=torch.int64))], V)
    readout = SoftmaxReadout(WIDTH, V).whiten(statistics, shrinkage=1e-8)
    whitened = readout.whitened(inputs)
    torch.testing.assert_close(readout.whitened(inputs.double()), whitened)
    torch.testing.assert_close(whitened.mean(0), torch.zeros(WIDTH), rtol=0, atol=1e-3)
    torch.testing.assert_close(whitened.T.cov(correction=0), torch.eye(WIDTH), rtol=0, atol=0.02)


def test_what_cannot_be_whitened_is_refused() -> None:
    rows = [(torch.ones(9, WIDTH), torch.zeros(9, dtype=torch.int64))]
    with pytest.raises(InputError, match="the inputs do not vary"):
        SoftmaxReadout(WIDTH, V).whiten(RidgeStatistics.collect(rows, V))
    with pytest.raises(InputError, match=r"shrinkage=-1.0: must be positive"):
        SoftmaxReadout(WIDTH, V).whiten(RidgeStatistics.collect(some_rows(), V), shrinkage=-1.0)


def test_a_ridge_readout_is_a_better_start_than_nothing() -> None:
    rows, validation = some_rows(3000), some_rows(500, seed=1)
    statistics = RidgeStatistics.collect(rows, V)
    readout = SoftmaxReadout(WIDTH, V).whiten(statistics)
    cold = score_rows(untrained("concat", readout), validation)
    warm = score_rows(untrained("concat", readout.start_from(RidgeReadout.fit(statistics))), validation)
    assert warm[0] < cold[0] - 1
    assert warm[1] > 0.7


def test_a_start_from_ridge_has_the_logits_that_are_said() -> None:
    rows = some_rows(60)  # so few that smoothing moves the frequencies
    statistics = RidgeStatistics.collect(rows, V)
    ridge = RidgeReadout.fit(statistics)
    started = SoftmaxReadout(WIDTH, V).whiten(statistics).start_from(ridge, scale=5.0)
    said = ridge.frequency.log() + 5.0 * (ridge.values(rows.inputs) - ridge.frequency)
    torch.testing.assert_close(started(rows.inputs), said, rtol=1e-3, atol=1e-3)


def test_a_training_with_another_whitening_is_not_gone_on_with(tmp_path: Path) -> None:
    rows, validation, plan = some_rows(200), some_rows(50, seed=1), ReadoutPlan(epochs=2, batch_size=50)
    statistics = RidgeStatistics.collect(rows, V)
    for shrinkage, refused in ((None, False), (0.01, True), (0.1, True)):
        readout = SoftmaxReadout(WIDTH, V)
        if shrinkage is not None:
            readout.whiten(statistics, shrinkage)
        before = readout.whitening.clone()
        model = untrained("concat", readout)
        if refused:
            with pytest.raises(InputError, match="holds another training, which differs in readout"):
                train_readout(model, rows, validation, plan, folder=tmp_path / "kept")
            assert torch.equal(readout.whitening, before)
        else:
            train_readout(model, rows, validation, plan, folder=tmp_path / "kept")


def test_kept_rows_are_a_copy_made_once() -> None:
    inputs, targets = np.eye(4), np.arange(4)
    rows = KeptRows(inputs, targets)
    inputs[:], targets[:] = 7, 0
    assert torch.equal(rows.inputs, torch.eye(4, dtype=torch.float64))
    assert torch.equal(rows.targets, torch.arange(4))
    kept = some_rows().kept()
    assert isinstance(kept, KeptRows)
    assert torch.equal(kept.inputs, some_rows().inputs)
    mine = torch.eye(4)
    assert KeptRows.owning(mine, torch.arange(4), None).inputs.data_ptr() == mine.data_ptr()


def test_rows_come_shuffled_but_whole() -> None:
    rows = KeptRows(torch.arange(100.0).unsqueeze(1), torch.arange(100))
    batches = list(rows.batches(32, seed=1))
    assert [len(targets) for _, targets in batches] == [32, 32, 32, 4]
    assert [len(targets) for _, targets in rows.batches(200, seed=1)] == [100]
    targets = torch.cat([targets for _, targets in batches])
    assert sorted(targets.tolist()) == list(range(100))
    assert targets.tolist() != list(range(100))
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]).squeeze(1), targets.float())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0: must be positive"),
        ({"weight_decay": math.nan}, "weight_decay=nan"),
        ({"optimizer": "sgd"}, "optimizer='sgd'"),
        ({"patience": -1}, "patience=-1"),
        ({"batch_size": "512"}, "batch_size='512': must be a whole number"),
    ],
)
def test_impossible_plans_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ReadoutPlan(**settings)  # type: ignore[arg-type]


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(InputError, match="needs a model with a SoftmaxReadout"):
        train_readout(echo_model("concat", RidgeReadout(WIDTH, V)), some_rows(), some_rows())
    with pytest.raises(InputError, match="rows of width 3"):
        train_readout(untrained(), KeptRows(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)), some_rows())
    for tokens, message in (
        (torch.full((4,), V), f"tokens must lie in 0 to {V - 1}"),
        (torch.zeros(4), "must be tokens"),
    ):
        with pytest.raises(InputError, match=message):
            train_readout(untrained(), some_rows(), KeptRows(torch.zeros(4, WIDTH), tokens))
    broken = some_rows()
    broken.inputs[0] = torch.nan
    model = untrained()
    before = weights_of(model)
    with pytest.raises(InputError, match="the loss is nan"):
        train_readout(model, broken, some_rows(seed=1))
    for name, values in weights_of(model).items():
        assert torch.equal(values, before[name])
    with pytest.raises(InputError, match="rank=0: must be a whole number of at least 1"):
        SoftmaxReadout(WIDTH, V, rank=0)
    with pytest.raises(InputError, match="needs a linear readout"):
        SoftmaxReadout(WIDTH, V, rank=3).start_from(RidgeReadout(WIDTH, V))


@pytest.mark.parametrize("kind", ["reservoir", "echo", "kept"])
def test_rows_of_another_reservoir_of_the_same_width_are_refused(kind: str) -> None:
    def model(seed: int) -> ReservoirLanguageModel | EchoLanguageModel:
        if kind == "reservoir":
            tokenizer = characters()
            size = tokenizer.vocabulary_size
            return ReservoirLanguageModel(tokenizer, Reservoir(size, 20, seed=seed), SoftmaxReadout(20, size))
        echo = Reservoir(24, WIDTH - 24, fan_in=4, seed=seed)
        return EchoLanguageModel(random_gpt2(), echo, SoftmaxReadout(WIDTH, V), join="concat", context=6)

    one, other, same = model(0), model(1), model(0)
    own, foreign = (each.rows(TEXTS[:1]) for each in (same, other))
    if kind == "kept":
        own, foreign = own.kept(), foreign.kept()  # type: ignore[union-attr]
    train_readout(one, own, own, ReadoutPlan(epochs=1))
    for rows, validation, wrong in ((foreign, own, "rows"), (own, foreign, "validation")):
        with pytest.raises(InputError, match=f"{wrong}: hold hidden states of another model"):
            train_readout(one, rows, validation)


def test_a_stream_is_read_from_several_places_each_state_before_its_own_next_token() -> None:
    model = reservoir_model()
    rows = model.rows(TEXTS[:2])
    places = (len(rows.tokens) - 1) // 4
    expected = model.hidden(rows.tokens[: 4 * places].view(4, -1)).flatten(0, 1)
    batches = list(rows.batches(size=16, seed=0))
    assert [len(targets) for _, targets in batches] == [16] * (4 * places // 16) + [4 * places % 16] * (places % 4 > 0)
    states, targets = (torch.cat(column) for column in zip(*batches, strict=True))
    near = torch.cdist(states, expected).argmin(1)
    assert sorted(near.tolist()) == list(range(4 * places))
    assert (targets == rows.tokens[1:][near]).all()


def test_a_stream_in_order_is_one_stream_whatever_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model = reservoir_model()
    monkeypatch.setattr("frugal.readout.rows.ROWS_AT_ONCE", 7)
    rows = model.rows(TEXTS)
    states, targets = (torch.cat(column) for column in zip(*rows, strict=True))
    torch.testing.assert_close(states, model.hidden(rows.tokens[None, : rows.count])[0], rtol=0, atol=1e-5)
    assert torch.equal(targets, rows.tokens[1 : rows.count + 1])
    with pytest.raises(InputError, match="at least one that is not empty"):
        model.rows([])
    with pytest.raises(InputError, match="size=0: must be a whole number of at least 1"):
        next(rows.batches(0, seed=0))


def test_a_stream_of_another_alphabet_is_refused() -> None:
    model = reservoir_model()
    largest = model.vocabulary_size - 1
    other = StreamRows(model, torch.tensor([largest, largest + 1]), model.hidden_size)
    with pytest.raises(InputError, match=f"validation: tokens must lie in 0 to {largest}; use the model's own"):
        train_readout(model, model.rows(TEXTS), other)


def test_a_reservoir_model_learns_its_text() -> None:
    model = reservoir_model()
    scores = train_readout(model, model.rows(TEXTS), model.rows(TEXTS), ReadoutPlan(epochs=4, learning_rate=0.02))
    assert scores[-1].validation_nats < scores[0].validation_nats - 0.3
