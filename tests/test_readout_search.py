import pytest

from frugal.errors import InputError
from frugal.readout.search import search

SPACE = {"a": [0, 1, 2], "b": [0.0, 0.5, 1.0]}


def nearness(setting: dict[str, float], share: float) -> float:
    """Best at a=1, b=0.5; small shares of the text see it less well."""
    return -abs(setting["a"] - 1) - share * abs(setting["b"] - 0.5)


def test_a_grid_is_tried_whole_and_ranked() -> None:
    ranked = search(nearness, SPACE)
    assert ranked[0].setting == {"a": 1, "b": 0.5}
    assert len({tuple(trial.setting.values()) for trial in ranked}) == 9
    assert [trial.score for trial in ranked] == sorted((trial.score for trial in ranked), reverse=True)


def test_a_random_search_draws_different_settings_and_repeats_with_its_seed() -> None:
    first = search(nearness, SPACE, trials=5, seed=1)
    assert len({tuple(trial.setting.values()) for trial in first}) == 5
    assert first == search(nearness, SPACE, trials=5, seed=1)
    assert len(search(nearness, SPACE, trials=100)) == 9


def test_halving_tries_all_on_little_and_the_best_on_more() -> None:
    tried: list[float] = []

    def objective(setting: dict[str, float], share: float) -> float:
        tried.append(share)
        return nearness(setting, share)

    ranked = search(objective, SPACE, rounds=3)
    assert [tried.count(share) for share in (1 / 9, 1 / 3, 1.0)] == [9, 3, 1]
    assert (ranked[0].setting, ranked[0].share) == ({"a": 1, "b": 0.5}, 1.0)
    assert [trial.share for trial in ranked] == [1.0] + [1 / 3] * 2 + [1 / 9] * 6


@pytest.mark.parametrize(
    ("space", "settings"), [({}, {}), ({"a": []}, {}), (SPACE, {"trials": 0}), (SPACE, {"rounds": 0})]
)
def test_nothing_to_try_is_refused(space: dict[str, list[float]], settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least"):
        search(nearness, space, **settings)
