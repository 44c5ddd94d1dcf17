"""Two-view models of matched points: the fundamental and the essential matrix.

A robust consensus (USAC_MAGSAC) separates inliers from outliers. Levenberg-Marquardt then
minimises the Sampson distances of the inliers over the 7 or 5 free parameters of these matrices.

Source: Hartley and Zisserman, Multiple View Geometry, section 11.4.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.config import Model
from tiepoint.errors import ConfigError, MissingExtraError, is_installed
from tiepoint.geometry import Float, Matrix
from tiepoint.registration.derivatives import homogeneous
from tiepoint.registration.models import MODELS
from tiepoint.registration.planar import CONFIDENCE, ITERATIONS

FUNDAMENTAL_MATCHES = 8
"""Matches that OpenCV's estimator of the fundamental matrix asks for; 7 determine it."""

ESSENTIAL_MATCHES = MODELS["essential"].sample_size

REFINEMENT_ROUNDS = 4
"""Rounds of refinement, each with the inliers of the last; most pairs converge within them."""

RANDOM_PAIRINGS = 40
"""Random pairings of the same points that `random_inlier_rate` averages over."""

_STEPS = 20  # of Levenberg-Marquardt, which converges in 4 to 8
_DIFFERENCE = 1e-6  # step of the numerical derivatives; parameters are angles and ratios

Vector = NDArray[np.float64]
Cameras = tuple[Matrix, Matrix]
"""K_A and K_B, 3x3 each."""

State = TypeVar("State")


@dataclass(frozen=True, eq=False)
class Pose:
    """Pose of camera B relative to camera A: X_B = R X_A + t.

    Attributes:
        rotation: 3x3.
        translation: 3, of unit length, because two views do not determine the distance.
    """

    rotation: Matrix
    translation: Vector

    @property
    def essential(self) -> Matrix:
        """3x3, x_B^T E x_A = 0 in normalised image coordinates (K^-1 x)."""
        essential: Matrix = cross(self.translation) @ self.rotation
        return essential

    def reversed(self) -> Pose:
        """Pose of camera A relative to camera B."""
        return Pose(self.rotation.T, -self.rotation.T @ self.translation)


def read_cameras(intrinsics: Any, model: Model) -> Cameras | None:
    """K_A and K_B from a caller's intrinsics, K or a pair; None for models that need none."""
    if model != "essential":
        if intrinsics is not None:
            raise ConfigError(f'intrinsics are for model "essential", not for "{model}"')
        return None
    if intrinsics is None:
        raise ConfigError('model "essential" needs intrinsics: K, 3x3, or a pair (K_A, K_B)')
    try:
        matrices = np.asarray(intrinsics, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"intrinsics are no numbers ({error}), expected K, 3x3, or two"
        ) from error
    if matrices.shape == (3, 3):
        matrices = np.stack([matrices, matrices])
    if matrices.shape != (2, 3, 3):
        raise ConfigError(
            f"intrinsics have shape {matrices.shape}, expected K, 3x3, or a pair (K_A, K_B)"
        )
    for camera in matrices:
        well_formed = np.isfinite(camera).all() and (camera[2] == (0, 0, 1)).all()
        if not well_formed or not (np.diag(camera) > 0).all():
            raise ConfigError(
                f"intrinsics {camera.tolist()} are not those of a camera, expected "
                "[[fx, s, cx], [0, fy, cy], [0, 0, 1]] with fx and fy above 0, px"
            )
    return matrices[0], matrices[1]


