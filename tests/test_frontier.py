"""Points of the frontier: recipes, what is kept of them, and what is read off their curves."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frugal.corpora import Document
from frugal.errors import InputError, UnavailableError
from frugal.frontier import (
    RECIPES,
    Point,
    PowerLaw,
    as_json,
    best,
    candidates,
    crossing,
    measure,
    power_law,
    read_points,
)

TEXT = "the cat sat on the mat. the dog sat on the log. a cat and a dog met on a mat. "
TRAIN = [Document("train", TEXT * 6)]
HELD_OUT = [Document("one", "the dog met a cat. "), Document("two", "a mat on the log. ")]


def point(model: str, characters: int, seconds: float, bits: float, **more: float) -> Point:
    nats = {protocol: [(bits * math.log(2) * 10, 10)] for protocol, bits in {"static": bits, **more}.items()}
    return Point(model, characters, 0, 0, "", seconds, 0.0, 1, {"text": nats}, {})


@pytest.mark.parametrize("model", RECIPES)
def test_every_recipe_makes_a_model_that_has_learnt_something(model: str) -> None:
    found = measure(model, TRAIN, HELD_OUT, {"text": HELD_OUT}, budget=0.1)
    bytes_at_least = model in ("transformer", "echo")  # the fewest byte pairs are bytes
    uniform = math.log2(257 if bytes_at_least else len(set(TEXT)) + 2)
    assert found.bits_per_byte("text") < uniform
    assert (found.model, found.characters) == (model, len(TRAIN[0].text))
    assert found.parameters > 0
    assert set(found.documents["text"]) == ({"static", "adapting"} if model == "context mixing" else {"static"})


def test_a_compressor_is_a_point_that_adapts() -> None:
    found = measure("PPMd", TRAIN, HELD_OUT, {"text": HELD_OUT})
    assert 0 < found.bits_per_byte("text", "adapting") < 8
    assert math.isnan(found.bits_per_byte("text"))


def test_a_seed_reproduces_a_point() -> None:
    first, again, other = (
        measure("transformer", TRAIN, TRAIN, {"text": HELD_OUT}, budget=0.05, seed=seed) for seed in (1, 1, 2)
    )
    assert first.documents == again.documents
    assert first.documents != other.documents


def test_points_come_back_from_their_file(tmp_path: Path) -> None:
    points = [point("n-gram", 1000, 0.5, 2.5), point("context mixing", 1000, 0.7, 2.4, adapting=2.0)]
    (tmp_path / "kept.json").write_text(as_json(points, {"machine": "mine"}))
    again = read_points(tmp_path / "kept.json")
    assert [each.bits_per_byte("text") for each in again] == pytest.approx([2.5, 2.4])
    assert again[1].bits_per_byte("text", "adapting") == pytest.approx(2.0)
    assert math.isnan(again[0].bits_per_byte("text", "adapting"))
    assert json.loads((tmp_path / "kept.json").read_text())["machine"] == "mine"


@pytest.mark.parametrize("written", [None, "{", '{"points": [{"model": "n-gram"}]}'])
def test_a_file_without_points_is_refused(tmp_path: Path, written: str | None) -> None:
    if written is not None:
        (tmp_path / "kept.json").write_text(written)
    with pytest.raises(UnavailableError, match="no points of the frontier"):
        read_points(tmp_path / "kept.json")


def test_an_interval_holds_the_score_and_is_a_point_for_equal_documents() -> None:
    documents = [(nats, 10) for nats in (10.0, 14.0, 12.0, 20.0)]
    uneven = Point("n-gram", 1, 0, 0, "", 1.0, 0.0, 1, {"text": {"static": documents}}, {})
    low, high = uneven.interval("text")
    assert low < uneven.bits_per_byte("text") < high
    assert point("n-gram", 1, 1.0, 2.0).interval("text") == pytest.approx((2.0, 2.0))


@given(scale=st.floats(0.1, 10), exponent=st.floats(-1, 1))
def test_a_power_law_is_found_where_there_is_one(scale: float, exponent: float) -> None:
    x = [1.0, 10.0, 100.0, 1000.0]
    law = power_law(x, [scale * u**-exponent for u in x])
    assert (law.scale, law.exponent) == pytest.approx((scale, exponent), abs=1e-6)
    assert law.low - 1e-6 <= exponent <= law.high + 1e-6


def test_the_interval_of_an_exponent_is_that_of_a_linear_regression() -> None:
    from scipy.stats import linregress, t

    x, y = [1.0, 3.0, 10.0, 30.0, 90.0], [4.0, 3.3, 2.9, 2.2, 2.1]
    line, law = linregress(np.log(x), np.log(y)), power_law(x, y)
    half = t.ppf(0.975, 3) * line.stderr
    assert (law.exponent, law.low, law.high) == pytest.approx((-line.slope, -line.slope - half, -line.slope + half))
    assert math.isnan(power_law(x[:2], y[:2]).low)


def test_the_second_is_ahead_beyond_the_crossing_alone() -> None:
    first, second = PowerLaw(2.5, 0.05, 0, 0), PowerLaw(6.0, 0.15, 0, 0)
    at = crossing(first, second)
    assert at is not None
    assert second.at(at) == pytest.approx(first.at(at))
    assert second.at(2 * at) < first.at(2 * at)
    assert second.at(at / 2) > first.at(at / 2)
    assert crossing(second, first) is None


def test_the_best_needs_no_more_text_and_no_more_time() -> None:
    points = [
        point("n-gram", 1000, 1, 3.0, adapting=1.0),
        point("transformer", 1000, 60, 2.0),
        point("n-gram", 100_000, 2, 1.5),
    ]
    assert best(points, "text", characters=1000, seconds=10) is points[0]
    assert best(points, "text", characters=1000, seconds=60) is points[1]
    assert best(points, "text", characters=1e6, seconds=10) is points[2]
    assert best(points, "text", characters=1e6, seconds=100, protocol="adapting") is points[0]
    with pytest.raises(InputError, match="no measured model needs so little"):
        best(points, "text", characters=1000, seconds=0.5)


def test_what_cannot_be_measured_or_fitted_is_refused() -> None:
    with pytest.raises(InputError, match="model='gram'"):
        measure("gram", TRAIN, TRAIN, {})
    with pytest.raises(InputError, match="budget=0"):
        measure("transformer", TRAIN, TRAIN, {})
    for x, y in (([1.0, 1.0], [2.0, 3.0]), ([1.0], [2.0]), ([1.0, 2.0], [2.0, 0.0]), ([1.0, 2.0], [1.0])):
        with pytest.raises(InputError, match="two different x"):
            power_law(x, y)
    assert candidates(1) != candidates(100)
