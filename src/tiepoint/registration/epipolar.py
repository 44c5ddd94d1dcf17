"""Two-view models of matched points: the fundamental and the essential matrix.

Consensus by USAC_MAGSAC, then Levenberg-Marquardt on the Sampson distances of the inliers
(Hartley and Zisserman, Multiple View Geometry, section 11.4.3), over exactly the 7 or 5
parameters that these matrices have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError, MissingExtraError, is_installed
from tiepoint.geometry import Float
from tiepoint.registration.planar import CONFIDENCE, ITERATIONS, Matrix

POINTS_NEEDED = {"fundamental": 8, "essential": 5}
"""Matches that OpenCV's estimators ask for."""

REFINEMENT_ROUNDS = 4
"""Rounds on inliers that are taken anew; most pairs have settled by then."""

WRONG_PAIRINGS = 40
"""Ways in which `wrong_share` pairs the same places anew."""

_STEPS = 20  # of Levenberg-Marquardt; it settles in 4 to 8
_DIFFERENCE = 1e-6  # step of the numerical derivatives; parameters are angles and ratios

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pose:
    """Where camera B stands to camera A: X_B = R X_A + t.

    Attributes:
        rotation: 3x3.
        translation: 3, of unit length: two views do not tell the distance.
    """

    rotation: Matrix
    translation: Vector

    @property
    def essential(self) -> Matrix:
        """3x3, x_B^T E x_A = 0 in coordinates of the cameras (K^-1 x)."""
        essential: Matrix = cross(self.translation) @ self.rotation
        return essential


def read_cameras(intrinsics: Any, model: str) -> tuple[Matrix, Matrix] | None:
    """K_A and K_B from what a caller gave; None for models that need none.

    Raises:
        ConfigError: Not K, 3x3, nor a pair of them; or given or missing where it should not be.
    """
    if model != "essential":
        if intrinsics is not None:
            raise ConfigError(f'intrinsics are for model "essential", not for "{model}"')
        return None
    if intrinsics is None:
        raise ConfigError('model "essential" needs intrinsics: K, 3x3, or a pair (K_A, K_B)')
    try:
        matrices = np.asarray(intrinsics, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"intrinsics are no numbers ({error}): K, 3x3, or a pair") from error
    if matrices.shape == (3, 3):
        matrices = np.stack([matrices, matrices])
    if matrices.shape != (2, 3, 3):
        raise ConfigError(
            f"intrinsics have shape {matrices.shape}, expected K, 3x3, or a pair (K_A, K_B)"
        )
    for camera in matrices:
        last_row = np.isfinite(camera).all() and (camera[2] == (0, 0, 1)).all()
        if not last_row or not (np.diag(camera) > 0).all():
            raise ConfigError(
                f"intrinsics {camera.tolist()} are not those of a camera, expected "
                "[[fx, s, cx], [0, fy, cy], [0, 0, 1]] with fx and fy above 0, px"
            )
    return matrices[0], matrices[1]


def fundamental_consensus(xy_a: Float, xy_b: Float, within_px: float) -> Matrix | None:
    """The fundamental matrix that most matches agree on; None without one.

    Args:
        xy_a, xy_b: M 2, px, in an order that stands for a seed.
        within_px: MAGSAC's threshold.
    """
    if len(xy_a) < POINTS_NEEDED["fundamental"]:
        return None
    a, b = np.asarray(xy_a, np.float64), np.asarray(xy_b, np.float64)
    try:
        found, _ = cv2.findFundamentalMat(a, b, cv2.USAC_MAGSAC, within_px, CONFIDENCE, ITERATIONS)
    except cv2.error:  # points that are all one, or on one line
        return None
    if found is None or found.shape != (3, 3) or not np.isfinite(found).all():
        return None
    return np.asarray(found, np.float64)


