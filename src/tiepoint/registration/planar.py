"""Plane-to-plane models of matched points: translation, similarity, affine, homography.

All are 3x3 matrices with x_B ~ H x_A. A robust consensus separates inliers from outliers, then
robust least squares fits the model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.config import Model
from tiepoint.geometry import Float, Matrix, apply_homography
from tiepoint.registration.derivatives import (
    in_local,
    linearised,
    local_coordinates,
    local_jacobian,
)
from tiepoint.registration.models import MODELS

ITERATIONS = 10_000
CONFIDENCE = 0.9999
REFINEMENT_ROUNDS = 20
MIN_GAIN = 1e-6
"""Refinement ends when a step lowers the robust cost by less than this fraction."""

WELL_CONDITIONED = 1e-8
"""Ratio of the least to the largest eigenvalue from which normal equations are used."""

ROBUST_SHARE = 2 / 3
"""Distance at which a match weighs a quarter, as a fraction of the inlier threshold."""

_OUTLYING = 10.0  # inlier thresholds from which a match has no influence
_CHUNK = 256  # translation hypotheses at a time

Array = NDArray[np.float64]


def consensus(model: Model, xy_a: Float, xy_b: Float, within_px: float) -> Matrix | None:
    """The plane model that most matches agree on; None without consensus.

    OpenCV 5.0 seeds its estimators with a constant that `cv2.setRNGSeed` does not change, so the
    order of the matches acts as the seed.

    Args:
        xy_a, xy_b: M 2, px; row i of one matches row i of the other. All finite.
        within_px: Noise scale: MAGSAC's threshold (Barath et al., CVPR 2020). RANSAC's for the
            similarity, because OpenCV has no MAGSAC for it.
    """
    if len(xy_a) < MODELS[model].sample_size:
        return None
    a, b = np.asarray(xy_a, np.float64), np.asarray(xy_b, np.float64)  # M 2
    if model == "translation":
        return as_matrix(_commonest_shift(a, b, within_px))
    limits: dict[str, Any] = {"maxIters": ITERATIONS, "confidence": CONFIDENCE}
    limits["ransacReprojThreshold"] = within_px
    if model == "homography":
        return as_matrix(cv2.findHomography(a, b, cv2.USAC_MAGSAC, **limits)[0])
    limits["refineIters"] = 0
    if model == "affine":
        return as_matrix(cv2.estimateAffine2D(a, b, method=cv2.USAC_MAGSAC, **limits)[0])
    return as_matrix(cv2.estimateAffinePartial2D(a, b, method=cv2.RANSAC, **limits)[0])


def overall_similarity(xy_a: Float, xy_b: Float) -> Matrix | None:
    """The similarity with the least median distance, for matches of a scene with depth, M 2 px."""
    if len(xy_a) < MODELS["similarity"].sample_size:
        return None
    a, b = np.asarray(xy_a, np.float64), np.asarray(xy_b, np.float64)
    return as_matrix(cv2.estimateAffinePartial2D(a, b, method=cv2.LMEDS)[0])


def refine(
    model: Model,
    matrix: Matrix,
    xy_a: Float,
    xy_b: Float,
    within_px: float,
    deviation_px: Array | None = None,
) -> tuple[Matrix, NDArray[np.bool_]]:
    """Robust least squares on all matches: matches that fit worse weigh less.

    Gauss-Newton with Geman and McClure's weights: (1 + (d / s)^2)^-2 at a distance d, where s is
    `ROBUST_SHARE` of `within_px`. Plain least squares on the inliers would be biased by matches a
    few px off, and would depend on which of them count as inliers.

    Args:
        deviation_px: M, expected standard deviation of each match, as `match_deviation_px` gives
            it; only the proportions count. None weighs all matches the same.

    Returns:
        matrix: 3x3; the one given where no step makes it fit better.
        inliers: M, within `within_px` of that matrix. OpenCV's own mask is not used because it
            can belong to another matrix.
    """
    a, b = np.asarray(xy_a, np.float64), np.asarray(xy_b, np.float64)  # M 2
    scale = _scale(within_px, deviation_px, len(a))  # M
    offsets = _offsets(matrix, a, b)  # M 2
    distances = _lengths(offsets)  # M
    if (distances <= within_px).sum() < MODELS[model].sample_size:
        return matrix, distances <= within_px
    matrix = facing(matrix, a[distances <= within_px])
    local = local_coordinates(a)
    points = in_local(local, a)  # M 3
    squares = _squares(distances, scale)  # M
    for _ in range(REFINEMENT_ROUNDS):
        with np.errstate(over="ignore"):  # an infinite product is a weight of 0
            weights = np.square(1 / ((1 + squares) * scale))  # M
        better = _gauss_newton(model, matrix, local, points, offsets, weights)
        if better is None:
            break
        new_offsets = _offsets(better, a, b)  # M 2
        new_distances = _lengths(new_offsets)  # M
        new_squares = _squares(new_distances, scale)  # M
        cost = _robust_cost(squares)
        gain = cost - _robust_cost(new_squares)
        if not gain > 0:
            break
        matrix, offsets, distances, squares = better, new_offsets, new_distances, new_squares
        if gain < MIN_GAIN * cost:
            break
    return matrix, distances <= within_px


def _squares(distances: Array, scale: Array) -> Array:
    """M squares of the distances over the scale; finite, and 1e300 at least as good as infinite."""
    squares: Array = np.minimum(np.square(distances / scale), 1e300)
    return squares


def _robust_cost(squares: Array) -> float:
    """The cost that Geman and McClure's weights minimise: 0..1 per match."""
    return float((squares / (1 + squares)).sum())


