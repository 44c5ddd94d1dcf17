"""Matched points of two large images -> a transform, and where points left out would map to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import Model
from tiepoint.geometry import Matrix
from tiepoint.registration import planar
from tiepoint.registration.derivatives import in_local, linearised, local_coordinates
from tiepoint.registration.large.deformation import empty_grid, fit_deformation
from tiepoint.registration.large.matching import Points
from tiepoint.registration.large.transform import LargeTransform

Array = NDArray[np.float64]

MOST_INTERVALS, LEAST_INTERVALS = 24, 2
"""Intervals of the grid along the longer side of the area with points."""
INTERVALS_PER_WINDOW = 1.5
SPREAD = 3.0
"""Times the median distance from a matrix up to which points belong to a bent image."""
WEIGHT_RANGE = 0.1, 10.0
"""Least and largest weight of a point by its covariance, relative to the median."""


@dataclass(frozen=True, eq=False)
class LargeFit:
    """A transform fitted to points.

    Attributes:
        transform: The map from A to B.
        residuals: N 2, px of B: transformed points of A less their partners.
        left_out: N 2, the same from a fit without the points of the same window.
        inliers: N bool, within the threshold.
    """

    transform: LargeTransform
    residuals: Array
    left_out: Array
    inliers: NDArray[np.bool_]


def fit_smooth(
    points: Points, matrix: Matrix, within_px: float, area: tuple[Array, Array]
) -> LargeFit:
    """A homography, and a smooth displacement of what it leaves.

    Args:
        points: At least 4.
        matrix: 3x3, approximation of the homography.
        within_px: Inlier threshold, px of B.
        area: Two corners of the rectangle of A in which the displacement varies, px.
    """
    near = within_px
    for _ in range(3):
        distances = planar.distances_px(matrix, points.xy_a, points.xy_b)
        near = max(within_px, SPREAD * float(np.median(distances)))
        matrix, _ = planar.refine(
            "homography", matrix, points.xy_a, points.xy_b, near, points.deviation_px
        )
    matrix = planar.facing(matrix, points.xy_a)
    plane = LargeTransform(matrix)
    offsets = points.xy_b - plane.forward(points.xy_a)  # N 2
    low = np.minimum(area[0], points.xy_a.min(axis=0))
    high = np.maximum(area[1], points.xy_a.max(axis=0))
    windows = max(1, len(np.unique(points.cells)))
    extent = high - low
    along = math.sqrt(windows * float(extent.max()) / max(float(extent.min()), 1.0))
    intervals = int(np.clip(round(INTERVALS_PER_WINDOW * along), LEAST_INTERVALS, MOST_INTERVALS))
    weights = 1 / np.square(points.deviation_px / np.median(points.deviation_px))
    fit = fit_deformation(
        empty_grid(low, high, intervals), points.xy_a, offsets, points.cells,
        weights=np.clip(weights, *WEIGHT_RANGE), within_px=planar.ROBUST_SHARE * within_px,
        from_px=planar.ROBUST_SHARE * near,
    )  # fmt: skip
    transform = LargeTransform(matrix, fit.deformation)
    residuals = transform.forward(points.xy_a) - points.xy_b
    inliers = np.hypot(*residuals.T) <= within_px
    return LargeFit(transform, residuals, -fit.left_out, inliers)


def fit_plane(model: Model, points: Points, matrix: Matrix, within_px: float) -> LargeFit:
    """The figures of a plane model that was fitted by `planar.refine`.

    Args:
        matrix: 3x3, the fitted model.
    """
    matrix = planar.facing(matrix, points.xy_a)
    transform = LargeTransform(matrix)
    residuals = transform.forward(points.xy_a) - points.xy_b  # N 2
    inliers = np.hypot(*residuals.T) <= within_px
    left_out = residuals.copy()
    local = local_coordinates(points.xy_a)
    _, slopes = linearised(model, matrix @ local, in_local(local, points.xy_a))  # 2 N K
    scale = planar.ROBUST_SHARE * within_px * points.deviation_px / np.median(points.deviation_px)
    weights = np.square(1 / ((1 + np.square(residuals / scale[:, None]).sum(axis=1)) * scale))
    rows = slopes.transpose(1, 0, 2)  # N 2 K
    # Columns of one size: their units differ by many orders of magnitude.
    rows = rows / np.maximum(np.linalg.norm(rows, axis=(0, 1)), 1e-300)
    gram = np.einsum("nik,nij,n->kj", rows, rows, weights)
    inverse = np.linalg.pinv(gram, hermitian=True)
    for cell in np.unique(points.cells):
        members = np.flatnonzero(points.cells == cell)
        part = rows[members].reshape(-1, rows.shape[2])  # 2M K
        hat = part @ inverse @ part.T * np.repeat(weights[members], 2)
        own = residuals[members].reshape(-1)
        left_out[members] = np.linalg.lstsq(np.eye(len(own)) - hat, own, rcond=None)[0].reshape(
            -1, 2
        )
    return LargeFit(transform, residuals, left_out, inliers)
