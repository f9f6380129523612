"""A foundation that reads streams of any length in windows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from frugal.errors import InputError
from frugal.foundation import Foundation, WindowedFoundation
from frugal.language_model import load_model
from frugal.memory import NearestNeighbourLM
from frugal.readout import EchoLanguageModel
from models import TEXTS, random_gpt2, small_reservoir

SETTINGS = [{}, {"stride": 6}, {"stride": 1}, {"stride": 2, "prefix": "a mat."}]


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path / "data"))


@pytest.fixture(scope="module")
def gpt() -> Foundation:
    return random_gpt2()


def some_tokens(length: int, rows: int = 2) -> Tensor:
    return torch.randint(0, 270, (rows, length), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("settings", SETTINGS)
def test_each_window_is_read_as_the_foundation_reads_it_alone(gpt: Foundation, settings: dict) -> None:  # type: ignore[type-arg]
    model, tokens = WindowedFoundation(gpt, 6, **settings), some_tokens(40)
    scores, read = model.log_probabilities(tokens), len(model.prefix)
    for begin, end, keep in model.windows(40):
        window = torch.cat([model.prefix.expand(2, -1), tokens[:, begin:end]], 1)
        alone = gpt.log_probabilities(window)[:, read + keep - begin :]
        torch.testing.assert_close(scores[:, keep:end], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", SETTINGS)
def test_it_equals_an_echo_language_model_whose_echo_is_not_read(gpt: Foundation, settings: dict) -> None:  # type: ignore[type-arg]
    model = WindowedFoundation(gpt, 6, **settings)
    echo = EchoLanguageModel(gpt, small_reservoir(), context=6, **settings)
    tokens = some_tokens(40)
    assert torch.equal(model.log_probabilities(tokens), echo.log_probabilities(tokens))
    assert torch.equal(model.target_log_probabilities(tokens), echo.target_log_probabilities(tokens))
    fed, state = model.feed(tokens[:, :23], model.start(2))
    expected, echo_state = echo.feed(tokens[:, :23], echo.start(2))
    assert torch.equal(fed, expected)
    assert torch.equal(model.step(tokens[:, 23], state)[0], echo.step(tokens[:, 23], echo_state)[0])
    documents = [tokens[0], tokens[1, :9]]
    for rows, theirs in zip(model.features(documents), echo.encoder.windowed.features(documents), strict=True):
        assert np.array_equal(rows, theirs)


def test_long_rows_are_scored_in_bounded_memory(gpt: Foundation, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens, largest = WindowedFoundation(gpt, 6), some_tokens(300), 0
    expected = model.target_log_probabilities(tokens)
    head = gpt.head

    def watched(hidden: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, hidden.shape[:-1].numel())
        return head(hidden)

    monkeypatch.setattr(gpt, "head", watched)
    monkeypatch.setattr("frugal.foundation.windowed.TOKENS_AT_ONCE", 24)
    torch.testing.assert_close(model.target_log_probabilities(tokens), expected, rtol=0, atol=1e-5)
    assert 0 < largest <= 24


def test_features_are_those_of_the_hidden_states(gpt: Foundation) -> None:
    model, tokens = WindowedFoundation(gpt, 6), some_tokens(30)
    for row, features in zip(model.hidden(tokens), model.features(list(tokens)), strict=True):
        np.testing.assert_allclose(features, row, atol=2e-3, rtol=2e-3)
    logits = model.head(torch.tensor(model.features([tokens[0]])[0]))
    torch.testing.assert_close(logits.log_softmax(-1), model.log_probabilities(tokens)[0], rtol=0, atol=2e-2)


def test_a_saved_one_comes_back_with_its_foundation(gpt: Foundation, tmp_path: Path) -> None:
    model, tokens = WindowedFoundation(gpt, 6, 2, "a mat."), some_tokens(30)
    model.save(tmp_path / "saved", "For a test.")
    loaded = load_model(tmp_path / "saved")
    assert isinstance(loaded, WindowedFoundation)
    torch.testing.assert_close(loaded.log_probabilities(tokens), model.log_probabilities(tokens))
    assert WindowedFoundation.load(tmp_path / "saved", foundation=gpt).foundation is gpt
    assert (tmp_path / "saved" / "card.md").read_text().endswith("For a test.\n")
    with pytest.raises(InputError, match="another foundation"):
        WindowedFoundation.load(tmp_path / "saved", foundation=random_gpt2(seed=1))


def test_a_nearest_neighbour_model_takes_it_in(gpt: Foundation, tmp_path: Path) -> None:
    model, tokens = NearestNeighbourLM(WindowedFoundation(gpt, 6)), some_tokens(30)
    model.remember_all(TEXTS)
    assert list((tmp_path / "data" / "features").glob("*/features.npy"))  # read from disk the next time
    model.save(tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    assert isinstance(loaded, NearestNeighbourLM)
    assert isinstance(loaded.model, WindowedFoundation)
    torch.testing.assert_close(loaded.log_probabilities(tokens), model.log_probabilities(tokens))


@pytest.mark.parametrize(
    ("context", "settings", "complaint"),
    [
        (1, {}, "context=1: must lie in 2 to 16"),
        (17, {}, "context=17"),
        (16, {"prefix": "a mat."}, "beside a prefix"),
        (6, {"stride": 7}, "stride=7"),
        (6, {"stride": 0}, "stride=0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(gpt: Foundation, context: int, settings: dict, complaint: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(InputError, match=complaint):
        WindowedFoundation(gpt, context, **settings)
