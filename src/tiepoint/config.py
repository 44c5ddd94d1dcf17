"""Settings with default, unit and range. Each config checks its values when it is created.

The text of a field is also its `--help` on the command line, where `field` becomes `--field`.
Functions with settings take a config, and single settings by keyword that replace its values:
see `resolve`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypedDict, TypeVar, get_args

from tiepoint.architecture import PHASES
from tiepoint.checks import (
    check_choice,
    check_known,
    check_positive,
    check_whole,
    check_within,
    is_number,
    shown,
)
from tiepoint.errors import ConfigError

EngineName = Literal["auto", "openvino", "torch"]
Precision = Literal["auto", "f32", "bf16", "f16", "int8"]
DeviceName = Literal["auto", "cpu", "cuda", "cuda:0", "cuda:1", "cuda:2", "cuda:3", "mps"]
"""Every GPU "cuda:N" is accepted; a type can list only some of them."""

DescriptorSampling = Literal["exact", "superpoint"]
"""Rule for sampling descriptors from the dense map; stored with the weights."""

Contrast = Literal["auto", "none", "stretch"]
RotationMode = Literal["auto", "none"]
MatchScore = Literal["cosine", "dual-softmax"]
PoseSearch = Literal["opencv", "poselib"]
Model = Literal["homography", "affine", "similarity", "translation", "fundamental", "essential"]

MIN_TEMPERATURE = 1e-3
"""Cosines are exact to 6e-8; at lower temperatures only the best of a row counts."""

IN_CHECKPOINT = frozenset({
    "threshold", "max_keypoints", "nms_radius", "border", "covariance_scale", "scales",
    "noise_floor", "phases",
})  # fmt: skip
"""Settings of `DetectionConfig` that a checkpoint stores; a detector takes them as defaults."""

MAX_SCALE, MAX_SCALES = 2, 32
"""Further enlargement adds no information, and each scale runs the network once."""
MAX_RADIUS_PX, MAX_BORDER_PX = 1000, 1_000_000

Value = TypeVar("Value")
Config = TypeVar(
    "Config", "ProcessorConfig", "DetectionConfig", "MatchingConfig", "RegistrationConfig"
)


def setting(default: Value, text: str, *, metavar: str | None = None) -> Value:
    """A field of a config, with its default and its text.

    Args:
        text: Noun phrase or imperative that is complete without the field's name.
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
    """Conversion of an image into the network's input."""

    max_side: int | None = setting(
        1024,
        "Longer side in px to which larger images are downscaled before detection; "
        "None keeps the native size.",
        metavar="PX",
    )
    contrast: Contrast = setting(
        "auto",
        "Range of values that becomes black to white. 'auto': 8 bits as stored, and deeper or "
        "float images stretched to the range that they use, unless that is at least half of their "
        "type's; 'stretch': the range that any image uses; 'none': the range of the type, 0..1 for "
        "floats.",
    )

    def __post_init__(self) -> None:
        check_choice("contrast", self.contrast, get_args(Contrast))
        if self.max_side is not None:
            check_whole("max_side", self.max_side, minimum=1, unit="px, or None for native size")


