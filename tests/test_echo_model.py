import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from frugal.corpora import encode_documents
from frugal.errors import InputError, UnavailableError
from frugal.evaluate import evaluate
from frugal.foundation import WindowedFoundation
from frugal.language_model import LanguageModel, load_model
from frugal.readout import (
    EchoLanguageModel,
    EchoRows,
    KeptRows,
    ReadoutPlan,
    RidgeReadout,
    SoftmaxReadout,
    train_readout,
)
from frugal.reservoir import DeepReservoir, Reservoir
from frugal.ridge import RidgeStatistics
from models import TEXTS, echo_model, random_gpt2, set_everywhere

V, D, N = 273, 24, 20  # of echo_model: vocabulary, feature, echo


@pytest.fixture(autouse=True)
def _features_go_to_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path / "data"))


def some_tokens(length: int = 40, batch: int = 2, seed: int = 0) -> Tensor:
    """Streams [batch, length] that begin as documents do and hold no further start."""
    tokens = torch.randint(1, V - 3, (batch, length), generator=torch.Generator().manual_seed(seed))
    tokens[:, 0] = 0
    return tokens


def stepped(model: EchoLanguageModel, tokens: Tensor) -> Tensor:
    """Hidden states [B, T, d + N], one step at a time."""
    state, rows = model.start(len(tokens)), []
    for column in tokens.unbind(1):
        hidden, state = model.hidden_step(column, state)
        rows.append(hidden)
    return torch.stack(rows, 1)


@pytest.mark.parametrize(("context", "stride"), [(6, None), (6, 6), (6, 1), (5, 2), (16, 9), (2, 1)])
@pytest.mark.parametrize("reset", ["document", "window", "never"])
def test_steps_pieces_and_cached_rows_are_the_same_states(context: int, stride: int | None, reset: str) -> None:
    check_that_all_ways_agree(echo_model(context=context, stride=stride, reset=reset))


def test_a_prefix_is_read_before_every_window_and_only_by_the_foundation() -> None:
    model, without = echo_model(context=4, prefix="the cat"), echo_model(context=4)
    check_that_all_ways_agree(model)
    tokens = some_tokens()
    assert (model.hidden(tokens)[:, :, :D] != without.hidden(tokens)[:, :, :D]).any(2).all()
    prefix = torch.cat([torch.tensor([model.tokenizer.start_id]), model.tokenizer.encode("the cat")]).expand(2, -1)
    by_hand = model.foundation.hidden(torch.cat([prefix, tokens[:, :4]], 1))[:, prefix.shape[1] :]
    torch.testing.assert_close(model.hidden(tokens)[:, :4, :D], by_hand, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match=r"context=16: must lie in 2 to \d+, .* beside a prefix"):
        echo_model(context=16, prefix="the cat")


def check_that_all_ways_agree(model: EchoLanguageModel) -> None:
    """Steps, pieces, feeding in two parts, and training rows."""
    tokens = some_tokens()
    whole = model.hidden(tokens)
    torch.testing.assert_close(stepped(model, tokens), whole, rtol=0, atol=1e-5)
    fed_logits, state = model.feed(tokens[:, :17], model.start(2))
    torch.testing.assert_close(fed_logits, model.head(whole[:, 16]), rtol=0, atol=1e-4)
    fed_logits, _ = model.feed(tokens[:, 17:], state)
    torch.testing.assert_close(fed_logits, model.head(whole[:, -1]), rtol=0, atol=1e-4)
    inputs, targets = (torch.cat(column) for column in zip(*EchoRows(model.encoder, [tokens[0]]), strict=True))
    torch.testing.assert_close(inputs, whole[0, :-1], rtol=2e-3, atol=5e-3)  # features are cached as float16
    assert torch.equal(targets, tokens[0, 1:])


