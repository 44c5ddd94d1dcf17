"""Where two cameras stand: homographies of flat sheets.

A view at scale 1, straight above a sheet, shows `RASTER_PER_PX` px of the sheet per px.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import SizeHW, apply_homography
from tiepoint.training.scenes.settings import RASTER_PER_PX, Geometry

Matrix = NDArray[np.float64]
Rng = np.random.Generator

FOCAL = (0.9, 2.6)  # focal length in longer sides, log-uniform
TRIES = 60
SHOWN = 0.75  # of each view, at least, the sheet fills


def relative_scale(rng: Rng, geometry: Geometry) -> float:
    """Log-uniform inside the common range, or outside it, as often as `common_share` says."""
    (low, high), (inner_low, inner_high) = geometry.scale, geometry.common_scale
    if rng.random() < geometry.common_share:
        return math.exp(rng.uniform(math.log(inner_low), math.log(inner_high)))
    below, above = math.log(inner_low / low), math.log(high / inner_high)
    u = rng.uniform(0, below + above)
    return low * math.exp(u) if u < below else inner_high * math.exp(u - below)


def relative_roll(rng: Rng, geometry: Geometry) -> float:
    """Radians."""
    return math.radians(geometry.roll_deg * float(np.clip(rng.standard_normal(), -3, 3)))


def own_roll(rng: Rng, geometry: Geometry, *, upright: bool) -> float:
    """The turn of view A itself, radians; what has no upright is seen from any side as well."""
    if not upright and rng.random() < 0.4:
        return float(rng.uniform(0, 2 * math.pi))
    return math.radians(geometry.own_roll_deg) * float(rng.standard_normal())


def focal_length(rng: Rng, size_hw: SizeHW) -> float:
    """px."""
    return max(size_hw) * math.exp(rng.uniform(*np.log(FOCAL)))


def flat_views(
    rng: Rng, geometry: Geometry, size_hw: SizeHW, sheet_hw: SizeHW, *, upright: bool
) -> tuple[Matrix, Matrix]:
    """Two views of one sheet.

    Args:
        size_hw: Of the views.
        sheet_hw: Of the sheet.
        upright: Whether the sheet has an upper side, as a photograph has.

    Returns:
        3x3 twice: px of the sheet -> px of A, px of B.
    """
    centre = np.array([(size_hw[1] - 1) / 2, (size_hw[0] - 1) / 2])
    middle = np.array([(sheet_hw[1] - 1) / 2, (sheet_hw[0] - 1) / 2])
    strength = 1.0
    for attempt in range(TRIES):
        strength *= 1.0 if attempt < TRIES // 3 else 0.93  # a small sheet allows less
        scale = relative_scale(rng, geometry) ** strength
        zoom = scale**-0.5 * math.exp(rng.uniform(-0.15, 0.3)) / RASTER_PER_PX
        tilt = math.radians(rng.uniform(0, geometry.own_tilt_deg)) * strength
        focal = focal_length(rng, size_hw)
        gaze = middle + rng.uniform(-0.2, 0.2, 2) * sheet_hw[::-1]
        to_a = seen(zoom, own_roll(rng, geometry, upright=upright), tilt, _axis(rng), focal)
        to_a = moved(centre) @ to_a @ moved(-gaze)
        tilt = math.radians(rng.uniform(0, geometry.tilt_deg)) * strength
        a_to_b = seen(scale, relative_roll(rng, geometry) * strength, tilt, _axis(rng), focal)
        shift = rng.uniform(-0.3, 0.3, 2) * size_hw[::-1] * strength
        a_to_b = moved(centre + shift) @ a_to_b @ moved(-centre)
        to_b = a_to_b @ to_a
        if _sound(to_a, to_b, size_hw, sheet_hw, geometry.min_overlap):
            return to_a, to_b
    straight = moved(centre) @ seen(1 / RASTER_PER_PX, 0, 0, 0, focal) @ moved(-middle)
    return straight, straight


def seen(zoom: float, roll: float, tilt: float, axis: float, focal: float) -> Matrix:
    """Centred px of a plane -> centred px of a camera that looks at its centre.

    Args:
        zoom: px of the view per px of the plane, at the centre.
        roll, tilt, axis: Radians; the plane leans by `tilt` around the direction `axis`.
        focal: px.
    """
    rotation = turn(roll) @ turn(axis) @ lean(tilt) @ turn(-axis)
    placed = np.column_stack([rotation[:, 0], rotation[:, 1], [0, 0, focal / zoom]])
    return np.asarray(np.diag([focal, focal, 1.0]) @ placed, np.float64)


def turn(angle: float) -> Matrix:
    """3x3 rotation around z."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def lean(angle: float) -> Matrix:
    """3x3 rotation around x."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])


def moved(offset: NDArray[np.float64]) -> Matrix:
    """3x3 shift."""
    return np.array([[1, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1]], np.float64)


def scale_at(matrix: Matrix, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much a homography enlarges lengths at points, the geometric mean of both axes.

    Args:
        xy: N 2 px.

    Returns:
        N; the root of the area's change, det(H) / w^3.
    """
    w = xy @ matrix[2, :2] + matrix[2, 2]
    change = np.abs(np.linalg.det(matrix)) / np.maximum(np.abs(w), 1e-12) ** 3
    return np.asarray(np.sqrt(change), np.float64)


def _axis(rng: Rng) -> float:
    return float(rng.uniform(0, 2 * math.pi))


def _sound(
    to_a: Matrix, to_b: Matrix, size_hw: SizeHW, sheet_hw: SizeHW, min_overlap: float
) -> bool:
    """The sheet fills both views, all before the cameras, and the views overlap enough."""
    grid = _grid(size_hw)
    for matrix in (to_a, to_b):
        on_sheet = _mapped(np.linalg.inv(matrix), matrix, grid)
        if _inside(on_sheet, sheet_hw).mean() < SHOWN:
            return False
    return overlap(to_a, to_b, size_hw) >= min_overlap


def overlap(to_a: Matrix, to_b: Matrix, size_hw: SizeHW) -> float:
    """Common view of a plane: the larger of its shares in A and in B, 0..1.

    The larger one, because a zoom alone makes the other small.
    """
    grid, shares = _grid(size_hw), []
    for here, there in ((to_a, to_b), (to_b, to_a)):
        on_plane = _mapped(np.linalg.inv(here), here, grid)
        shares.append(float(_inside(apply_homography(there, on_plane), size_hw).mean()))
    return max(shares)


def _mapped(back: NDArray[Any], forth: Matrix, grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """px of a view -> px of the sheet; NaN where the view looks past the horizon."""
    xyw = grid @ back[:, :2].T + back[:, 2]  # N 3
    xy = xyw[:, :2] / np.where(np.abs(xyw[:, 2:]) < 1e-12, np.nan, xyw[:, 2:])
    depth = xy @ forth[2, :2] + forth[2, 2]
    return np.asarray(np.where(depth[:, None] > 0, xy, np.nan), np.float64)


def _grid(size_hw: SizeHW) -> NDArray[np.float64]:
    steps = (np.arange(12) + 0.5) / 12
    x, y = np.meshgrid(steps * size_hw[1] - 0.5, steps * size_hw[0] - 0.5)
    return np.stack([x.ravel(), y.ravel()], axis=1)  # 144 2


def _inside(xy: NDArray[np.float64], size_hw: SizeHW) -> NDArray[np.bool_]:
    limits = (size_hw[1] - 0.5, size_hw[0] - 0.5)
    inside = ((xy >= -0.5) & (xy <= limits)).all(axis=1)  # False for NaN
    return np.asarray(inside, np.bool_)