def cameras_of_text(text: str) -> list[list[list[float]]]:
    """K_A and K_B, 3x3 each, from FX,FY,CX,CY of both images, or of A and then of B.

    Raises:
        ConfigError: Not 4 or 8 numbers.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (4, 8):
        raise ConfigError(
            f"intrinsics is {text!r}, expected FX,FY,CX,CY of both images, or of A and then of B"
        )
    cameras = [numbers[:4], numbers[-4:]]
    return [[[fx, 0, cx], [0, fy, cy], [0, 0, 1]] for fx, fy, cx, cy in cameras]


def fundamental_consensus(xy_a: Float, xy_b: Float, within_px: float) -> Matrix | None:
    """The fundamental matrix that most matches agree on; None without consensus.

    Args:
        xy_a, xy_b: M 2, px; their order acts as the seed.
        within_px: MAGSAC's threshold.
    """
    if len(xy_a) < FUNDAMENTAL_MATCHES:
        return None
    a, b = np.asarray(xy_a, np.float64), np.asarray(xy_b, np.float64)
    try:
        matrix, _ = cv2.findFundamentalMat(a, b, cv2.USAC_MAGSAC, within_px, CONFIDENCE, ITERATIONS)
    except cv2.error:  # points that coincide, or are on one line
        return None
    return _single(matrix)


def pose_consensus(xy_a: Float, xy_b: Float, cameras: Cameras, within_px: float) -> Pose | None:
    """The pose that most matches agree on; arguments as for `fundamental_consensus`."""
    if len(xy_a) < ESSENTIAL_MATCHES:
        return None
    rays_a, rays_b = rays(xy_a, cameras[0]), rays(xy_b, cameras[1])
    try:
        estimate, _ = cv2.findEssentialMat(
            rays_a, rays_b, np.eye(3), method=cv2.USAC_MAGSAC, prob=CONFIDENCE,
            threshold=within_px / mean_focal(cameras), maxIters=ITERATIONS,
        )  # fmt: skip
        essential = _single(estimate)
        if essential is None:
            return None
        near = sampson_px(pixel_matrix(essential, cameras), xy_a, xy_b) <= 2 * within_px
        if near.sum() < ESSENTIAL_MATCHES:
            return None
        _, rotation, translation, _ = cv2.recoverPose(
            essential, rays_a[near], rays_b[near], np.eye(3)
        )
    except cv2.error:  # points that coincide, or are on one line
        return None
    return Pose(np.asarray(rotation, np.float64), np.asarray(translation, np.float64).ravel())


def poselib_pose(
    xy_a: Float, xy_b: Float, cameras: Cameras, within_px: float, seed: int
) -> Pose | None:
    """PoseLib's robust pose (extra `pose`), refined by its own bundle adjustment.

    Args:
        within_px: Maximum epipolar error, twice the threshold of `refine_pose` (measured).
    """
    if not is_installed("poselib"):
        raise MissingExtraError("pose_search='poselib'", "pose")
    import poselib

    if len(xy_a) < ESSENTIAL_MATCHES:
        return None
    focal = mean_focal(cameras)
    # Points as one plain camera would see them, because PoseLib's camera models have no skew.
    points = [rays(xy, camera) * focal for xy, camera in zip((xy_a, xy_b), cameras, strict=True)]
    plain = {"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [focal, 0.0, 0.0]}
    search = {"max_epipolar_error": within_px, "seed": seed}
    pose, report = poselib.estimate_relative_pose(points[0], points[1], plain, plain, search, {})
    translation = np.asarray(pose.t, np.float64)
    length = float(np.linalg.norm(translation))
    if report["num_inliers"] < ESSENTIAL_MATCHES or not 0 < length < np.inf:
        return None
    return Pose(np.asarray(pose.R, np.float64), translation / length)


def refine_fundamental(
    matrix: Matrix, xy_a: Float, xy_b: Float, within_px: float
) -> tuple[Matrix, NDArray[np.bool_]]:
    """Least squares on the Sampson distances of the inliers.

    Returns:
        matrix: 3x3 of rank 2 and norm 1.
        inliers: M, of that matrix.
    """

    def improve(matrix: Matrix, inliers: NDArray[np.bool_]) -> Matrix:
        unit_px = max(float(np.ptp(xy[inliers])) for xy in (xy_a, xy_b))
        (a, back_a), (b, back_b) = (_centred(xy[inliers], unit_px) for xy in (xy_a, xy_b))
        start = back_b.T @ matrix @ back_a
        start /= np.linalg.norm(start)
        step = _levenberg_marquardt(
            lambda step: _signed_sampson(_moved_fundamental(start, step), a, b), "fundamental"
        )
        moved: Matrix = np.linalg.inv(back_b).T @ _moved_fundamental(start, step)
        moved = moved @ np.linalg.inv(back_a)
        return moved / np.linalg.norm(moved)

    return _refined(
        matrix, improve, lambda f: sampson_px(f, xy_a, xy_b) <= within_px, FUNDAMENTAL_MATCHES
    )


def refine_pose(
    pose: Pose, xy_a: Float, xy_b: Float, cameras: Cameras, within_px: float
) -> tuple[Pose, NDArray[np.bool_]]:
    """`refine_fundamental` for the pose of two cameras whose intrinsics are known."""

    def lines(pose: Pose) -> Matrix:
        return pixel_matrix(pose.essential, cameras)

    def improve(pose: Pose, inliers: NDArray[np.bool_]) -> Pose:
        a, b = xy_a[inliers], xy_b[inliers]
        step = _levenberg_marquardt(
            lambda step: _signed_sampson(lines(_moved_pose(pose, step)), a, b), "essential"
        )
        return _moved_pose(pose, step)

    return _refined(
        pose, improve, lambda p: sampson_px(lines(p), xy_a, xy_b) <= within_px, ESSENTIAL_MATCHES
    )


def _refined(
    state: State,
    improve: Callable[[State, NDArray[np.bool_]], State],
    inliers_of: Callable[[State], NDArray[np.bool_]],
    min_matches: int,
) -> tuple[State, NDArray[np.bool_]]:
    """Improve a model on its inliers until they no longer change; the model and its inliers."""
    inliers = inliers_of(state)
    for _ in range(REFINEMENT_ROUNDS):
        if inliers.sum() < min_matches:
            break
        state = improve(state, inliers)
        before, inliers = inliers, inliers_of(state)
        if (before == inliers).all():
            break
    return state, inliers


def sampson_px(matrix: Matrix, xy_a: Float, xy_b: Float) -> NDArray[np.float64]:
    """M: first-order distance of each match from the epipolar geometry, px."""
    return np.abs(_signed_sampson(matrix, xy_a, xy_b))


def random_inlier_rate(matrix: Matrix, xy_a: Float, xy_b: Float, within_px: float) -> float:
    """Probability that a random match is an inlier, 0..1, from random pairings of the same points.

    The area near an epipolar line, as a share of the image, would be far too small where the
    points are in a strip: a line along the strip passes many of them.
    """
    shifts = range(1, min(len(xy_b), RANDOM_PAIRINGS + 1))
    fits = [sampson_px(matrix, xy_a, np.roll(xy_b, shift, axis=0)) <= within_px for shift in shifts]
    return float(np.mean(fits)) if fits else 0.0


def pixel_matrix(essential: Matrix, cameras: Cameras) -> Matrix:
    """The fundamental matrix of an essential one: K_B^-T E K_A^-1."""
    matrix: Matrix = np.linalg.inv(cameras[1]).T @ essential @ np.linalg.inv(cameras[0])
    return matrix


def mean_focal(cameras: Cameras) -> float:
    """Mean focal length of both cameras, px."""
    return float(np.mean([camera[i, i] for camera in cameras for i in range(2)]))


def rays(xy: Float, camera: Matrix) -> NDArray[np.float64]:
    """N 2: px -> normalised image coordinates (K^-1 x)."""
    local = homogeneous(xy) @ np.linalg.inv(camera).T  # N 3
    result: NDArray[np.float64] = local[:, :2] / local[:, 2:]
    return result


def rotation_share(xy_a: Float, xy_b: Float, cameras: Cameras, within_px: float) -> float:
    """Share of M >= 1 matches that a rotation of the camera explains without translation, 0..1."""
    a, b = (homogeneous(rays(xy, camera)) for xy, camera in zip((xy_a, xy_b), cameras, strict=True))
    a /= np.linalg.norm(a, axis=1, keepdims=True)  # M 3
    b /= np.linalg.norm(b, axis=1, keepdims=True)  # M 3
    u, _, vt = np.linalg.svd(b.T @ a)  # Kabsch 1976
    rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    rotated = a @ rotation.T @ cameras[1].T  # M 3
    offsets = rotated[:, :2] / rotated[:, 2:] - xy_b
    return float((np.hypot(offsets[:, 0], offsets[:, 1]) <= within_px).mean())


def cross(vector: Vector) -> Matrix:
    """3x3 with [v]x u = v x u."""
    x, y, z = vector
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def _single(estimate: Any) -> Matrix | None:
    """One finite 3x3 matrix; None for OpenCV's stacks of several."""
    if estimate is None or estimate.shape != (3, 3) or not np.isfinite(estimate).all():
        return None
    return np.asarray(estimate, np.float64)


