"""Random cameras before a flat sheet, as homographies."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tiepoint.evaluation.views import (
    grid_xy,
    onto_plane,
    overlap_of,
    rotation_x,
    rotation_z,
    translation,
    view_of_plane,
)
from tiepoint.geometry import SizeHW, inside
from tiepoint.training.scenes import draws
from tiepoint.training.scenes.basics import Matrix, Points, Rng
from tiepoint.training.scenes.settings import RASTER_PER_PX, Geometry

FOCAL = (0.9, 2.6)  # focal length in longer sides, log-uniform
TRIES = 60
OVERLAP_STEPS = 12  # points sampled along each side
SHOWN = 0.75  # least share of each view that the sheet fills


def relative_scale(rng: Rng, geometry: Geometry) -> float:
    """Log-uniform inside the common range with probability `common_share`, else outside it."""
    (low, high), (inner_low, inner_high) = geometry.scale, geometry.common_scale
    if rng.random() < geometry.common_share:
        return draws.log_uniform(rng, inner_low, inner_high)
    below, above = math.log(inner_low / low), math.log(high / inner_high)
    u = rng.uniform(0, below + above)
    return low * math.exp(u) if u < below else inner_high * math.exp(u - below)


def relative_roll(rng: Rng, geometry: Geometry) -> float:
    """In-plane rotation between the views, radians."""
    return math.radians(geometry.roll_deg * float(np.clip(rng.standard_normal(), -3, 3)))


def own_roll(rng: Rng, geometry: Geometry, *, upright: bool) -> float:
    """In-plane rotation of view A, radians; by any angle for part of the scenes without upright."""
    if not upright and rng.random() < 0.4:
        return draws.angle(rng)
    return math.radians(geometry.own_roll_deg) * float(rng.standard_normal())


def focal_length(rng: Rng, size_hw: SizeHW) -> float:
    """A focal length for views of this size, px."""
    return max(size_hw) * draws.log_uniform(rng, *FOCAL)


def flat_views(
    rng: Rng, geometry: Geometry, size_hw: SizeHW, sheet_hw: SizeHW, *, upright: bool
) -> tuple[Matrix, Matrix]:
    """Two random views of one sheet, 3x3 each: px of the sheet -> px of A, and -> px of B.

    `upright`: whether the sheet has an upper side, as a photograph has.
    """
    centre = np.array([(size_hw[1] - 1) / 2, (size_hw[0] - 1) / 2])
    middle = np.array([(sheet_hw[1] - 1) / 2, (sheet_hw[0] - 1) / 2])
    strength = 1.0
    # Without a share nothing is drawn, so that older recipes repeat.
    turned = 0.0 if geometry.shift_share and rng.random() < geometry.shift_share else 1.0
    for attempt in range(TRIES):  # a small sheet allows smaller differences
        strength *= 1.0 if attempt < TRIES // 3 else 0.93
        scale = relative_scale(rng, geometry) ** (strength * turned)
        zoom = scale**-0.5 * math.exp(rng.uniform(-0.15, 0.3)) / RASTER_PER_PX
        tilt = math.radians(rng.uniform(0, geometry.own_tilt_deg)) * strength
        focal = focal_length(rng, size_hw)
        gaze = middle + rng.uniform(-0.2, 0.2, 2) * sheet_hw[::-1]
        to_a = seen(zoom, own_roll(rng, geometry, upright=upright), tilt, draws.angle(rng), focal)
        to_a = translation(centre) @ to_a @ translation(-gaze)
        tilt = math.radians(rng.uniform(0, geometry.tilt_deg)) * strength * turned
        roll = relative_roll(rng, geometry) * strength * turned
        a_to_b = seen(scale, roll, tilt, draws.angle(rng), focal)
        shift = rng.uniform(-0.3, 0.3, 2) * size_hw[::-1] * strength
        a_to_b = translation(centre + shift) @ a_to_b @ translation(-centre)
        to_b = a_to_b @ to_a
        if _sound(to_a, to_b, size_hw, sheet_hw, geometry.min_overlap):
            return to_a, to_b
    straight = translation(centre) @ seen(1 / RASTER_PER_PX, 0, 0, 0, focal) @ translation(-middle)
    return straight, straight


def seen(zoom: float, roll: float, tilt: float, axis: float, focal: float) -> Matrix:
    """`view_of_plane` of a plane that is tilted around the direction `axis` and rolled, radians."""
    rotation = rotation_z(roll) @ rotation_z(axis) @ rotation_x(tilt) @ rotation_z(-axis)
    return view_of_plane(zoom, rotation, focal)


def scale_at(matrix: Matrix, xy: Points) -> NDArray[np.float64]:
    """N: local scale of a homography at N 2 px, the root of the change of area |det(H) / w^3|."""
    w = xy @ matrix[2, :2] + matrix[2, 2]
    change = np.abs(np.linalg.det(matrix)) / np.maximum(np.abs(w), 1e-12) ** 3
    return np.asarray(np.sqrt(change), np.float64)


def _sound(
    to_a: Matrix, to_b: Matrix, size_hw: SizeHW, sheet_hw: SizeHW, min_overlap: float
) -> bool:
    """Whether the sheet fills enough of both views, and the views overlap enough."""
    grid = grid_xy(size_hw, OVERLAP_STEPS)
    grids = []
    for to_view in (to_a, to_b):
        grids.append(onto_plane(to_view, grid))
        if inside(grids[-1], sheet_hw).mean() < SHOWN:
            return False
    return overlap_of((to_a, to_b), grids, size_hw) >= min_overlap
