"""What a sweep is: a YAML file, checked against the notebook before anything starts.

notebook: 03_readout_training
fixed: {reservoir_size: 256}
search:
  shrinkage: {low: 0.01, high: 10, log: true}
  slowest_leaks: [[0.02], [0.005]]
objective: {record: scores, column: bits per byte, where: {model: "smollm2 + echo, residual"}, direction: minimise}
sampler: tpe
runs: 20
"""

import sys
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from frugal.errors import InputError
from frugal.lab.run.execution import Plan, plan_run
from frugal.lab.run.parameters import Parameter, check
from frugal.training import check_fields

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Direction = Literal["minimise", "maximise"]
Sampler = Literal["grid", "random", "tpe", "cmaes"]
Pruner = Literal["none", "median", "halving"]


@dataclass(frozen=True)
class Objective:
    """A recorded number, or one cell of a recorded table: the `column` in the first row that agrees with `where`."""

    record: str
    direction: Direction
    column: str | None = None
    where: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)

    def read(self, records: dict[str, Any]) -> float:
        """The objective's value in a run's records.

        Raises:
            InputError: the notebook did not record it, or recorded what is no finite number.
        """
        found = records.get(self.record)
        if isinstance(found, list) and self.column is not None:
            rows = [row for row in found if all(row.get(name) == value for name, value in self.where.items())]
            found = rows[0].get(self.column) if rows else None
        if found is None:
            raise InputError(f"the run recorded no {self}; it recorded {', '.join(records) or 'nothing'}")
        # A whole number may be beyond all floats.
        if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) <= sys.float_info.max:
            what = "a table" if isinstance(found, list) else repr(found)[:40]
            raise InputError(f"the run recorded {what} as {self}, which is no finite number")
        return float(found)

    def __str__(self) -> str:
        row = "".join(f", {name} {value!r}" for name, value in self.where.items())
        return self.record if self.column is None else f"{self.record} (column {self.column!r}{row})"


@dataclass(frozen=True)
class Sweep:
    """A checked sweep.

    Attributes:
        name: of the YAML file; the sweep's folder is called so.
        plan: the notebook with the parameters that are the same in all runs.
        search: what is varied, by the parameter's name.
        objective: what is minimised or maximised; the mean over seeds.
        sampler: how points are chosen; "grid" takes all of them in order.
        pruner: which runs are stopped early by what they report; needs one seed per point.
        points: most points; None for all of a grid.
        minutes: after which no further run is started; None for no limit.
        seeds: runs per point, which differ in the parameter `seed`.
        timeout: minutes that a run may take.
        seed: of the sampler, and the first of the runs.
        warm: whether a worker forks its runs from a process that has done the notebook's first imports.
    """

    name: str
    plan: Plan
    search: "dict[str, BaseDistribution]"
    objective: Objective
    sampler: Sampler
    pruner: Pruner
    points: int | None
    minutes: float | None
    seeds: int
    timeout: float | None
    seed: int
    warm: bool

    def grid(self) -> list[dict[str, Any]]:
        """All points of the search space, in order."""
        return [dict(zip(self.search, values, strict=True)) for values in product(*map(_values, self.search.values()))]


@dataclass(frozen=True, kw_only=True)
class Entries:
    """The entries of a sweep's YAML file; see `Sweep` for what they mean."""

    notebook: str
    search: dict[str, Any]
    objective: dict[str, Any]
    profile: str = "default"
    fixed: dict[str, Any] = field(default_factory=dict)
    sampler: Sampler = "grid"
    pruner: Pruner = "none"
    runs: int | None = None
    minutes: float | None = None
    seeds: int = 1
    timeout: float | None = None
    seed: int = 0
    warm: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        for entry in ("runs", "seeds", "minutes", "timeout"):
            value = getattr(self, entry)
            if value is not None and value <= 0:
                raise InputError(f"{entry}={value}: must be positive")


