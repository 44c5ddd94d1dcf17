"""Derivatives of plane models: by their free parameters, and by the position."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import Model
from tiepoint.geometry import Float, Matrix, apply_homography
from tiepoint.registration.models import MODELS

Array = NDArray[np.float64]


def local_coordinates(xy_a: Array) -> Matrix:
    """3x3, to px of A from coordinates of order one.

    In them the rank of the equations depends on the geometry of the M 2 points alone.
    """
    centre = xy_a.mean(axis=0) if len(xy_a) else np.zeros(2)
    size = max(float(np.abs(xy_a - centre).max(initial=0)), 1.0)
    return np.array([[size, 0, centre[0]], [0, size, centre[1]], [0, 0, 1]])


def in_local(local: Matrix, xy: Float) -> Array:
    """N 3: px of A -> (x, y, 1) in local coordinates."""
    return homogeneous((xy - local[:2, 2]) / local[0, 0])


def linearised(model: Model, from_local: Matrix, points: Array) -> tuple[Array, Array]:
    """Derivatives of transformed points with respect to the free parameters of the model.

    Args:
        from_local: 3x3, from the coordinates of the points to px of B.
        points: N 3, (x, y, 1).

    Returns:
        tangent: 9 K, the directions in which the entries of `from_local`, of norm 1, may move.
        slopes: 2 N K: of x, and of y.
    """
    from_local = from_local / np.linalg.norm(from_local)
    tangent = _tangent(model, from_local)  # 9 K
    slopes = _slopes(from_local, points).reshape(-1, 9) @ tangent  # 2N K
    return tangent, slopes.reshape(2, len(points), tangent.shape[1])


def local_jacobian(matrix: Matrix, xy: Float) -> Array:
    """N 2 2: derivative of the transformed points, px of B per px of A along x and y."""
    w = (homogeneous(xy) @ matrix[2])[:, None, None]  # N 1 1
    mapped = apply_homography(matrix, xy)  # N 2
    jacobian: Array = (matrix[:2, :2] - mapped[:, :, None] * matrix[2, :2]) / w
    return jacobian


def homogeneous(xy: Float) -> Array:
    """N 3: (x, y, 1), float64."""
    return np.column_stack([np.asarray(xy, np.float64), np.ones(len(xy))])


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


def _slopes(matrix: Matrix, points: Array) -> Array:
    """2 N 9: derivatives of the transformed points N 3 with respect to the matrix: x, then y."""
    mapped = points @ matrix.T  # N 3
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        w = np.where(mapped[:, 2:] > 0, mapped[:, 2:], np.nan)  # N 1
        scaled = points / w  # N 3
        xy_b = mapped[:, :2] / w  # N 2
    slopes = np.zeros((2, len(points), 9))
    slopes[0, :, 0:3] = slopes[1, :, 3:6] = scaled
    slopes[:, :, 6:9] = -xy_b.T[:, :, None] * scaled
    return slopes
