"""Rotated images: rotate descriptors by a matrix, and find the rotation between two images.

Rotating an image by 45 degrees changes its descriptors by nearly one orthogonal matrix.
`training.fit_rotation` fits that matrix once for a checkpoint, without changing the weights.
Its powers replace rotated copies of the image, so matching needs no second pass of the network.

Source: Bökman et al., "Steerers" (CVPR 2024), for the idea; no network was trained for it here.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tiepoint.features import Features
from tiepoint.matching.neighbours import rounding_margin

Float32 = NDArray[np.float32]

ROTATION_STEPS = 8
"""Steps of a full rotation, 45 degrees each; halfway between two steps, descriptors still match."""

PROBE_KEYPOINTS = 300
"""Number of best keypoints per image from which the rotation is estimated."""

MIN_GAIN = 1.15
"""Minimum ratio of the agreement after rotation to that without, so upright pairs stay upright."""


_CANDIDATES = range(1 - ROTATION_STEPS // 2, ROTATION_STEPS // 2 + 1)

_DIAGONAL = 0.5**0.5
_COSINES = (1.0, _DIAGONAL, 0.0, -_DIAGONAL, -1.0, -_DIAGONAL, 0.0, _DIAGONAL)
"""Cosine of each number of steps; exact for right angles."""


def rotation_between(a: Features, b: Features, matrix: Float32) -> int:
    """Estimate the rotation of image A that matches image B best, from the best keypoints.

    Args:
        a, b: With descriptors N_A D and N_B D; neither is empty.
        matrix: D D float32, the rotation by one step.

    Returns:
        Steps, see `best_rotation`.
    """
    assert a.descriptors is not None and b.descriptors is not None
    return best_rotation(a.descriptors[_probes(a)], b.descriptors[_probes(b)], matrix)


def rotated(features: Features, matrix: Float32, steps: int) -> Features:
    """Predict the features of an image rotated counterclockwise about its centre.

    Positions stay relative to a frame of the same size, so some are outside of it. Covariances are
    those of the image as it was.

    Args:
        features: With descriptors N D.
        matrix: D D float32, the rotation by one step.
        steps: Steps of 45 degrees; at 0 the features themselves are returned.
    """
    if steps == 0:
        return features
    assert features.descriptors is not None
    height, width = features.size_hw
    centre = np.array([width - 1, height - 1], np.float64) / 2
    xy = rotate_xy(features.xy - centre, steps) + centre
    described = rotate_descriptors(features.descriptors, matrix, steps)
    return replace(features, xy=xy.astype(np.float32), descriptors=described)


def rotate_xy(xy: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Positions N 2 turned counterclockwise about (0, 0) by steps of 45 degrees; y points down."""
    c, s = _COSINES[steps % ROTATION_STEPS], _COSINES[(steps - 2) % ROTATION_STEPS]
    turned: NDArray[np.float64] = xy @ np.array([[c, -s], [s, c]])
    return turned


def best_rotation(a: Float32, b: Float32, matrix: Float32) -> int:
    """Estimate the rotation of image A that matches image B best.

    Args:
        a, b: N_A D and N_B D float32, descriptors of the best `PROBE_KEYPOINTS` keypoints.
        matrix: D D float32, the rotation by one step.

    Returns:
        Steps of 45 degrees, -3 ... 4, counterclockwise; 0 unless another rotation agrees clearly
        better.
    """
    if len(a) == 0 or len(b) == 0:
        return 0
    bounds = [_agreement_bounds(rotate_descriptors(a, matrix, steps), b) for steps in _CANDIDATES]
    steps = _clearly_best(*np.array(bounds).T)
    return _best_exactly(a, b, matrix) if steps is None else steps


def rotate_descriptors(descriptors: Float32, matrix: Float32, steps: int) -> Float32:
    """Predict the descriptors N D of an image rotated counterclockwise by `steps` of 45 degrees."""
    if steps == 0:
        return descriptors
    power = _powers(matrix.tobytes(), matrix.dtype.str, len(matrix))[abs(steps)]  # D D
    rotated = descriptors.astype(np.float64) @ (power.T if steps > 0 else power)  # N D
    result: Float32 = rotated.astype(np.float32)
    return result


