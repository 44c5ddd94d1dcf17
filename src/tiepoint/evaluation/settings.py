"""Settings and named protocols of an evaluation; imports no array library, for a quick `--help`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from tiepoint.checks import check_choice, check_positive, check_whole
from tiepoint.config import RotationMode, setting
from tiepoint.errors import ConfigError

GENERATED_COUNT = 1000
"""Pairs in the full generated set."""

GENERATED_SEED = 2026
"""Frozen with `generated.LEVELS`: other seeds make other pairs."""

METHODS = ("tiepoint", "sift", "orb")
"""Default methods of a run; `tiepoint` represents every checkpoint given."""

Estimator = Literal["refined", "ransac", "poselib"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


@dataclass(frozen=True)
class FrameSize:
    """The size at which images are compared, given in exactly one of three ways.

    Attributes:
        long_side: Longer side in px; larger images are downscaled to it, smaller ones are kept.
        short_side: Shorter side in px; images are downscaled or enlarged to it.
        crop_hw: (height, width) in px of a central crop of the image, which is first resized to
            the smallest size that covers it.
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
                check_whole(name, value, minimum=1, unit="px")
        for side in self.crop_hw or ():
            check_whole("crop_hw", side, minimum=1, unit="px")

    def __str__(self) -> str:
        if self.crop_hw is not None:
            return f"{self.crop_hw[1]}x{self.crop_hw[0]} px cut out"
        named, px = ("long", self.long_side) if self.long_side else ("short", self.short_side)
        return f"{named} side {px} px"


@dataclass(frozen=True)
class HomographySettings:
    """Settings of an evaluation by homographies.

    Attributes:
        k: Keypoints matched per image, the best of each method.
        frame: Size of the images that every method sees.
        seeds: Estimates per pair, each from another order of the matches; their median counts.
        within_px: Errors in px at which the share of pairs is reported.
        accuracy_px: Distances in px at which the share of correct matches is reported.
        repeat_px: Largest distance in px of a repeated keypoint from its true position.
        correct_px: Largest distance in px of a correct match from the truth.
        rotation: "auto" lets checkpoints rotate their descriptors; "none" compares all methods
            without it.
        estimator: "refined" is MAGSAC and robust least squares, as in `register`; "ransac" is
            OpenCV's RANSAC; "poselib" is PoseLib's LO-RANSAC (extra `pose`).
        estimator_px: The estimator's threshold in px.
        repeat_frame, repeat_k: `frame` and `k` for repeatability, where they differ.
        nms_radius: NMS radius in px for `methods.checkpoint_methods`; None means each
            checkpoint's own.
        without_large: Whether the eight `LARGE_SEQUENCES` of HPatches are left out, as in many
            papers; applied by `homography_pairs.without_large`.
    """

    k: int = 1000
    frame: FrameSize = FrameSize(long_side=640)
    seeds: int = 3
    within_px: tuple[float, ...] = (1.0, 3.0, 5.0, 10.0)
    accuracy_px: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)
    repeat_px: float = 3.0
    correct_px: float = 3.0
    rotation: RotationMode = "none"
    estimator: Estimator = "refined"
    estimator_px: float = 1.5
    repeat_frame: FrameSize | None = None
    repeat_k: int | None = None
    nms_radius: int | None = None
    without_large: bool = False

    def __post_init__(self) -> None:
        check_whole("k", self.k, minimum=1, unit="points")
        check_whole("seeds", self.seeds, minimum=1, unit="estimates")
        check_choice("estimator", self.estimator, ESTIMATORS)


PROFILES: Mapping[str, HomographySettings] = {
    "tiepoint": HomographySettings(),
    "classic": HomographySettings(
        frame=FrameSize(crop_hw=(480, 640)),
        within_px=(1.0, 3.0, 5.0),
        estimator="ransac",
        estimator_px=3.0,
        repeat_frame=FrameSize(crop_hw=(240, 320)),
        repeat_k=300,
        nms_radius=4,
    ),
    "glue-factory": HomographySettings(
        k=1024,
        frame=FrameSize(short_side=480),
        within_px=(1.0, 3.0, 5.0),
        estimator="poselib",
        estimator_px=1.0,
        nms_radius=3,
        without_large=True,
    ),
}
"""Named protocols: tiepoint's, and two in which HPatches is reported.

`classic` follows SuperPoint's paper (section 7) and rpautrat's code on all 116 sequences,
`glue-factory` that library on 108. Shuffled matches and the median of three seeds are ours."""

LARGE_SEQUENCES = frozenset(
    {"i_contruction", "i_crownnight", "i_dc", "i_pencils", "i_whitebuilding", "v_artisans",
     "v_astronautis", "v_talent"}
)  # fmt: skip
"""As HPatches spells them."""


@dataclass(frozen=True)
class PoseSettings:
    """Settings of an evaluation by relative poses.

    Attributes:
        k, seeds, rotation: As in `HomographySettings`.
        long_side: Longer side in px; larger images are downscaled to it for every method.
        auc_deg: Upper limits in degrees of the areas under the curve.
        inlier_px: Largest distance in px of an inlier from its epipolar line; the consensus
            search uses half of it.
        correct_px: Largest distance in px of a correct match from the true epipolar lines.
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
            check_whole(name, getattr(self, name), minimum=1, unit=unit)


@dataclass(frozen=True)
class StereoSettings:
    """Settings of an evaluation by disparities, as in `HomographySettings`."""

    k: int = 1000
    frame: FrameSize = FrameSize(long_side=640)

    def __post_init__(self) -> None:
        check_whole("k", self.k, minimum=1, unit="points")


COMPARED = ("base", "small", "large", "sift", "orb")
"""Default methods of a comparison: every bundled checkpoint, SIFT and ORB."""

LEARNED_SUFFIX = "+learned"
"""Ending of a checkpoint's name in a comparison that is matched by its learned matcher."""


@dataclass(frozen=True)
class CompareSettings:
    """Settings of a comparison of methods on one pair of images.

    Attributes:
        max_side: Longer side in px to which larger images are downscaled for every method; None
            keeps the native size.
        agree_px: Largest distance of two transforms that agree, px of the input; see
            `agreement.distance_px`.
        repeats: Timed repetitions after the first, untimed run; 0 measures no times.
    """

    max_side: int | None = 1024
    agree_px: float = setting(
        3.0,
        "Largest distance over the overlap of two transforms that agree, px of the input.",
        metavar="PX",
    )
    repeats: int = setting(3, "Timed runs of each method; 0 measures no times.", metavar="N")

    def __post_init__(self) -> None:
        if self.max_side is not None:
            check_whole("max_side", self.max_side, minimum=1, unit="px, or None for native size")
        check_positive("agree_px", self.agree_px)
        check_whole("repeats", self.repeats, minimum=0, unit="repetitions")
