"""Values of JSON as texts of a report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

UNKNOWN = "–"


def number(value: Any, digits: int = 2) -> str:
    """A number with this many decimals; a dash for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.{digits}f}"


def percent(value: Any) -> str:
    """A share as a percentage."""
    shown = number(100 * value, 0) if isinstance(value, int | float) else UNKNOWN
    return shown if shown == UNKNOWN else f"{shown} %"


def mean(value: Any, digits: int = 2) -> str:
    """A mean, its interval on a second line."""
    if not isinstance(value, Mapping):
        return number(value, digits)
    middle, low, high = (number(value.get(name), digits) for name in ("mean", "low", "high"))
    return middle if UNKNOWN in (low, high) else f"{middle}\n{low} – {high}"


def text(value: Any) -> str:
    """Any value: texts as they are, others as JSON."""
    if isinstance(value, str):
        return value
    return UNKNOWN if value is None else json.dumps(value, ensure_ascii=False)


def listed(values: Mapping[str, Any]) -> str:
    """Names and values in one line."""
    return ", ".join(f"{name} {text(value)}" for name, value in values.items())


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Names and texts of an object, the names of nested ones joined by dots."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", text(value)))
    return rows
