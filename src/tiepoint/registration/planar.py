"""Plane-to-plane models of matched points: translation, similarity, affine, homography.

All are 3x3 matrices with x_B ~ H x_A. First a consensus among right and wrong matches, then
least squares on the matches that agree with it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import Float, apply_homography

Matrix = NDArray[np.float64]

POINTS_NEEDED = {"translation": 1, "similarity": 2, "affine": 3, "homography": 4}
"""Matches that determine each model."""

ITERATIONS = 10_000
CONFIDENCE = 0.9999
REFINEMENT_ROUNDS = 20
SETTLED = 1e-6
"""Share of the robust cost: a step that gains less is the last."""

ROBUST_SHARE = 2 / 3
"""Distance at which a match weighs a quarter, in parts of the inliers' distance."""

_CHUNK = 256  # hypotheses of the translation at a time


def consensus(model: str, xy_a: Float, xy_b: Float, within_px: float) -> Matrix | None:
    """The model that most matches agree on.

    OpenCV 5.0 seeds its estimators the same every time, and `cv2.setRNGSeed` does not reach
    them: the order of the matches decides, and stands for a seed.

    Args:
        model: A key of `POINTS_NEEDED`.
        xy_a, xy_b: M 2, px; row i of one matches row i of the other. All finite.
        within_px: Scale of the noise: MAGSAC's threshold (Barath et al., CVPR 2020), RANSAC's
            for the similarity, which OpenCV has no MAGSAC for.

    Returns:
        3x3, or None when there are too few matches or no consensus.
    """
    if len(xy_a) < POINTS_NEEDED[model]:
        return None
    a, b = np.asarray(xy_a, np.float64), np.asarray(xy_b, np.float64)  # M 2
    if model == "homography":
        found, _ = cv2.findHomography(
            a, b, cv2.USAC_MAGSAC, within_px, maxIters=ITERATIONS, confidence=CONFIDENCE
        )
    elif model == "affine":
        found, _ = cv2.estimateAffine2D(
            a, b, method=cv2.USAC_MAGSAC, ransacReprojThreshold=within_px,
            maxIters=ITERATIONS, confidence=CONFIDENCE, refineIters=0,
        )  # fmt: skip
    elif model == "similarity":
        found, _ = cv2.estimateAffinePartial2D(
            a, b, method=cv2.RANSAC, ransacReprojThreshold=within_px,
            maxIters=ITERATIONS, confidence=CONFIDENCE, refineIters=0,
        )  # fmt: skip
    else:
        found = _commonest_shift(a, b, within_px)
    return _whole(found)


def refine(
    model: str,
    matrix: Matrix,
    xy_a: Float,
    xy_b: Float,
    within_px: float,
    deviation_px: NDArray[np.float64] | None = None,
) -> tuple[Matrix, NDArray[np.bool_]]:
    """Robust least squares on all matches: the less a match fits, the less it weighs.

    Geman and McClure's weights, (1 + (d / s)^2)^-2 at a distance d, s `ROBUST_SHARE` of
    `within_px`; Gauss-Newton. Matches a few px beside the right place would bend plain least
    squares on inliers, and which of them count would turn on a hair.

    Args:
        deviation_px: M, how far each match may be expected to be off, as `match_deviation_px`
            gives it; only its proportions count. None takes all alike.

    Returns:
        matrix: 3x3; the one given where no step makes it fit better.
        inliers: M, within `within_px` of that matrix. Always taken from the matrix: the mask that
            OpenCV returns can belong to another.
    """
    a, b = np.asarray(xy_a, np.float64), np.asarray(xy_b, np.float64)  # M 2
    reach = np.full(len(a), ROBUST_SHARE * within_px)  # M
    if deviation_px is not None and len(a):
        known = np.isfinite(deviation_px) & (deviation_px > 0)  # M
        typical = np.median(deviation_px[known]) if known.any() else 1.0
        reach *= np.where(known, deviation_px / typical, 1.0)
    distances = distances_px(matrix, a, b)  # M
    if (distances <= within_px).sum() < POINTS_NEEDED[model]:
        return matrix, distances <= within_px
    matrix = facing(matrix, a[distances <= within_px])
    for _ in range(REFINEMENT_ROUNDS):
        weights = ((1 + (distances / reach) ** 2) * reach) ** -2  # M
        better = _gauss_newton(model, matrix, a, b, weights)
        if better is None:
            break
        now = distances_px(better, a, b)  # M
        cost = _robust_cost(distances, reach)
        gain = cost - _robust_cost(now, reach)
        if not gain > 0:
            break
        matrix, distances = better, now
        if gain < SETTLED * cost:
            break
    return matrix, distances <= within_px


