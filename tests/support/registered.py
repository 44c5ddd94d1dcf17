"""Matched points whose truth is known, for the tests of registration."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import tiepoint
from tiepoint.config import RegistrationConfig
from tiepoint.features import Features, Matches
from tiepoint.geometry import apply_homography, corners_xy
from tiepoint.registration.estimation import Estimate
from tiepoint.registration.fit import Fit
from tiepoint.registration.record import record_json

Points = NDArray[np.float64]

SIZE_HW = (480, 640)
MATRICES = {
    "translation": np.array([[1, 0, 31.25], [0, 1, -17.5], [0, 0, 1]]),
    "similarity": np.array([[0.9, -0.3, 60.5], [0.3, 0.9, -40.25], [0, 0, 1]]),
    "affine": np.array([[1.1, 0.2, -20.5], [-0.1, 0.8, 55.75], [0, 0, 1]]),
    "homography": np.array([[0.9, 0.12, 40], [-0.1, 0.95, 30], [1e-4, -5e-5, 1]]),
}


def scattered(count: int, seed: int = 0, size_hw: tuple[int, int] = SIZE_HW) -> Points:
    """N 2, px, anywhere on the image."""
    height, width = size_hw
    return np.random.default_rng(seed).uniform(0, (width - 1, height - 1), (count, 2))


def carried(
    matrix: Points, count: int = 200, noise_px: float = 0.0, wrong: int = 0, seed: int = 0
) -> tuple[Points, Points]:
    """Points of A and B, `wrong` of them anywhere."""
    rng = np.random.default_rng(seed + 1)
    a = scattered(count, seed)
    b = apply_homography(matrix, a) + rng.normal(0, noise_px or 1e-12, (count, 2))
    b[:wrong] = scattered(wrong, seed + 2)
    return a, b


def matched(a: Points, b: Points) -> tuple[Features, Features, Matches]:
    """Point i of A with point i of B."""
    count = len(a)
    scores = np.linspace(1, 0.5, count, dtype=np.float32)
    features = [Features(xy.astype(np.float32), scores, None, SIZE_HW) for xy in (a, b)]
    pairs = np.stack([np.arange(count)] * 2, axis=1)
    return features[0], features[1], Matches(pairs, scores)


def fit_of(
    a: Points,
    b: Points,
    estimate: Estimate,
    *,
    cameras: tuple[Points, Points] | None = None,
    **settings: object,
) -> Fit:
    """A fit of point i of A with point i of B, as the verdict takes it."""
    features_a, features_b, matches = matched(a, b)
    return Fit(
        features_a=features_a,
        features_b=features_b,
        matches=matches,
        settings=RegistrationConfig(**settings),  # type: ignore[arg-type]
        cameras=cameras,
        estimate=estimate,
    )


def all_inliers(matrix: Points, count: int) -> Estimate:
    """An estimate that every match agrees with."""
    return Estimate(np.asarray(matrix, np.float64), np.ones(count, bool))


CAMERA = np.array([[600.0, 0, 320], [0, 610, 240], [0, 0, 1]])


def turn(x: float, y: float, z: float) -> Points:
    """3x3 of angles in radians, one axis after the other."""
    (cx, cy, cz), (sx, sy, sz) = np.cos([x, y, z]), np.sin([x, y, z])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


ROTATION = turn(0.05, -0.12, 0.03)
DIRECTION = np.array([0.8, 0.1, 0.2]) / np.linalg.norm([0.8, 0.1, 0.2])


def two_views(
    count: int = 200,
    noise_px: float = 0.0,
    wrong: int = 0,
    direction: Points = DIRECTION,
    seed: int = 0,
) -> tuple[Points, Points]:
    """A scene with depth between 4 and 12, seen by CAMERA before and after it moved."""
    rng = np.random.default_rng(seed + 3)
    a = scattered(count, seed)
    rays = np.column_stack([a, np.ones(count)]) @ np.linalg.inv(CAMERA).T  # N 3
    there = (rays * rng.uniform(4, 12, (count, 1))) @ ROTATION.T + direction  # N 3
    seen = there @ CAMERA.T
    b = seen[:, :2] / seen[:, 2:] + rng.normal(0, noise_px or 1e-12, (count, 2))
    b[:wrong] = scattered(wrong, seed + 4)
    return a, b


def corners_off_px(result: tiepoint.Registration, truth: np.ndarray) -> float:
    corners = corners_xy(result.features_a.size_hw)
    apart = result.transform(corners) - apply_homography(truth, corners)
    return float(np.hypot(*apart.T).max())


def registration_values(
    a: str, b: str, *, wrong: int = 10, points: bool = True, model: Any = "homography"
) -> dict[str, Any]:
    """The record of a registration, as `register --json` prints it."""
    features_a, features_b, matches = matched(
        *carried(MATRICES["homography"], noise_px=0.7, wrong=wrong)
    )
    result = tiepoint.register(features_a, features_b, matches=matches, model=model)
    return record_json(a, b, result, RegistrationConfig(model=model), points=points)
