"""Planes and boxes before two cameras: true parallax, occlusion and exact depth.

Lengths are in px of a view at the distance of one focal length. The first camera is at the origin
and looks along z; x points right, y down. A wall, perhaps with a floor, is behind everything; in
front of it are boxes and boards, each inside a sphere of its own. If spheres do not intersect,
their power (distance^2 - radius^2) orders them correctly from far to near.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tiepoint.evaluation.views import overlap, rotation_about, rotation_x, rotation_z, translation
from tiepoint.geometry import SizeHW
from tiepoint.training.scenes import cameras, draws, outlines
from tiepoint.training.scenes.basics import UNIT_SQUARE, Mask, Matrix, Points, Rng
from tiepoint.training.scenes.canvas import CORNER, Sheet, vertex_kinds
from tiepoint.training.scenes.render import Plane, ViewPair
from tiepoint.training.scenes.settings import RASTER_PER_PX, Geometry

Vector = NDArray[np.float64]
"""3 coordinates of the world."""

TRIES = 40
BODY_TRIES = 6
NEAREST = 0.12  # least distance to a camera, in focal lengths
BACKGROUND = -1.0  # radius of the wall and the floor: they are drawn before all bodies
BOARDS = (outlines.regular, outlines.parallelogram, outlines.parallelogram, outlines.ellipse)


@dataclass(frozen=True, eq=False)
class Camera:
    """x_view ~ K (R X + t)."""

    intrinsics: Matrix
    rotation: Matrix
    shift: Vector

    @property
    def centre(self) -> Vector:
        """Its position in the world."""
        return -self.rotation.T @ self.shift

    def homography(self, to_world: Matrix) -> Matrix:
        """3x3: px of a sheet -> px of the view."""
        to_camera = self.rotation @ to_world
        to_camera[:, 2] += self.shift
        return np.asarray(self.intrinsics @ to_camera, np.float64)


@dataclass(frozen=True, eq=False)
class Surface:
    """A plane in space."""

    plane: Plane
    to_world: Matrix  # 3x3, homogeneous px of the sheet -> a point of the world
    two_sided: bool  # visible from behind as well

    def facing(self, camera: Camera) -> float:
        """Below 0 if the camera is on the side to which across x down points."""
        across, down, origin = self.to_world.T
        return -float(_cross(across, down) @ (camera.centre - origin))

    @cached_property
    def corners(self) -> Points:
        """N 3: the vertices of the outline in the world."""
        outline = self.plane.outline
        return np.column_stack([outline, np.ones(len(outline))]) @ self.to_world.T


class World:
    """A random layout: a wall, perhaps a floor, boxes and boards."""

    def __init__(self, rng: Rng, focal: float, size_hw: SizeHW, sheets: Sequence[Sheet]) -> None:
        self.focal = focal  # focal length of the cameras, px
        self.surfaces: list[Surface] = []  # the wall is the first
        self.spheres: list[tuple[Vector, float]] = []  # (middle, radius) around each body
        self.size_hw = size_hw  # of the views, px
        self._rng, self._sheets = rng, sheets[1:]
        self._far = far = focal * rng.uniform(1.1, 1.7)
        axes = rotation_z(rng.uniform(-0.2, 0.2)) @ _swing(rng.uniform(-0.5, 0.5))
        unit = far / focal / RASTER_PER_PX * 1.25  # world per px of the sheet, with a margin
        self._add_background(sheets[0], np.array([0, 0, far]), axes[:, 0] * unit, axes[:, 1] * unit)
        self._floor = math.inf  # y
        if rng.random() < 0.4:
            self._floor = size_hw[0] * rng.uniform(0.2, 0.45)
            sheet = draws.pick(rng, sheets)
            depth = far * 1.2 - 0.35 * focal
            across, along = np.array([1.0, 0, 0]), np.array([0, 0, -1.0])
            across *= 1.8 * size_hw[1] * far / focal / sheet.size_hw[1]
            along *= depth / sheet.size_hw[0]
            middle = np.array([0, self._floor, 0.35 * focal + depth / 2])
            self._add_background(sheet, middle, across, along)
        for _ in range(int(rng.integers(1, 6))):
            self._add_body()

    def _add(
        self, sheet: Sheet, outline: Points, vertices: Mask, to_world: Matrix, *, two_sided: bool
    ) -> None:
        """Add a surface of the body whose sphere was added last."""
        plane = Plane(sheet, outline, vertices, len(self.spheres) - 1)
        self.surfaces.append(Surface(plane, to_world, two_sided))

    def _add_background(self, sheet: Sheet, middle: Vector, across: Vector, down: Vector) -> None:
        height, width = sheet.size_hw
        origin = middle - across * (width - 1) / 2 - down * (height - 1) / 2
        self.spheres.append((middle, BACKGROUND))
        to_world = np.column_stack([across, down, origin])
        self._add(sheet, sheet.outline, np.zeros(4, bool), to_world, two_sided=True)

    def _add_body(self) -> None:
        """Add a box or a board if there is room for it."""
        rng, focal = self._rng, self.focal
        wall_x, wall_y, _ = self.surfaces[0].to_world.T
        normal = _cross(wall_x, wall_y)
        normal /= np.linalg.norm(normal)
        bodies = [(middle, radius) for middle, radius in self.spheres if radius != BACKGROUND]
        for _ in range(BODY_TRIES):
            depth = focal * draws.log_uniform(rng, 0.55, self._far / focal * 0.9)
            radius = min(self.size_hw) * rng.uniform(0.12, 0.42) * depth / focal
            half_view = np.array(self.size_hw[::-1]) / 2 * depth / focal
            x, y = rng.uniform(-1, 1, 2) * half_view
            centre = np.array([x, min(y, self._floor - radius), depth])
            gap = float(normal @ (self.spheres[0][0] - centre))
            if gap < radius or depth - radius < 2 * NEAREST * focal:
                continue
            if all(float(np.linalg.norm(centre - c)) > radius + r for c, r in bodies):
                break
        else:
            return
        density = RASTER_PER_PX * focal / depth  # px of the sheet per unit of the world
        self.spheres.append((centre, radius))
        (self._add_box if rng.random() < 0.65 else self._add_board)(centre, radius, density)

    def _add_box(self, centre: Vector, radius: float, density: float) -> None:
        rng, sheets = self._rng, self._sheets
        half = rng.uniform(0.4, 1, 3)
        half *= radius / np.linalg.norm(half)
        level = rng.random() < 0.6
        axes = _swing(draws.angle(rng)) @ rotation_x(rng.uniform(-0.3, 0.3))
        axes = axes if level else _any_rotation(rng)
        shared = draws.pick(rng, sheets) if rng.random() < 0.3 else None
        for axis in range(3):
            for sign in (-1, 1):
                u, v = (axis + 1) % 3, (axis + 2) % 3
                across, down = axes[:, u] * sign, axes[:, v]  # across x down points outwards
                sheet = shared or draws.pick(rng, sheets)
                size = np.array([half[u], half[v]]) * 2 * density  # px of the sheet
                limits = np.array(sheet.image.shape[::-1]) - 1.0
                shrink = min(1.0, float((limits / size).min()))
                size *= shrink
                corner = rng.uniform(0, limits - size + 1e-9)
                middle = centre + axes[:, axis] * sign * half[axis]
                to_world = _to_world(
                    across, down, 1 / (density * shrink), middle, corner + size / 2
                )
                outline = corner + UNIT_SQUARE * size
                self._add(sheet, outline, np.ones(4, bool), to_world, two_sided=False)

    def _add_board(self, centre: Vector, radius: float, density: float) -> None:
        """A flat object of any convex shape, visible from both sides."""
        rng, sheet = self._rng, draws.pick(self._rng, self._sheets)
        height, width = sheet.size_hw
        size = min(radius * density, (min(height, width) - 2) / 2)
        shape = draws.pick(rng, BOARDS)(rng, size)
        middle = rng.uniform((size, size), (width - size, height - size))
        across, down, _ = _any_rotation(rng, 0.7).T
        to_world = _to_world(across, down, 1 / density, centre, middle)
        outline = shape + middle
        self._add(sheet, outline, vertex_kinds(outline) == CORNER, to_world, two_sided=True)

    def is_clear(self, camera: Camera) -> bool:
        """Whether all surfaces are before a camera, and it is in front of wall and floor."""
        for surface in self.surfaces:
            depth = surface.corners @ camera.rotation[2] + camera.shift[2]
            background = self.spheres[surface.plane.body][1] == BACKGROUND
            behind = background and surface.facing(camera) <= 0
            if behind or float(depth.min()) < NEAREST * self.focal:
                return False
        return True

    def order(self, camera: Camera) -> list[int]:
        """Numbers of the surfaces that face a camera, far bodies first."""
        power = []
        for body, (middle, radius) in enumerate(self.spheres):
            power_px2 = float(((middle - camera.centre) ** 2).sum()) - radius**2
            power.append((0, float(body)) if radius == BACKGROUND else (1, -power_px2))
        visible = [
            number
            for number, surface in enumerate(self.surfaces)
            if surface.two_sided or surface.facing(camera) < 0
        ]
        return sorted(visible, key=lambda n: (power[self.surfaces[n].plane.body], n))


def box_views(rng: Rng, geometry: Geometry, size_hw: SizeHW, sheets: Sequence[Sheet]) -> ViewPair:
    """A random layout and two cameras before it; the first sheet is the wall's."""
    focal = cameras.focal_length(rng, size_hw)
    world = World(rng, focal, size_hw, sheets)
    strength, plane = 1.0, np.diag([1.0, 1.0, focal])  # most objects are at one focal length
    for attempt in range(TRIES):
        strength *= 1.0 if attempt < TRIES // 4 else 0.9
        scale = cameras.relative_scale(rng, geometry) ** strength
        zoom = scale**-0.5 * math.exp(rng.uniform(-0.1, 0.25))
        own_roll = cameras.own_roll(rng, geometry, upright=True)
        first = aimed_camera(rng, world, zoom, own_roll, 0.0)
        tilt = math.radians(rng.uniform(0, geometry.tilt_deg)) * strength
        roll = cameras.relative_roll(rng, geometry) * strength
        second = aimed_camera(rng, world, scale, roll, tilt, first)
        if not (world.is_clear(first) and world.is_clear(second)):
            continue
        to_views = first.homography(plane), second.homography(plane)
        if overlap(*to_views, size_hw, cameras.OVERLAP_STEPS) >= geometry.min_overlap:
            break
    else:
        second = first
    a, b = (
        ([camera.homography(s.to_world) for s in world.surfaces], world.order(camera))
        for camera in (first, second)
    )
    planes = [surface.plane for surface in world.surfaces]
    return ViewPair(planes, (a[0], b[0]), (a[1], b[1]))