def _gauss_newton(
    model: Model, matrix: Matrix, local: Matrix, points: Array, offsets: Array, weights: Array
) -> Matrix | None:
    """One step of least squares on the distances in B.

    Args:
        local: The local coordinates of A, as `local_coordinates` gives them.
        points: M 3, all points of A in them.
        offsets: M 2, px, of the transformed points from their partners.
        weights: M.
    """
    from_local = matrix @ local
    in_front = points @ from_local[2] > 0
    used = np.flatnonzero(in_front & (weights > 0))  # U
    root = np.sqrt(weights[used])  # U
    tangent, slopes = linearised(model, from_local, points[used])
    rows = (slopes * root[:, None]).reshape(-1, tangent.shape[1])  # 2U K
    residuals = -(offsets[used].T * root).ravel()  # 2U
    try:
        step = _least_squares(rows, residuals)  # K
    except np.linalg.LinAlgError:
        return None
    norm = np.linalg.norm(from_local)
    moved = from_local / norm + (tangent @ step).reshape(3, 3)
    return as_matrix(norm * moved @ np.linalg.inv(local))


def _least_squares(rows: Array, residuals: Array) -> Array:
    """K: the x with the least |rows x - residuals|, and the shortest one if several have it.

    By the normal equations, several times as fast as the singular values of the rows, unless they
    would cost more than half of the digits.
    """
    values, vectors = np.linalg.eigh(rows.T @ rows)  # K, K K
    if values[0] > WELL_CONDITIONED * values[-1]:
        solution: Array = vectors @ ((vectors.T @ (rows.T @ residuals)) / values)
        return solution
    return np.asarray(np.linalg.lstsq(rows, residuals, rcond=None)[0])


def distances_px(matrix: Matrix, xy_a: Float, xy_b: Float) -> Array:
    """M distances in B between the transformed points of A and their partners.

    Infinite for points that the matrix maps behind the camera.
    """
    return _lengths(_offsets(matrix, xy_a, xy_b))


def _offsets(matrix: Matrix, xy_a: Float, xy_b: Float) -> Array:
    """M 2: transformed points of A less their partners; NaN for those behind the camera."""
    offsets: Array = apply_homography(facing(matrix, xy_a), xy_a) - xy_b
    return offsets


def _lengths(offsets: Array) -> Array:
    """M: lengths of M 2 vectors; infinite for NaN."""
    lengths: Array = np.hypot(offsets[:, 0], offsets[:, 1])
    lengths[np.isnan(lengths)] = np.inf
    return lengths


def facing(matrix: Matrix, xy: Float) -> Matrix:
    """The matrix with the sign that puts most of these points in front of the camera."""
    w = np.asarray(xy, np.float64) @ matrix[2, :2] + matrix[2, 2]  # N
    return -matrix if (w < 0).sum() > (w > 0).sum() else matrix


@dataclass(frozen=True, eq=False)
class ModelCovariance:
    """How well a plane model is known.

    Attributes:
        from_local: 3x3, from local coordinates of A to px of B.
        local: 3x3, from these coordinates to px of A.
        of_parameters: K K, covariance of the free parameters; None if the matches do not
            overdetermine the model.
    """

    model: Model
    from_local: Matrix
    local: Matrix
    of_parameters: Array | None

    def at(self, places_xy: Float) -> Array:
        """P 2 2: covariance of transformed places, P 2 px of A, px^2 of B.

        Infinite where it is unknown, and for places at infinity or behind the camera.
        """
        if self.of_parameters is None:
            return np.full((len(places_xy), 2, 2), np.inf)
        known = np.asarray(np.isfinite(places_xy).all(axis=1))  # P
        points = in_local(self.local, np.where(known[:, None], places_xy, 0.0))  # P 3
        slopes = linearised(self.model, self.from_local, points)[1].transpose(1, 0, 2)  # P 2 K
        with np.errstate(invalid="ignore", over="ignore"):
            covariance = slopes @ self.of_parameters @ slopes.transpose(0, 2, 1)  # P 2 2
        known &= np.isfinite(covariance).all(axis=(1, 2))
        return np.where(known[:, None, None], covariance, np.inf)