def test_the_default_windows_are_those_of_the_foundations_own_streams() -> None:
    model, tokens = echo_model(context=16), some_tokens(60)
    foundation, state = model.foundation, model.foundation.start(2)
    for t, column in enumerate(tokens.unbind(1)):
        hidden, state = foundation.hidden_step(column, state)
        torch.testing.assert_close(model.hidden(tokens[:, : t + 1])[:, -1, :D], hidden, rtol=0, atol=1e-5)


def test_the_echo_carries_what_the_window_has_forgotten() -> None:
    model, tokens = echo_model(context=4, stride=4), some_tokens(20)
    changed = tokens.clone()
    changed[:, 1] = tokens[:, 1].flip(0)
    hidden, other = model.hidden(tokens), model.hidden(changed)
    assert torch.equal(hidden[:, 8:, :D], other[:, 8:, :D])
    assert (hidden[:, 8, D:] != other[:, 8, D:]).any()


def test_an_echo_reset_at_windows_forgets_with_them() -> None:
    model, tokens = echo_model(context=4, stride=4, reset="window"), some_tokens(20)
    changed = tokens.clone()
    changed[:, 1] = tokens[:, 1].flip(0)
    assert torch.equal(model.hidden(tokens)[:, 4:], model.hidden(changed)[:, 4:])


def test_an_echo_of_tokens_sees_each_token_and_not_the_window() -> None:
    echoes = [echo_model(drive="tokens", context=context).hidden(some_tokens(20))[..., D:] for context in (4, 12)]
    assert torch.equal(*echoes)
    assert not torch.allclose(echoes[0], echo_model(context=4).hidden(some_tokens(20))[..., D:])


def test_a_document_border_resets_the_echo_of_its_stream_alone_unless_told_not_to() -> None:
    tokens = some_tokens(12)
    tokens[0, 6] = model_start = echo_model().tokenizer.start_id
    assert model_start == 0
    for reset, forgets in (("document", True), ("never", False)):
        model = echo_model(context=2, stride=1, reset=reset)  # so that features see one token before their own
        echo = model.hidden(tokens)[:, 7:, D:]
        features = model.hidden(tokens)[:, 6:, :D]
        unreset = torch.zeros(2, 6, dtype=torch.bool)
        fresh, _ = model.encoder.join(tokens[:, 6:], features, unreset, model.start(2).echo)
        same = torch.isclose(echo, fresh[:, 1:, D:], atol=1e-6).all(2).all(1)
        assert same.tolist() == [forgets, False]


def test_a_long_document_is_scored_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model = echo_model("residual", SoftmaxReadout(D + N, V))
    tokens = some_tokens(300)
    expected = model.log_probabilities(tokens[:, :-1]).gather(2, tokens[:, 1:].unsqueeze(2)).squeeze(2)
    largest = 0
    head = model.head

    def watched(hidden: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, hidden.shape[:-1].numel())
        return head(hidden)

    monkeypatch.setattr(model, "head", watched)
    monkeypatch.setattr("frugal.foundation.windowed.TOKENS_AT_ONCE", 24)
    torch.testing.assert_close(model.target_log_probabilities(tokens), expected, rtol=0, atol=1e-4)
    assert largest <= 24
    set_everywhere(monkeypatch, "LOGITS_AT_ONCE", 4 * V)
    largest = 0
    torch.testing.assert_close(model.target_log_probabilities(tokens), expected, rtol=0, atol=1e-4)
    assert largest <= 4


def test_a_saved_state_goes_on_where_its_stream_stopped(tmp_path: Path) -> None:
    model, tokens = echo_model("residual", SoftmaxReadout(D + N, V)), some_tokens(30)
    for length in (1, 6, 7, 20):
        _, state = model.feed(tokens[:, :length], model.start(2))
        model.save_state(tmp_path / "stream.safetensors", state)
        again = model.load_state(tmp_path / "stream.safetensors")
        for column in tokens[:, length : length + 8].unbind(1):
            expected, state = model.step(column, state)
            given, again = model.step(column, again)
            torch.testing.assert_close(given, expected, rtol=0, atol=1e-5)
    other = EchoLanguageModel(random_gpt2(), Reservoir(D, N + 1), context=6)
    with pytest.raises(InputError, match="state of another model"):
        other.load_state(tmp_path / "stream.safetensors")
    with pytest.raises(UnavailableError, match="save it again"):
        model.load_state(tmp_path / "nothing")


