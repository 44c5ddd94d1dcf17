"""Views of points in space, with known cameras: features whose matches and poses are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from support.known_pairs import unit_rows
from support.provenance import made
from tiepoint.features import Features, Matches

SIZE_HW = 480, 640
FOCAL_PX = 600.0
CAMERA = np.array([[FOCAL_PX, 0, 319.5], [0, FOCAL_PX, 239.5], [0, 0, 1]])
POINTS = 300


@dataclass(frozen=True)
class View:
    """One view of the scene: X_camera = R X + t."""

    features: Features
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]


def turned(angle: float) -> NDArray[np.float64]:
    """Rotation about the vertical axis, radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def views(
    count: int = 4, *, depth: float = 2.0, step: float = 0.5, noise_px: float = 0.2, seed: int = 0
) -> list[View]:
    """Views along a path, which look at the same points; keypoint i is point i in each.

    Args:
        depth: Depth of the scene, at a distance of 6; 0 is a plane.
        step: Distance of the cameras.
    """
    rng = np.random.default_rng(seed)
    points = rng.uniform([-2, -1.5, 6 - depth / 2], [2, 1.5, 6 + depth / 2], (POINTS, 3))
    descriptors = unit_rows(rng, POINTS)
    result = []
    for number in range(count):
        rotation = turned(0.08 * number)
        centre = np.array([step * number - step * count / 2, 0.1 * number, 0.0])
        local = (points - centre) @ rotation.T  # N 3
        xy = (local / local[:, 2:]) @ CAMERA.T
        xy = xy[:, :2] + rng.normal(0, noise_px, (POINTS, 2))
        near = descriptors + 0.05 * rng.standard_normal(descriptors.shape)
        near /= np.linalg.norm(near, axis=1, keepdims=True)
        features = Features(
            xy.astype(np.float32),
            np.linspace(1, 0.1, POINTS, dtype=np.float32),
            near.astype(np.float32),
            SIZE_HW,
            covariance=np.tile(np.array([[0.04, 0.01], [0.01, 0.09]], np.float32), (POINTS, 1, 1)),
            provenance=made(),
        )
        result.append(View(features, rotation, -rotation @ centre))
    return result


def true_matches(count: int = POINTS) -> Matches:
    """Keypoint i to keypoint i."""
    index = np.arange(count)
    return Matches(np.stack([index, index], axis=1), np.ones(count, np.float32))
