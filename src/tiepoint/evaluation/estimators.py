"""Robust estimates from matched points, each seed from another order of the matches.

OpenCV 5.0 seeds its estimators the same every time and `cv2.setRNGSeed` does not reach them;
the order of the matches does.
"""

from __future__ import annotations

import cv2
import numpy as np

from tiepoint.errors import MissingExtraError, is_installed
from tiepoint.evaluation.settings import Estimator
from tiepoint.geometry import Float, Matrix
from tiepoint.registration import epipolar, planar
from tiepoint.registration.models import MODELS

INLIER_FACTOR = 2.0
"""Inlier distance of the robust least squares in MAGSAC thresholds, as in `register`.

MAGSAC alone leaves 27 of 80 easy and medium generated pairs within 1 px, both together 45; with
SIFT's matches 56 and 66."""


def estimate_homography(
    xy_a: Float,
    xy_b: Float,
    seed: int,
    covariances: tuple[Float, Float] | None = None,
    estimator: Estimator = "refined",
    threshold_px: float = 1.5,
) -> Matrix | None:
    """Estimate the homography of matched points, in an order shuffled by `seed`.

    Args:
        xy_a, xy_b: M 2, px; row i of one matches row i of the other.
        covariances: M 2 2 of each image's points, px^2, for "refined"; None weighs all equally.
        estimator, threshold_px: See `HomographySettings`.

    Returns:
        3x3 with x_B ~ H x_A, or None when there are under 4 matches or no consensus.

    Raises:
        MissingExtraError: "poselib" without PoseLib.
    """
    if len(xy_a) < MODELS["homography"].sample_size:
        return None
    order = np.random.default_rng(seed).permutation(len(xy_a))  # M
    a, b = np.asarray(xy_a, np.float64)[order], np.asarray(xy_b, np.float64)[order]
    if estimator == "ransac":
        return _invertible(cv2.findHomography(a, b, cv2.RANSAC, threshold_px)[0])
    if estimator == "poselib":
        return _poselib_homography(a, b, threshold_px, seed)
    start = planar.consensus("homography", a, b, threshold_px)
    if start is None:
        return None
    deviation_px = None
    if covariances is not None:
        covariance_a, covariance_b = (covariance[order] for covariance in covariances)
        deviation_px = planar.match_deviation_px(start, a, covariance_a, covariance_b)
    return planar.refine("homography", start, a, b, INLIER_FACTOR * threshold_px, deviation_px)[0]


def estimate_pose(
    xy_a: Float, xy_b: Float, cameras: tuple[Matrix, Matrix], seed: int, inlier_px: float
) -> epipolar.Pose | None:
    """Estimate the relative pose of matched points by MAGSAC, refined on its inliers.

    Args:
        xy_a, xy_b, seed: As in `estimate_homography`.
        cameras: K_A and K_B, 3x3.
        inlier_px: Largest distance in px of an inlier from its epipolar line.

    Returns:
        The pose, or None when there are under 5 matches or no consensus.
    """
    order = np.random.default_rng(seed).permutation(len(xy_a))  # M
    a, b = xy_a[order].astype(np.float64), xy_b[order].astype(np.float64)
    pose = epipolar.pose_consensus(a, b, cameras, inlier_px / 2)
    return None if pose is None else epipolar.refine_pose(pose, a, b, cameras, inlier_px)[0]


def _poselib_homography(xy_a: Float, xy_b: Float, within_px: float, seed: int) -> Matrix | None:
    """PoseLib's LO-RANSAC and non-linear refinement."""
    if not is_installed("poselib"):
        raise MissingExtraError("the estimator 'poselib'", "pose")
    import poselib

    search = {"max_reproj_error": within_px, "seed": seed}
    matrix, report = poselib.estimate_homography(xy_a, xy_b, search, {})
    enough = report["num_inliers"] >= MODELS["homography"].sample_size
    return _invertible(matrix) if enough else None


def _invertible(estimate: object) -> Matrix | None:
    """An estimate as 3x3 float64; None for none, NaN or a singular matrix."""
    if estimate is None:
        return None
    matrix = np.asarray(estimate, np.float64)
    return matrix if np.isfinite(matrix).all() and np.linalg.det(matrix) != 0 else None
