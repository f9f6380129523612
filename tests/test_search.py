"""The search over settings: grid, random, TPE and CMA-ES, and successive halving."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from frugal.errors import DivergedError, InputError
from frugal.training import search

SPACE = {"a": [0, 1, 2], "b": [0.0, 0.5, 1.0]}
RANDOM: dict[str, Any] = {"sampler": "random", "trials": 2}
BOWL = {"width": (2, 250), "rate": (0.0, 1.0)}


def nearness(setting: dict[str, float], share: float = 1.0) -> float:
    """Best at a=1, b=0.5; small shares of the text see it less well."""
    return -abs(setting["a"] - 1) - share * abs(setting["b"] - 0.5)


def bowl(point: dict[str, float]) -> float:
    return (point["width"] - 70) ** 2 / 100 + (point["rate"] - 0.3) ** 2


def test_a_grid_is_tried_whole_and_ranked() -> None:
    ranked = search(nearness, SPACE, maximize=True)
    assert ranked[0].setting == {"a": 1, "b": 0.5}
    assert len({tuple(trial.setting.values()) for trial in ranked}) == 9
    assert [trial.value for trial in ranked] == sorted((trial.value for trial in ranked), reverse=True)
    least = search(nearness, SPACE)
    assert [trial.value for trial in least] == sorted(trial.value for trial in least)


def settings_of(trials: list[Any]) -> list[dict[str, Any]]:
    return [trial.setting for trial in sorted(trials, key=lambda trial: trial.number)]


def test_a_part_of_the_grid_has_different_settings_and_repeats_with_its_seed() -> None:
    first = settings_of(search(nearness, SPACE, trials=5, seed=1))
    assert len({tuple(setting.values()) for setting in first}) == 5
    assert first == settings_of(search(nearness, SPACE, trials=5, seed=1))
    assert first != settings_of(search(nearness, SPACE, trials=5, seed=2))
    assert len(search(nearness, SPACE, trials=100)) == 9


@pytest.mark.parametrize("maximize", [False, True])
def test_a_setting_goes_on_only_if_it_is_in_the_best_third_so_far(maximize: bool) -> None:
    asked: list[tuple[float, int]] = []
    sign = 1 if maximize else -1

    def objective(setting: dict[str, Any]) -> Iterator[float]:
        for part in range(3):
            asked.append((setting["a"], part))
            yield sign * setting["a"]

    ranked = search(objective, {"a": list(range(27))}, maximize=maximize)
    came = [value for value, part in asked if part == 0]
    seen: list[float] = []
    for value in came:
        seen = sorted([*seen, value], reverse=True)
        goes_on = value >= seen[max(0, len(seen) // 3 - 1)]
        assert ((value, 1) in asked) == goes_on
    assert sorted(came) == list(range(27))
    assert (ranked[0].setting["a"], ranked[0].values) == (26, 3)
    assert [trial.values for trial in ranked] == sorted((trial.values for trial in ranked), reverse=True)
    assert len(asked) < 27 * 2


def test_evolution_finds_the_bottom_of_a_bowl() -> None:
    trials = search(bowl, BOWL, sampler="cma-es", trials=80, start={"width": 200, "rate": 0.9}, seed=1)
    assert len(trials) == 80
    assert settings_of(trials)[0] == {"width": 200, "rate": 0.9}
    assert abs(trials[0].setting["width"] - 70) < 15
    assert all(isinstance(trial.setting["width"], int) and 2 <= trial.setting["width"] <= 250 for trial in trials)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("stepwise", [False, True])
def test_settings_whose_training_diverges_come_last_and_cost_no_others(maximize: bool, stepwise: bool) -> None:
    def value(setting: dict[str, Any]) -> float:
        if setting["rate"] == 3:
            raise DivergedError("the loss is nan")
        return math.nan if setting["rate"] == 4 else float(setting["rate"])

    def steps(setting: dict[str, Any]) -> Iterator[float]:
        yield 0.0
        yield value(setting)

    ranked = search(steps if stepwise else value, {"rate": [0, 3, 1, 4, 2]}, maximize=maximize)
    rates = [trial.setting["rate"] for trial in ranked]
    assert len(rates) == 5
    assert set(rates[3:]) == {3, 4}
    assert rates[0] == (2 if maximize else 0)
    assert [trial.values for trial in ranked[3:]] == [0, 0]


def test_a_search_in_which_nothing_can_be_trained_says_so() -> None:
    with pytest.raises(InputError, match="no setting gave a number"):
        search(lambda setting: math.nan, SPACE)


def test_other_errors_of_a_setting_are_not_taken_for_a_bad_value() -> None:
    def refuse(setting: dict[str, Any]) -> float:
        raise InputError("width=0")

    with pytest.raises(InputError, match="width=0"):
        search(refuse, SPACE)


@pytest.mark.parametrize("sampler", ["random", "tpe", "cma-es"])
def test_samplers_stay_in_their_ranges_and_repeat_with_their_seed(sampler: str) -> None:
    first, again, other = (
        settings_of(search(bowl, BOWL, sampler=sampler, trials=12, seed=seed))  # type: ignore[arg-type]
        for seed in (3, 3, 4)
    )
    assert first == again != other
    assert all(2 <= setting["width"] <= 250 and 0 <= setting["rate"] <= 1 for setting in first)


def test_tpe_looks_where_values_were_good() -> None:
    later = settings_of(search(bowl, BOWL, sampler="tpe", trials=40, seed=0))[20:]
    assert sum(abs(setting["width"] - 70) for setting in later) / 20 < 40  # of a mean of 66 where it is drawn at random


def test_choices_and_ranges_mix() -> None:
    space = {"kind": ["lines", "steps"], "width": (1, 9)}
    best = search(lambda at: at["width"] + 100 * (at["kind"] == "steps"), space, sampler="tpe", trials=40)[0]
    assert best.setting["kind"] == "lines"
    assert best.setting["width"] <= 2


@pytest.mark.parametrize("sampler", ["random", "tpe", "cma-es"])
@pytest.mark.parametrize("kind", [int, np.int64, np.uint8])
def test_a_range_of_whole_numbers_of_any_type_gives_whole_numbers(kind: Any, sampler: Any) -> None:
    space, start = {"x": (kind(2), kind(9)), "y": (np.float32(0), kind(1))}, {"x": kind(5), "y": np.float32(0.5)}
    trials = settings_of(search(lambda at: at["x"], space, sampler=sampler, trials=6, start=start))
    assert trials[0] == {"x": 5, "y": 0.5}
    assert all(type(at["x"]) is int and 2 <= at["x"] <= 9 and type(at["y"]) is float for at in trials)


@pytest.mark.parametrize("value", [None, "3", [1.0], torch.zeros(2), {}])
@pytest.mark.parametrize("stepwise", [False, True])
def test_an_objective_that_gives_no_number_is_refused_in_one_sentence(
    value: Any, stepwise: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"objective=.* at {'x': 1}: must be a number; return one"):
        search(lambda at: iter([1.0, value]) if stepwise else value, {"x": [1]})
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("value", [np.float32(0.5), torch.tensor(0.5), np.array(0.5), 0.5])
def test_an_objective_may_give_a_number_of_any_type(value: Any) -> None:
    (trial,) = search(lambda at: value, {"x": [1]})
    assert trial.value == 0.5
    assert type(trial.value) is float


@pytest.mark.parametrize(
    ("space", "settings", "message"),
    [
        ({}, {}, "of at least one name"),
        (3, {}, "space=3: must be choices or ranges by name"),
        (["a", "b"], {}, "must be choices or ranges by name"),
        ({3: [1, 2]}, {}, "must be choices or ranges by name"),
        ({"x": 3}, {}, "x must be a list of at least one value, or a range"),
        ({"x": "abc"}, {}, "x must be a list"),
        ({"x": {1: 2}}, {}, "x must be a list"),
        ({"x": (1.0, 0.0)}, RANDOM, "x must be a list"),
        ({"x": (1, 2, 3)}, RANDOM, "x must be a list"),
        ({"x": (1,)}, RANDOM, "x must be a list"),
        ({"x": (0, math.nan)}, RANDOM, "x must be a list"),
        ({"x": (0, math.inf)}, RANDOM, "x must be a list"),
        ({"x": ("a", "b")}, RANDOM, "x must be a list"),
        ({"x": (False, True)}, RANDOM, "x must be a list"),
        ({"x": (0, 9)}, {**RANDOM, "start": {"x": 10}}, "start={'x': 10}: x must come from the space's"),
        ({"x": (0, 9)}, {**RANDOM, "start": {"x": 1.5}}, "start={'x': 1.5}: x must come from the space's"),
        ({"x": (0.0, 9.0)}, {**RANDOM, "start": {"x": math.nan}}, "x must come from the space's"),
        ({"x": (0, 9)}, {**RANDOM, "start": {"x": "1"}}, "x must come from the space's"),
        ({"x": [1, 2]}, {**RANDOM, "start": {"x": 3}}, r"start={'x': 3}: x must come from the space's"),
        ({"x": [1, 2]}, {**RANDOM, "start": 1}, "start=1: needs a start for each of x"),
        ({"a": []}, {}, "a must be a list of at least one value"),
        (SPACE, {"trials": 0}, "trials=0: must be a whole number of at least 1"),
        (SPACE, {"trials": 2.5}, "trials=2.5: must be a whole number of at least 1"),
        (SPACE, {"seed": -1}, "seed=-1: must be a whole number of at least 0"),
        (SPACE, {"sampler": "luck"}, "sampler='luck': must be one of"),
        (BOWL, {}, "'grid' needs lists of choices for width, rate"),
        (SPACE, {"sampler": "cma-es", "trials": 3}, "'cma-es' needs ranges .* for a, b"),
        (BOWL, {"sampler": "tpe"}, "trials=None: 'tpe' has no end of its own"),
        (BOWL, {"sampler": "cma-es", "trials": 1, "start": {}}, "a start for each of width, rate"),
    ],
)
def test_what_cannot_be_searched_is_refused(space: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        search(lambda setting: 0.0, space, **settings)