@lru_cache(maxsize=4)
def _powers(matrix: bytes, dtype: str, size: int) -> tuple[NDArray[np.float64], ...]:
    """Powers 0 ... 4 of a matrix, D D each: all that rotations need, for as long as it is used."""
    base = np.frombuffer(matrix, dtype).reshape(size, size).astype(np.float64)
    return tuple(np.linalg.matrix_power(base, steps) for steps in range(ROTATION_STEPS // 2 + 1))


def _agreement_bounds(a: Float32, b: Float32) -> tuple[float, float]:
    """Lower and upper bound of the `_agreement` of N_A D and N_B D, from float32 cosines."""
    margin = rounding_margin(a, b)
    if margin is None:
        return 0.0, np.inf
    cosines = a @ b.T  # N_A N_B
    count_b = cosines.shape[1]
    best_a = cosines[np.arange(len(cosines)), cosines.argmax(axis=1)]  # N_A; faster than max
    near_a = np.flatnonzero(cosines >= best_a[:, None] - margin)
    is_near_b = (cosines >= cosines.max(axis=0) - margin).ravel()
    mutual = near_a[is_near_b[near_a]]  # with all mutual nearest neighbours
    rivals_a = np.bincount(near_a // count_b)  # N_A
    rivals_b = np.bincount(np.flatnonzero(is_near_b) % count_b)  # N_B
    sure = (rivals_a[mutual // count_b] == 1) & (rivals_b[mutual % count_b] == 1)
    cosine = np.maximum(cosines.ravel()[mutual].astype(np.float64), 0)
    low, high = np.maximum(cosine[sure] - margin, 0), cosine + margin
    return float((low**4).sum()), float((high**4).sum())


def _clearly_best(low: NDArray[np.float64], high: NDArray[np.float64]) -> int | None:
    """The steps that win whatever the agreements are within their bounds; None if it is open."""
    upright = _CANDIDATES.index(0)
    if (np.delete(high, upright) <= MIN_GAIN * low[upright]).all():
        return 0
    best = int(low.argmax())
    if low[best] > np.delete(high, best).max() and low[best] > MIN_GAIN * high[upright]:
        return _CANDIDATES[best]
    return None


def _best_exactly(a: Float32, b: Float32, matrix: Float32) -> int:
    """As `best_rotation`, by exact cosines."""
    rotated = np.concatenate([rotate_descriptors(a, matrix, steps) for steps in _CANDIDATES])
    cosines = rotated.astype(np.float64) @ b.astype(np.float64).T  # 8 N_A, N_B
    parts = np.split(cosines.astype(np.float32), ROTATION_STEPS)
    agreement = dict(zip(_CANDIDATES, map(_agreement, parts), strict=True))
    best = max(_CANDIDATES, key=lambda steps: (agreement[steps], -abs(steps), steps))
    return best if agreement[best] > MIN_GAIN * agreement[0] else 0


def _agreement(cosines: Float32) -> float:
    """Sum of the fourth powers of the cosines N_A N_B of mutual nearest neighbours.

    The cosines are sums in float64, rounded, so that equals tie.
    """
    of_a, of_b = cosines.argmax(axis=1), np.ascontiguousarray(cosines.T).argmax(axis=1)
    mutual = np.flatnonzero(of_b[of_a] == np.arange(len(of_a)))  # N_A
    best = np.maximum(cosines[mutual, of_a[mutual]].astype(np.float64), 0)
    return float((best**4).sum())


def _probes(features: Features) -> NDArray[np.int64]:
    """Indices of the best keypoints, in whatever order they are; they decide on the rotation."""
    x, y = features.xy.T
    return np.lexsort((x, y, -features.scores))[:PROBE_KEYPOINTS]
