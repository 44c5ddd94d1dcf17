"""What decides the figures of an evaluation; light, so that the command line can read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tiepoint.config import Rotation
from tiepoint.errors import ConfigError

GENERATED_COUNT = 1000
"""Pairs in the full generated set."""

GENERATED_SEED = 2026
"""Frozen with `generated.LEVELS`: other seeds make other pairs."""

Part = Literal["development", "training", "all"]
PARTS: tuple[Part, ...] = get_args(Part)
"""Parts of the photographs; see `generated.part_of`."""

METHODS = ("tiepoint", "sift", "orb")
"""Methods of a run unless others are named; `tiepoint` stands for every checkpoint given."""


@dataclass(frozen=True)
class Settings:
    """What decides the figures, methods and pairs apart.

    Attributes:
        k: Points matched per image, the best of each method.
        long_side: Images are brought down to this many px before any method sees them.
        seeds: Homographies estimated per pair, each from another order of the matches; the
            pair's error is their median.
        within_px: Shares of pairs with an error up to these are reported.
        accuracy_px: Shares of matches that are right within these are reported.
        repeat_px: A point this near is the same point.
        correct_px: A match this near the truth is correct.
        rotation: "auto" lets matching turn images, where a checkpoint can; "none" compares the
            methods as they stand.
    """

    k: int = 1000
    long_side: int = 640
    seeds: int = 3
    within_px: tuple[float, ...] = (1.0, 3.0, 5.0, 10.0)
    accuracy_px: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)
    repeat_px: float = 3.0
    correct_px: float = 3.0
    rotation: Rotation = "none"

    def __post_init__(self) -> None:
        _require_counts(self)


@dataclass(frozen=True)
class PoseSettings:
    """What decides the figures of poses, methods and pairs apart.

    Attributes:
        k: Points matched per image, the best of each method.
        long_side: Images are brought down to this many px before any method sees them.
        seeds: Poses estimated per pair, each from another order of the matches; the pair's error
            is their median.
        auc_deg: Areas under the curve up to these are reported.
        inlier_px: From the epipolar lines; the consensus is looked for with half of it.
        correct_px: A match this near the true epipolar lines is correct.
        rotation: As in `Settings`.
    """

    k: int = 2000
    long_side: int = 1024
    seeds: int = 3
    auc_deg: tuple[float, ...] = (5.0, 10.0, 20.0)
    inlier_px: float = 1.0
    correct_px: float = 2.0
    rotation: Rotation = "none"

    def __post_init__(self) -> None:
        _require_counts(self)


def _require_counts(settings: Settings | PoseSettings) -> None:
    for name, unit in (("k", "points"), ("long_side", "px"), ("seeds", "estimates")):
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} is {value!r}, expected a whole number >= 1 ({unit})")
