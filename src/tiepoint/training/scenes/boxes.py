"""Planes and boxes before two cameras: true parallax, occlusion, exact depth.

Lengths are in px of a view at the distance of one focal length. The first camera stands in the
origin and looks along z; x points right, y down. Behind everything stands a wall, perhaps on a
floor; before it boxes and boards, each in a sphere of its own. Spheres that do not touch are
ordered rightly from far to near by their power, distance^2 - radius^2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import SizeHW
from tiepoint.training.scenes import cameras, outlines
from tiepoint.training.scenes.cameras import Matrix
from tiepoint.training.scenes.canvas import CORNER, Sheet, vertex_kinds
from tiepoint.training.scenes.render import Layer
from tiepoint.training.scenes.settings import RASTER_PER_PX, Geometry

Rng = np.random.Generator
Vectors = NDArray[np.float64]

TRIES = 40
NEAREST = 0.12  # of the focal length: nothing may come nearer to a camera


@dataclass(frozen=True, eq=False)
class Surface:
    """A layer in space.

    Attributes:
        layer: Its sheet and where it ends.
        placed: 3x3, homogeneous px of the sheet -> a point of the world.
        two_sided: Seen from behind as well.
    """

    layer: Layer
    placed: Matrix
    two_sided: bool


@dataclass
class World:
    """Surfaces, and for each body the sphere that holds it."""

    surfaces: list[Surface] = field(default_factory=list)
    spheres: list[tuple[Vectors, float]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Camera:
    """x_view ~ K (R X + t)."""

    intrinsics: Matrix
    rotation: Matrix
    shift: Vectors

    @property
    def centre(self) -> Vectors:
        """Where it stands."""
        return -self.rotation.T @ self.shift

    def homography(self, placed: Matrix) -> Matrix:
        """3x3: px of a sheet -> px of the view."""
        moved = self.rotation @ placed
        moved[:, 2] += self.shift
        return np.asarray(self.intrinsics @ moved, np.float64)


def two_looks(
    rng: Rng, geometry: Geometry, size_hw: SizeHW, sheets: Sequence[Sheet]
) -> tuple[list[Layer], tuple[list[Matrix], list[Matrix]], tuple[list[int], list[int]]]:
    """A layout and two cameras before it.

    Args:
        sheets: The wall's, then those of floor, boxes and boards.

    Returns:
        The layers; for A and B the homographies of all layers; for A and B which layers are
        drawn, far ones first.
    """
    focal = cameras.focal_length(rng, size_hw)
    world = _world(rng, focal, size_hw, sheets)
    strength = 1.0
    for attempt in range(TRIES):
        strength *= 1.0 if attempt < TRIES // 4 else 0.9
        scale = cameras.relative_scale(rng, geometry) ** strength
        first = _camera(rng, focal, size_hw, scale**-0.5 * math.exp(rng.uniform(-0.1, 0.25)),
                        cameras.own_roll(rng, geometry, upright=True), 0.0)  # fmt: skip
        tilt = math.radians(rng.uniform(0, geometry.tilt_deg)) * strength
        roll = cameras.relative_roll(rng, geometry) * strength
        second = _camera(rng, focal, size_hw, scale, roll, tilt, first)
        if _clear(world, (first, second), focal) and _overlapping(
            first, second, focal, size_hw, geometry.min_overlap
        ):
            break
    else:
        second = first
    looks = first, second
    matrices = tuple([c.homography(s.placed) for s in world.surfaces] for c in looks)
    orders = tuple(_order(world, camera) for camera in looks)
    layers = [surface.layer for surface in world.surfaces]
    return layers, (matrices[0], matrices[1]), (orders[0], orders[1])


def _world(rng: Rng, focal: float, size_hw: SizeHW, sheets: Sequence[Sheet]) -> World:
    world = World()
    far = focal * rng.uniform(1.1, 1.7)
    lean = cameras.turn(rng.uniform(-0.2, 0.2)) @ _swing(rng.uniform(-0.5, 0.5))
    wall = sheets[0]
    unit = far / focal / RASTER_PER_PX * 1.25  # world per px of the sheet, some of it to spare
    _add_plane(world, wall, np.array([0, 0, far]), lean[:, 0] * unit, lean[:, 1] * unit)
    floor = None
    if rng.random() < 0.4:
        floor = size_hw[0] * rng.uniform(0.2, 0.45)
        flat = sheets[int(rng.integers(len(sheets)))]
        depth = far * 1.2 - 0.35 * focal
        across, along = np.array([1.0, 0, 0]), np.array([0, 0, -1.0])
        stretch = 1.8 * size_hw[1] * far / focal / flat.image.shape[1], depth / flat.image.shape[0]
        middle = np.array([0, floor, 0.35 * focal + depth / 2])
        _add_plane(world, flat, middle, across * stretch[0], along * stretch[1])
    for _ in range(int(rng.integers(1, 6))):
        _add_body(rng, world, focal, far, floor, size_hw, sheets[1:])
    return world


def _add_plane(world: World, sheet: Sheet, middle: Vectors, across: Vectors, down: Vectors) -> None:
    height, width = sheet.image.shape
    origin = middle - across * (width - 1) / 2 - down * (height - 1) / 2
    placed = np.column_stack([across, down, origin])
    right, bottom = width - 0.5, height - 0.5
    outline = np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])
    layer = Layer(sheet, outline, np.zeros(4, bool), len(world.spheres))
    world.surfaces.append(Surface(layer, placed, two_sided=True))
    world.spheres.append((middle, -1.0))  # behind all bodies: drawn first, in this order


def _add_body(
    rng: Rng,
    world: World,
    focal: float,
    far: float,
    floor: float | None,
    size_hw: SizeHW,
    sheets: Sequence[Sheet],
) -> None:
    """A box or a board, if there is room for it."""
    for _ in range(6):
        depth = focal * math.exp(rng.uniform(math.log(0.55), math.log(far / focal * 0.9)))
        radius = min(size_hw) * rng.uniform(0.12, 0.42) * depth / focal
        half_view = np.array(size_hw[::-1]) / 2 * depth / focal
        x, y = rng.uniform(-1, 1, 2) * half_view
        y = min(y, floor - radius) if floor is not None else y
        centre = np.array([x, y, depth])
        leaning = world.surfaces[0].placed  # the wall: the body stands wholly before it
        normal = _cross(leaning[:, 0], leaning[:, 1])
        normal /= np.linalg.norm(normal)
        gap = float(normal @ (world.spheres[0][0] - centre))
        if gap < radius or depth - radius < 2 * NEAREST * focal:
            continue
        bodies = [sphere for sphere in world.spheres if sphere[1] > 0]
        if all(float(np.linalg.norm(centre - c)) > radius + r for c, r in bodies):
            break
    else:
        return
    density = RASTER_PER_PX * focal / depth  # px of the sheet per unit of the world
    body = len(world.spheres)
    world.spheres.append((centre, radius))
    if rng.random() < 0.65:
        _add_box(rng, world, centre, radius, density, body, sheets)
    else:
        _add_board(rng, world, centre, radius, density, body, sheets)


def _add_box(
    rng: Rng,
    world: World,
    centre: Vectors,
    radius: float,
    density: float,
    body: int,
    sheets: Sequence[Sheet],
) -> None:
    half = rng.uniform(0.4, 1, 3)
    half *= radius / np.linalg.norm(half)
    level = rng.random() < 0.6
    axes = _swing(rng.uniform(0, 2 * math.pi)) @ cameras.lean(rng.uniform(-0.3, 0.3))
    axes = axes if level else _any_rotation(rng)
    same = sheets[int(rng.integers(len(sheets)))] if rng.random() < 0.3 else None
    for axis in range(3):
        for sign in (-1, 1):
            u, v = (axis + 1) % 3, (axis + 2) % 3
            across, down = axes[:, u] * sign, axes[:, v]  # across x down points outwards
            sheet = same or sheets[int(rng.integers(len(sheets)))]
            size = np.array([half[u], half[v]]) * 2 * density  # px of the sheet
            limits = np.array(sheet.image.shape[::-1]) - 1.0
            shrink = min(1.0, float((limits / size).min()))
            size *= shrink
            corner = rng.uniform(0, limits - size + 1e-9)
            outline = corner + np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size
            unit = 1 / (density * shrink)
            middle = centre + axes[:, axis] * sign * half[axis]
            there = corner + size / 2  # the middle of the face, px of the sheet
            origin = middle - unit * (across * there[0] + down * there[1])
            placed = np.column_stack([across * unit, down * unit, origin])
            layer = Layer(sheet, outline, np.ones(4, bool), body)
            world.surfaces.append(Surface(layer, placed, two_sided=False))


def _add_board(
    rng: Rng,
    world: World,
    centre: Vectors,
    radius: float,
    density: float,
    body: int,
    sheets: Sequence[Sheet],
) -> None:
    """A flat thing of any convex form, seen from both sides."""
    sheet = sheets[int(rng.integers(len(sheets)))]
    height, width = sheet.image.shape
    size = min(radius * density, (min(height, width) - 2) / 2)
    makers = (outlines.regular, outlines.rectangle, outlines.rectangle, outlines.ellipse)
    form = makers[int(rng.integers(len(makers)))](rng, size)
    middle = rng.uniform((size, size), (width - size, height - size))
    outline = form + middle
    axes = _any_rotation(rng, 0.7)
    unit = 1 / density
    origin = centre - unit * (axes[:, 0] * middle[0] + axes[:, 1] * middle[1])
    placed = np.column_stack([axes[:, 0] * unit, axes[:, 1] * unit, origin])
    layer = Layer(sheet, outline, vertex_kinds(outline) == CORNER, body)
    world.surfaces.append(Surface(layer, placed, two_sided=True))


def _camera(
    rng: Rng,
    focal: float,
    size_hw: SizeHW,
    zoom: float,
    roll: float,
    tilt: float,
    base: Camera | None = None,
) -> Camera:
    """A camera that looks near the middle of the scene, one focal length before the origin.

    Args:
        zoom: How much nearer than `base`, or than one focal length.
        roll, tilt: Radians, against `base`.
    """
    middle = np.array([(size_hw[1] - 1) / 2, (size_hw[0] - 1) / 2])
    intrinsics = cameras.moved(middle) @ np.diag([focal, focal, 1.0])
    look_at = np.array([*(rng.uniform(-0.15, 0.15, 2) * size_hw[::-1]), focal])
    axis = rng.uniform(0, 2 * math.pi)
    around = cameras.turn(axis) @ cameras.lean(tilt) @ cameras.turn(-axis)
    before = np.eye(3) if base is None else base.rotation
    rotation = cameras.turn(roll) @ around @ before
    distance = focal if base is None else float(np.linalg.norm(look_at - base.centre))
    shift = np.array([0, 0, distance / zoom]) - rotation @ look_at
    return Camera(intrinsics, np.asarray(rotation, np.float64), shift)


def _clear(world: World, looks: Sequence[Camera], focal: float) -> bool:
    """Every plane lies before both cameras, and both stand on the seen side of the wall."""
    for camera in looks:
        for surface in world.surfaces:
            corners = np.column_stack([surface.layer.outline, np.ones(len(surface.layer.outline))])
            depth = (corners @ surface.placed.T) @ camera.rotation[2] + camera.shift[2]
            if float(depth.min()) < NEAREST * focal:
                return False
        planes = [s for s in world.surfaces if world.spheres[s.layer.body][1] < 0]
        if any(_facing(s, camera) <= 0 for s in planes):
            return False
    return True


def _overlapping(
    first: Camera, second: Camera, focal: float, size_hw: SizeHW, least: float
) -> bool:
    """Judged on a plane one focal length away, where most things stand."""
    plane = np.column_stack([[1.0, 0, 0], [0, 1.0, 0], [0, 0, focal]])
    plane[:2, 2] = 0
    matrices = first.homography(plane), second.homography(plane)
    return cameras.overlap(*matrices, size_hw) >= least


def _order(world: World, camera: Camera) -> list[int]:
    """Surfaces that face the camera, far bodies first."""
    centre = camera.centre
    power = []
    for body, (middle, radius) in enumerate(world.spheres):
        away = float(((middle - centre) ** 2).sum()) - radius**2
        power.append((1, -away) if radius > 0 else (0, float(body)))
    seen = [
        number
        for number, surface in enumerate(world.surfaces)
        if surface.two_sided or _facing(surface, camera) < 0
    ]
    return sorted(seen, key=lambda n: (power[world.surfaces[n].layer.body], n))


def _facing(surface: Surface, camera: Camera) -> float:
    """Below 0 where the camera stands on the side that across x down points to."""
    across, down, origin = surface.placed.T
    return -float(_cross(across, down) @ (camera.centre - origin))


def _cross(a: Vectors, b: Vectors) -> Vectors:
    """a x b of two 3-vectors; NumPy's own is slow for so few numbers."""
    return np.array(
        [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    )


def _swing(angle: float) -> Matrix:
    """3x3 rotation around y, the upright."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def _any_rotation(rng: Rng, spread: float = 10.0) -> Matrix:
    """3x3; small spreads keep it near facing the camera."""
    turn = rng.uniform(0, 2 * math.pi)
    lean, swing = spread * rng.normal(0, 1, 2)
    return np.asarray(_swing(swing) @ cameras.lean(lean) @ cameras.turn(turn), np.float64)
