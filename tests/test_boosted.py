"""Boosted trees over characters."""

import re
from pathlib import Path
from typing import Any

import lightgbm
import pytest
import torch
from safetensors.torch import load_file, save_file

from frugal.baselines import BoostedTrees
from frugal.errors import InputError, UnavailableError
from frugal.evaluate import evaluate
from models import TEXTS, Uniform, characters


@pytest.fixture(scope="module")
def trees() -> BoostedTrees:
    return BoostedTrees(3, characters()).fit([" ".join(TEXTS * 8)], rounds=8, leaves=8, threads=1)


def test_they_learn(trees: BoostedTrees) -> None:
    assert evaluate(trees, TEXTS[0]).nats < 0.5 * evaluate(Uniform(characters()), TEXTS[0]).nats


def test_an_empty_document_teaches_nothing(trees: BoostedTrees) -> None:
    text = " ".join(TEXTS * 8)
    same = BoostedTrees(3, characters()).fit(["", text], rounds=8, leaves=8, threads=1)
    assert same.booster.model_to_string() == trees.booster.model_to_string()


def test_their_probabilities_are_not_flattened_a_second_time(trees: BoostedTrees) -> None:
    """A sure prediction stays sure: what follows "th" here is always "e"."""
    tokens = trees.tokenizer.encode("the cat sat on th")[None]
    expected = trees.log_probabilities(tokens)[0, -1].exp()
    assert trees.tokenizer.decode(expected.argmax()[None]) == "e"
    assert expected.max() > 0.3  # a second softmax would leave 0.1


def test_a_character_never_seen_is_not_impossible(trees: BoostedTrees) -> None:
    scores = trees.log_probabilities(torch.tensor([[trees.tokenizer.start_id]]))
    assert scores.isfinite().all()


def test_they_come_back_from_their_folder(trees: BoostedTrees, tmp_path: Path) -> None:
    trees.save(tmp_path / "trees")
    tokens = trees.tokenizer.encode(TEXTS[1])[None]
    torch.testing.assert_close(
        BoostedTrees.load(tmp_path / "trees").log_probabilities(tokens), trees.log_probabilities(tokens)
    )


def test_trees_of_an_earlier_version_come_back(trees: BoostedTrees, tmp_path: Path) -> None:
    """They called the characters of context `features`."""
    trees.save(tmp_path / "trees")
    path = tmp_path / "trees" / "config.json"
    path.write_text(path.read_text().replace('"context_length"', '"features"'))
    tokens = trees.tokenizer.encode(TEXTS[1])[None]
    again = BoostedTrees.load(tmp_path / "trees").log_probabilities(tokens)
    torch.testing.assert_close(again, trees.log_probabilities(tokens))


def test_their_context_does_not_limit_a_text(trees: BoostedTrees) -> None:
    """A document is scored in one go, so that each token has its whole context."""
    assert trees.context_length is None
    tokens = trees.tokenizer.encode("the cat sat on the mat")[None]
    last = trees.log_probabilities(tokens)[0, -1]
    torch.testing.assert_close(trees.log_probabilities(tokens[:, -3:])[0, -1], last)


def test_damaged_trees_are_refused(trees: BoostedTrees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees.booster, "model_to_string", lambda: "no trees at all")
    trees.save(tmp_path / "trees")
    with pytest.raises(UnavailableError, match="no readable trees"):
        BoostedTrees.load(tmp_path / "trees")


@pytest.fixture
def never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged text can end the process in LightGBM, so that it must not come that far."""
    monkeypatch.setattr(lightgbm, "Booster", lambda **_: pytest.fail("LightGBM was given damaged trees"))


@pytest.mark.usefixtures("never_read")
def test_one_changed_bit_of_the_trees_is_noticed_wherever_it_is(trees: BoostedTrees, tmp_path: Path) -> None:
    trees.save(tmp_path / "trees")
    path = tmp_path / "trees" / "model.safetensors"
    whole = path.read_bytes()
    for place in torch.randint(len(whole), (100,), generator=torch.Generator().manual_seed(0)).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UnavailableError, match="cannot be read as a saved model"):
            BoostedTrees.load(tmp_path / "trees")


def without_checksum(trees: BoostedTrees, folder: Path, text: bytes) -> None:
    """As earlier versions saved them."""
    trees.save(folder)
    path = folder / "model.safetensors"
    save_file(load_file(path) | {"trees": torch.frombuffer(bytearray(text), dtype=torch.uint8)}, path)


def test_trees_without_a_checksum_are_tried_elsewhere_and_said(trees: BoostedTrees, tmp_path: Path) -> None:
    without_checksum(trees, tmp_path / "trees", trees.booster.model_to_string().encode())
    tokens = trees.tokenizer.encode(TEXTS[1])[None]
    with pytest.warns(UserWarning, match="without a checksum: save the model again"):
        again = BoostedTrees.load(tmp_path / "trees")
    torch.testing.assert_close(again.log_probabilities(tokens), trees.log_probabilities(tokens))


@pytest.mark.usefixtures("never_read")
@pytest.mark.parametrize("damage", ["cut", "circle"])
def test_damaged_trees_end_their_trial_and_not_the_reader(
    trees: BoostedTrees, damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frugal.baselines.boosted.SECONDS_OF_A_TRIAL", 10)
    text = trees.booster.model_to_string().encode()
    cut, circle = text[: len(text) // 2], re.sub(rb"(left_child|right_child)=\S+", rb"\1=0", text)
    without_checksum(trees, tmp_path / "trees", cut if damage == "cut" else circle)
    with pytest.raises(UnavailableError, match="no readable trees"):
        BoostedTrees.load(tmp_path / "trees")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"most": -5}, "most=-5: must be a whole number of at least 1"),
        ({"most": 0}, "most=0: must be a whole number of at least 1"),
        ({"most": 9.5}, "most=9.5: must be a whole number"),
        ({"rounds": 0}, "rounds=0: must be a whole number of at least 1"),
        ({"leaves": 1}, "leaves=1: must be a whole number of at least 2"),
        ({"depth": 0}, "depth=0: must be a whole number of at least 1"),
        ({"threads": -1}, "threads=-1: must be a whole number of at least 0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: must be positive"),
    ],
)
def test_settings_with_which_no_trees_can_grow_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BoostedTrees(3, characters()).fit(TEXTS, **settings)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 0)])
def test_no_text_gives_no_scores(trees: BoostedTrees, shape: tuple[int, int]) -> None:
    found = trees.log_probabilities(torch.zeros(shape, dtype=torch.int64))
    assert found.shape == (*shape, trees.vocabulary_size)


def test_trees_that_are_not_grown_are_refused() -> None:
    with pytest.raises(InputError, match="call fit first"):
        BoostedTrees(3, characters()).log_probabilities(torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(InputError, match="text is empty"):
        BoostedTrees(3, characters()).fit([])
