"""Homographies of a plane seen by cameras: rotations, views, and how far two views overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import Matrix, SizeHW, apply_homography, inside


def rotation_z(angle: float) -> Matrix:
    """3x3 rotation around the viewing direction, radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def rotation_x(angle: float) -> Matrix:
    """3x3 rotation around the x axis, radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])


def rotation_about(axis: float, angle: float) -> Matrix:
    """3x3 rotation by `angle` around the direction `axis` in the image plane, radians."""
    return np.asarray(rotation_z(axis) @ rotation_x(angle) @ rotation_z(-axis), np.float64)


def translation(offset: NDArray[np.float64]) -> Matrix:
    """3x3 shift by (x, y) px."""
    return np.array([[1, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1]], np.float64)


def view_of_plane(zoom: float, rotation: Matrix, focal: float) -> Matrix:
    """3x3: centred px of a plane -> centred px of a camera that looks at its centre.

    Args:
        zoom: px of the view per px of the plane, at the centre.
        rotation: 3x3, from the plane to the camera.
        focal: Focal length, px.
    """
    placed = np.column_stack([rotation[:, 0], rotation[:, 1], [0, 0, focal / zoom]])
    return np.asarray(np.diag([focal, focal, 1.0]) @ placed, np.float64)


def overlap(to_a: Matrix, to_b: Matrix, size_hw: SizeHW, steps: int) -> float:
    """Common view of a plane: the larger of its shares of A and of B, 0..1.

    The larger one counts, because a zoom alone makes the other small.

    Args:
        to_a, to_b: 3x3 from px of the plane to px of each view.
        size_hw: Size of both views.
        steps: Points sampled along each side.
    """
    grid = grid_xy(size_hw, steps)
    return overlap_of(
        (to_a, to_b), [onto_plane(to_view, grid) for to_view in (to_a, to_b)], size_hw
    )


def overlap_of(
    to_views: tuple[Matrix, Matrix], grids: Sequence[NDArray[np.float64]], size_hw: SizeHW
) -> float:
    """`overlap` of two views whose `grid_xy` is known on the plane, N 2 px each."""
    return max(
        float(inside(apply_homography(other, on_plane), size_hw).mean())
        for other, on_plane in zip(to_views[::-1], grids, strict=True)
    )


def onto_plane(to_view: Matrix, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """N 2 px of a view -> N 2 px of the plane; NaN where the view is past the horizon."""
    back = np.linalg.inv(to_view)
    xyw = xy @ back[:, :2].T + back[:, 2]  # N 3
    on_plane = xyw[:, :2] / np.where(np.abs(xyw[:, 2:]) < 1e-12, np.nan, xyw[:, 2:])  # N 2
    depth = on_plane @ to_view[2, :2] + to_view[2, 2]  # N
    return np.asarray(np.where(depth[:, None] > 0, on_plane, np.nan), np.float64)


@lru_cache(maxsize=16)
def grid_xy(size_hw: SizeHW, steps: int) -> NDArray[np.float64]:
    """steps*steps 2 px: the centres of equal fields of an image. Read only, because it is kept."""
    centres = (np.arange(steps) + 0.5) / steps
    x, y = np.meshgrid(centres * size_hw[1] - 0.5, centres * size_hw[0] - 0.5)
    grid = np.stack([x.ravel(), y.ravel()], axis=1)
    grid.setflags(write=False)
    return grid
