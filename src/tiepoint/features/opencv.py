"""Features and matches <-> OpenCV's `KeyPoint` and `DMatch`.

Pixel centres are whole numbers in both, so positions are not converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError

if TYPE_CHECKING:
    from tiepoint.features.matches import Matches
    from tiepoint.features.result import Features

REGION_PX = 84
"""Side of the receptive field of a descriptor, px of the network's input; `KeyPoint.size` is this
at the scale of the keypoint. A test computes it from the layers of the network."""

UNKNOWN_ANGLE = -1.0
_UNIT_TOLERANCE = 1e-3
_FLOAT32_MAX = float(np.finfo(np.float32).max)

MatchScores = Literal["cosine", "dual-softmax"]
"""Meaning of the scores of matches, as in `MatchingConfig.scores`."""

Float32 = NDArray[np.float32]


class KeypointArrays(NamedTuple):
    """Keypoints of OpenCV as arrays, best response first; ties by y, then x.

    Attributes:
        xy: N 2 float32, px.
        scores: N float32, the responses.
        descriptors: N D float32 of unit length, or None.
        scales_px: N float32, `size / REGION_PX`; None if a size is not above 0.
    """

    xy: Float32
    scores: Float32
    descriptors: Float32 | None
    scales_px: Float32 | None


def to_keypoints(features: Features) -> tuple[cv2.KeyPoint, ...]:
    """N `cv2.KeyPoint` in the order of the features.

    `pt` is the position, `response` the score, `size` the side of the descriptor's receptive field
    in px of the image, and `octave` the index of the scale, from the largest on. `angle` is -1.
    """
    scales_px = features.scales_px
    if scales_px is None:
        scales_px = np.full(len(features), features.px_per_input_px, np.float32)
    sizes = (scales_px * np.float32(REGION_PX)).tolist()
    rows = zip(
        features.xy.tolist(), sizes, features.scores.tolist(), octaves(features).tolist(),
        strict=True,
    )  # fmt: skip
    return tuple(
        cv2.KeyPoint(x, y, size, UNKNOWN_ANGLE, score, octave)
        for (x, y), size, score, octave in rows
    )


def octaves(features: Features) -> NDArray[np.intp]:
    """N: index of the scale of each keypoint among the scales used, from the largest on.

    Without provenance, the scales used are those that occur.
    """
    if features.scales_px is None or len(features) == 0:
        return np.zeros(len(features), np.intp)
    used_px = np.unique(features.scales_px).astype(np.float64)
    settings = {} if features.provenance is None else features.provenance.settings
    scales = settings.get("scales")
    if isinstance(scales, Sequence) and all(isinstance(s, int | float) and s > 0 for s in scales):
        relative = np.sort(np.array(scales, np.float64))[::-1]
        used_px = features.px_per_input_px * relative[0] / relative if len(scales) else used_px
    distances = np.abs(np.log(features.scales_px[:, None] / used_px))  # N S
    nearest: NDArray[np.intp] = distances.argmin(axis=1)
    return nearest


def from_keypoints(
    keypoints: Sequence[cv2.KeyPoint], descriptors: NDArray[Any] | None
) -> KeypointArrays:
    """The arrays of keypoints of OpenCV, in the order of `Features`.

    Raises:
        ConfigError: Other objects than keypoints, values that are not finite, binary descriptors,
            or another number of descriptors.
    """
    _check_types(keypoints, cv2.KeyPoint, "keypoints")
    rows = [(*point.pt, point.response, point.size) for point in keypoints]
    values = np.array(rows, np.float32).reshape(-1, 4)  # N 4
    if not np.isfinite(values).all():
        raise ConfigError("keypoints: a position, response or size is not finite; drop these")
    xy, scores, sizes = values[:, :2], values[:, 2], values[:, 3]
    order = np.lexsort((xy[:, 0], xy[:, 1], -scores))
    described = None if descriptors is None else _unit(descriptors, len(values))[order]
    scales_px = (sizes / np.float32(REGION_PX))[order] if (sizes > 0).all() else None
    return KeypointArrays(xy[order], scores[order], described, scales_px)


def to_matches(matches: Matches) -> tuple[cv2.DMatch, ...]:
    """M `cv2.DMatch` in the order of the matches; `distance` is smaller for better matches.

    It is the Euclidean distance of the descriptors, as `cv2.BFMatcher(cv2.NORM_L2)` has it. For
    "dual-softmax" and a learned matcher it is 1 - probability.
    """
    distances = _distances(matches.scores, _kind_of(matches)).tolist()
    pairs = matches.pairs.tolist()
    return tuple(cv2.DMatch(a, b, each) for (a, b), each in zip(pairs, distances, strict=True))


def from_matches(
    matches: Sequence[cv2.DMatch], scores: MatchScores = "cosine"
) -> tuple[NDArray[np.int64], Float32]:
    """M 2 pairs and M scores of matches of OpenCV, best first; ties by the index in A.

    Raises:
        ConfigError: Other objects than matches, such as the lists of `knnMatch`; an index below 0;
            or a distance that is not finite.
    """
    _check_types(matches, cv2.DMatch, "matches")
    pairs = np.array([(m.queryIdx, m.trainIdx) for m in matches], np.int64).reshape(-1, 2)
    distances = np.array([m.distance for m in matches], np.float64)
    if (pairs < 0).any() or not (np.abs(distances) <= _FLOAT32_MAX).all():
        raise ConfigError("matches: an index is below 0, or a distance is not finite; drop these")
    values = 1 - (distances**2 / 2 if scores == "cosine" else distances)
    order = np.lexsort((pairs[:, 0], -values))
    return pairs[order], values[order].astype(np.float32)


def _distances(scores: Float32, kind: MatchScores) -> NDArray[np.float64]:
    values = scores.astype(np.float64)
    return 1 - values if kind == "dual-softmax" else np.sqrt(np.maximum(2 - 2 * values, 0))


def _kind_of(matches: Matches) -> MatchScores:
    settings = matches.meta.get("settings")
    if not isinstance(settings, dict):
        return "cosine"
    is_probability = settings.get("method") == "learned" or settings.get("scores") == "dual-softmax"
    return "dual-softmax" if is_probability else "cosine"


def _check_types(values: Sequence[Any], expected: type, name: str) -> None:
    wrong = next((value for value in values if not isinstance(value, expected)), None)
    if wrong is not None:
        raise ConfigError(
            f"{name} hold a {type(wrong).__name__}, expected cv2.{expected.__name__} only"
            + (": take one match of each of knnMatch's lists" if expected is cv2.DMatch else "")
        )


def _unit(descriptors: NDArray[Any], count: int) -> Float32:
    """N D float32 of unit length; descriptors that have it already keep their bits."""
    values = np.asarray(descriptors)
    if values.dtype.kind != "f":
        raise ConfigError(
            f"descriptors are {values.dtype}, as binary ones of ORB or BRISK are; expected floats, "
            "because tiepoint compares by the cosine"
        )
    if values.ndim != 2 or len(values) != count:
        raise ConfigError(f"descriptors have shape {values.shape}, expected ({count}, D)")
    if not np.isfinite(values).all():
        raise ConfigError("descriptors hold NaN or infinity; drop these keypoints")
    lengths = np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)  # N 1
    if (np.abs(lengths - 1) > _UNIT_TOLERANCE).any():
        values = values / np.where(lengths > 0, lengths, 1)
    return np.asarray(values, np.float32)
