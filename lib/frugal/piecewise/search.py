"""Evolutionary search for a network's shape: CMA-ES over small trials.

Hansen and Ostermeier, "Completely derandomized self-adaptation in evolution strategies", 2001, as Optuna has it.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from frugal.errors import InputError
from frugal.piecewise.mlp import MLPShape
from frugal.piecewise.training import Recipe, memorised, train
from frugal.piecewise.windows import Windows

Range = tuple[int, int] | tuple[float, float]

# The original's: ranges of whole numbers, and where the search starts. A truth value is a range from 0 to 1.
SPACE: dict[str, Range] = {
    "continuous": (0, 1),
    "segments": (8, 100),
    "layers": (1, 3),
    "width": (2, 250),
    "output_segments": (8, 20),
}
START: dict[str, float] = {"continuous": 0, "segments": 8, "layers": 1, "width": 10, "output_segments": 8}


@dataclass(frozen=True)
class Trial:
    """One point of the search, its value (the smaller the better), and the seconds it took."""

    point: dict[str, float]
    value: float
    seconds: float


def evolve(
    objective: Callable[[dict[str, Any]], float],
    space: Mapping[str, Range],
    start: Mapping[str, float],
    *,
    trials: int,
    seed: int = 0,
) -> list[Trial]:
    """Search for the point with the smallest value; return all trials in their order.

    Args:
        objective: value of a point; a point has one number for each name of `space`.
        space: lowest and highest of each number; of integers if both are.
        start: where the search begins; every name of `space`.
        trials: how many points are tried.
        seed: repeats the search.
    """
    import optuna

    if space.keys() != start.keys():
        raise InputError(f"start={dict(start)}: needs a start for each of {', '.join(space)}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():  # the start is marked for removal in a version that we do not use yet
        warnings.filterwarnings("ignore", "`x0` has been deprecated", FutureWarning)
        sampler = optuna.samplers.CmaEsSampler(
            x0=dict(start), seed=seed, n_startup_trials=0, warn_independent_sampling=False
        )
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial(dict(start))
    done: list[Trial] = []
    for _ in range(trials):
        trial, began = study.ask(), time.monotonic()
        point = {name: _suggested(trial, name, *bounds) for name, bounds in space.items()}
        value = objective(point)
        study.tell(trial, value)
        done.append(Trial(point, value, time.monotonic() - began))
    return done


def shape_at(point: Mapping[str, float], base: MLPShape | None = None) -> MLPShape:
    """Return the network shape that a point of `SPACE` stands for; `base` says all else."""
    fields = {name: int(value) for name, value in point.items()}
    kind = "continuous" if fields.pop("continuous", 1) else "discontinuous"
    return replace(base or MLPShape(), kind=kind, **fields)  # type: ignore[arg-type]  # all of them are integers


def trial_nats(
    shape: MLPShape, windows: Windows, validation: Windows, characters: int, recipe: Recipe | None = None
) -> float:
    """Train a new network briefly; return its nats per character on other windows."""
    network = shape.build(characters)
    train(network, windows, recipe or Recipe(epochs=2, batch_size=100, learning_rate=1e-3), progress=False)
    return memorised(network, validation).nats


def _suggested(trial: Any, name: str, low: float, high: float) -> float:
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high)
    return trial.suggest_float(name, low, high)