def aimed_camera(
    rng: Rng, world: World, zoom: float, roll: float, tilt: float, base: Camera | None = None
) -> Camera:
    """A camera that looks near the middle of the scene, one focal length in front of the origin.

    It is nearer than `base`, or than one focal length, by the factor `zoom`. `roll` and `tilt` are
    in radians relative to `base`.
    """
    focal, size_hw = world.focal, world.size_hw
    middle = np.array([(size_hw[1] - 1) / 2, (size_hw[0] - 1) / 2])
    intrinsics = translation(middle) @ np.diag([focal, focal, 1.0])
    target = np.array([*(rng.uniform(-0.15, 0.15, 2) * size_hw[::-1]), focal])
    tilted = rotation_about(draws.angle(rng), tilt)
    rotation = rotation_z(roll) @ tilted @ (np.eye(3) if base is None else base.rotation)
    distance = focal if base is None else float(np.linalg.norm(target - base.centre))
    shift = np.array([0, 0, distance / zoom]) - rotation @ target
    return Camera(intrinsics, np.asarray(rotation, np.float64), shift)


def _to_world(
    across: Vector, down: Vector, unit: float, middle: Vector, middle_xy: Points
) -> Matrix:
    """3x3: px of a sheet -> world; `middle_xy` (px) is at `middle`, and a px is `unit` long."""
    origin = middle - unit * (across * middle_xy[0] + down * middle_xy[1])
    return np.column_stack([across * unit, down * unit, origin])


def _cross(a: Vector, b: Vector) -> Vector:
    """a x b of two 3-vectors; `np.cross` is slow for single vectors."""
    return np.asarray(a[[1, 2, 0]] * b[[2, 0, 1]] - a[[2, 0, 1]] * b[[1, 2, 0]], np.float64)


def _swing(angle: float) -> Matrix:
    """3x3 rotation around y, the vertical axis."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def _any_rotation(rng: Rng, spread: float = 10.0) -> Matrix:
    """A random 3x3 rotation; a small spread keeps it nearly facing the camera."""
    turn = draws.angle(rng)
    lean, swing = spread * rng.normal(0, 1, 2)
    return np.asarray(_swing(swing) @ rotation_x(lean) @ rotation_z(turn), np.float64)
