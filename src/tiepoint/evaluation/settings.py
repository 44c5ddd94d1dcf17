"""What decides the figures of an evaluation; light, so that the command line can read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from tiepoint.config import RotationMode
from tiepoint.errors import ConfigError

GENERATED_COUNT = 1000
"""Pairs in the full generated set."""

GENERATED_SEED = 2026
"""Frozen with `generated.LEVELS`: other seeds make other pairs."""

METHODS = ("tiepoint", "sift", "orb")
"""Methods of a run unless others are named; `tiepoint` stands for every checkpoint given."""


def _require_count(name: str, value: object, unit: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is {value!r}, expected a whole number >= 1 ({unit})")


Estimator = Literal["refined", "ransac", "poselib"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


@dataclass(frozen=True)
class Frame:
    """The size at which images are compared; one of three ways.

    Attributes:
        long_side: The longer side is brought down to so many px; smaller images stay.
        short_side: The shorter side is brought to so many px, up or down.
        crop_hw: The image is brought to the least size that covers (height, width), and its
            middle is cut out.
    """

    long_side: int | None = None
    short_side: int | None = None
    crop_hw: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        ways = [self.long_side, self.short_side, self.crop_hw]
        if sum(way is not None for way in ways) != 1:
            raise ConfigError(f"a frame of {ways}, expected one of long_side, short_side, crop_hw")
        for name, value in (("long_side", self.long_side), ("short_side", self.short_side)):
            if value is not None:
                _require_count(name, value, "px")
        for side in self.crop_hw or ():
            _require_count("crop_hw", side, "px")

    def __str__(self) -> str:
        if self.crop_hw is not None:
            return f"{self.crop_hw[1]}x{self.crop_hw[0]} px cut out"
        named, px = ("long", self.long_side) if self.long_side else ("short", self.short_side)
        return f"{named} side {px} px"


@dataclass(frozen=True)
class Settings:
    """What decides the figures, methods and pairs apart.

    Attributes:
        k: Points matched per image, the best of each method.
        frame: Images are brought to this size before any method sees them.
        seeds: Homographies estimated per pair, each from another order of the matches; the
            pair's error is their median.
        within_px: Shares of pairs with an error up to these are reported.
        accuracy_px: Shares of matches that are right within these are reported.
        repeat_px: A point this near is the same point.
        correct_px: A match this near the truth is correct.
        rotation: "auto" lets matching turn images, where a checkpoint can; "none" compares the
            methods as they stand.
        estimator: "refined" is MAGSAC and robust least squares, as `register` does it; "ransac"
            is OpenCV's RANSAC; "poselib" is PoseLib's LO-RANSAC (extra `pose`).
        estimator_px: The estimator's threshold.
        repeat_frame: Repeatability is measured at this size instead; None keeps `frame`.
        repeat_k: And with so many points; None keeps `k`.
        nms_radius: Of tiepoint's checkpoints, px; None keeps their own. Whoever makes the methods
            follows it: see `methods.checkpoint_methods`.
        without_large: Leave out the eight HPatches sequences of large images that many papers
            leave out (`LARGE_SEQUENCES`). Whoever lists the pairs follows it: see
            `pairs.without_large`.
    """

    k: int = 1000
    frame: Frame = Frame(long_side=640)
    seeds: int = 3
    within_px: tuple[float, ...] = (1.0, 3.0, 5.0, 10.0)
    accuracy_px: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)
    repeat_px: float = 3.0
    correct_px: float = 3.0
    rotation: RotationMode = "none"
    estimator: Estimator = "refined"
    estimator_px: float = 1.5
    repeat_frame: Frame | None = None
    repeat_k: int | None = None
    nms_radius: int | None = None
    without_large: bool = False

    def __post_init__(self) -> None:
        _require_count("k", self.k, "points")
        _require_count("seeds", self.seeds, "estimates")
        if self.estimator not in ESTIMATORS:
            raise ConfigError(
                f"estimator is {self.estimator!r}, expected one of {', '.join(ESTIMATORS)}"
            )


PROFILES: Mapping[str, Settings] = {
    "tiepoint": Settings(),
    "classic": Settings(
        frame=Frame(crop_hw=(480, 640)),
        within_px=(1.0, 3.0, 5.0),
        estimator="ransac",
        estimator_px=3.0,
        repeat_frame=Frame(crop_hw=(240, 320)),
        repeat_k=300,
        nms_radius=4,
    ),
    "glue-factory": Settings(
        k=1024,
        frame=Frame(short_side=480),
        within_px=(1.0, 3.0, 5.0),
        estimator="poselib",
        estimator_px=1.0,
        nms_radius=3,
        without_large=True,
    ),
}
"""Named protocols: ours; HPatches as SuperPoint's paper (section 7) and rpautrat's code measure it,
all 116 sequences; HPatches as glue-factory does, 108 sequences. Both of the latter are followed in
what decides figures, by this harness: shuffled matches and the median of three seeds are ours."""

LARGE_SEQUENCES = frozenset(
    {
        "i_contruction", "i_crownnight", "i_dc", "i_pencils", "i_whitebuilding", "v_artisans",
        "v_astronautis", "v_talent",
    }
)  # fmt: skip
"""As HPatches spells them."""


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
    rotation: RotationMode = "none"

    def __post_init__(self) -> None:
        for name, unit in (("k", "points"), ("long_side", "px"), ("seeds", "estimates")):
            _require_count(name, getattr(self, name), unit)
