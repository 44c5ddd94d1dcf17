"""Rotated images: rotate descriptors by a matrix, and find the rotation between two images.

Rotating an image by 45 degrees changes its descriptors by nearly one orthogonal matrix.
`training.fit_rotation` fits that matrix once for a checkpoint, without changing the weights.
Its powers replace rotated copies of the image, so matching needs no second pass of the network.

Source: Bökman et al., "Steerers" (CVPR 2024), for the idea; no network was trained for it here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

ROTATION_STEPS = 8
"""Steps of a full rotation, 45 degrees each; halfway between two steps, descriptors still match."""

PROBE_KEYPOINTS = 300
"""Number of best keypoints per image from which the rotation is estimated."""

MIN_GAIN = 1.15
"""Minimum ratio of the agreement after rotation to that without, so upright pairs stay upright."""


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
    candidates = range(1 - ROTATION_STEPS // 2, ROTATION_STEPS // 2 + 1)
    rotated = np.concatenate([rotate_descriptors(a, matrix, steps) for steps in candidates])
    cosines = rotated.astype(np.float64) @ b.astype(np.float64).T  # 8 N_A, N_B
    parts = np.split(cosines.astype(np.float32), ROTATION_STEPS)  # rounded, so that equals tie
    agreement = dict(zip(candidates, map(_agreement, parts), strict=True))
    best = max(candidates, key=lambda steps: (agreement[steps], -abs(steps), steps))
    return best if agreement[best] > MIN_GAIN * agreement[0] else 0


def rotate_descriptors(descriptors: Float32, matrix: Float32, steps: int) -> Float32:
    """Predict the descriptors N D of an image rotated counterclockwise by `steps` of 45 degrees."""
    if steps == 0:
        return descriptors
    power = np.linalg.matrix_power(matrix.astype(np.float64), abs(steps))  # D D
    rotated = descriptors.astype(np.float64) @ (power.T if steps > 0 else power)  # N D
    result: Float32 = rotated.astype(np.float32)
    return result


def _agreement(cosines: Float32) -> float:
    """Sum of the fourth powers of the cosines N_A N_B of mutual nearest neighbours."""
    of_a, of_b = cosines.argmax(axis=1), np.ascontiguousarray(cosines.T).argmax(axis=1)
    mutual = np.flatnonzero(of_b[of_a] == np.arange(len(of_a)))  # N_A
    best = np.maximum(cosines[mutual, of_a[mutual]].astype(np.float64), 0)
    return float((best**4).sum())
