"""What can be set, with its default and unit; every other module reads these classes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

from tiepoint.errors import ConfigError

DescriptorSampling = Literal["exact", "superpoint"]
"""How a keypoint's descriptor is read off the dense map; stored with the weights."""

Rotation = Literal["auto", "none"]
"""Whether matching tries turned images."""

MatchScore = Literal["cosine", "dual-softmax"]
"""What two keypoints are compared by when they are matched."""

COLDEST = 1e-3
"""Least temperature: cosines are known to 6e-8, and below this only the best of a row counts."""

SEQUENTIAL_WINDOW = 10
"""Following images that each of a sequence is matched with: COLMAP's sequential matcher."""
SIMILAR_IMAGES = 20
"""Most alike images that each of a collection is matched with."""


LARGEST_SCALE = 2
"""An image enlarged farther shows the network nothing new."""

PYRAMID = (1.0, 0.6)
"""At which sizes a checkpoint that tiepoint trains sees an image: the second costs a third more
work, and brings together what differs in zoom (docs/training-log.md)."""


@dataclass(frozen=True)
class ProcessorConfig:
    """How an image becomes pixels.

    Attributes:
        max_side: The longer side is brought down to this many px, aspect kept; an image is
            not enlarged to it. None keeps the native size.
    """

    max_side: int | None = 1024

    def __post_init__(self) -> None:
        if self.max_side is not None:
            _require_whole("max_side", self.max_side, minimum=1, unit="px, or None for native size")


@dataclass(frozen=True)
class DetectionConfig:
    """What becomes a keypoint.

    Attributes:
        threshold: A keypoint's probability must exceed this, 0..1.
        max_keypoints: Keep the best so many; None keeps all.
        nms_radius: Of two keypoints this close or closer in x and in y, in px of the network's
            input, the better one stays; 0 keeps every pixel above the threshold.
        border: No keypoint nearer than this to any of the four sides, in px of the input.
        subpixel: Refine each position, by the heat map around its pixel and then by the image's own
            structure, within half the NMS radius; False returns whole pixels.
        descriptors: False skips the descriptors.
        covariance_scale: px^2 of a position's variance to each px^2 of the heat map's second
            moment around it, as `tiepoint calibrate` fits it to a checkpoint; None leaves
            covariances out.
        spread: With `max_keypoints`, take points that lie evenly over the image: the NMS radius
            grows as far as it leaves so many.
        scales: Sizes at which the network sees an image, in parts of the size that `max_side`
            leaves, up to 2, above 1 enlarged: with several, keypoints of a pyramid in one list.
    """

    threshold: float = 0.005
    max_keypoints: int | None = None
    nms_radius: int = 4
    border: int = 4
    subpixel: bool = True
    descriptors: bool = True
    spread: bool = False
    covariance_scale: float | None = None
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        self._check_scales()
        number = isinstance(self.threshold, int | float) and not isinstance(self.threshold, bool)
        if not number or not math.isfinite(self.threshold) or not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold!r}, expected a probability in 0..1")
        if self.max_keypoints is not None:
            unit = "keypoints, or None for all"
            _require_whole("max_keypoints", self.max_keypoints, minimum=1, unit=unit)
        scale = self.covariance_scale
        if scale is not None:
            number = isinstance(scale, int | float) and not isinstance(scale, bool)
            if not number or not math.isfinite(scale) or not scale > 0:
                raise ConfigError(f"covariance_scale is {scale!r}, expected a number above 0")
        if self.spread and self.max_keypoints is None:
            raise ConfigError("spread needs max_keypoints: how many points to spread")
        _require_whole("nms_radius", self.nms_radius, minimum=0, unit="px")
        _require_whole("border", self.border, minimum=0, unit="px")

    def _check_scales(self) -> None:
        scales: object = self.scales
        if isinstance(scales, str) or not isinstance(scales, Iterable):
            raise ConfigError(f"scales is {scales!r}, expected a list of numbers such as (1, 0.5)")
        found: tuple[object, ...] = tuple(scales)
        for scale in found:
            number = isinstance(scale, Real) and not isinstance(scale, bool)
            if not number or not 0 < scale <= LARGEST_SCALE:  # type: ignore[operator]
                raise ConfigError(
                    f"scales holds {scale!r}, expected parts of the size above 0, up to "
                    f"{LARGEST_SCALE}"
                )
        if not found or len(set(found)) < len(found):
            raise ConfigError(f"scales is {found}, expected at least one and none twice")
        object.__setattr__(self, "scales", tuple(float(scale) for scale in self.scales))
        if self.spread and len(found) > 1:
            raise ConfigError(f"spread goes with one scale, got scales {self.scales}")


