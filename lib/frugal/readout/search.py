"""Searching settings: all of a grid or some of it at random, with successive halving."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from frugal.errors import InputError

KEEP = 3  # one setting in so many goes on to the next round


@dataclass(frozen=True)
class Trial:
    """A setting, the share of the text it was tried on last, and its score there; higher is better."""

    setting: dict[str, Any]
    share: float
    score: float


def search(
    objective: Callable[[dict[str, Any], float], float],
    space: dict[str, Sequence[Any]],
    *,
    trials: int | None = None,
    rounds: int = 1,
    seed: int = 0,
) -> list[Trial]:
    """Try settings and give them best first: those that came further before those that were dropped earlier.

    With several rounds (successive halving: Jamieson and Talwalkar 2016) all settings are tried on a small share of the
    text, and the best third of them again on three times as much, until the last round has it all.

    Args:
        objective: `objective(setting, share)` scores a setting on the first `share` of the text, 0..1.
        space: the values to try by name; the grid is all their combinations.
        trials: so many settings of the grid, drawn at random; None for all of them.
        rounds: 1 tries every setting on the whole text.
        seed: of the draw.

    Raises:
        InputError: an empty space, no trials or no rounds.
    """
    if not space or not all(len(values) for values in space.values()):
        raise InputError(f"space={space}: needs at least one name, each with at least one value")
    if rounds < 1 or (trials is not None and trials < 1):
        raise InputError(f"trials={trials}, rounds={rounds}: must be at least 1")
    grid = [dict(zip(space, values, strict=True)) for values in product(*space.values())]
    if trials is not None and trials < len(grid):
        grid = [grid[i] for i in np.random.default_rng(seed).choice(len(grid), trials, replace=False)]
    ranked: list[Trial] = []
    for number in range(rounds):
        share = KEEP ** float(number + 1 - rounds)
        found = [Trial(setting, share, objective(setting, share)) for setting in tqdm(grid, desc=f"{share:.0%} of it")]
        found.sort(key=lambda trial: -trial.score)
        ranked = found + ranked[len(found) :]
        grid = [trial.setting for trial in found[: max(1, len(found) // KEEP)]]
    return ranked
