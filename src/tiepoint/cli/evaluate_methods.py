"""The methods that `tiepoint evaluate --methods` names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tiepoint.config import DetectionOptions, MatchMethod
from tiepoint.errors import ConfigError

if TYPE_CHECKING:
    from tiepoint.evaluation.methods import Method

OF_CHECKPOINTS: dict[str, MatchMethod] = {"tiepoint": "nearest", "learned": "learned"}
"""Names of methods with a row for each --checkpoint, and how that is matched."""


def chosen_methods(
    names: str,
    checkpoints: Sequence[str],
    detection: DetectionOptions,
    stored: Sequence[str] = (),
    nms_radius: int | None = None,
    *,
    matcher: str | None = None,
    layers: int | None = None,
    threads: int | None,
) -> list[Method]:
    """The methods, those of the checkpoints side by side.

    Args:
        names: Value of --methods, separated by commas.
        stored: Values of --features.
        nms_radius: Radius of a profile, px.
        matcher, layers: Learned matcher, and the number of its layers that run.

    Raises:
        ConfigError: An unknown name, or a matcher without the method that it is for.
    """
    from tiepoint.evaluation.methods import checkpoint_methods, method, stored_method

    listed = _listed(names)
    given = {"--matcher": matcher, "--layers": layers}
    unused = [option for option, value in given.items() if value is not None]
    if unused and "learned" not in listed:
        raise ConfigError(f"{', '.join(unused)} needs 'learned' among --methods, got {names!r}")
    if nms_radius is not None:
        detection = {**detection, "nms_radius": nms_radius}
    matching = [OF_CHECKPOINTS[name] for name in listed if name in OF_CHECKPOINTS]
    chosen: list[Method] = []
    for name in listed:
        if name not in OF_CHECKPOINTS:
            chosen.append(method(name))
        elif OF_CHECKPOINTS[name] == matching[0]:  # the others are beside it
            chosen += checkpoint_methods(
                checkpoints, matching=matching, matcher=matcher, layers=layers, threads=threads,
                **detection,
            )  # fmt: skip
    return [*chosen, *map(stored_method, stored)]


def check_times_detection(names: str) -> None:
    """Refuse a method that differs from another in its matching only."""
    if "learned" in _listed(names):
        raise ConfigError(
            "--methods names 'learned', and speed times detection only: leave it out, or time "
            "pairs by benchmarks/pairs.py"
        )


def _listed(names: str) -> list[str]:
    return [name for name in map(str.strip, names.split(",")) if name]
