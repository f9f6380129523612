"""The forward-forward readout on echo states: negatives, training, prediction, saving."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from frugal.errors import InputError
from frugal.forward_forward import (
    ForwardForwardReadout,
    FoundationNegatives,
    HardNegatives,
    MixedNegatives,
    Negatives,
    SelfGenerated,
    TextNegatives,
    UniformNegatives,
    train_forward_forward,
)
from frugal.forward_forward.negatives import Batch
from frugal.readout import EchoLanguageModel, EchoRows, KeptRows, ReadoutPlan, SoftmaxReadout, score_rows, train_readout
from frugal.ridge import RidgeStatistics
from frugal.training.checkpoint import fingerprint
from models import echo_model

WIDTH, V = 44, 273  # of echo_model: [feature; state], vocabulary
PLAN = ReadoutPlan(epochs=3, learning_rate=0.01, batch_size=32)


def some_rows(n: int = 256, seed: int = 0) -> KeptRows:
    """Random hidden states whose next token is planted: the largest of four projections."""
    inputs = torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))
    planted = torch.randn(WIDTH, 4, generator=torch.Generator().manual_seed(99))
    return KeptRows(inputs, (inputs @ planted).argmax(-1))


def model_with(join: str = "concat", **settings: object) -> EchoLanguageModel:
    settings = {"hidden": (24, 16), **settings}
    return echo_model().with_readout(ForwardForwardReadout(WIDTH, V, **settings), join)  # type: ignore[arg-type]


def some_batch(model: EchoLanguageModel, n: int = 60) -> Batch:
    rows = some_rows(n)
    return Batch(rows.inputs, rows.targets, model.head(rows.inputs).softmax(-1))


def weights_of(model: EchoLanguageModel) -> dict[str, Tensor]:
    assert model.readout is not None
    return {name: values.clone() for name, values in model.readout.state_dict().items()}


SOURCES = {
    "uniform": lambda model: UniformNegatives(),
    "hard": lambda model: HardNegatives(),
    "foundation": lambda model: FoundationNegatives(model.foundation, 0.8),
    "windows of a text": lambda model: TextNegatives(some_rows(seed=5)),
    "tokens of a text": lambda model: TextNegatives(some_rows(seed=5), windows=False),
    "self-generated": lambda model: SelfGenerated(model, every=4, streams=3, length=5),
    "mixed": lambda model: MixedNegatives([(3, UniformNegatives()), (1, TextNegatives(some_rows(seed=5)))]),
}


@pytest.mark.parametrize("predict", ["goodness", "softmax"])
@pytest.mark.parametrize("source", ["uniform", "hard", "foundation", "mixed"])
def test_it_learns_from_wrong_tokens(source: str, predict: str) -> None:
    model = model_with(predict=predict)
    negatives: Negatives = SOURCES[source](model)
    scores = train_forward_forward(model, some_rows(), some_rows(60, seed=1), negatives, PLAN)
    assert scores[-1].validation_nats < scores[0].validation_nats - 0.5


@pytest.mark.parametrize("source", ["windows of a text", "tokens of a text", "self-generated"])
def test_other_texts_and_own_texts_drive_the_layers_too(source: str) -> None:
    model = model_with(predict="softmax")
    before = weights_of(model)["net.weights.0"]
    scores = train_forward_forward(model, some_rows(), some_rows(60, seed=1), SOURCES[source](model), PLAN)
    assert scores[-1].validation_nats < scores[0].validation_nats - 0.5  # the head's doing
    assert not torch.equal(weights_of(model)["net.weights.0"], before)


@pytest.mark.parametrize("source", ["uniform", "hard", "foundation", "tokens of a text"])
def test_the_right_token_is_never_a_negative(source: str) -> None:
    model = model_with()
    batch = some_batch(model)
    hidden, wrong = SOURCES[source](model).draw(batch, torch.Generator().manual_seed(0))
    assert hidden is batch.hidden
    assert (wrong != batch.targets).all()


def test_the_foundations_negatives_follow_its_probabilities_at_the_temperature() -> None:
    model = model_with()
    hidden = some_rows(1).inputs.expand(4000, -1)
    batch = Batch(hidden, torch.full((4000,), 7), torch.zeros(4000, V))
    _, wrong = FoundationNegatives(model.foundation, 0.5).draw(batch, torch.Generator().manual_seed(0))
    expected = (model.foundation.logits(hidden[:1, :24]) / 0.5).softmax(-1)[0]
    expected[7] = 0
    found = wrong.bincount(minlength=V) / 4000
    torch.testing.assert_close(found, expected / expected.sum(), rtol=0, atol=0.04)


def test_a_mixture_takes_its_shares() -> None:
    model, text = model_with(), some_rows(seed=5)
    batch = some_batch(model)
    source = MixedNegatives([(1, UniformNegatives()), (2, TextNegatives(text))])
    hidden, _ = source.draw(batch, torch.Generator().manual_seed(0))
    same = (hidden == batch.hidden).all(1)
    assert same.tolist() == [True] * 20 + [False] * 40
    assert torch.equal(batch.hidden, some_rows(60).inputs)  # what was given is left as it was


def test_what_the_model_writes_in_its_sleep_is_its_own_text() -> None:
    model = model_with()
    source = SelfGenerated(model, every=2, streams=3, length=6)
    batch, random = some_batch(model), torch.Generator().manual_seed(0)
    hidden, tokens = source.draw(batch, random)
    first = source.dreams
    states, written = first
    streams = written.view(6, 3).T
    read = torch.cat([torch.full((3, 1), model.tokenizer.start_id), streams[:, :-1]], 1)
    torch.testing.assert_close(states.view(6, 3, -1).transpose(0, 1), model.hidden(read), rtol=0, atol=1e-4)
    source.draw(batch, random)
    assert source.dreams is first
    source.draw(batch, random)
    assert source.dreams is not first
    assert len(hidden) == len(tokens) == len(batch.targets)


def dreamt(model: EchoLanguageModel, source: SelfGenerated) -> list[tuple[int, ...]]:
    """Every dream as its text up to the token that is a negative; its texts are those of the seed."""
    _, tokens = source._sleep(seed=int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(0))))
    streams = tokens.view(source.length, source.streams)
    return [tuple(streams[: t + 1, s].tolist()) for t in range(source.length) for s in range(source.streams)]


def test_what_is_real_is_no_dream() -> None:
    model = model_with()
    source = SelfGenerated(model, every=1, streams=40, length=5)
    texts = dreamt(model, source)
    real = texts[2 * source.streams + 7]  # one stream's first three tokens are the text that is learnt
    rows = EchoRows(model.encoder, [torch.tensor([model.tokenizer.start_id, *real])])
    source.begin_epoch(rows)
    hidden, tokens = source.draw(some_batch(model, 4000), torch.Generator().manual_seed(0))
    left = [text for text in texts if text != real[: len(text)]]
    assert len(left) < len(texts)
    assert len(source.dreams[1]) == len(left)
    [(states, following)] = rows
    for state, token in zip(states, following, strict=True):
        near = (hidden - state).norm(dim=1) < 0.01 * state.norm()
        assert not (near & (tokens == token)).any()


def test_of_nothing_but_real_texts_the_guesses_are_left() -> None:
    model, batch = model_with(), some_batch(model_with())
    source = SelfGenerated(model, every=1, streams=2, length=1)
    states, tokens = source._sleep(seed=int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(0))))
    source.begin_epoch(KeptRows(states, tokens))
    hidden, wrong = source.draw(batch, torch.Generator().manual_seed(0))
    assert hidden is batch.hidden
    assert (wrong != batch.targets).all()


def test_goodness_learns_how_much_likelier_than_the_negatives_a_token_is() -> None:
    """One state, tokens of known probability, uniform negatives: the calibrated goodness gives it back."""
    random = torch.Generator().manual_seed(0)
    truth = torch.zeros(V)
    truth[:4] = torch.tensor([0.5, 0.3, 0.15, 0.05])
    inputs = torch.ones(2000, WIDTH)
    rows = KeptRows(inputs, torch.multinomial(truth, 2000, replacement=True, generator=random))
    model = model_with(hidden=(32,))
    plan = ReadoutPlan(epochs=6, learning_rate=0.02, batch_size=50)
    train_forward_forward(model, rows, rows, UniformNegatives(), plan)
    found = model.head(inputs[:1]).softmax(-1)[0]
    torch.testing.assert_close(found, truth, rtol=0, atol=0.06)


def test_a_residual_starts_as_the_foundation_at_worst_and_does_not_end_worse() -> None:
    rows, validation = some_rows(), some_rows(100, seed=1)
    foundation = score_rows(echo_model(), validation)[0]
    for predict in ("goodness", "softmax"):
        model = model_with("residual", predict=predict)
        scores = train_forward_forward(model, rows, validation, FoundationNegatives(model.foundation), PLAN)
        assert scores[0].validation_nats <= foundation + 1e-4
        assert min(score.validation_nats for score in scores) == pytest.approx(score_rows(model, validation)[0])


def test_only_the_readout_is_trained() -> None:
    model = model_with()
    before = {name: values.clone() for name, values in model.reservoir.state_dict().items()}  # type: ignore[union-attr]
    fingerprint = model.foundation.exact_fingerprint
    train_forward_forward(model, some_rows(), some_rows(40, seed=1), UniformNegatives(), PLAN)
    model.foundation.__dict__.pop("exact_fingerprint")
    assert model.foundation.exact_fingerprint == fingerprint
    for name, values in model.reservoir.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(values, before[name])


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def train(model: EchoLanguageModel, folder: Path, stop_after: int) -> list[float]:
        def stop(score: object) -> None:
            if score.epoch == stop_after:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

        negatives = SelfGenerated(model, every=5, streams=2, length=4)
        scores = train_forward_forward(
            model, some_rows(), some_rows(50, seed=1), negatives, PLAN, folder=folder, on_epoch=stop
        )
        return [score.validation_nats for score in scores]

    whole, broken, resumed = (model_with(predict="softmax") for _ in range(3))
    expected = train(whole, tmp_path / "whole", stop_after=-1)
    with pytest.raises(KeyboardInterrupt):
        train(broken, tmp_path / "broken", stop_after=1)
    assert train(resumed, tmp_path / "broken", stop_after=-1) == expected
    for name, values in weights_of(resumed).items():
        assert torch.equal(values, weights_of(whole)[name])


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "negatives": ({"negatives": HardNegatives()}, "negatives"),
    "settings of the negatives": (
        {"negatives": MixedNegatives([(1, UniformNegatives()), (2, HardNegatives())])},
        "negatives",
    ),
    "rows": ({"rows": some_rows(seed=5)}, "rows"),
    "fewer rows": ({"rows": some_rows(60)}, "rows"),
    "validation": ({"validation": some_rows(60, seed=5)}, "validation"),
    "goodness": ({"goodness": {"kind": "sum", "threshold": 2.0}}, "readout"),
    "peer": ({"peer": 0.03}, "readout"),
    "prediction": ({"predict": "softmax"}, "readout"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_training_is_not_gone_on_with(other: str, tmp_path: Path) -> None:
    changes, name = OTHERS[other]
    folder, plan = tmp_path / "kept", replace(PLAN, epochs=1)

    def train(
        rows: KeptRows | None = None,
        validation: KeptRows | None = None,
        negatives: Negatives | None = None,
        **settings: Any,
    ) -> None:
        rows = some_rows() if rows is None else rows
        validation = some_rows(60, seed=1) if validation is None else validation
        if negatives is None:
            negatives = MixedNegatives([(1, UniformNegatives()), (1, HardNegatives())])
        train_forward_forward(model_with(**settings), rows, validation, negatives, plan, folder=folder)

    train()
    train()
    with pytest.raises(InputError, match=f"holds another training, which differs in {name}:"):
        train(**changes)


def test_backpropagation_does_not_go_on_with_a_forward_forward_training(tmp_path: Path) -> None:
    rows, plan = some_rows(), replace(PLAN, epochs=1)
    train_forward_forward(model_with(), rows, rows, UniformNegatives(), plan, folder=tmp_path / "kept")
    with pytest.raises(InputError, match="which differs in kind"):
        train_readout(model_with(predict="softmax"), rows, rows, plan, folder=tmp_path / "kept")


def test_rows_of_a_text_are_kept_by_the_negatives_that_draw_from_them(own_data_folder: None) -> None:
    model = model_with()
    source = TextNegatives(model.rows(["another text of some words"]))  # type: ignore[arg-type]
    rows = some_rows(64)
    assert train_forward_forward(model, rows, rows, source, replace(PLAN, epochs=1))[-1].epoch == 1


def test_every_source_of_negatives_tells_itself_from_the_others() -> None:
    model = model_with()
    sources = [source(model) for source in SOURCES.values()]
    sources += [
        FoundationNegatives(model.foundation, 0.9),
        TextNegatives(some_rows(seed=6)),
        SelfGenerated(model, every=4, streams=3, length=6),
        MixedNegatives([(3, UniformNegatives()), (1, TextNegatives(some_rows(seed=6)))]),
    ]
    digests = [fingerprint(source) for source in sources]
    assert len(set(digests)) == len(sources)
    assert digests[: len(SOURCES)] == [fingerprint(source(model)) for source in SOURCES.values()]


@pytest.mark.parametrize("source", SOURCES)
def test_states_that_are_no_numbers_are_said_at_their_step(source: str) -> None:
    model, rows = model_with(predict="softmax"), some_rows(200)
    rows.inputs[:] = math.nan
    before = weights_of(model)
    with pytest.raises(InputError, match="the loss is nan at step 1"):
        train_forward_forward(model, rows, some_rows(60, seed=1), SOURCES[source](model), PLAN)
    assert all(torch.equal(values, before[name]) for name, values in weights_of(model).items())


def test_a_softmax_prediction_can_be_trained_by_backpropagation_too() -> None:
    model = model_with(predict="softmax")
    before = weights_of(model)
    train_readout(model, some_rows(), some_rows(60, seed=1), PLAN)
    assert not torch.equal(weights_of(model)["net.weights.0"], before["net.weights.0"])


def test_whitening_knows_the_frequencies_and_is_undone_by_nothing() -> None:
    rows = some_rows(2000)
    readout = ForwardForwardReadout(WIDTH, V).whiten(RidgeStatistics.collect(rows, V))
    whitened = readout.whitened(rows.inputs)
    torch.testing.assert_close(whitened.T.cov(), torch.eye(WIDTH), rtol=0, atol=0.01)
    counts = rows.targets.bincount(minlength=V)
    torch.testing.assert_close(readout.log_frequency, ((counts + 0.5) / (2000 + 0.5 * V)).log())


@pytest.mark.parametrize("predict", ["goodness", "softmax"])
def test_it_is_saved_with_its_model(tmp_path: Path, predict: str) -> None:
    model = model_with(predict=predict, goodness={"kind": "sum", "threshold": 0.5, "sharpness": 0.1}, peer=0.01)
    for values in model.readout.parameters():  # type: ignore[union-attr]
        torch.nn.init.normal_(values, std=0.1)
    model.save(tmp_path / "model")
    again = EchoLanguageModel.load(tmp_path / "model", foundation=model.foundation)
    tokens = torch.randint(1, V - 3, (1, 9), generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.log_probabilities(tokens), model.log_probabilities(tokens))
    assert again.readout.settings() == model.readout.settings()  # type: ignore[union-attr]


def test_what_cannot_be_trained_is_refused() -> None:
    rows = some_rows(20)
    softmax = echo_model().with_readout(SoftmaxReadout(WIDTH, V), "concat")
    with pytest.raises(InputError, match="needs a model with a ForwardForwardReadout"):
        train_forward_forward(softmax, rows, rows, UniformNegatives())
    with pytest.raises(InputError, match="takes 'adamw'"):
        train_forward_forward(model_with(), rows, rows, UniformNegatives(), ReadoutPlan(optimizer="lbfgs"))
    narrow = KeptRows(torch.randn(5, 3), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(InputError, match="rows of width 3"):
        train_forward_forward(model_with(), narrow, rows, UniformNegatives())
    other_words = KeptRows(torch.randn(5, WIDTH), torch.full((5,), V))
    with pytest.raises(InputError, match="TextNegatives: rows are of another model"):
        train_forward_forward(model_with(), rows, rows, TextNegatives(other_words, windows=False))
    for dreamer in (
        SelfGenerated(model_with()),
        MixedNegatives([(1, HardNegatives()), (1, SelfGenerated(model_with()))]),
    ):
        with pytest.raises(InputError, match="SelfGenerated: writes with another model than the one that is trained"):
            train_forward_forward(model_with(), rows, rows, dreamer)
    for no_source in ("uniform", UniformNegatives, None):
        with pytest.raises(InputError, match=r"negatives=.*: must be a source of them"):
            train_forward_forward(model_with(), rows, rows, no_source)  # type: ignore[arg-type]
    broken = KeptRows(rows.inputs * math.nan, rows.targets)
    with pytest.raises(InputError, match="the loss is nan"):
        train_forward_forward(model_with(predict="softmax"), broken, rows, UniformNegatives())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ForwardForwardReadout(4, 9, predict="guess"), "must be 'goodness' or 'softmax'"),  # type: ignore[arg-type]
        (lambda: FoundationNegatives(echo_model().foundation, 0), "temperature=0: must be positive"),
        (lambda: SelfGenerated(echo_model(), every=0), "every=0: must be a whole number of at least 1"),
        (lambda: MixedNegatives([]), "positive shares"),
        (lambda: MixedNegatives([("a", UniformNegatives())]), "positive shares"),  # type: ignore[list-item]
        (lambda: MixedNegatives([(1, UniformNegatives)]), "positive shares"),  # type: ignore[list-item]
        (lambda: ForwardForwardReadout(4, 9, goodness="sum"), "goodness='sum': must be a Goodness"),  # type: ignore[arg-type]
        (lambda: ForwardForwardReadout(4, 9, goodness={"kid": "sum"}), "kid is no attribute of a Goodness"),
        (lambda: MixedNegatives([(0, UniformNegatives())]), "positive shares"),
    ],
)
def test_bad_settings_are_refused(build: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()  # type: ignore[operator]


def test_rows_that_cannot_calibrate_leave_the_mixture_as_it_was() -> None:
    readout = ForwardForwardReadout(4, 9, hidden=(8, 8))
    before = readout.mixture.clone()
    inputs, tokens, nan = torch.randn(5, 4), torch.arange(5), torch.tensor(math.nan)
    for rows, message in (
        ((inputs, tokens + 5, 0.0), "token 9: must lie in 0 to 8"),
        ((inputs, tokens[:4], 0.0), "must be a token for each row"),
        ((inputs, tokens.float(), 0.0), "whole numbers"),
        ((inputs, tokens, nan), "no NaN or infinity"),
        ((inputs * nan, tokens, 0.0), "no NaN or infinity"),
    ):
        with pytest.raises(InputError, match=message):
            readout.calibrate([rows])
    assert torch.equal(readout.mixture, before)
