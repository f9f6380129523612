"""How a training goes on: what all families' plans have in common."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from frugal.errors import InputError, check_positive

# By the type that a field is said to have: what is taken for it, and what it is called.
FIELDS: dict[Any, tuple[Any, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    bool: ((bool, np.bool_), "True or False"),
    str: (str, "a text"),
    dict: (Mapping, "values by their names"),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a model is trained. Families add what only they have, and have defaults of their own.

    Attributes:
        epochs: most passes over the training examples.
        learning_rate: the optimiser's highest.
        batch_size: examples per step.
        patience: epochs without a better score after which training stops early; None never stops it.
        seconds: most processor seconds in all; None sets no limit. The result then depends on the machine.
        seed: of the order of the examples, and of what else is drawn. What an epoch draws follows from the seed and
            the epoch's number, so that a resumed training ends as if it had never been interrupted.

    Raises:
        InputError: a value that no training can have.

    >>> Plan(epochs=3, patience=1).epochs
    3
    """

    epochs: int = 8
    learning_rate: float = 1e-3
    batch_size: int = 64
    patience: int | None = None
    seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("epochs", "batch_size", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value}: must be at least 1")
        check_positive("typical values: 1e-4 to 1e-2", learning_rate=self.learning_rate)
        if self.seconds is not None:
            check_positive("None sets no limit", seconds=self.seconds)
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed={self.seed}: must lie in 0 to {2**32 - 1}")


def check_plan(plan: Any, kind: type[Plan]) -> None:
    """Raise InputError unless a plan is of this kind.

    >>> check_plan(Plan(), Plan)
    >>> check_plan(None, Plan)
    Traceback (most recent call last):
    frugal.errors.InputError: plan: must be a Plan, not a NoneType
    """
    if not isinstance(plan, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise InputError(f"plan: must be {article} {kind.__name__}, not a {type(plan).__name__}")


def check_fields(part: Any) -> None:
    """Give each field of a dataclass its value in the type that it is declared with, also where that is frozen.

    Raises:
        InputError: a value is of another type, not among the choices, or not finite.

    >>> plan = Plan(epochs=np.int64(3), seconds=60)
    >>> plan.epochs, plan.seconds
    (3, 60.0)
    """
    kinds = get_type_hints(type(part))
    for field in fields(part):
        object.__setattr__(part, field.name, _checked(field.name, getattr(part, field.name), kinds[field.name]))


def _checked(name: str, value: Any, kind: Any) -> Any:
    """The value as its type has it; numbers of NumPy become Python's, which JSON can hold."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if value is None and NoneType in kinds:
        return None
    [kind] = [kind for kind in kinds if kind is not NoneType]
    plain = get_origin(kind) or kind
    if plain is Literal:
        if value not in get_args(kind):
            raise InputError(f"{name}={value!r}: must be one of {', '.join(map(repr, get_args(kind)))}")
        return value
    if plain is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_checked(name, item, get_args(kind)[0]) for item in items)
    expected, words = FIELDS[plain]
    if not isinstance(value, expected) or (isinstance(value, bool) and plain is not bool):
        raise InputError(f"{name}={value!r}: must be {words}")
    if plain is float and not math.isfinite(value):
        raise InputError(f"{name}={value}: must be finite")
    return plain(value)
