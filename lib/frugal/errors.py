"""The ways in which a request can fail without a defect in the program.

Each carries one sentence for the user: what was wrong with which value, what was expected, what to do.
"""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any


class FrugalError(Exception):
    """Base of the errors that the command line shows as one sentence, without a traceback."""


class InputError(FrugalError, ValueError):
    """What the user gave cannot be used: a wrong name, type, range, or an unusable text.

    >>> isinstance(InputError("size=0: must be at least 1"), ValueError)
    True
    """


class DivergedError(InputError):
    """A loss, gradient, weight, validation or state is not finite any more: the data or settings are unusable."""


class UnavailableError(FrugalError, OSError):
    """Something outside is missing: no network, no cached copy, a damaged download, a full disk."""


def check_whole(least: int = 1, **values: Any) -> None:
    """Raise InputError unless all of these are whole numbers of at least `least`.

    >>> check_whole(batch_size=1.5)
    Traceback (most recent call last):
    frugal.errors.InputError: batch_size=1.5: must be a whole number of at least 1
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise InputError(f"{name}={value!r}: must be a whole number of at least {least}")


def is_number(value: Any) -> bool:
    """Whether a value is one real number: no truth value, text, tensor or list, and not NaN."""
    return isinstance(value, Real) and not isinstance(value, bool) and value == value


def check_number(**values: Any) -> None:
    """Raise InputError unless each of these is one number of any size.

    >>> check_number(alpha="a")
    Traceback (most recent call last):
    frugal.errors.InputError: alpha='a': must be a number
    """
    for name, value in values.items():
        if not is_number(value):
            raise InputError(f"{name}={value!r}: must be a number")


def check_positive(hint: str, /, **values: Any) -> None:
    """Raise InputError unless each of these is a number above zero, and finite; the hint says what is usual.

    >>> check_positive("0.7 to 1.5 is usual", temperature=0)
    Traceback (most recent call last):
    frugal.errors.InputError: temperature=0: must be positive; 0.7 to 1.5 is usual
    """
    for name, value in values.items():
        if not (is_number(value) and 0 < value < math.inf):
            raise InputError(f"{name}={value!r}: {_plain(value)}must be positive; {hint}")


def check_not_negative(hint: str, /, **values: Any) -> None:
    """Raise InputError unless each of these is a number of at least zero, and finite; the hint says what is usual."""
    for name, value in values.items():
        if not (is_number(value) and 0 <= value < math.inf):
            raise InputError(f"{name}={value!r}: {_plain(value)}must not be negative; {hint}")


def _plain(value: Any) -> str:
    return "" if isinstance(value, Real) else "must be one plain number, and "


def check_is(kind: type, **values: object) -> None:
    """Raise InputError unless each of these is an object of this class."""
    for name, value in values.items():
        if not isinstance(value, kind):
            raise InputError(f"{name} of type {type(value).__name__}: must be a {kind.__name__}")


def check_list(check: Callable[..., None], least: int = 1, /, **lists: Any) -> None:
    """Raise InputError unless each of these is a list, tuple or array of at least so many values that pass a check.

    >>> check_list(check_whole, delays=5)
    Traceback (most recent call last):
    frugal.errors.InputError: delays=5: must be a list of at least 1 numbers
    """
    for name, given in lists.items():
        values = given.tolist() if getattr(given, "ndim", 0) == 1 else given  # an array or tensor
        if isinstance(values, str) or not isinstance(values, Sequence) or len(values) < least:
            raise InputError(f"{name}={values!r}: must be a list of at least {least} numbers")
        for value in values:
            check(**{name: value})