def deep_echo() -> EchoLanguageModel:
    layers = DeepReservoir([Reservoir(D, 8, fan_in=3), Reservoir(8, 5, fan_in=3)])
    return EchoLanguageModel(random_gpt2(), layers, SoftmaxReadout(D + 13, V, rank=3), join="concat", context=5)


def without_echo() -> EchoLanguageModel:
    return EchoLanguageModel(random_gpt2(), None, SoftmaxReadout(D, V), join="residual", context=5)


TO_SAVE: dict[str, Callable[[], EchoLanguageModel]] = {
    "foundation alone": echo_model,
    "ridge": lambda: echo_model("replace", RidgeReadout(N, V)),
    "low rank": lambda: echo_model("concat", SoftmaxReadout(D + N, V, hidden=(9,), rank=4), reset="window", stride=2),
    "tied": lambda: echo_model("residual", SoftmaxReadout(D + N, D, tied=True), reset="never"),
    "echo of tokens": lambda: echo_model("residual", SoftmaxReadout(D + N, V), drive="tokens"),
    "deep": deep_echo,
    "no echo": without_echo,
}


@pytest.mark.parametrize("name", TO_SAVE)
def test_a_saved_model_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    model, tokens = TO_SAVE[name](), some_tokens(20)
    model.save(tmp_path / "model", notes="trained on nothing")
    assert "trained on nothing" in (tmp_path / "model" / "card.md").read_text()
    for loaded in (
        EchoLanguageModel.load(tmp_path / "model"),
        EchoLanguageModel.load(tmp_path / "model", foundation=model.foundation),
    ):
        torch.testing.assert_close(loaded.log_probabilities(tokens), model.log_probabilities(tokens), rtol=0, atol=1e-5)
        torch.testing.assert_close(stepped(loaded, tokens), stepped(model, tokens), rtol=0, atol=1e-5)


def test_a_model_is_not_loaded_onto_another_foundation(tmp_path: Path) -> None:
    echo_model("replace", RidgeReadout(N, V)).save(tmp_path / "model")
    with pytest.raises(InputError, match="was trained on another foundation"):
        EchoLanguageModel.load(tmp_path / "model", foundation=random_gpt2(seed=1))


def nats_per_token(model: LanguageModel) -> float:
    scores = evaluate(model, TEXTS)
    return scores.nats / scores.tokens


def test_every_join_trained_on_a_text_predicts_it_better_than_the_foundation_alone() -> None:
    foundation = echo_model()
    rows = foundation.rows(TEXTS)
    statistics = RidgeStatistics.collect(rows, V)
    floor = nats_per_token(foundation)
    for join, size in (("replace", N), ("concat", D + N)):
        model = foundation.with_readout(SoftmaxReadout(size, V), join)  # type: ignore[arg-type]
        columns = statistics.select(model.columns)
        ridge = RidgeReadout.fit(columns)
        assert nats_per_token(foundation.with_readout(ridge, join)) < floor  # type: ignore[arg-type]
    residual = foundation.with_readout(SoftmaxReadout(D + N, V).whiten(statistics), "residual")
    assert nats_per_token(residual) == pytest.approx(floor, abs=1e-6)
    scores = train_readout(residual, rows, rows, ReadoutPlan(epochs=3, learning_rate=0.02, batch_size=16))
    assert nats_per_token(residual) < floor - 0.5
    assert nats_per_token(residual) == pytest.approx(min(score.validation_nats for score in scores), abs=0.02)


