"""What is measured on a pair, and how sure the mean over pairs is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiepoint.evaluation.settings import Estimator
from tiepoint.geometry import Float, SizeHW, apply_homography, corners_xy, inside
from tiepoint.registration import planar

INLIER_PARTS = 2.0
"""Inliers' distance of the robust least squares, in MAGSAC's thresholds, as `register` has it.
MAGSAC alone leaves half of what the matches know: of 80 easy and medium generated pairs 27 come
within 1 px, and 45 with both; of SIFT's 56 and 66."""

BOOTSTRAP_RESAMPLES = 2000
BOOTSTRAP_SEED = 0

_CHUNK = 512  # rows of a distance matrix at a time


def estimate_homography(
    xy_a: Float,
    xy_b: Float,
    seed: int,
    covariances: tuple[Float, Float] | None = None,
    estimator: Estimator = "refined",
    threshold_px: float = 1.5,
) -> NDArray[np.float64] | None:
    """The homography of matched points, which stand in an order shuffled by `seed`.

    OpenCV 5.0 seeds its estimator the same every time and `cv2.setRNGSeed` does not reach it;
    the order of the matches does.

    Args:
        xy_a, xy_b: M 2, px; row i of one matches row i of the other.
        covariances: M 2 2 of each, px^2, for "refined"; None takes all points alike.
        estimator, threshold_px: See `Settings`.

    Returns:
        3x3 with x_B ~ H x_A, or None when there are under 4 matches or no consensus.

    Raises:
        MissingExtraError: "poselib" without PoseLib.
    """
    if len(xy_a) < 4:
        return None
    order = np.random.default_rng(seed).permutation(len(xy_a))  # M
    a, b = np.asarray(xy_a, np.float64)[order], np.asarray(xy_b, np.float64)[order]
    if estimator == "ransac":
        return planar.ransac_homography(a, b, threshold_px)
    if estimator == "poselib":
        return planar.poselib_homography(a, b, threshold_px, seed)
    start = planar.consensus("homography", a, b, threshold_px)
    if start is None:
        return None
    deviation = None
    if covariances is not None:
        around_a, around_b = (covariance[order] for covariance in covariances)
        deviation = planar.match_deviation_px(start, a, around_a, around_b)
    return planar.refine("homography", start, a, b, INLIER_PARTS * threshold_px, deviation)[0]


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


class Repeated(NamedTuple):
    """Which points of a pair are found again.

    Attributes:
        share: (found of A + found of B) / (N_A + N_B), 0..1; 0 without points in the common view.
        localisation_px: Mean distance of those found from where they should be; NaN without any.
    """

    share: float
    localisation_px: float


def repeated(
    xy_a: Float,
    xy_b: Float,
    truth: NDArray[np.float64],
    a_hw: SizeHW,
    b_hw: SizeHW,
    k: int,
    within_px: float,
) -> Repeated:
    """Points found again.

    Only points inside the common view count, and of these the k best of each image. A point of A
    is found again if, carried to B, it lies `within_px` of one of these points of B; a point of B
    likewise in A.

    Args:
        xy_a, xy_b: All points of each image, best first, N 2, px.
    """
    back = np.linalg.inv(truth)  # its w is one over the forward w: the same points lie in front
    in_b, in_a = apply_homography(truth, xy_a), apply_homography(back, xy_b)  # N_A 2, N_B 2
    shared_a, shared_b = inside(in_b, b_hw), inside(in_a, a_hw)
    a, in_b = np.asarray(xy_a)[shared_a][:k], in_b[shared_a][:k]
    b, in_a = np.asarray(xy_b)[shared_b][:k], in_a[shared_b][:k]
    distance = np.concatenate([_nearest_px(in_b, b), _nearest_px(in_a, a)])
    if len(distance) == 0:
        return Repeated(0.0, math.nan)
    found = distance <= within_px
    mean = float(distance[found].mean()) if found.any() else math.nan
    return Repeated(float(found.mean()), mean)


def common_points(
    xy_a: Float, xy_b: Float, truth: NDArray[np.float64], a_hw: SizeHW, b_hw: SizeHW
) -> float:
    """How many points of an image lie in the other's view, the mean of both images."""
    back = np.linalg.inv(truth)
    in_b = inside(apply_homography(truth, xy_a), b_hw).sum()
    in_a = inside(apply_homography(back, xy_b), a_hw).sum()
    return float(in_b + in_a) / 2


def matching_accuracy(
    xy_a: Float, xy_b: Float, truth: NDArray[np.float64], within_px: Sequence[float]
) -> tuple[float, ...]:
    """Share of matches that are right within so many px each; 0 without matches.

    Args:
        xy_a, xy_b: M 2, px.
    """
    if len(xy_a) == 0:
        return (0.0,) * len(within_px)
    return tuple(float(correct_matches(xy_a, xy_b, truth, limit).mean()) for limit in within_px)


def area_shares(errors: Float, up_to: float) -> NDArray[np.float64]:
    """What each error adds to the area under the curve of shares, 0..1; their mean is the AUC.

    The share of pairs with an error of at most x, averaged over x from 0 to `up_to`: exact, where
    sums of trapezoids depend on where they begin.

    Args:
        errors: N, of any unit, at least 0; may be infinite.
        up_to: In the same unit.
    """
    shares: NDArray[np.float64] = np.clip(1 - np.asarray(errors, np.float64) / up_to, 0, 1)
    return shares


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


def _nearest_px(points: Float, others: Float) -> NDArray[np.float64]:
    """Distance of each of N 2 points from the nearest of M 2 others; infinite without others."""
    if len(others) == 0:
        return np.full(len(points), math.inf)
    parts = [np.zeros(0)]
    for start in range(0, len(points), _CHUNK):
        offsets = points[start : start + _CHUNK, None] - others[None]  # CHUNK M 2
        parts.append(_norms(offsets).min(axis=1))
    return np.concatenate(parts)


def _norms(vectors: Float) -> NDArray[np.float64]:
    return np.hypot(vectors[..., 0], vectors[..., 1])
