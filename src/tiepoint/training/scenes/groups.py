"""Several views of one scene, any two of which may be a pair.

All cameras are around one reference camera, within half of the limits of a pair. So no two views
differ by more than the limits, and no view is special.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiepoint.evaluation.views import grid_xy, onto_plane, overlap, translation
from tiepoint.geometry import SizeHW, inside
from tiepoint.training.scenes import boxes, cameras, draws
from tiepoint.training.scenes.basics import Matrix, Rng
from tiepoint.training.scenes.canvas import Sheet
from tiepoint.training.scenes.composition import Scene
from tiepoint.training.scenes.render import Plane
from tiepoint.training.scenes.settings import RASTER_PER_PX, Geometry, GroupGeometry

TRIES = 40
SOFTENED_AFTER = 10
"""Tries at full strength; each later one has weaker differences from the reference."""

OWN = Geometry()
"""Tilt and rotation of the reference camera itself."""


@dataclass(frozen=True, eq=False)
class ViewGroup:
    """V cameras before the same planes.

    Attributes:
        planes: The P planes of the scene.
        to_views: V lists of P 3x3: px of a plane's sheet -> px of the view.
        orders: V lists with numbers of the planes to draw, far ones first.
        cameras: V 3 4 float64. With a focal length [R | t], world -> camera; without one
            [H | 0], px of the only sheet -> px of the view.
        focal: Focal length of all cameras, px; 0 for a flat scene.
    """

    planes: Sequence[Plane]
    to_views: Sequence[Sequence[Matrix]]
    orders: Sequence[Sequence[int]]
    cameras: NDArray[np.float64]
    focal: float


def view_group(
    scene: Scene, geometry: GroupGeometry, size_hw: SizeHW, count: int, rng: Rng
) -> ViewGroup:
    """`count` random cameras before a scene, each with views of one size."""
    if scene.kind == "boxes":
        return _box_group(scene.sheets, geometry, size_hw, count, rng)
    return _flat_group(scene, geometry, size_hw, count, rng)


@dataclass(frozen=True)
class _Difference:
    """A camera's difference from the reference; see `GroupGeometry`."""

    scale: float
    tilt: float  # radians
    roll: float  # radians
    shift: NDArray[np.float64]  # relative to the size, (x, y)

    @classmethod
    def draw(cls, rng: Rng, limits: GroupGeometry, attempt: int) -> _Difference:
        """Uniform within half of the limits; weaker after `SOFTENED_AFTER` attempts."""
        strength = 0.9 ** max(0, attempt - SOFTENED_AFTER)
        zoom = limits.scale ** (0.5 * strength)
        tilt = math.radians(limits.tilt_deg / 2 * math.sqrt(rng.random())) * strength
        roll = math.radians(limits.roll_deg / 2 * rng.uniform(-1, 1)) * strength
        shift = rng.uniform(-1, 1, 2) * limits.shift / 2 * strength
        return cls(draws.log_uniform(rng, 1 / zoom, zoom), tilt, roll, shift)


def _flat_group(
    scene: Scene, limits: GroupGeometry, size_hw: SizeHW, count: int, rng: Rng
) -> ViewGroup:
    sheet = scene.sheets[0]
    centre = np.array([(size_hw[1] - 1) / 2, (size_hw[0] - 1) / 2])
    middle = np.array([(sheet.size_hw[1] - 1) / 2, (sheet.size_hw[0] - 1) / 2])
    focal = cameras.focal_length(rng, size_hw)
    zoom = math.exp(rng.uniform(-0.05, 0.4)) / RASTER_PER_PX
    roll = cameras.own_roll(rng, OWN, upright=scene.kind == "photo")
    tilt = math.radians(rng.uniform(0, OWN.own_tilt_deg))
    gaze = middle + rng.uniform(-0.1, 0.1, 2) * sheet.size_hw[::-1]
    seen = cameras.seen(zoom, roll, tilt, draws.angle(rng), focal)
    reference = translation(centre) @ seen @ translation(-gaze)
    straight = cameras.seen(1 / RASTER_PER_PX, 0, 0, 0, focal)
    views: list[Matrix] = []
    for _ in range(count):
        for attempt in range(TRIES):
            d = _Difference.draw(rng, limits, attempt)
            moved = cameras.seen(d.scale, d.roll, d.tilt, draws.angle(rng), focal)
            shift = centre + d.shift * size_hw[::-1]
            view = translation(shift) @ moved @ translation(-centre) @ reference
            if _is_filled(view, size_hw, sheet) and _overlaps(view, views, size_hw, limits):
                break
        else:
            view = translation(centre) @ straight @ translation(-middle)
        views.append(view)
    placed = np.zeros((count, 3, 4))
    placed[:, :, :3] = views
    plane = Plane(sheet, sheet.outline, np.zeros(4, bool), 0)
    return ViewGroup([plane], [[view] for view in views], [[0]] * count, placed, 0.0)


def _box_group(
    sheets: Sequence[Sheet], limits: GroupGeometry, size_hw: SizeHW, count: int, rng: Rng
) -> ViewGroup:
    focal = cameras.focal_length(rng, size_hw)
    world = boxes.World(rng, focal, size_hw, sheets)
    plane = np.diag([1.0, 1.0, focal])  # most objects are at one focal length
    for _ in range(TRIES):
        zoom, roll = math.exp(rng.uniform(-0.1, 0.25)), cameras.own_roll(rng, OWN, upright=True)
        reference = boxes.aimed_camera(rng, world, zoom, roll, 0.0)
        if world.is_clear(reference):
            break
    chosen: list[boxes.Camera] = []
    views: list[Matrix] = []
    for _ in range(count):
        for attempt in range(TRIES):
            d = _Difference.draw(rng, limits, attempt)
            camera = boxes.aimed_camera(rng, world, d.scale, d.roll, d.tilt, reference)
            view = camera.homography(plane)
            if world.is_clear(camera) and _overlaps(view, views, size_hw, limits):
                break
        else:
            camera, view = reference, reference.homography(plane)
        chosen.append(camera)
        views.append(view)
    return ViewGroup(
        [surface.plane for surface in world.surfaces],
        [[camera.homography(s.to_world) for s in world.surfaces] for camera in chosen],
        [world.order(camera) for camera in chosen],
        np.stack([np.column_stack([camera.rotation, camera.shift]) for camera in chosen]),
        focal,
    )


def _is_filled(view: Matrix, size_hw: SizeHW, sheet: Sheet) -> bool:
    """Whether the sheet fills enough of a view."""
    grid = grid_xy(size_hw, cameras.OVERLAP_STEPS)
    return bool(inside(onto_plane(view, grid), sheet.size_hw).mean() >= cameras.SHOWN)


def _overlaps(
    view: Matrix, others: Sequence[Matrix], size_hw: SizeHW, limits: GroupGeometry
) -> bool:
    """Whether a view shares enough with each of the others."""
    steps = cameras.OVERLAP_STEPS
    return all(overlap(view, one, size_hw, steps) >= limits.min_overlap for one in others)
