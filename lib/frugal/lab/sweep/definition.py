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
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

import yaml

from frugal.errors import InputError
from frugal.lab.run.execution import Plan, plan_run
from frugal.lab.run.parameters import Parameter, check

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


ENTRIES: dict[str, Any] = {
    "notebook": str,
    "profile": str,
    "fixed": dict,
    "search": dict,
    "objective": dict,
    "sampler": str,
    "pruner": str,
    "runs": int,
    "minutes": (int, float),
    "seeds": int,
    "timeout": (int, float),
    "seed": int,
    "warm": bool,
}
WANTED: dict[Any, str] = {
    str: "text, and a number stands in quotes",
    dict: "names with values",
    int: "a whole number",
    (int, float): "a number",
    bool: "true or false",
}


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
    for entry, value in given.items():
        if entry not in ENTRIES:
            raise InputError(f"{entry}: unknown entry; there are {', '.join(ENTRIES)}")
        if not isinstance(value, ENTRIES[entry]) or isinstance(value, bool) != (ENTRIES[entry] is bool):
            raise InputError(f"{entry}={value!r}: must be {WANTED[ENTRIES[entry]]}")
    for entry in ("notebook", "search", "objective"):
        if not given.get(entry):
            raise InputError(f"{entry}: is missing; a sweep needs notebook, search and objective")
    for entry in ("runs", "seeds", "minutes", "timeout"):
        if entry in given and given[entry] <= 0:
            raise InputError(f"{entry}={given[entry]}: must be positive")
    plan = plan_run(find_notebook(given["notebook"]), given.get("fixed", {}), given.get("profile", "default"))
    search = {each: _distribution(each, space, plan.parameters) for each, space in given["search"].items()}
    sampler = _one_of("sampler", given.get("sampler", "grid"), Sampler)
    pruner = _one_of("pruner", given.get("pruner", "none"), Pruner)
    seeds = given.get("seeds", 1)
    if seeds > 1 and all(parameter.name != "seed" for parameter in plan.parameters):
        raise InputError(f"seeds={seeds}: the notebook has no parameter `seed`; leave seeds out")
    if seeds > 1 and pruner != "none":
        raise InputError(f"pruner={pruner}: needs one seed per point, since it judges single runs; leave seeds out")
    if pruner != "none" and not plan.uses("report_progress"):
        raise InputError(f"pruner={pruner}: judges by progress, and {plan.path.name} never calls report_progress")
    if sampler != "grid" and "runs" not in given and "minutes" not in given:
        raise InputError(f"sampler={sampler}: needs a budget; give runs or minutes")
    sweep = Sweep(
        name=name,
        plan=plan,
        search=search,
        objective=_objective(given["objective"]),
        sampler=sampler,
        pruner=pruner,
        points=given["runs"] // seeds if "runs" in given else None,
        minutes=given.get("minutes"),
        seeds=seeds,
        timeout=given.get("timeout"),
        seed=given.get("seed", 0),
        warm=given.get("warm", True),
    )
    if sampler == "grid":
        sweep.grid()  # refuses what cannot be listed
    return sweep


def _one_of(entry: str, value: str, kind: Any) -> Any:
    if value not in get_args(kind):
        raise InputError(f"{entry}={value!r}: must be one of {', '.join(get_args(kind))}")
    return value


def _objective(given: dict[str, Any]) -> Objective:
    names = [each.name for each in fields(Objective)]
    unknown = [name for name in given if name not in names]
    if unknown or not {"record", "direction"} <= given.keys():
        raise InputError(
            f"objective: needs record and direction, and may have column and where; found {', '.join(given)}"
        )
    _one_of("direction", given["direction"], get_type_hints(Objective)["direction"])
    return Objective(**given)


def _distribution(name: str, space: Any, parameters: list[Parameter]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(space, list) and space:
        values = [check(parameters, {name: value})[name] for value in space]
        # Optuna takes plain choices only; lists go as text, which is read by the parameter's type.
        return CategoricalDistribution([str(value) if isinstance(value, list) else value for value in values])
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
