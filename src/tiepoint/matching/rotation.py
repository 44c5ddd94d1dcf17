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
    rotated = np.stack([rotate_descriptors(a, matrix, steps) for steps in _CANDIDATES])  # 8 N_A D
    bounds = _agreement_bounds(rotated, b)
    steps = None if bounds is None else _clearly_best(*bounds)
    return _best_exactly(rotated, b) if steps is None else steps


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


def _agreement_bounds(
    rotated: Float32, b: Float32
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Lower and upper bound of the `_agreement` of each candidate, from float32 cosines.

    Args:
        rotated: 8 N_A D.
        b: N_B D.

    Returns:
        8 each; None if the error of float32 cosines is not bounded.
    """
    count, of_a, of_b = len(rotated), rotated.shape[1], len(b)
    flat = rotated.reshape(count * of_a, -1)  # 8 N_A, D
    margin = rounding_margin(flat, b)
    if margin is None:
        return None
    cosines = flat @ b.T  # 8 N_A, N_B
    best_a = cosines[np.arange(len(flat)), cosines.argmax(axis=1)]  # faster than max, 8 N_A
    best_b = cosines.reshape(count, of_a, of_b).max(axis=1, keepdims=True)  # 8 1 N_B
    near_a = np.flatnonzero(cosines >= best_a[:, None] - margin)
    near_b = cosines.reshape(count, of_a, of_b) >= best_b - margin  # 8 N_A N_B
    mutual = near_a[near_b.ravel()[near_a]]  # with all mutual nearest neighbours
    near_b = np.flatnonzero(near_b)
    rivals_a = np.bincount(near_a // of_b)
    rivals_b = np.bincount(near_b // (of_a * of_b) * of_b + near_b % of_b)
    candidate, column = mutual // (of_a * of_b), mutual % of_b
    sure = (rivals_a[mutual // of_b] == 1) & (rivals_b[candidate * of_b + column] == 1)
    cosine = np.maximum(cosines.ravel()[mutual].astype(np.float64), 0)
    low, high = (
        np.asarray(np.bincount(candidate, weights, count), np.float64)
        for weights in (sure * np.maximum(cosine - margin, 0) ** 4, (cosine + margin) ** 4)
    )
    return low, high


def _clearly_best(low: NDArray[np.float64], high: NDArray[np.float64]) -> int | None:
    """The steps that win whatever the agreements are within their bounds; None if it is open."""
    upright = _CANDIDATES.index(0)
    if (np.delete(high, upright) <= MIN_GAIN * low[upright]).all():
        return 0
    best = int(low.argmax())
    if low[best] > np.delete(high, best).max() and low[best] > MIN_GAIN * high[upright]:
        return _CANDIDATES[best]
    return None


def _best_exactly(rotated: Float32, b: Float32) -> int:
    """The steps of the best candidate, of 8 N_A D; as `best_rotation`."""
    flat = rotated.reshape(-1, rotated.shape[2]).astype(np.float64)  # 8 N_A, D
    parts = np.split((flat @ b.astype(np.float64).T).astype(np.float32), len(rotated))
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