@dataclass(frozen=True)
class MatchingConfig:
    """Which keypoints of two images are taken for the same.

    Attributes:
        mutual: Two keypoints must choose each other; False keeps every keypoint's choice in A.
        ratio: Lowe's test: the distance of two descriptors must be less than this share of the
            distance to the second nearest, 0..1; None leaves it out. Cosine only.
        min_similarity: Least cosine of two descriptors, -1..1; None takes any.
        scores: "cosine", or "dual-softmax": the probability that two keypoints choose each other.
        temperature: Of the soft-max: the lower, the more the best counts. 1/20 as in DeDoDe (3DV
            2024), which has unit descriptors too. Dual soft-max only.
        min_probability: Least score, 0..1; None takes any. Dual soft-max only.
        rotation: "auto" turns image A by the eighth of a turn that fits best, where the
            checkpoint has a rotation matrix; "none" matches the images as they stand.
    """

    mutual: bool = True
    ratio: float | None = None
    min_similarity: float | None = None
    scores: MatchScore = "cosine"
    temperature: float = 0.05
    min_probability: float | None = None
    rotation: Rotation = "auto"

    def __post_init__(self) -> None:
        if self.rotation not in get_args(Rotation):
            raise ConfigError(
                f"rotation is {self.rotation!r}, expected one of {', '.join(get_args(Rotation))}"
            )
        if self.scores not in get_args(MatchScore):
            raise ConfigError(
                f"scores is {self.scores!r}, expected one of {', '.join(get_args(MatchScore))}"
            )
        _require_within("ratio", self.ratio, 0, 1, "a share of the second distance")
        if self.ratio == 0:
            raise ConfigError("ratio is 0, which no two keypoints pass; 0.8 is Lowe's own")
        _require_within("min_similarity", self.min_similarity, -1, 1, "a cosine")
        _require_within("min_probability", self.min_probability, 0, 1, "a probability")
        _require_within("temperature", self.temperature, COLDEST, 1000, "a temperature")
        if self.temperature is None:
            raise ConfigError(f"temperature is None, expected a number from {COLDEST} to 1000")
        if self.scores == "cosine" and self.min_probability is not None:
            raise ConfigError(
                "min_probability goes with scores='dual-softmax'; for cosines give min_similarity"
            )
        if self.scores == "dual-softmax" and self.ratio is not None:
            raise ConfigError(
                "ratio goes with scores='cosine'; the soft-max weighs the other neighbours itself: "
                "give min_probability"
            )


def _require_within(name: str, value: object, low: float, high: float, unit: str) -> None:
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]
        raise ConfigError(f"{name} is {value!r}, expected {unit} from {low} to {high}")


PLANE_MODELS = ("homography", "affine", "similarity", "translation")
"""Models that carry each px of one image to a px of the other."""

TWO_VIEW_MODELS = ("fundamental", "essential")
"""Models that give for each px of one image a line in the other."""

MODEL_NAMES = {
    "homography": "a homography",
    "affine": "an affine transform",
    "similarity": "a similarity",
    "translation": "a translation",
    "fundamental": "a fundamental matrix",
    "essential": "an essential matrix",
}
"""As sentences call them."""


@dataclass(frozen=True)
class RegistrationConfig:
    """How two images are registered, and what is asked of the result.

    The limits are chosen on pairs of unrelated photographs and on pairs with known truth
    (benchmarks/registration.py). Distances are in px of the images as the detector saw them, so
    a photograph of four times the detector's `max_side` is given four times as many px.

    Attributes:
        model: "homography" for planes and turning cameras, "affine", "similarity",
            "translation"; "fundamental", "essential" for two views of a scene with depth.
        max_keypoints: Match the best so many of each image.
        threshold_px: A match this near the model is an inlier; None takes the model's own,
            `inlier_px`. The consensus is looked for with half of it.
        min_inliers: Refuse a result with fewer.
        max_chance: Refuse a result of which chance would bring about more than this many, were
            all matches wrong (a contrario; Moisan and Stival, IJCV 2004).
        max_overlap_sd_px: Refuse a result of which the common view is known less well than this;
            see `Registration.overlap_sd_px`.
        guided: With a plane model that was believed, match once more near where it says, and fit it
            to these matches: 1.3 times the inliers, and nearer the truth. Only where `register`
            matched by itself.
        pose_search: For "essential": "opencv", or "poselib" (extra `pose`), which was a little
            better, and faster, on 76 pairs with known poses.
        seed: Another seed, another order in which consensus is looked for.
    """

    model: str = "homography"
    max_keypoints: int = 1000
    threshold_px: float | None = None
    min_inliers: int = 15
    max_chance: float = 1e-8
    max_overlap_sd_px: float = 1.5
    guided: bool = True
    pose_search: str = "opencv"
    seed: int = 0

    def __post_init__(self) -> None:
        models = (*PLANE_MODELS, *TWO_VIEW_MODELS)
        if self.model not in models:
            raise ConfigError(f"model is {self.model!r}, expected one of {', '.join(models)}")
        if self.pose_search not in ("opencv", "poselib"):
            raise ConfigError(
                f'pose_search is {self.pose_search!r}, expected "opencv" or "poselib"'
            )
        _require_whole("max_keypoints", self.max_keypoints, minimum=1, unit="keypoints")
        _require_whole("min_inliers", self.min_inliers, minimum=1, unit="matches")
        _require_whole("seed", self.seed, minimum=0, unit="any number")
        for name in ("threshold_px", "max_chance", "max_overlap_sd_px"):
            value = getattr(self, name)
            if name == "threshold_px" and value is None:
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not value > 0:  # also refuses NaN
                raise ConfigError(f"{name} is {value!r}, expected a number above 0")

    @property
    def inlier_px(self) -> float:
        """`threshold_px`, or the model's own: 3 px; 2 px and 1 px from epipolar lines."""
        if self.threshold_px is not None:
            return self.threshold_px
        return {"fundamental": 2.0, "essential": 1.0}.get(self.model, 3.0)


def _require_whole(name: str, value: object, *, minimum: int, unit: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(f"{name} is {value!r}, expected a whole number >= {minimum} ({unit})")
