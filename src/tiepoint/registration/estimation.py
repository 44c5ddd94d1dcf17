"""Matches -> a model: consensus, then least squares. Whether to believe it is another matter.

`registration` asks for it, and doubts it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import RegistrationConfig
from tiepoint.features import Features, covariances_of
from tiepoint.geometry import Float
from tiepoint.registration import epipolar, planar
from tiepoint.registration.models import PLANE_MODELS

Cameras = tuple[planar.Matrix, planar.Matrix]


@dataclass(frozen=True, eq=False)
class Found:
    """A model, and which matches fit it."""

    matrix: planar.Matrix
    inliers: NDArray[np.bool_]
    pose: epipolar.Pose | None = None


def find(
    model: str,
    xy_a: Float,
    xy_b: Float,
    inlier_px: float,
    cameras: Cameras | None,
    settings: RegistrationConfig,
    around: tuple[Float, Float] | None = None,
) -> Found | None:
    """Consensus at half the inliers' distance, the best measured; then least squares."""
    if model in PLANE_MODELS:
        start = planar.consensus(model, xy_a, xy_b, inlier_px / 2)
        if start is None:
            return None
        return _refined(model, start, xy_a, xy_b, inlier_px, around)
    if cameras is None:
        rough = epipolar.fundamental_consensus(xy_a, xy_b, inlier_px / 2)
        if rough is None:
            return None
        return Found(*epipolar.refine_fundamental(rough, xy_a, xy_b, inlier_px))
    if settings.pose_search == "poselib":
        pose = epipolar.poselib_pose(xy_a, xy_b, cameras, 2 * inlier_px, settings.seed)
        if pose is None:
            return None
        in_px = epipolar.pixel_matrix(pose.essential, cameras)
        return Found(pose.essential, epipolar.sampson_px(in_px, xy_a, xy_b) <= inlier_px, pose)
    pose = epipolar.pose_consensus(xy_a, xy_b, cameras, inlier_px / 2)
    if pose is None:
        return None
    pose, inliers = epipolar.refine_pose(pose, xy_a, xy_b, cameras, inlier_px)
    return Found(pose.essential, inliers, pose)


def refined_plane(
    model: str,
    start: planar.Matrix,
    features_a: Features,
    features_b: Features,
    pairs: NDArray[np.int64],
    within_px: float,
) -> Found:
    """A plane model from where one is, on other matches; they weigh as their covariances say.

    Args:
        pairs: M 2, index in A and index in B.
    """
    xy_a = features_a.xy[pairs[:, 0]].astype(np.float64)  # M 2
    xy_b = features_b.xy[pairs[:, 1]].astype(np.float64)  # M 2
    around = covariances_of(features_a, features_b, pairs)
    return _refined(model, start, xy_a, xy_b, within_px, around)


def _refined(
    model: str,
    start: planar.Matrix,
    xy_a: Float,
    xy_b: Float,
    within_px: float,
    around: tuple[Float, Float] | None,
) -> Found:
    deviation = None if around is None else planar.match_deviation_px(start, xy_a, *around)
    matrix, inliers = planar.refine(model, start, xy_a, xy_b, within_px, deviation)
    return Found(planar.facing(matrix, xy_a[inliers]), inliers)


def shuffled(xy_a: Float, xy_b: Float, seed: int) -> NDArray[np.int64]:
    """Index of the finite matches, in an order that depends on their places and the seed alone."""
    finite = np.flatnonzero(np.isfinite(xy_a).all(axis=1) & np.isfinite(xy_b).all(axis=1))
    a, b = xy_a[finite], xy_b[finite]
    sorted_ = np.lexsort((b[:, 1], b[:, 0], a[:, 1], a[:, 0]))
    return finite[sorted_[np.random.default_rng(seed).permutation(len(finite))]]
