"""Plane-to-plane models of matched points: translation, similarity, affine, homography.

All are 3x3 matrices with x_B ~ H x_A. A robust consensus separates inliers from outliers, then
robust least squares fits the model.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.config import Model
from tiepoint.geometry import Float, Matrix, apply_homography
from tiepoint.registration.models import MODELS

ITERATIONS = 10_000
CONFIDENCE = 0.9999
REFINEMENT_ROUNDS = 20
MIN_GAIN = 1e-6
"""Refinement ends when a step lowers the robust cost by less than this fraction."""

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
    distances = distances_px(matrix, a, b)  # M
    if (distances <= within_px).sum() < MODELS[model].sample_size:
        return matrix, distances <= within_px
    matrix = facing(matrix, a[distances <= within_px])
    for _ in range(REFINEMENT_ROUNDS):
        weights = ((1 + (distances / scale) ** 2) * scale) ** -2  # M
        better = _gauss_newton(model, matrix, a, b, weights)
        if better is None:
            break
        new_distances = distances_px(better, a, b)  # M
        cost = _robust_cost(distances, scale)
        gain = cost - _robust_cost(new_distances, scale)
        if not gain > 0:
            break
        matrix, distances = better, new_distances
        if gain < MIN_GAIN * cost:
            break
    return matrix, distances <= within_px


def _robust_cost(distances: Array, scale: Array) -> float:
    """The cost that Geman and McClure's weights minimise: 0..1 per match."""
    squares = (distances / scale) ** 2  # M
    with np.errstate(invalid="ignore"):
        return float(np.where(np.isfinite(squares), squares / (1 + squares), 1.0).sum())


def _gauss_newton(
    model: Model, matrix: Matrix, a: Array, b: Array, weights: Array
) -> Matrix | None:
    """One step of least squares on the distances in B, with M weights."""
    local, tangent, slopes = _linearised(model, matrix, a, a)
    used = np.isfinite(slopes).all(axis=(1, 2)) & (weights > 0)  # M
    root = np.sqrt(weights[used])[:, None]  # M 1
    residuals = (b - apply_homography(matrix, a))[used] * root  # M 2
    rows = (slopes[used] * root[:, :, None]).reshape(-1, tangent.shape[1])  # 2M K
    try:
        step = np.linalg.lstsq(rows, residuals.ravel(), rcond=None)[0]  # K
    except np.linalg.LinAlgError:
        return None
    from_local = matrix @ local
    norm = np.linalg.norm(from_local)
    moved = from_local / norm + (tangent @ step).reshape(3, 3)
    return as_matrix(norm * moved @ np.linalg.inv(local))


def distances_px(matrix: Matrix, xy_a: Float, xy_b: Float) -> Array:
    """M distances in B between the transformed points of A and their partners.

    Infinite for points that the matrix maps behind the camera.
    """
    offsets = apply_homography(facing(matrix, xy_a), xy_a) - np.asarray(xy_b, np.float64)  # M 2
    return np.nan_to_num(np.hypot(offsets[:, 0], offsets[:, 1]), nan=np.inf)


def facing(matrix: Matrix, xy: Float) -> Matrix:
    """The matrix with the sign that puts most of these points in front of the camera."""
    w = np.asarray(xy, np.float64) @ matrix[2, :2] + matrix[2, 2]  # N
    return -matrix if (w < 0).sum() > (w > 0).sum() else matrix


def point_covariance(
    model: Model,
    matrix: Matrix,
    xy_a: Float,
    xy_b: Float,
    places_xy: Float,
    within_px: float,
    deviation_px: Array | None = None,
) -> Array:
    """P 2 2: covariance of transformed places, px^2 of B, for a model that `refine` returned.

    The sandwich estimator of robust regression (Huber, Robust Statistics, section 6.3): unlike
    plain least squares it accounts for the weights, and for wrong matches that happen to be near
    the model. Infinite when the matches do not overdetermine the model, or for places at infinity.

    Args:
        xy_a, xy_b: M 2, px, all matches that the model was fitted to.
        places_xy: P 2, px of A.
        within_px, deviation_px: As for `refine`.
    """
    unknown = np.full((len(places_xy), 2, 2), np.inf)
    a, b = np.asarray(xy_a, np.float64), np.asarray(xy_b, np.float64)  # M 2
    distances = distances_px(matrix, a, b)  # M
    inliers = distances <= within_px
    count, parameters = int(inliers.sum()), MODELS[model].degrees_of_freedom
    redundancy = 2 * count - parameters
    if redundancy <= 0:
        return unknown
    near = distances <= _OUTLYING * within_px  # farther ones have no weight
    a, b, distances = a[near], b[near], distances[near]
    matrix = facing(matrix, a)
    places = np.nan_to_num(np.asarray(places_xy, np.float64))  # P 2
    _, _, slopes = _linearised(model, matrix, a, np.concatenate([a, places]))
    rows, at_places = slopes[: len(a)], slopes[len(a) :]
    scale = np.linalg.norm(rows.reshape(-1, parameters), axis=0)  # K
    if not np.isfinite(rows).all() or (scale == 0).any():
        return unknown
    rows, at_places = rows / scale, at_places / scale
    spread = _scale(within_px, deviation_px if deviation_px is None else deviation_px[near], len(a))
    ratio = (distances / spread) ** 2  # M
    weight = ((1 + ratio) * spread) ** -2  # M
    curvature = weight * (1 - ratio) / (1 + ratio)  # M
    information = np.einsum("m,mik,mil->kl", curvature, rows, rows)
    scatter = np.einsum("m,mik,mil->kl", (weight * distances) ** 2 / 2, rows, rows)
    values = np.linalg.eigvalsh(information)
    if values[0] <= 1e-11 * values[-1]:
        return unknown
    half = np.linalg.solve(information, scatter)
    of_model = np.linalg.solve(information, half.T) * (2 * count / redundancy)  # K K
    with np.errstate(invalid="ignore"):
        covariance = at_places @ of_model @ at_places.transpose(0, 2, 1)  # P 2 2
    finite = np.isfinite(covariance).all(axis=(1, 2)) & np.isfinite(places_xy).all(axis=1)
    return np.where(finite[:, None, None], covariance, np.inf)