def sorted_rows(inputs: Tensor, targets: Tensor) -> list[list[float]]:
    return sorted(torch.cat([inputs, targets.unsqueeze(1)], 1).tolist())


@pytest.mark.parametrize("reset", ["document", "window", "never"])
def test_rows_of_documents_come_in_any_order_with_their_own_targets(reset: str) -> None:
    rows = echo_model(context=4, reset=reset).rows(TEXTS)
    kept = rows.kept()
    assert isinstance(kept, KeptRows)
    assert (rows.count, rows.width) == (len(kept.targets), kept.inputs.shape[1])
    expected = torch.cat([tokens[1:] for tokens in encode_documents(echo_model().tokenizer, TEXTS)])
    assert torch.equal(kept.targets, expected)
    inputs, targets = (torch.cat(column) for column in zip(*rows.batches(7, seed=3), strict=True))
    assert targets.tolist() != kept.targets.tolist()
    assert sorted_rows(inputs, targets) == sorted_rows(kept.inputs, kept.targets)
    assert rows.kept(most_bytes=100) is rows


def test_shuffled_states_keep_features_and_targets() -> None:
    kept = echo_model().rows(TEXTS).kept()
    assert isinstance(kept, KeptRows)
    control = kept.shuffle_columns(slice(D, None))
    assert torch.equal(control.inputs[:, :D], kept.inputs[:, :D])
    assert torch.equal(control.targets, kept.targets)
    assert not torch.equal(control.inputs[:, D:], kept.inputs[:, D:])
    torch.testing.assert_close(control.inputs.sum(0), kept.inputs.sum(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context": 17}, "context=17: must lie in 2 to 16"),
        ({"context": 1}, "context=1: must lie in 2 to 16"),
        ({"stride": 7}, "stride=7: must lie in 1 to context=6"),
        ({"reset": "sometimes"}, "reset='sometimes'"),
        ({"drive": "sound"}, "drive='sound': must be one of 'features', 'tokens'"),
        ({"join": "sum"}, "join='sum': must be one of 'foundation'"),
        ({"join": "residual"}, "need one"),
        ({"join": "foundation", "readout": RidgeReadout(N, V)}, "without a readout"),
        ({"join": "residual", "readout": RidgeReadout(D + N, V)}, "use a SoftmaxReadout"),
        ({"join": "replace", "readout": RidgeReadout(D + N, V)}, "needs 20 to 273"),
        ({"join": "concat", "readout": SoftmaxReadout(D + N, D)}, "needs 44 to 273"),
        ({"join": "replace", "readout": SoftmaxReadout(D, V), "reservoir": None}, "give a reservoir"),
        ({"reservoir": Reservoir(D + 1, N)}, "input_size=25: must be 24"),
        ({"reservoir": None}, "use a WindowedFoundation"),
    ],
)
def test_parts_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    parts = {"reservoir": Reservoir(D, N), "context": 6, **settings}
    with pytest.raises(InputError, match=message):
        EchoLanguageModel(random_gpt2(), **parts)  # type: ignore[arg-type]


def test_what_was_saved_without_echo_and_readout_comes_back_as_the_windows_it_is(tmp_path: Path) -> None:
    model = WindowedFoundation(random_gpt2(), 6, 4, "a mat.")
    model.save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    old = {"class": "EchoLanguageModel", "join": "foundation", "drive": "features", "reset": "document"}
    old |= {"readout": None, "reservoir": None}
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config | old))
    loaded, tokens = load_model(tmp_path / "saved"), torch.arange(30).unsqueeze(0)
    assert isinstance(loaded, WindowedFoundation)
    assert torch.equal(loaded.log_probabilities(tokens), model.log_probabilities(tokens))


def test_documents_without_text_are_refused() -> None:
    with pytest.raises(InputError, match="must hold at least one that is not empty"):
        echo_model().rows([""])
