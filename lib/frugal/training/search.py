"""One search over settings, on Optuna: grid, random, TPE or CMA-ES, with successive halving."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, get_args

from tqdm.auto import tqdm

from frugal.errors import DivergedError, InputError, check_whole, is_number

Sampler = Literal["grid", "random", "tpe", "cma-es"]
Space = Mapping[str, list[Any] | tuple[float, float]]
KEEP = 3  # one trial in so many goes on after each partial value


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Attributes:
        number: its place in the order of trials, from 0.
        setting: a value for each name of the space.
        value: the last that the objective gave; infinite, the worst that there is, if its training diverged.
        values: how many it gave: fewer than others have if the trial was stopped early, none if it failed.
        seconds: of processor time.
    """

    number: int
    setting: dict[str, Any]
    value: float
    values: int
    seconds: float


def search(
    objective: Callable[[dict[str, Any]], float | Iterator[float]],
    space: Space,
    *,
    sampler: Sampler = "grid",
    trials: int | None = None,
    start: Mapping[str, Any] | None = None,
    maximize: bool = False,
    seed: int = 0,
) -> list[Trial]:
    """Try settings and give the trials best first, then those that were stopped early, then those that diverged.

    Args:
        objective: the value of a setting, the smaller the better. It may yield partial values before the last, such
            as scores on a small share of the text, then on more. After each of them a trial goes on only if it is in
            the best third of those that came so far (asynchronous successive halving: Li et al., "A system for
            massively parallel hyperparameter tuning", 2020).
        space: by name a list of choices, or a tuple of the lowest and highest number; of integers if both are.
        sampler: "grid" takes all combinations of choices, in random order; "random" draws; "tpe" models which settings
            are good; "cma-es" is an evolution strategy for numbers (Hansen and Ostermeier, 2001).
        trials: how many settings are tried; None for the whole grid.
        start: the setting to try first, from which "cma-es" sets out.
        maximize: the larger the better.
        seed: repeats the search.

    Raises:
        InputError: nothing to try, a sampler that does not fit the space, a start that does not, an objective that
            gives no number, or no setting whose training does not diverge.

    >>> search(lambda at: (at["x"] - 2) ** 2, {"x": [0, 1, 2, 3]})[0].setting
    {'x': 2}
    """
    _check(space, sampler, trials, start)
    check_whole(0, seed=seed)
    import optuna  # here, because it takes seconds to import

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it warns of each error that is raised here
    if sampler == "grid":
        size = math.prod(map(len, space.values()))
        trials = size if trials is None else min(trials, size)
    done: list[Trial] = []

    def attempt(trial: Any) -> float:
        begun, values, weak = time.process_time(), [], False
        setting = {name: _suggested(trial, name, choices) for name, choices in space.items()}
        try:
            found = objective(setting)
            for each in found if isinstance(found, Iterator) else [found]:
                value = _number(each, setting)
                if math.isnan(value):
                    raise DivergedError("the objective is not a number")
                values.append(value)
                trial.report(value, KEEP ** (len(values) - 1))
                weak = isinstance(found, Iterator) and trial.should_prune()
                if weak:
                    break
        except DivergedError:  # one of the settings cannot be trained, which is no reason to lose the others
            values = []
        value = values[-1] if values else -math.inf if maximize else math.inf
        done.append(Trial(trial.number, setting, value, len(values), time.process_time() - begun))
        bar.update()
        if weak:
            raise optuna.TrialPruned
        return value

    study = optuna.create_study(
        direction="maximize" if maximize else "minimize",
        sampler=_sampler(sampler, space, start, seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(1, KEEP, 0),
    )
    if start is not None:
        study.enqueue_trial(dict(start))
    with tqdm(desc="search", total=trials, unit=" trials") as bar:
        study.optimize(attempt, trials)
    if not any(trial.values for trial in done):
        raise InputError(f"space={space}: no setting gave a number; try lower learning rates")
    return sorted(done, key=lambda trial: (-trial.values, -trial.value if maximize else trial.value))


def _suggested(trial: Any, name: str, values: list[Any] | tuple[float, float]) -> Any:
    if isinstance(values, list):
        return trial.suggest_categorical(name, values)
    low, high = values
    if isinstance(low, Integral) and isinstance(high, Integral):
        return int(trial.suggest_int(name, int(low), int(high)))
    return float(trial.suggest_float(name, float(low), float(high)))


def _number(value: Any, setting: dict[str, Any]) -> float:
    """What an objective gave, which may be of NumPy or a tensor."""
    try:
        return math.fsum([value])  # unlike `float`, it takes no text
    except Exception as error:
        raise InputError(f"objective={value!r} at {setting}: must be a number; return one, or yield some") from error


def _sampler(name: Sampler, space: Space, start: Mapping[str, Any] | None, seed: int) -> Any:
    from optuna.samplers import CmaEsSampler, GridSampler, RandomSampler, TPESampler

    match name:
        case "grid":
            return GridSampler(dict(space), seed)
        case "random":
            return RandomSampler(seed)
        case "tpe":
            return TPESampler(seed=seed)
        case "cma-es":
            with warnings.catch_warnings():  # the start is marked for removal in a version that we do not use yet
                warnings.filterwarnings("ignore", "`x0` has been deprecated", FutureWarning)
                x0 = None if start is None else dict(start)
                return CmaEsSampler(x0=x0, seed=seed, n_startup_trials=0, warn_independent_sampling=False)


def _check(space: Space, sampler: Sampler, trials: int | None, start: Mapping[str, Any] | None) -> None:
    if not isinstance(space, Mapping) or not space or not all(isinstance(name, str) for name in space):
        raise InputError(f"space={space!r}: must be choices or ranges by name, of at least one name")
    for name, values in space.items():
        if not (_is_range(values) if isinstance(values, tuple) else isinstance(values, list) and values):
            raise InputError(
                f"space={space}: {name} must be a list of at least one value, or a range of two numbers, lowest first"
            )
    if sampler not in get_args(Sampler):
        raise InputError(f"sampler={sampler!r}: must be one of {', '.join(map(repr, get_args(Sampler)))}")
    fits = {"grid": list, "cma-es": tuple}.get(sampler, (list, tuple))
    wrong = [name for name, values in space.items() if not isinstance(values, fits)]
    if wrong:
        needed = "lists of choices" if sampler == "grid" else "ranges (lowest, highest)"
        raise InputError(f"space={space}: {sampler!r} needs {needed} for {', '.join(wrong)}")
    if trials is None and sampler != "grid":
        raise InputError(f"trials=None: {sampler!r} has no end of its own; say how many settings to try")
    if trials is not None:
        check_whole(trials=trials)
    if start is None:
        return
    if sampler == "grid" or not isinstance(start, Mapping) or start.keys() != space.keys():
        raise InputError(
            f"start={start!r}: needs a start for each of {', '.join(space)}, and another sampler than grid"
        )
    for name, values in space.items():
        if not _holds(values, start[name]):
            raise InputError(f"start={start!r}: {name} must come from the space's {values}")


def _is_range(values: tuple[Any, ...]) -> bool:
    """Whether these are two finite numbers, the lower one first."""
    return len(values) == 2 and all(map(is_number, values)) and -math.inf < values[0] <= values[1] < math.inf


def _holds(values: list[Any] | tuple[float, float], value: Any) -> bool:
    """Whether a value is among choices, or in a range: a whole number where both ends are."""
    if isinstance(values, list):
        return value in values
    whole = all(isinstance(end, Integral) for end in values)
    return is_number(value) and values[0] <= value <= values[1] and (isinstance(value, Integral) or not whole)