def _signed_sampson(matrix: Matrix, xy_a: Float, xy_b: Float) -> Vector:
    a, b = homogeneous(xy_a), homogeneous(xy_b)  # M 3
    lines_b, lines_a = a @ matrix.T, b @ matrix  # M 3
    slope = np.hypot(np.hypot(lines_b[:, 0], lines_b[:, 1]), np.hypot(lines_a[:, 0], lines_a[:, 1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (b * lines_b).sum(axis=1) / slope  # M
    result: Vector = np.nan_to_num(distance, nan=np.inf)  # a point on both epipoles
    return result


def _levenberg_marquardt(distances: Callable[[Vector], Vector], model: Model) -> Vector:
    """The step from 0 that minimises the sum of squared distances, by numerical derivatives."""
    size = MODELS[model].degrees_of_freedom
    step, damping = np.zeros(size), 1e-3
    residuals = distances(step)
    for _ in range(_STEPS):
        moved = [distances(step + change) for change in np.eye(size) * _DIFFERENCE]
        jacobian = np.stack([(m - residuals) / _DIFFERENCE for m in moved], axis=1)  # M K
        if not np.isfinite(jacobian).all():
            break
        normal, gradient = jacobian.T @ jacobian, jacobian.T @ residuals
        scale = np.diag(np.diag(normal) + 1e-12 * np.trace(normal) + 1e-300)
        while damping < 1e9:
            trial = step - np.linalg.solve(normal + damping * scale, gradient)
            new_residuals = distances(trial)
            if new_residuals @ new_residuals < residuals @ residuals:
                break
            damping *= 10
        else:
            break
        gain = 1 - (new_residuals @ new_residuals) / (residuals @ residuals)
        step, residuals, damping = trial, new_residuals, max(damping / 10, 1e-12)
        if gain < 1e-9:
            break
    return step


def _moved_pose(pose: Pose, step: Vector) -> Pose:
    """Three angles rotate the camera, two numbers move the translation on its unit sphere."""
    rotation = cv2.Rodrigues(step[:3])[0] @ pose.rotation
    sideways = np.linalg.svd(pose.translation.reshape(1, 3))[2][1:]  # 2 3
    moved = pose.translation + step[3:] @ sideways
    return Pose(rotation, moved / np.linalg.norm(moved))


def _moved_fundamental(matrix: Matrix, step: Vector) -> Matrix:
    """F = U diag(1, s, 0) V^T: three angles rotate U, three rotate V, one number moves s."""
    u, values, vt = np.linalg.svd(matrix)
    middle = np.diag([1.0, values[1] / values[0] + step[6], 0.0])
    rotated_u, rotated_v = cv2.Rodrigues(step[:3])[0] @ u, cv2.Rodrigues(step[3:6])[0] @ vt.T
    moved: Matrix = rotated_u @ middle @ rotated_v.T
    return moved


def _centred(xy: Float, unit_px: float) -> tuple[NDArray[np.float64], Matrix]:
    """Points around 0 in units of `unit_px`, and the matrix back to px."""
    points = np.asarray(xy, np.float64)
    x, y = points.mean(axis=0)
    back = np.array([[unit_px, 0, x], [0, unit_px, y], [0, 0, 1]])
    return (points - (x, y)) / unit_px, back
