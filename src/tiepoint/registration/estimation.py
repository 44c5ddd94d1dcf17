"""Matches -> a model: robust consensus, then least squares. `verdict` decides whether it holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import Model, PoseSearch
from tiepoint.features import Features
from tiepoint.geometry import Float, Matrix
from tiepoint.registration import epipolar, planar
from tiepoint.registration.epipolar import Cameras
from tiepoint.registration.models import PLANE_MODELS


@dataclass(frozen=True, eq=False)
class Estimate:
    """A model estimated from M matches.

    Attributes:
        matrix: 3x3; the sign of plane models puts the inliers in front of the camera.
        inliers: M bool.
        pose: Pose of "essential"; None for other models.
    """

    matrix: Matrix
    inliers: NDArray[np.bool_]
    pose: epipolar.Pose | None = None

    def reversed(self, model: Model) -> Estimate:
        """The same model from B to A."""
        if model in PLANE_MODELS:
            return replace(self, matrix=np.asarray(np.linalg.inv(self.matrix), np.float64))
        pose = None if self.pose is None else self.pose.reversed()
        return replace(self, matrix=self.matrix.T, pose=pose)


def estimate_model(
    xy_a: Float,
    xy_b: Float,
    *,
    model: Model,
    within_px: float,
    cameras: Cameras | None = None,
    covariances: tuple[Float, Float] | None = None,
    start: Matrix | None = None,
    pose_search: PoseSearch = "opencv",
    seed: int = 0,
) -> Estimate | None:
    """The model that most matches agree on, refined; None without consensus.

    The consensus uses half the inlier threshold, which measured best.

    Args:
        xy_a, xy_b: M 2, px, finite; their order acts as the seed of OpenCV's estimators.
        within_px: Inlier threshold, px; of B for plane models.
        cameras: (K_A, K_B), for "essential".
        covariances: M 2 2 of A and of B, px^2, by which plane models weigh matches; None weighs
            all the same.
        start: Approximation of a plane model, refined without consensus.
        pose_search: Solver of the essential matrix.
        seed: Seed of PoseLib.
    """
    if model in PLANE_MODELS:
        if start is None:
            start = planar.consensus(model, xy_a, xy_b, within_px / 2)
        if start is None:
            return None
        deviation_px = None
        if covariances is not None:
            deviation_px = planar.match_deviation_px(start, xy_a, *covariances)
        matrix, inliers = planar.refine(model, start, xy_a, xy_b, within_px, deviation_px)
        return Estimate(planar.facing(matrix, xy_a[inliers]), inliers)
    if model == "fundamental":
        start = epipolar.fundamental_consensus(xy_a, xy_b, within_px / 2)
        if start is None:
            return None
        return Estimate(*epipolar.refine_fundamental(start, xy_a, xy_b, within_px))
    assert cameras is not None
    if pose_search == "poselib":
        pose = epipolar.poselib_pose(xy_a, xy_b, cameras, 2 * within_px, seed)
        if pose is None:
            return None
        lines = epipolar.pixel_matrix(pose.essential, cameras)
        inliers = epipolar.sampson_px(lines, xy_a, xy_b) <= within_px
    else:
        pose = epipolar.pose_consensus(xy_a, xy_b, cameras, within_px / 2)
        if pose is None:
            return None
        pose, inliers = epipolar.refine_pose(pose, xy_a, xy_b, cameras, within_px)
    return Estimate(pose.essential, inliers, pose)


def matched_xy(
    features_a: Features, features_b: Features, pairs: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """M 2 in A and M 2 in B, px: the positions of matched keypoints."""
    xy_a, xy_b = features_a.xy[pairs[:, 0]], features_b.xy[pairs[:, 1]]
    return xy_a.astype(np.float64), xy_b.astype(np.float64)


def shuffled(xy_a: Float, xy_b: Float, seed: int) -> NDArray[np.int64]:
    """Indices of the finite matches, in an order that depends on positions and seed only."""
    finite = np.flatnonzero(np.isfinite(xy_a).all(axis=1) & np.isfinite(xy_b).all(axis=1))
    a, b = xy_a[finite], xy_b[finite]
    by_position = np.lexsort((b[:, 1], b[:, 0], a[:, 1], a[:, 0]))
    return finite[by_position[np.random.default_rng(seed).permutation(len(finite))]]