def model_covariance(
    model: Model,
    matrix: Matrix,
    xy_a: Float,
    xy_b: Float,
    within_px: float,
    deviation_px: Array | None = None,
) -> ModelCovariance:
    """How well a model that `refine` returned is known.

    The sandwich estimator of robust regression (Huber, Robust Statistics, section 6.3): unlike
    plain least squares it accounts for the weights, and for wrong matches that happen to be near
    the model.

    Args:
        xy_a, xy_b: M 2, px, all matches that the model was fitted to.
        within_px, deviation_px: As for `refine`.
    """
    a, b = np.asarray(xy_a, np.float64), np.asarray(xy_b, np.float64)  # M 2
    distances = distances_px(matrix, a, b)  # M
    count, parameters = int((distances <= within_px).sum()), MODELS[model].degrees_of_freedom
    near = distances <= _OUTLYING * within_px  # farther ones have no weight
    a, distances = a[near], distances[near]
    local = local_coordinates(a)
    from_local = facing(matrix, a) @ local
    unknown = ModelCovariance(model, from_local, local, None)
    redundancy = 2 * count - parameters
    if redundancy <= 0:
        return unknown
    rows = linearised(model, from_local, in_local(local, a))[1].reshape(-1, parameters)  # 2M K
    size = np.linalg.norm(rows, axis=0)  # K
    if not np.isfinite(rows).all() or (size == 0).any():
        return unknown
    rows /= size
    spread = _scale(within_px, deviation_px if deviation_px is None else deviation_px[near], len(a))
    ratio = (distances / spread) ** 2  # M
    weight = 1 / np.square((1 + ratio) * spread)  # M
    curvature = weight * (1 - ratio) / (1 + ratio)  # M
    information = (rows.T * np.tile(curvature, 2)) @ rows  # K K
    scatter = (rows.T * np.tile((weight * distances) ** 2 / 2, 2)) @ rows  # K K
    values = np.linalg.eigvalsh(information)
    if values[0] <= 1e-11 * values[-1]:
        return unknown
    half = np.linalg.solve(information, scatter)
    of_scaled = np.linalg.solve(information, half.T) * (2 * count / redundancy)  # K K
    return replace(unknown, of_parameters=of_scaled / np.outer(size, size))


def _scale(within_px: float, deviation_px: Array | None, count: int) -> Array:
    """M: distances at which matches weigh a quarter."""
    scale = np.full(count, ROBUST_SHARE * within_px)
    if deviation_px is None or count == 0:
        return scale
    known = np.isfinite(deviation_px) & (deviation_px > 0)  # M
    typical = np.median(deviation_px[known]) if known.any() else 1.0
    result: Array = scale * np.where(known, deviation_px / typical, 1.0)
    return result


def match_deviation_px(
    matrix: Matrix, xy_a: Float, covariance_a: Float, covariance_b: Float
) -> Array:
    """M: standard deviation per axis of a match's offset in B, from both covariances, M 2 2, px^2.

    An approximation of the matrix suffices.
    """
    slopes = local_jacobian(matrix, xy_a)  # M 2 2
    of_a = (slopes @ covariance_a * slopes).sum(axis=(1, 2))  # M, traces of J C J^T
    variance = (of_a + covariance_b[:, 0, 0] + covariance_b[:, 1, 1]) / 2  # M
    deviation: Array = np.sqrt(np.maximum(variance, 0))
    return deviation


def as_matrix(estimate: object) -> Matrix | None:
    """An estimate of OpenCV or PoseLib, 2x3 or 3x3, as 3x3 float64.

    None for a missing estimate, and for one that is not finite or maps the plane to a line.
    """
    if estimate is None:
        return None
    matrix = np.asarray(estimate, np.float64)
    if matrix.shape == (2, 3):
        matrix = np.vstack([matrix, [0, 0, 1]])
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or np.linalg.det(matrix) == 0:
        return None
    return matrix


def _commonest_shift(a: Array, b: Array, within_px: float) -> Array:
    """The match whose shift has the least truncated squared distances to all others (MSAC)."""
    shifts = b - a  # M 2
    costs = np.empty(len(shifts))
    for start in range(0, len(shifts), _CHUNK):
        rows = slice(start, start + _CHUNK)
        squared = ((shifts[rows, None] - shifts[None]) ** 2).sum(axis=2)  # CHUNK M
        costs[rows] = np.minimum(squared, within_px**2).sum(axis=1)
    best: Array = shifts[costs.argmin()]
    return np.column_stack([np.eye(2), best])
