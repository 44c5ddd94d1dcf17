"""Array types and elementary geometry of the scene generator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiepoint.geometry import SizeHW

Rng = np.random.Generator
Grey = NDArray[np.uint8]  # `H W`, 0..255
Values = NDArray[np.float32]  # `H W`, mostly in 0..1
Mask = NDArray[np.bool_]  # `H W`, or N flags of points
Points = NDArray[np.float64]  # N 2 px (x, y)
Matrix = NDArray[np.float64]  # 3 3 homography or rotation, or 2 3 affine
Kinds = NDArray[np.int64]  # N vertex kinds; see `canvas.vertex_kinds`

UNIT_SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])


def size_hw_of(image: NDArray[Any]) -> SizeHW:
    """(height, width) of an image in px."""
    return image.shape[0], image.shape[1]


def rectangle(half_wh: ArrayLike) -> Points:
    """4 2: a rectangle around (0, 0) from half its width and height."""
    return np.asarray(np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half_wh, np.float64)


def turned(points: Points, angle: float) -> Points:
    """Points rotated around (0, 0) by an angle in radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.asarray(points @ np.array([[cos, sin], [-sin, cos]]), np.float64)


def nearest_distance(from_xy: NDArray[Any], to_xy: NDArray[Any]) -> NDArray[Any]:
    """N: distance from each of N points to the nearest of M points, M >= 1."""
    gaps = from_xy[:, None] - to_xy[None]  # N M 2
    distances: NDArray[Any] = np.hypot(gaps[..., 0], gaps[..., 1]).min(axis=1)
    return distances
