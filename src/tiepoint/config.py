"""Settings: what can be set, with default, unit and range. They refuse nonsense at birth.

The text of a field is its `--help` on the command line too. Functions that take settings take a
config, and single settings by keyword, which replace those of the config: see `resolve`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypedDict, TypeVar, get_args

from tiepoint.checks import (
    check_choice,
    check_known,
    check_positive,
    check_whole,
    check_within,
    is_number,
)
from tiepoint.errors import ConfigError

EngineName = Literal["auto", "openvino", "torch"]
Precision = Literal["auto", "f32", "bf16", "f16", "int8"]
DeviceName = Literal["auto", "cpu", "cuda", "cuda:0", "cuda:1", "cuda:2", "cuda:3", "mps"]
"""Further GPUs are "cuda:N" too; a type can list only some of them."""

DescriptorSampling = Literal["exact", "superpoint"]
"""How descriptors are sampled from the dense map; stored with the weights."""

RotationMode = Literal["auto", "none"]
MatchScore = Literal["cosine", "dual-softmax"]
PoseSearch = Literal["opencv", "poselib"]
Model = Literal[
    "homography", "affine", "similarity", "translation", "fundamental", "essential"
]  # fmt: skip

MIN_TEMPERATURE = 1e-3
"""Cosines are known to 6e-8; below this temperature only the best of a row counts."""

MAX_SCALE = 2
"""Enlarging an image further shows the network nothing new."""

Value = TypeVar("Value")
Config = TypeVar(
    "Config", "ProcessorConfig", "DetectionConfig", "MatchingConfig", "RegistrationConfig"
)


def setting(default: Value, text: str, *, metavar: str | None = None) -> Value:
    """A field of a config: its default and its text, which is its `--help` too.

    Args:
        metavar: Placeholder of the value on the command line, such as PX.
    """
    described: Value = field(default=default, metadata={"help": text, "metavar": metavar})
    return described


def resolve(config: Config, overrides: Mapping[str, Any]) -> Config:
    """A config with single settings replaced; NumPy scalars become Python numbers.

    Raises:
        ConfigError: An unknown setting, or one out of range.
    """
    import numpy as np  # here, because `tiepoint --help` reads the configs too

    check_known(overrides, [f.name for f in fields(config)])
    plain = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in overrides.items()
    }
    return replace(config, **plain)


@dataclass(frozen=True)
class ProcessorConfig:
    """How an image becomes the input of the network."""

    max_side: int | None = setting(
        1024,
        "Longer side in px to which images are downscaled before detection; "
        "None keeps the native size. Images are never enlarged to it.",
        metavar="PX",
    )

    def __post_init__(self) -> None:
        if self.max_side is not None:
            check_whole("max_side", self.max_side, minimum=1, unit="px, or None for native size")


@dataclass(frozen=True)
class DetectionConfig:
    """What becomes a keypoint. Distances are in px of the network's input."""

    threshold: float = setting(
        0.005, "Minimum score, a probability in 0..1; keypoints must exceed it.", metavar="P"
    )
    max_keypoints: int | None = setting(
        None, "Maximum number of keypoints per image, best first; None keeps all.", metavar="N"
    )
    nms_radius: int = setting(
        4,
        "NMS radius: minimum distance in x or y between keypoints of one scale, px.",
        metavar="PX",
    )
    border: int = setting(4, "Margin without keypoints along all four sides, px.", metavar="PX")
    subpixel: bool = setting(
        True, "Sub-pixel refinement, within half the NMS radius; False returns whole pixels."
    )
    descriptors: bool = setting(True, "Compute descriptors.")
    covariance_scale: float | None = setting(
        None,
        "Variance of a position per unit of the heat map's second moment around it, as "
        "`tiepoint calibrate` estimates it; None returns no covariances.",
    )
    spread: bool = setting(
        False,
        "Spread max_keypoints evenly over the image, at one scale: the NMS radius grows as far as "
        "it leaves that many.",
    )
    scales: tuple[float, ...] = setting(
        (1.0,),
        "Scales at which the network sees the image, relative to the size that max_side leaves, "
        f"up to {MAX_SCALE}. Several make a pyramid, for images that differ in zoom.",
        metavar="S,S,...",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", _scales(self.scales))
        check_within("threshold", self.threshold, 0, 1, "a probability")
        if self.max_keypoints is not None:
            unit = "keypoints, or None for all"
            check_whole("max_keypoints", self.max_keypoints, minimum=1, unit=unit)
        if self.covariance_scale is not None:
            check_positive("covariance_scale", self.covariance_scale, finite=True)
        check_whole("nms_radius", self.nms_radius, minimum=0, unit="px")
        check_whole("border", self.border, minimum=0, unit="px")
        if self.spread and self.max_keypoints is None:
            raise ConfigError("spread needs max_keypoints: how many points to spread")
        if self.spread and len(self.scales) > 1:
            raise ConfigError(f"spread goes with one scale, got scales {self.scales}")


def _scales(scales: object) -> tuple[float, ...]:
    if isinstance(scales, str) or not isinstance(scales, Iterable):
        raise ConfigError(f"scales is {scales!r}, expected a list of numbers such as (1, 0.5)")
    given: tuple[Any, ...] = tuple(scales)
    for scale in given:
        if not is_number(scale) or not 0 < scale <= MAX_SCALE:
            raise ConfigError(
                f"scales holds {scale!r}, expected numbers above 0, up to {MAX_SCALE}"
            )
    if not given or len(set(given)) < len(given):
        raise ConfigError(f"scales is {given}, expected at least one and none twice")
    return tuple(float(scale) for scale in given)


@dataclass(frozen=True)
class MatchingConfig:
    """Which nearest neighbours become matches."""

    mutual: bool = setting(
        True,
        "Keep mutual nearest neighbours only; False also keeps one-sided nearest neighbours of A.",
    )
    ratio: float | None = setting(
        None,
        "Lowe's ratio test, 0..1: maximum distance to the nearest neighbour relative to the second "
        "nearest; 0.8 in his paper. Cosine only.",
        metavar="R",
    )
    min_similarity: float | None = setting(
        None, "Minimum cosine similarity, -1..1.", metavar="C"
    )  # fmt: skip
    scores: MatchScore = setting(
        "cosine",
        "What is compared: the cosine, or the dual soft-max, the probability that two keypoints "
        "choose each other.",
    )
    temperature: float = setting(
        # As in DeDoDe (3DV 2024), which has unit descriptors too.
        0.05,
        "Soft-max temperature; lower is more selective. Dual soft-max only.",
        metavar="T",
    )
    min_probability: float | None = setting(
        None, "Minimum probability, 0..1. Dual soft-max only.", metavar="P"
    )
    rotation: RotationMode = setting(
        "auto",
        "'auto' also tries A rotated in steps of 45 degrees, if the checkpoint has a rotation "
        "matrix; 'none' does not.",
    )

    def __post_init__(self) -> None:
        check_choice("rotation", self.rotation, get_args(RotationMode))
        check_choice("scores", self.scores, get_args(MatchScore))
        if self.ratio is not None:
            check_within("ratio", self.ratio, 0, 1, "a share of the second distance")
        if self.ratio == 0:
            raise ConfigError("ratio is 0, which no two keypoints pass; 0.8 is Lowe's own")
        if self.min_similarity is not None:
            check_within("min_similarity", self.min_similarity, -1, 1, "a cosine")
        if self.min_probability is not None:
            check_within("min_probability", self.min_probability, 0, 1, "a probability")
        check_within("temperature", self.temperature, MIN_TEMPERATURE, 1000, "a temperature")
        if self.scores == "cosine" and self.min_probability is not None:
            raise ConfigError(
                "min_probability goes with scores='dual-softmax'; for cosines give min_similarity"
            )
        if self.scores == "dual-softmax" and self.ratio is not None:
            raise ConfigError(
                "ratio goes with scores='cosine'; the soft-max weighs the other neighbours itself: "
                "give min_probability"
            )


@dataclass(frozen=True)
class RegistrationConfig:
    """How two images are registered, and what a result must fulfil.

    The limits are chosen on pairs of unrelated photographs and on pairs with known truth
    (benchmarks/registration.py). Distances are in px of the network's input, so that a photograph
    of four times the detector's `max_side` is given four times as many px.
    """

    model: Model = setting(
        "homography",
        "Geometric model: homography for planes and rotating cameras, affine, similarity, "
        "translation; fundamental, essential for two views of a scene with depth.",
    )
    max_keypoints: int = setting(
        1000, "Maximum number of keypoints per image, best first.", metavar="N"
    )
    threshold_px: float | None = setting(
        None,
        "Inlier threshold: maximum distance from the model, px; None takes the model's own.",
        metavar="PX",
    )
    min_inliers: int = setting(15, "Minimum number of inliers.", metavar="N")
    max_false_alarms: float = setting(
        # A contrario: Moisan and Stival (IJCV 2004).
        1e-8,
        "Maximum number of false alarms (NFA): equally good models expected if every match were "
        "random.",
    )
    max_overlap_sd_px: float = setting(
        1.5, "Maximum standard deviation of the model over the common view, px.", metavar="PX"
    )
    guided: bool = setting(
        True,
        "Match again near the model and refit (plane models, when `register` matches itself).",
    )
    pose_search: PoseSearch = setting(
        "opencv", "Solver of the essential matrix; poselib needs the extra `pose`."
    )
    seed: int = setting(0, "Seed of the robust estimation.", metavar="N")

    def __post_init__(self) -> None:
        check_choice("model", self.model, get_args(Model))
        check_choice("pose_search", self.pose_search, get_args(PoseSearch))
        check_whole("max_keypoints", self.max_keypoints, minimum=1, unit="keypoints")
        check_whole("min_inliers", self.min_inliers, minimum=1, unit="matches")
        check_whole("seed", self.seed, minimum=0, unit="any number")
        check_positive("max_false_alarms", self.max_false_alarms)
        check_positive("max_overlap_sd_px", self.max_overlap_sd_px)
        if self.threshold_px is not None:
            check_positive("threshold_px", self.threshold_px)


class DetectionOptions(TypedDict, total=False):
    """Settings of `ProcessorConfig` and `DetectionConfig` by keyword.

    A setting left out is the detector's, and there the checkpoint's; None is a value like others.
    """

    max_side: int | None
    threshold: float
    max_keypoints: int | None
    nms_radius: int
    border: int
    subpixel: bool
    descriptors: bool
    covariance_scale: float | None
    spread: bool
    scales: Sequence[float]


class MatchingOptions(TypedDict, total=False):
    """Settings of `MatchingConfig` by keyword."""

    mutual: bool
    ratio: float | None
    min_similarity: float | None
    scores: MatchScore
    temperature: float
    min_probability: float | None
    rotation: RotationMode


class RegistrationOptions(TypedDict, total=False):
    """Settings of `RegistrationConfig` by keyword."""

    model: Model
    max_keypoints: int
    threshold_px: float | None
    min_inliers: int
    max_false_alarms: float
    max_overlap_sd_px: float
    guided: bool
    pose_search: PoseSearch
    seed: int
