"""Checks of settings. Each raises `ConfigError` with the name, the value and the expectation."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable
from numbers import Integral, Real

from tiepoint.errors import ConfigError

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 20


def check_whole(
    name: str, value: object, *, minimum: int, unit: str, maximum: int | None = None
) -> None:
    """Require a whole number in `minimum`..`maximum`; booleans are refused."""
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or not value >= minimum:  # type: ignore[operator]
        raise ConfigError(
            f"{name} is {shown(value)}, expected a whole number >= {minimum} ({unit})"
        )
    if maximum is not None and value > maximum:  # type: ignore[operator]
        raise ConfigError(
            f"{name} is {shown(value)}, expected a whole number up to {maximum} ({unit})"
        )


def check_within(name: str, value: object, low: float, high: float, unit: str) -> None:
    """Require a number in low..high, both included; NaN and booleans are refused."""
    if not is_number(value) or not low <= value <= high:  # type: ignore[operator]
        raise ConfigError(f"{name} is {shown(value)}, expected {unit} in {low:g}..{high:g}")


def check_positive(name: str, value: object, *, finite: bool = False) -> None:
    """Require a number above 0; `finite` refuses infinity and what float64 cannot hold."""
    if not is_number(value) or not value > 0 or (finite and not _is_finite(value)):  # type: ignore[operator]
        raise ConfigError(f"{name} is {shown(value)}, expected a number above 0")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Require one of several strings."""
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        raise ConfigError(f"{name} is {shown(value)}, expected one of {', '.join(known)}")


def check_known(names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names of options that do not exist."""
    known = list(known)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ConfigError(f"unknown option {', '.join(unknown)}; there are {', '.join(known)}")


def shown(value: object) -> str:
    """A value for an error, cut to a readable length, because files of others hold any."""
    return _SHORT.repr(value)


def is_number(value: object) -> bool:
    """Whether a value is a real number, of Python or NumPy, and no boolean."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    try:
        return math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:  # a whole number beyond float64
        return False
