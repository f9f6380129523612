"""Training examples over characters, and the best that can be learned from them."""

from collections import Counter, defaultdict
from math import log
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from frugal.corpora import CharTokenizer
from frugal.errors import InputError
from frugal.piecewise import Batches, Windows, as_numbers, bayes_limit
from frugal.piecewise.windows import randomised

LETTERS = CharTokenizer("abcdefghijklm")
DUNWICH = Path(__file__).parents[2] / "shared" / "data" / "dunwich-horror" / "dunwich.txt"


def shown(windows: Windows) -> list[tuple[str, str]]:
    """Examples as text, `_` for a document start."""

    def text(codes: torch.Tensor) -> str:
        return "".join("_" if code == LETTERS.start_id else LETTERS.alphabet[code] for code in codes)

    inputs, targets = windows[:]
    return [(text(row), text(target.reshape(-1))) for row, target in zip(inputs, targets, strict=True)]


def test_a_sequence_window_holds_what_stands_before_its_target() -> None:
    windows = Windows.sequence(LETTERS, ["abcd", "kl", "ef"], 3)
    expected = [("___", "a"), ("__a", "b"), ("_ab", "c"), ("abc", "d")]
    assert shown(windows)[:4] == expected
    assert shown(windows)[-2:] == [("___", "e"), ("__e", "f")]  # documents do not see each other


def test_a_centred_window_holds_both_sides_of_its_target() -> None:
    windows = Windows.centred(LETTERS, ["abcdefg"], 4)
    assert shown(windows)[:3] == [("__bc", "a"), ("_acd", "b"), ("abde", "c")]
    assert shown(windows)[-1] == ("ef__", "g")
    assert shown(Windows.centred(LETTERS, ["abcdefg"], 3))[3] == ("bce", "d")


def test_a_flat_run_has_a_target_after_each_character() -> None:
    windows = Windows.flat(LETTERS, ["abc", "de"], 3)
    assert shown(windows) == [("_ab", "abc"), ("abc", "bc_"), ("bc_", "c_d"), ("c_d", "_de")]
    assert shown(Windows.flat(LETTERS, ["abc", "de"], 3, stride=2)) == shown(windows)[::2]


def test_windows_are_cut_when_asked_for() -> None:
    windows = Windows.sequence(LETTERS, ["abcdefg" * 1000], 500)
    held = sum(part.numel() for part in (windows.tokens, windows.places))
    assert held < 3 * 7000 + 1000  # not 500 times the text
    assert len(Windows.sequence(LETTERS, ["abcdefg"], 3, most=4)) == 4


def test_an_epoch_has_every_example_as_often_as_asked() -> None:
    windows = Windows.sequence(LETTERS, ["abcdefghij"], 1)
    batches = Batches(windows, 4, repeats=2)
    targets = torch.cat([target for _, target in batches])
    assert len(batches) == len(list(batches)) == 5
    assert Counter(targets.tolist()) == dict.fromkeys(range(10), 2)


def test_a_share_of_the_inputs_becomes_random() -> None:
    torch.manual_seed(0)
    inputs = torch.full((20_000, 4), 50)
    for fraction in (0.0, 0.05, 0.3, 1.0):  # also one of which no window has a whole character
        changed = randomised(inputs, fraction, 50) != inputs
        assert (changed.double().mean(0) - fraction).abs().max() < 0.02


def test_numbers_lie_in_the_middle_of_their_parts() -> None:
    codes = torch.arange(128).view(32, 4)
    torch.testing.assert_close(as_numbers(codes), (codes - 63.5) / 64)
    assert as_numbers(codes, axis="channel").shape == (32, 1, 4)
    assert as_numbers(codes, axis="character").shape == (32, 4, 1)
    assert as_numbers([[0, 127]], axis="channel").tolist() == [[[-127 / 128, 127 / 128]]]  # type: ignore[arg-type]
    with pytest.raises(InputError, match="axis='foo': must be one of none, channel, character"):
        as_numbers(codes, axis="foo")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rows of codes"):
        as_numbers(codes[0], axis="character")


@given(st.text("abc", min_size=1, max_size=60), st.integers(1, 3))
def test_the_bayes_limit_is_that_of_a_table_of_all_contexts(text: str, length: int) -> None:
    tables: dict[str, Counter[str]] = defaultdict(Counter)
    padded = "_" * length + text
    for at in range(length, len(padded)):
        tables[padded[at - length : at]][padded[at]] += 1
    right = sum(max(table.values()) for table in tables.values())
    nats = -sum(n * log(n / table.total()) for table in tables.values() for n in table.values())
    found = bayes_limit(Windows.sequence(LETTERS, [text], length))
    assert found == pytest.approx((right / len(text), nats / len(text)))


def test_the_bayes_limit_needs_one_target_an_example() -> None:
    with pytest.raises(InputError, match="3 targets an example"):
        bayes_limit(Windows.flat(LETTERS, ["abcabc"], 3))


@pytest.mark.skipif(not DUNWICH.exists(), reason="the text of The Dunwich Horror is not here")
def test_sixteen_characters_of_context_cannot_tell_every_place_of_a_book() -> None:
    text = DUNWICH.read_bytes().decode("ascii", "ignore")
    found = bayes_limit(Windows.sequence(CharTokenizer.ascii(), [text], 16))
    assert found == pytest.approx((0.9962, 0.0059), abs=1e-4)


def test_texts_without_an_example_are_refused() -> None:
    with pytest.raises(InputError, match="no examples"):
        Windows.flat(LETTERS, ["ab"], 5)
    with pytest.raises(InputError, match="at least one text"):
        Windows.sequence(LETTERS, [], 5)
    with pytest.raises(InputError, match="random_fraction=2"):
        Batches(Windows.sequence(LETTERS, ["ab"], 1), 1, random_fraction=2)