def _scale(within_px: float, deviation_px: Array | None, count: int) -> Array:
    """M: distances at which matches weigh a quarter."""
    scale = np.full(count, ROBUST_SHARE * within_px)
    if deviation_px is None or count == 0:
        return scale
    known = np.isfinite(deviation_px) & (deviation_px > 0)  # M
    typical = np.median(deviation_px[known]) if known.any() else 1.0
    result: Array = scale * np.where(known, deviation_px / typical, 1.0)
    return result


def _linearised(
    model: Model, matrix: Matrix, xy_a: Float, places_xy: Float
) -> tuple[Matrix, Array, Array]:
    """Derivatives of transformed places with respect to the free parameters of the model.

    Returns:
        local: 3x3, to px of A from coordinates of order one, so that the rank of the equations
            depends on the geometry alone.
        tangent: 9 K, the directions in which the entries of `matrix @ local`, of norm 1, may move.
        slopes: P 2 K.
    """
    centre = np.asarray(xy_a, np.float64).mean(axis=0) if len(xy_a) else np.zeros(2)
    size = max(float(np.abs(np.asarray(places_xy) - centre).max(initial=0)), 1.0)
    local = np.array([[size, 0, centre[0]], [0, size, centre[1]], [0, 0, 1]])
    from_local = matrix @ local  # 3 3
    from_local /= np.linalg.norm(from_local)
    tangent = _tangent(model, from_local)  # 9 K
    return local, tangent, _slopes(from_local, (places_xy - centre) / size) @ tangent


def match_deviation_px(
    matrix: Matrix, xy_a: Float, covariance_a: Float, covariance_b: Float
) -> Array:
    """M: standard deviation per axis of a match's offset in B, from both covariances, M 2 2, px^2.

    An approximation of the matrix suffices.
    """
    slopes = local_jacobian(matrix, xy_a)  # M 2 2
    total = slopes @ covariance_a @ slopes.transpose(0, 2, 1) + covariance_b  # M 2 2
    variance = np.trace(total, axis1=1, axis2=2) / 2  # M
    deviation: Array = np.sqrt(np.maximum(variance, 0))
    return deviation


def local_jacobian(matrix: Matrix, xy: Float) -> Array:
    """N 2 2: derivative of the transformed points, px of B per px of A along x and y."""
    w = (homogeneous(xy) @ matrix[2])[:, None, None]  # N 1 1
    mapped = apply_homography(matrix, xy)  # N 2
    jacobian: Array = (matrix[:2, :2] - mapped[:, :, None] * matrix[2, :2]) / w
    return jacobian


def homogeneous(xy: Float) -> Array:
    """N 3: (x, y, 1), float64."""
    return np.column_stack([np.asarray(xy, np.float64), np.ones(len(xy))])


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


def _tangent(model: Model, matrix: Matrix) -> Array:
    """9 K: the directions in which the entries of the matrix may move, row by row."""
    if model == "homography":
        return np.linalg.svd(matrix.reshape(1, 9))[2][1:].T  # all but its own scale
    count = MODELS[model].degrees_of_freedom
    if model == "affine":
        return np.eye(9)[:, :count]
    directions = np.zeros((9, 4))  # shift in x, shift in y, scale, rotation
    directions[2, 0] = directions[5, 1] = 1
    directions[[0, 4], 2] = 1
    directions[1, 3], directions[3, 3] = -1, 1
    return directions[:, :count]


def _slopes(matrix: Matrix, xy: Float) -> Array:
    """N 2 9: derivatives of the transformed points with respect to the entries of the matrix."""
    points = homogeneous(xy)  # N 3
    mapped = points @ matrix.T  # N 3
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        w = np.where(mapped[:, 2:] > 0, mapped[:, 2:], np.nan)  # N 1
        scaled = points / w  # N 3
        xy_b = mapped[:, :2] / w  # N 2
    slopes = np.zeros((len(xy), 2, 9))
    slopes[:, 0, 0:3] = slopes[:, 1, 3:6] = scaled
    slopes[:, :, 6:9] = -xy_b[:, :, None] * scaled[:, None, :]
    return slopes