def pose_consensus(
    xy_a: Float, xy_b: Float, cameras: tuple[Matrix, Matrix], within_px: float
) -> Pose | None:
    """The pose that most matches agree on; None without one.

    Args:
        xy_a, xy_b: M 2, px, in an order that stands for a seed.
        cameras: K_A and K_B, 3x3.
        within_px: MAGSAC's threshold.
    """
    if len(xy_a) < POINTS_NEEDED["essential"]:
        return None
    rays_a, rays_b = rays(xy_a, cameras[0]), rays(xy_b, cameras[1])
    focal = mean_focal(cameras)
    try:
        found, _ = cv2.findEssentialMat(
            rays_a, rays_b, np.eye(3), method=cv2.USAC_MAGSAC, prob=CONFIDENCE,
            threshold=within_px / focal, maxIters=ITERATIONS,
        )  # fmt: skip
        if found is None or found.shape != (3, 3) or not np.isfinite(found).all():
            return None
        near = sampson_px(pixel_matrix(found, cameras), xy_a, xy_b) <= 2 * within_px
        if near.sum() < POINTS_NEEDED["essential"]:
            return None
        _, rotation, translation, _ = cv2.recoverPose(found, rays_a[near], rays_b[near], np.eye(3))
    except cv2.error:  # points that are all one, or on one line
        return None
    return Pose(np.asarray(rotation, np.float64), np.asarray(translation, np.float64).ravel())