def read_sweep(path: Path, find_notebook: Any = Path) -> Sweep:
    """Read and check a sweep's YAML file.

    Args:
        path: the file; see the head of this module for its form.
        find_notebook: gives the path of the notebook that the file names.

    Raises:
        InputError: whatever is wrong with the file, the notebook or the parameters, in one sentence.
    """
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({error}); give the file of a sweep") from error
    try:
        return _checked(path.stem, given, find_notebook)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error


def _checked(name: str, given: Any, find_notebook: Any) -> Sweep:
    if not isinstance(given, dict):
        raise InputError("must hold entries such as notebook, search and objective")
    names = [each.name for each in fields(Entries)]
    for entry in given:
        if entry not in names:
            raise InputError(f"{entry}: unknown entry; there are {', '.join(names)}")
    for entry in ("notebook", "search", "objective"):
        if not given.get(entry):
            raise InputError(f"{entry}: is missing; a sweep needs notebook, search and objective")
    if isinstance(given["notebook"], int):
        raise InputError(f"notebook={given['notebook']}: must be text, and a number stands in quotes")
    asked = Entries(**given)
    plan = plan_run(find_notebook(asked.notebook), asked.fixed, asked.profile)
    search = {each: _distribution(each, space, plan.parameters) for each, space in asked.search.items()}
    if asked.seeds > 1 and all(parameter.name != "seed" for parameter in plan.parameters):
        raise InputError(f"seeds={asked.seeds}: the notebook has no parameter `seed`; leave seeds out")
    if asked.seeds > 1 and asked.pruner != "none":
        raise InputError(
            f"pruner={asked.pruner}: needs one seed per point, since it judges single runs; leave seeds out"
        )
    if asked.pruner != "none" and not plan.uses("report_progress"):
        raise InputError(f"pruner={asked.pruner}: judges by progress, and {plan.path.name} never calls report_progress")
    if asked.sampler != "grid" and asked.runs is None and asked.minutes is None:
        raise InputError(f"sampler={asked.sampler}: needs a budget; give runs or minutes")
    sweep = Sweep(
        name=name,
        plan=plan,
        search=search,
        objective=_objective(asked.objective),
        sampler=asked.sampler,
        pruner=asked.pruner,
        points=None if asked.runs is None else asked.runs // asked.seeds,
        minutes=asked.minutes,
        seeds=asked.seeds,
        timeout=asked.timeout,
        seed=asked.seed,
        warm=asked.warm,
    )
    if asked.sampler == "grid":
        sweep.grid()  # refuses what cannot be listed
    return sweep


def _objective(given: dict[str, Any]) -> Objective:
    if not {"record", "direction"} <= given.keys() <= {each.name for each in fields(Objective)}:
        raise InputError(
            f"objective: needs record and direction, and may have column and where; found {', '.join(given)}"
        )
    return Objective(**given)


def _distribution(name: str, space: Any, parameters: list[Parameter]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(space, list) and space:
        return CategoricalDistribution([as_choice(check(parameters, {name: value})[name]) for value in space])
    if not isinstance(space, dict) or not {"low", "high"} <= space.keys() <= {"low", "high", "log", "step"}:
        raise InputError(f"search.{name}: must be a list of choices, or low and high with log or step")
    ends = [check(parameters, {name: space[end]})[name] for end in ("low", "high")]
    [declared] = [parameter.type for parameter in parameters if parameter.name == name]
    if declared.item not in (int, float) or declared.many:
        raise InputError(f"search.{name}: is {declared}, which has no range; give a list of choices")
    options = {key: space[key] for key in ("log", "step") if key in space}
    try:
        return (IntDistribution if declared.item is int else FloatDistribution)(*ends, **options)
    except ValueError as error:
        raise InputError(f"search.{name}: {error}") from error


def as_choice(value: Any) -> Any:
    """Optuna takes plain choices only; lists go as text, which is read by the parameter's type."""
    return str(value) if isinstance(value, list) else value


def _values(distribution: "BaseDistribution") -> list[Any]:
    """All values of a choice or of a range with steps."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if distribution.step is None or distribution.log:
        raise InputError("search: a grid needs choices or ranges with a step; list the values")
    count = round((distribution.high - distribution.low) / distribution.step)
    return [distribution.low + i * distribution.step for i in range(count + 1)]
