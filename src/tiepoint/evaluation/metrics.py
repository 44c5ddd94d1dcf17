"""What is measured on a pair, and how sure the mean over pairs is."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tiepoint import planar
from tiepoint.geometry import Float, SizeHW, apply_homography, corners_xy, inside

MAGSAC_PX = 1.5
"""Inlier threshold of USAC_MAGSAC: the best measured on real pairs, against 3 px RANSAC."""

BOOTSTRAP_RESAMPLES = 2000
BOOTSTRAP_SEED = 0

_CHUNK = 512  # rows of a distance matrix at a time


def estimate_homography(xy_a: Float, xy_b: Float, seed: int) -> NDArray[np.float64] | None:
    """MAGSAC's homography of matched points, which stand in an order shuffled by `seed`.

    OpenCV 5.0 seeds its estimator the same every time and `cv2.setRNGSeed` does not reach it;
    the order of the matches does.

    Args:
        xy_a, xy_b: M 2, px; row i of one matches row i of the other.

    Returns:
        3x3 with x_B ~ H x_A, or None when there are under 4 matches or no consensus.
    """
    if len(xy_a) < 4:
        return None
    order = np.random.default_rng(seed).permutation(len(xy_a))  # M
    a, b = np.asarray(xy_a, np.float64)[order], np.asarray(xy_b, np.float64)[order]
    return planar.consensus("homography", a, b, MAGSAC_PX)


def corner_error(
    estimated: NDArray[np.float64] | None, truth: NDArray[np.float64], a_hw: SizeHW
) -> float:
    """Mean distance in B, in px, of A's four corners under the two homographies.

    Infinite without an estimate, or when it sends a corner to infinity.
    """
    if estimated is None:
        return math.inf
    corners = corners_xy(a_hw)  # 4 2
    # The estimate's sign is free: take the one by which A's centre lies before the camera.
    sign = np.sign(estimated[2] @ [*corners.mean(axis=0), 1.0])
    distance = _norms(
        apply_homography(sign * estimated, corners) - apply_homography(truth, corners)
    )
    error = float(distance.mean())
    return error if math.isfinite(error) else math.inf


def correct_matches(
    xy_a: Float, xy_b: Float, truth: NDArray[np.float64], within_px: float
) -> NDArray[np.bool_]:
    """Which matches are right: the point of A, carried to B, lies `within_px` of its partner.

    Args:
        xy_a, xy_b: M 2, px.

    Returns:
        M.
    """
    distance = _norms(apply_homography(truth, xy_a) - np.asarray(xy_b, np.float64))  # M; NaN = no
    right: NDArray[np.bool_] = distance <= within_px
    return right


def repeatability(
    xy_a: Float,
    xy_b: Float,
    truth: NDArray[np.float64],
    a_hw: SizeHW,
    b_hw: SizeHW,
    k: int,
    within_px: float,
) -> float:
    """Share of points found again: (found of A + found of B) / (N_A + N_B), 0..1.

    Only points inside the common view count, and of these the k best of each image. A point of A
    is found again if, carried to B, it lies `within_px` of one of these points of B; a point of B
    likewise in A.

    Args:
        xy_a, xy_b: All points of each image, best first, N 2, px.

    Returns:
        0 when neither image has a point in the common view.
    """
    back = np.linalg.inv(truth)  # its w is one over the forward w: the same points lie in front
    in_b, in_a = apply_homography(truth, xy_a), apply_homography(back, xy_b)  # N_A 2, N_B 2
    shared_a, shared_b = inside(in_b, b_hw), inside(in_a, a_hw)
    a, in_b = np.asarray(xy_a)[shared_a][:k], in_b[shared_a][:k]
    b, in_a = np.asarray(xy_b)[shared_b][:k], in_a[shared_b][:k]
    total = len(a) + len(b)
    if total == 0:
        return 0.0
    found = _found(in_b, b, within_px) + _found(in_a, a, within_px)
    return found / total


def mean_interval(values: Float) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over pairs: percentiles, resampled by pair, seeded.

    Args:
        values: N, at least one; booleans count as 0 and 1.

    Returns:
        (low, high).
    """
    numbers = np.asarray(values, np.float64)  # N
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    index = rng.integers(len(numbers), size=(BOOTSTRAP_RESAMPLES, len(numbers)))  # R N
    low, high = np.percentile(numbers[index].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _found(points: Float, others: Float, within_px: float) -> int:
    """How many of N 2 points have one of M 2 others within reach."""
    if len(others) == 0:
        return 0
    found = 0
    for start in range(0, len(points), _CHUNK):
        offsets = points[start : start + _CHUNK, None] - others[None]  # CHUNK M 2
        found += int((_norms(offsets).min(axis=1) <= within_px).sum())
    return found


def _norms(vectors: Float) -> NDArray[np.float64]:
    return np.hypot(vectors[..., 0], vectors[..., 1])