def poselib_pose(
    xy_a: Float, xy_b: Float, cameras: tuple[Matrix, Matrix], within_px: float, seed: int
) -> Pose | None:
    """PoseLib's robust pose (extra `pose`), refined by its own bundle adjustment.

    Args:
        within_px: The largest epipolar error that still counts; PoseLib wants twice what
            `refine_pose` does (measured).

    Raises:
        MissingExtraError: PoseLib is not installed.
    """
    if not is_installed("poselib"):
        raise MissingExtraError("pose_search='poselib'", "pose")
    import poselib

    if len(xy_a) < POINTS_NEEDED["essential"]:
        return None
    focal = mean_focal(cameras)
    # Rays in px of one plain camera: PoseLib's own models know no skew.
    points = [rays(xy, camera) * focal for xy, camera in zip((xy_a, xy_b), cameras, strict=True)]
    plain = {"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [focal, 0.0, 0.0]}
    search = {"max_epipolar_error": within_px, "seed": seed}
    pose, report = poselib.estimate_relative_pose(points[0], points[1], plain, plain, search, {})
    moved = np.asarray(pose.t, np.float64)
    length = float(np.linalg.norm(moved))
    if report["num_inliers"] < POINTS_NEEDED["essential"] or not 0 < length < np.inf:
        return None
    return Pose(np.asarray(pose.R, np.float64), moved / length)


def refine_fundamental(
    matrix: Matrix, xy_a: Float, xy_b: Float, within_px: float
) -> tuple[Matrix, NDArray[np.bool_]]:
    """Least Sampson distance on the matches within reach, which are taken anew each round.

    Returns:
        matrix: 3x3 of rank 2 and norm 1.
        inliers: M, of that matrix.
    """

    def of_inliers(now: Matrix, inside: NDArray[np.bool_]) -> Matrix:
        unit_px = max(float(np.ptp(xy[inside])) for xy in (xy_a, xy_b))
        a, b = _centred(xy_a[inside], unit_px), _centred(xy_b[inside], unit_px)
        start = _without(now, a[1], b[1])
        best = _levenberg_marquardt(
            lambda step: _signed_sampson(_moved_fundamental(start, step), a[0], b[0]), 7
        )
        moved = _moved_fundamental(start, best)
        back: Matrix = np.linalg.inv(b[1]).T @ moved @ np.linalg.inv(a[1])
        return back / np.linalg.norm(back)

    inliers = sampson_px(matrix, xy_a, xy_b) <= within_px
    for _ in range(REFINEMENT_ROUNDS):
        if inliers.sum() < POINTS_NEEDED["fundamental"]:
            break
        matrix = of_inliers(matrix, inliers)
        before, inliers = inliers, sampson_px(matrix, xy_a, xy_b) <= within_px
        if (before == inliers).all():
            break
    return matrix, inliers


def refine_pose(
    pose: Pose, xy_a: Float, xy_b: Float, cameras: tuple[Matrix, Matrix], within_px: float
) -> tuple[Pose, NDArray[np.bool_]]:
    """`refine_fundamental` for a pose of two cameras that are known."""
    inliers = sampson_px(pixel_matrix(pose.essential, cameras), xy_a, xy_b) <= within_px
    for _ in range(REFINEMENT_ROUNDS):
        if inliers.sum() < POINTS_NEEDED["essential"]:
            break
        start, a, b = pose, xy_a[inliers], xy_b[inliers]

        def distances(step: Vector, start: Pose = start, a: Float = a, b: Float = b) -> Vector:
            essential = _moved_pose(start, step).essential
            return _signed_sampson(pixel_matrix(essential, cameras), a, b)

        pose = _moved_pose(start, _levenberg_marquardt(distances, 5))
        now = sampson_px(pixel_matrix(pose.essential, cameras), xy_a, xy_b) <= within_px
        before, inliers = inliers, now
        if (before == inliers).all():
            break
    return pose, inliers


def sampson_px(matrix: Matrix, xy_a: Float, xy_b: Float) -> NDArray[np.float64]:
    """M: first-order distance of each match from the epipolar geometry, px."""
    return np.abs(_signed_sampson(matrix, xy_a, xy_b))


def wrong_share(matrix: Matrix, xy_a: Float, xy_b: Float, within_px: float) -> float:
    """How often a wrong match would fit: the share of the same places, paired anew, that do, 0..1.

    Where the points of an image lie in a strip, lines along it pass many of them: the area that is
    near the lines, over the image's, would say much less.

    Args:
        xy_a, xy_b: M 2, px, all matches.
        within_px: What counts as a fit.
    """
    shifts = range(1, min(len(xy_b), WRONG_PAIRINGS + 1))
    fits = [sampson_px(matrix, xy_a, np.roll(xy_b, shift, axis=0)) <= within_px for shift in shifts]
    return float(np.mean(fits)) if fits else 0.0


def pixel_matrix(essential: Matrix, cameras: tuple[Matrix, Matrix]) -> Matrix:
    """The fundamental matrix of an essential one: K_B^-T E K_A^-1."""
    matrix: Matrix = np.linalg.inv(cameras[1]).T @ essential @ np.linalg.inv(cameras[0])
    return matrix


def mean_focal(cameras: tuple[Matrix, Matrix]) -> float:
    """px."""
    return float(np.mean([camera[i, i] for camera in cameras for i in range(2)]))


def rays(xy: Float, camera: Matrix) -> NDArray[np.float64]:
    """N 2: px -> coordinates of the camera at depth 1."""
    points = np.column_stack([np.asarray(xy, np.float64), np.ones(len(xy))])  # N 3
    local = points @ np.linalg.inv(camera).T  # N 3
    result: NDArray[np.float64] = local[:, :2] / local[:, 2:]
    return result


def turned_share(
    xy_a: Float, xy_b: Float, cameras: tuple[Matrix, Matrix], within_px: float
) -> float:
    """Share of the matches that a turn of the camera alone explains: its position is then open.

    Args:
        xy_a, xy_b: M 2, px, at least one.
    """
    a, b = (
        np.column_stack([rays(xy, camera), np.ones(len(xy))])
        for xy, camera in zip((xy_a, xy_b), cameras, strict=True)
    )
    a /= np.linalg.norm(a, axis=1, keepdims=True)  # M 3
    b /= np.linalg.norm(b, axis=1, keepdims=True)  # M 3
    u, _, vt = np.linalg.svd(b.T @ a)  # Kabsch 1976
    rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    carried = a @ rotation.T @ cameras[1].T  # M 3
    apart = carried[:, :2] / carried[:, 2:] - xy_b
    return float((np.hypot(apart[:, 0], apart[:, 1]) <= within_px).mean())


def cross(vector: Vector) -> Matrix:
    """3x3 with [v]x u = v x u."""
    x, y, z = vector
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def _signed_sampson(matrix: Matrix, xy_a: Float, xy_b: Float) -> Vector:
    a = np.column_stack([np.asarray(xy_a, np.float64), np.ones(len(xy_a))])  # M 3
    b = np.column_stack([np.asarray(xy_b, np.float64), np.ones(len(xy_b))])  # M 3
    lines_b, lines_a = a @ matrix.T, b @ matrix  # M 3
    slope = np.hypot(np.hypot(lines_b[:, 0], lines_b[:, 1]), np.hypot(lines_a[:, 0], lines_a[:, 1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (b * lines_b).sum(axis=1) / slope  # M
    result: Vector = np.nan_to_num(distance, nan=np.inf)  # a point on both epipoles
    return result


def _levenberg_marquardt(distances: Callable[[Vector], Vector], size: int) -> Vector:
    """The step from 0 that makes the sum of squared distances least, by numerical slopes."""
    step, damping = np.zeros(size), 1e-3
    now = distances(step)
    for _ in range(_STEPS):
        slopes = np.stack(
            [(distances(step + way) - now) / _DIFFERENCE for way in np.eye(size) * _DIFFERENCE],
            axis=1,
        )  # M K
        if not np.isfinite(slopes).all():
            break
        normal, pull = slopes.T @ slopes, slopes.T @ now
        scale = np.diag(np.diag(normal) + 1e-12 * np.trace(normal) + 1e-300)
        while damping < 1e9:
            trial = step - np.linalg.solve(normal + damping * scale, pull)
            there = distances(trial)
            if there @ there < now @ now:
                break
            damping *= 10
        else:
            break
        gain = 1 - (there @ there) / (now @ now)
        step, now, damping = trial, there, max(damping / 10, 1e-12)
        if gain < 1e-9:
            break
    return step


def _moved_pose(pose: Pose, step: Vector) -> Pose:
    """Three angles turn the rotation, two move the translation on its sphere."""
    rotation = cv2.Rodrigues(step[:3])[0] @ pose.rotation
    sideways = np.linalg.svd(pose.translation.reshape(1, 3))[2][1:]  # 2 3
    moved = pose.translation + step[3:] @ sideways
    return Pose(rotation, moved / np.linalg.norm(moved))


def _moved_fundamental(matrix: Matrix, step: Vector) -> Matrix:
    """F = U diag(1, s, 0) V^T with U and V turned by three angles each, and s moved."""
    u, values, vt = np.linalg.svd(matrix)
    middle = np.diag([1.0, values[1] / values[0] + step[6], 0.0])
    turned_u, turned_v = cv2.Rodrigues(step[:3])[0] @ u, cv2.Rodrigues(step[3:6])[0] @ vt.T
    moved: Matrix = turned_u @ middle @ turned_v.T
    return moved


def _centred(xy: Float, unit_px: float) -> tuple[NDArray[np.float64], Matrix]:
    """Points around 0 in units of so many px, and the matrix back to px."""
    points = np.asarray(xy, np.float64)
    x, y = points.mean(axis=0)
    back = np.array([[unit_px, 0, x], [0, unit_px, y], [0, 0, 1]])
    return (points - (x, y)) / unit_px, back


def _without(matrix: Matrix, back_a: Matrix, back_b: Matrix) -> Matrix:
    """A fundamental matrix for centred points."""
    moved: Matrix = back_b.T @ matrix @ back_a
    return moved / np.linalg.norm(moved)