@dataclass(frozen=True)
class DetectionConfig:
    """Selection of keypoints. Distances are in px of the network's input."""

    threshold: float = setting(
        0.005, "Score that a keypoint must exceed, a probability in 0..1.", metavar="P"
    )
    max_keypoints: int | None = setting(
        None, "Maximum number of keypoints per image, best first; None keeps all.", metavar="N"
    )
    nms_radius: int = setting(
        4,
        "NMS radius, px: keypoints of one scale differ by more than this in x or in y.",
        metavar="PX",
    )
    border: int = setting(4, "Width of the margin without keypoints, px.", metavar="PX")
    subpixel: bool = setting(True, "Refine positions to sub-pixels, within half the NMS radius.")
    descriptors: bool = setting(True, "Compute descriptors.")
    covariance_scale: float | None = setting(
        None,
        "Variance of a position per unit of the heat map's second moment around it, as "
        "`tiepoint calibrate` estimates it; None returns no covariances.",
        metavar="S",
    )
    spread: bool = setting(
        False,
        "Spread `max_keypoints` evenly over the image: the NMS radius is the largest that leaves "
        "that many keypoints. For one scale only.",
    )
    scales: tuple[float, ...] = setting(
        (1.0,),
        "Scales at which the network sees the image, relative to its size after `max_side`, up to "
        f"{MAX_SCALE}. Several form an image pyramid, for images that differ in zoom.",
        metavar="S,S,...",
    )
    phases: int = setting(
        1,
        "Number of cell phases that are averaged, 1, 2 or 4: grids of cells of 8 px, shifted by "
        "half a cell, so that results depend less on the grid.",
        metavar="N",
    )
    noise_floor: float = setting(
        0.0,
        "Score that images of noise alone reach, a probability in 0..1, as `tiepoint calibrate` "
        "measures it. A keypoint must exceed it whatever the threshold; 0 switches it off.",
        metavar="P",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", _scales(self.scales))
        check_within("threshold", self.threshold, 0, 1, "a probability")
        if type(self.phases) is not int or self.phases not in PHASES:
            raise ConfigError(f"phases is {shown(self.phases)}, expected 1, 2 or 4")
        check_within("noise_floor", self.noise_floor, 0, 1, "a probability")
        if self.max_keypoints is not None:
            unit = "keypoints, or None for all"
            check_whole("max_keypoints", self.max_keypoints, minimum=1, unit=unit)
        if self.covariance_scale is not None:
            check_positive("covariance_scale", self.covariance_scale, finite=True)
            check_within("covariance_scale", self.covariance_scale, 0, 1e9, "a factor")
        check_whole("nms_radius", self.nms_radius, minimum=0, maximum=MAX_RADIUS_PX, unit="px")
        check_whole("border", self.border, minimum=0, maximum=MAX_BORDER_PX, unit="px")
        if self.spread and self.max_keypoints is None:
            raise ConfigError("spread needs max_keypoints, the number of keypoints to spread")
        if self.spread and len(self.scales) > 1:
            raise ConfigError(f"spread goes with one scale, got scales {self.scales}")

    @property
    def min_score(self) -> float:
        """Score that a keypoint must exceed: the threshold or the noise floor, the higher one."""
        return max(self.threshold, self.noise_floor)


def _scales(scales: object) -> tuple[float, ...]:
    if isinstance(scales, str) or not isinstance(scales, Iterable):
        raise ConfigError(f"scales is {shown(scales)}, expected a list of numbers such as (1, 0.5)")
    given: tuple[Any, ...] = tuple(scales)
    if len(given) > MAX_SCALES:
        raise ConfigError(f"scales has {len(given)} numbers, expected at most {MAX_SCALES}")
    for scale in given:
        if not is_number(scale) or not 0 < scale <= MAX_SCALE:
            raise ConfigError(
                f"scales holds {shown(scale)}, expected numbers above 0, up to {MAX_SCALE}"
            )
    if not given or len(set(given)) < len(given):
        raise ConfigError(f"scales is {given}, expected at least one and none twice")
    return tuple(float(scale) for scale in given)


@dataclass(frozen=True)
class MatchingConfig:
    """Selection of matches among nearest neighbours."""

    mutual: bool = setting(
        True,
        "Keep mutual nearest neighbours only, not the one-sided nearest neighbours of A.",
    )
    ratio: float | None = setting(
        None,
        "Lowe's ratio test, 0..1: maximum distance to the nearest neighbour relative to the second "
        "nearest; 0.8 in his paper. Cosine only.",
        metavar="R",
    )
    min_similarity: float | None = setting(None, "Minimum cosine similarity, -1..1.", metavar="C")
    scores: MatchScore = setting(
        "cosine",
        "Score of a match: the cosine similarity, or the dual soft-max, the probability that two "
        "keypoints choose each other.",
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
            raise ConfigError("ratio is 0, which no match passes; Lowe uses 0.8")
        if self.min_similarity is not None:
            check_within("min_similarity", self.min_similarity, -1, 1, "a cosine")
        if self.min_probability is not None:
            check_within("min_probability", self.min_probability, 0, 1, "a probability")
        check_within("temperature", self.temperature, MIN_TEMPERATURE, 1000, "a temperature")
        if self.scores == "cosine" and self.min_probability is not None:
            raise ConfigError(
                "min_probability needs scores='dual-softmax'; for cosines give min_similarity"
            )
        if self.scores == "dual-softmax" and self.ratio is not None:
            raise ConfigError(
                "ratio needs scores='cosine', because the soft-max compares all neighbours itself; "
                "give min_probability"
            )


@dataclass(frozen=True)
class PairConfig:
    """Choice of the pairs to match among many images."""

    pairs: str = setting(
        "all",
        "Pairs to match: 'all'; 'sequential', in the order of the names; 'similar', by global "
        "descriptors; or a text file with two names per line.",
        metavar="WHICH",
    )
    window: int = setting(
        # As in COLMAP.
        10, "'sequential': number of following images that each image is matched with.", metavar="N"
    )  # fmt: skip
    quadratic: bool = setting(
        False, "'sequential': also match with the images 1, 2, 4, 8, ... further on."
    )
    k: int = setting(
        20, "'similar': number of most similar images that each image is matched with.", metavar="K"
    )

    def __post_init__(self) -> None:
        check_whole("window", self.window, minimum=1, unit="images")
        check_whole("k", self.k, minimum=1, unit="images")


@dataclass(frozen=True)
class RegistrationConfig:
    """Estimation of the transform between two images, and limits that a result must meet.

    The limits were chosen on pairs of unrelated photographs and on pairs with ground truth
    (benchmarks/registration.py). Distances are in px of the network's input: for a photograph of
    four times `max_side`, they are four times as large in its own px.
    """

    model: Model = setting(
        "homography",
        "Geometric model. homography: planes and rotating cameras; affine, similarity, "
        "translation: simpler transforms; fundamental, essential: two views of a scene with depth.",
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
        3.0, "Maximum standard deviation of the model over the common view, px.", metavar="PX"
    )
    guided: bool = setting(
        True,
        "Guided matching: match again near the positions that a plane model predicts, and refit.",
    )
    pose_search: PoseSearch = setting(
        "opencv", "Solver of the essential matrix; poselib needs the extra 'pose'."
    )
    seed: int = setting(0, "Seed of the robust estimation.", metavar="N")

    def __post_init__(self) -> None:
        check_choice("model", self.model, get_args(Model))
        check_choice("pose_search", self.pose_search, get_args(PoseSearch))
        check_whole("max_keypoints", self.max_keypoints, minimum=1, unit="keypoints")
        check_whole("min_inliers", self.min_inliers, minimum=1, unit="matches")
        check_whole("seed", self.seed, minimum=0, unit="a seed")
        check_positive("max_false_alarms", self.max_false_alarms)
        check_positive("max_overlap_sd_px", self.max_overlap_sd_px)
        if self.threshold_px is not None:
            check_positive("threshold_px", self.threshold_px)


class DetectionOptions(TypedDict, total=False):
    """Settings of `ProcessorConfig` and `DetectionConfig` by keyword.

    A setting left out keeps the detector's value, which defaults to the checkpoint's. None is a
    value: it is not the same as a setting left out.
    """

    max_side: int | None
    contrast: Contrast
    threshold: float
    max_keypoints: int | None
    nms_radius: int
    border: int
    subpixel: bool
    descriptors: bool
    covariance_scale: float | None
    spread: bool
    scales: Sequence[float]
    noise_floor: float
    phases: int


def resolve_detection(
    detection: DetectionConfig, options: DetectionOptions
) -> tuple[ProcessorConfig, DetectionConfig]:
    """The settings of a detection: a checkpoint's own, with single ones replaced.

    `spread` is for one scale, so it takes scale 1 unless another is given.

    Raises:
        ConfigError: An unknown setting, or one out of range.
    """
    check_known(options, DetectionOptions.__annotations__)
    settings: dict[str, Any] = dict(options)
    names = [f.name for f in fields(ProcessorConfig)]
    processor = {name: settings.pop(name) for name in names if name in settings}
    if settings.get("spread"):
        settings.setdefault("scales", (1.0,))
    return resolve(ProcessorConfig(), processor), resolve(detection, settings)


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