def _robust_cost(distances: NDArray[np.float64], reach: NDArray[np.float64]) -> float:
    """What Geman and McClure's weights minimise: 0..1 per match."""
    squares = (distances / reach) ** 2  # M
    with np.errstate(invalid="ignore"):
        return float(np.where(np.isfinite(squares), squares / (1 + squares), 1.0).sum())


def _gauss_newton(
    model: str,
    matrix: Matrix,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> Matrix | None:
    """One step of weighted least squares on the distances in B.

    Args:
        weights: M.
    """
    local, ways, at_points = _linearised(model, matrix, a, a)
    counted = np.isfinite(at_points).all(axis=(1, 2)) & (weights > 0)  # M
    root = np.sqrt(weights[counted])[:, None]  # M 1
    short = (b - apply_homography(matrix, a))[counted] * root  # M 2
    rows = (at_points[counted] * root[:, :, None]).reshape(-1, ways.shape[1])  # 2M K
    try:
        step = np.linalg.lstsq(rows, short.ravel(), rcond=None)[0]  # K
    except np.linalg.LinAlgError:
        return None
    carried = matrix @ local
    norm = np.linalg.norm(carried)
    moved = carried / norm + (ways @ step).reshape(3, 3)
    return _whole(norm * moved @ np.linalg.inv(local))


def distances_px(matrix: Matrix, xy_a: Float, xy_b: Float) -> NDArray[np.float64]:
    """M distances in B between the points of A, carried over, and their partners; infinite for
    points that the matrix sends behind the camera."""
    apart = apply_homography(facing(matrix, xy_a), xy_a) - np.asarray(xy_b, np.float64)  # M 2
    return np.nan_to_num(np.hypot(apart[:, 0], apart[:, 1]), nan=np.inf)


def facing(matrix: Matrix, xy: Float) -> Matrix:
    """The matrix with the sign by which most of these points lie before the camera."""
    w = np.asarray(xy, np.float64) @ matrix[2, :2] + matrix[2, 2]  # N
    return -matrix if (w < 0).sum() > (w > 0).sum() else matrix


def point_deviation_px(
    model: str, matrix: Matrix, xy_a: Float, xy_b: Float, places_xy: Float
) -> NDArray[np.float64]:
    """How far places of A would move in B if the inliers were measured anew.

    First-order propagation of the inliers' scatter through least squares (Hartley and Zisserman,
    Multiple View Geometry, section 5.2.2): what resampling them shows, without the resampling.

    Args:
        xy_a, xy_b: M 2, px, inliers of `matrix`.
        places_xy: P 2, px of A.

    Returns:
        P: root of the summed variances in x and y, px of B. Infinite when the inliers do not
        determine the model, or are no more than determine it, or a place lies at infinity.
    """
    unknown = np.full(len(places_xy), np.inf)
    matrix = facing(matrix, xy_a)
    _, ways, at_both = _linearised(model, matrix, xy_a, np.concatenate([xy_a, places_xy]))
    at_points = at_both[: len(xy_a)]  # M 2 K
    freedom = 2 * len(xy_a) - ways.shape[1]
    if freedom <= 0:
        return unknown
    rows = at_points.reshape(-1, ways.shape[1])  # 2M K
    scale = np.linalg.norm(rows, axis=0)  # K
    if not np.isfinite(rows).all() or (scale == 0).any():
        return unknown
    values, vectors = np.linalg.eigh((rows / scale).T @ (rows / scale))
    if values[0] <= 1e-11 * values[-1]:
        return unknown
    variance = float((distances_px(matrix, xy_a, xy_b) ** 2).sum()) / freedom
    at_places = at_both[len(xy_a) :] / scale  # P 2 K
    spread = (at_places @ vectors) ** 2 / values  # P 2 K
    deviation = np.sqrt(variance * spread.sum(axis=(1, 2)))  # P
    result: NDArray[np.float64] = np.where(np.isfinite(deviation), deviation, np.inf)
    return result


def _linearised(
    model: str, matrix: Matrix, xy_a: Float, places_xy: Float
) -> tuple[Matrix, NDArray[np.float64], NDArray[np.float64]]:
    """How places move in B with what the model leaves free.

    Returns:
        local: 3x3, to px of A from coordinates of order one, so that the rank of the equations
            is a matter of geometry.
        ways: 9 K, the directions in which the entries of `matrix @ local`, of norm 1, may move.
        slopes: P 2 K.
    """
    centre = np.asarray(xy_a, np.float64).mean(axis=0) if len(xy_a) else np.zeros(2)
    size = max(float(np.abs(np.asarray(places_xy) - centre).max(initial=0)), 1.0)
    local = np.array([[size, 0, centre[0]], [0, size, centre[1]], [0, 0, 1]])
    carried = matrix @ local  # 3 3; from local coordinates to B
    carried /= np.linalg.norm(carried)
    ways = _tangent(model, carried)  # 9 K
    return local, ways, _slopes(carried, (places_xy - centre) / size) @ ways


def match_deviation_px(
    matrix: Matrix, xy_a: Float, covariance_a: Float, covariance_b: Float
) -> NDArray[np.float64]:
    """M: standard deviation per axis in B of a match's two positions together, px of B.

    Args:
        matrix: 3x3, x_B ~ H x_A, as far as it is known.
        xy_a: M 2, px.
        covariance_a, covariance_b: M 2 2, px^2 of A and of B.
    """
    slopes = local_jacobian(matrix, xy_a)  # M 2 2
    total = slopes @ covariance_a @ slopes.transpose(0, 2, 1) + covariance_b  # M 2 2
    variance = np.trace(total, axis1=1, axis2=2) / 2  # M
    deviation: NDArray[np.float64] = np.sqrt(np.maximum(variance, 0))
    return deviation


def local_jacobian(matrix: Matrix, xy: Float) -> NDArray[np.float64]:
    """N 2 2: by how many px of B a point moves along x and y for a px of A along x and y."""
    points = np.column_stack([xy, np.ones(len(xy))])  # N 3
    w = (points @ matrix[2])[:, None, None]  # N 1 1
    carried = apply_homography(matrix, xy)  # N 2
    slopes: NDArray[np.float64] = (matrix[:2, :2] - carried[:, :, None] * matrix[2, :2]) / w
    return slopes


def _commonest_shift(
    a: NDArray[np.float64], b: NDArray[np.float64], within_px: float
) -> NDArray[np.float64]:
    """Every match is tried as the shift; truncated squared distances decide (MSAC)."""
    shifts = b - a  # M 2
    costs = np.empty(len(shifts))
    for start in range(0, len(shifts), _CHUNK):
        rows = slice(start, start + _CHUNK)
        squared = ((shifts[rows, None] - shifts[None]) ** 2).sum(axis=2)  # CHUNK M
        costs[rows] = np.minimum(squared, within_px**2).sum(axis=1)
    best: NDArray[np.float64] = shifts[costs.argmin()]
    return np.column_stack([np.eye(2), best])


def _whole(found: object) -> Matrix | None:
    """A 2x3 or 3x3 result of OpenCV as 3x3 float64; None for none, NaN or a flattened plane."""
    if found is None:
        return None
    matrix = np.asarray(found, np.float64)
    if matrix.shape == (2, 3):
        matrix = np.vstack([matrix, [0, 0, 1]])
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or np.linalg.det(matrix) == 0:
        return None
    return matrix


def _tangent(model: str, matrix: Matrix) -> NDArray[np.float64]:
    """9 K: the directions in which the entries of the matrix may move, row by row."""
    ways = np.zeros((9, 9))
    if model == "homography":
        flat = matrix.reshape(1, 9)
        return np.linalg.svd(flat)[2][1:].T  # all but its own scale
    if model == "affine":
        return np.eye(9)[:, :6]
    ways[2, 0] = ways[5, 1] = 1
    ways[[0, 4], 2] = 1
    ways[1, 3], ways[3, 3] = -1, 1
    return ways[:, :2] if model == "translation" else ways[:, :4]


def _slopes(matrix: Matrix, xy: Float) -> NDArray[np.float64]:
    """N 2 9: how the carried points move with each entry of the matrix."""
    points = np.column_stack([xy, np.ones(len(xy))])  # N 3
    mapped = points @ matrix.T  # N 3
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        w = np.where(mapped[:, 2:] > 0, mapped[:, 2:], np.nan)  # N 1
        over = points / w  # N 3
        carried = mapped[:, :2] / w  # N 2
    slopes = np.zeros((len(xy), 2, 9))
    slopes[:, 0, 0:3] = slopes[:, 1, 3:6] = over
    slopes[:, :, 6:9] = -carried[:, :, None] * over[:, None, :]
    return slopes
