"""Figures of one pair, and the confidence interval of their mean over pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiepoint.geometry import Float, Matrix, SizeHW, apply_homography, corners_xy, inside

BOOTSTRAP_RESAMPLES = 2000
BOOTSTRAP_SEED = 0

_CHUNK = 512  # rows of a distance matrix at a time


@dataclass(frozen=True)
class Mean:
    """A mean over pairs and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def corner_error(estimate: Matrix | None, truth: Matrix, a_hw: SizeHW) -> float:
    """Mean distance in B, in px, of A's four corners under two homographies.

    Infinite without an estimate, or when it sends a corner to infinity.
    """
    if estimate is None:
        return math.inf
    corners = corners_xy(a_hw)  # 4 2
    # The estimate's sign is free: use the one that puts A's centre in front of the camera.
    sign = np.sign(estimate[2] @ [*corners.mean(axis=0), 1.0])
    distance = _norms(apply_homography(sign * estimate, corners) - apply_homography(truth, corners))
    error = float(distance.mean())
    return error if math.isfinite(error) else math.inf


def correct_matches(xy_a: Float, xy_b: Float, truth: Matrix, within_px: float) -> NDArray[np.bool_]:
    """Which of M matches are correct: A's point, mapped to B, is within `within_px` of B's.

    Args:
        xy_a, xy_b: M 2, px.
    """
    distance = _norms(apply_homography(truth, xy_a) - np.asarray(xy_b, np.float64))  # M; NaN = no
    correct: NDArray[np.bool_] = distance <= within_px
    return correct


class Repeatability(NamedTuple):
    """How many keypoints of a pair are repeated, and how exactly."""

    share: float
    """(repeated of A + repeated of B) / (N_A + N_B), 0..1; 0 without any in common view."""
    localisation_px: float
    """Mean distance of the repeated ones from their true position; NaN without any."""


def repeatability(
    xy_a: Float, xy_b: Float, truth: Matrix, a_hw: SizeHW, b_hw: SizeHW, k: int, within_px: float
) -> Repeatability:
    """Repeatability of the k best keypoints of each image inside the common view.

    A keypoint of A is repeated if, mapped to B, it is within `within_px` of one of these
    keypoints of B; the same holds from B to A.

    Args:
        xy_a, xy_b: All keypoints of each image, best first, N 2, px.
    """
    # The inverse's w is one over the forward w: the same points are in front of both cameras.
    back = np.linalg.inv(truth)
    in_b, in_a = apply_homography(truth, xy_a), apply_homography(back, xy_b)  # N_A 2, N_B 2
    shared_a, shared_b = inside(in_b, b_hw), inside(in_a, a_hw)
    a, in_b = np.asarray(xy_a)[shared_a][:k], in_b[shared_a][:k]
    b, in_a = np.asarray(xy_b)[shared_b][:k], in_a[shared_b][:k]
    distance = np.concatenate([_nearest_px(in_b, b), _nearest_px(in_a, a)])
    if len(distance) == 0:
        return Repeatability(0.0, math.nan)
    repeated = distance <= within_px
    mean = float(distance[repeated].mean()) if repeated.any() else math.nan
    return Repeatability(float(repeated.mean()), mean)


def common_points(xy_a: Float, xy_b: Float, truth: Matrix, a_hw: SizeHW, b_hw: SizeHW) -> float:
    """Number of an image's keypoints inside the other's view, the mean of both images."""
    back = np.linalg.inv(truth)
    in_b = inside(apply_homography(truth, xy_a), b_hw).sum()
    in_a = inside(apply_homography(back, xy_b), a_hw).sum()
    return float(in_b + in_a) / 2


def matching_accuracy(
    xy_a: Float, xy_b: Float, truth: Matrix, within_px: Sequence[float]
) -> tuple[float, ...]:
    """Share of correct matches within each of several distances in px; 0 without matches."""
    if len(xy_a) == 0:
        return (0.0,) * len(within_px)
    return tuple(float(correct_matches(xy_a, xy_b, truth, limit).mean()) for limit in within_px)


def area_shares(errors: Float, up_to: float) -> NDArray[np.float64]:
    """Contribution of each of N errors to the AUC, 0..1; their mean is the AUC.

    The AUC is the share of pairs with an error of at most x, averaged over x from 0 to `up_to`.
    This form is exact, unlike sums of trapezoids. Errors may be infinite.
    """
    shares: NDArray[np.float64] = np.clip(1 - np.asarray(errors, np.float64) / up_to, 0, 1)
    return shares


def mean_of(values: ArrayLike) -> Mean:
    """The mean over pairs with its interval; NaN without pairs."""
    numbers = np.asarray(values, np.float64)  # N
    if len(numbers) == 0:
        return Mean(math.nan, math.nan, math.nan)
    return Mean(float(np.mean(numbers)), *mean_interval(numbers))


def mean_interval(values: Float) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over pairs: percentiles, resampled by pair, seeded.

    Args:
        values: N, at least one; booleans count as 0 and 1.
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
