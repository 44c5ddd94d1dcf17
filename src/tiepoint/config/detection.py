"""Settings of a detection: the network's input, and which keypoints are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict, get_args

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
from tiepoint.config.basics import resolve, setting
from tiepoint.errors import ConfigError

EngineName = Literal["auto", "openvino", "torch"]
Precision = Literal["auto", "f32", "bf16", "f16", "int8"]

DescriptorSampling = Literal["exact", "superpoint"]
"""Rule for sampling descriptors from the dense map; stored with the weights."""

Contrast = Literal["auto", "none", "stretch"]

IN_CHECKPOINT = frozenset({
    "threshold", "max_keypoints", "nms_radius", "border", "covariance_scale", "scales",
    "noise_floor", "phases",
})  # fmt: skip
"""Settings of `DetectionConfig` that a checkpoint stores; a detector takes them as defaults."""

MAX_SCALE, MAX_SCALES = 2, 32
"""Further enlargement adds no information, and each scale runs the network once."""
MAX_RADIUS_PX, MAX_BORDER_PX = 1000, 1_000_000


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
