"""A flat scene being drawn: grey values, occlusion order, and the corners that stay visible.

Shapes are drawn in occlusion order. Each px is blended by the exact area that a shape covers of it,
because labels are exact to 0.05 px: OpenCV's antialiased polygons are 2/3 px too wide and up to
0.2 px off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiepoint.geometry import SizeHW
from tiepoint.training.scenes.basics import Grey, Kinds, Mask, Matrix, Points, size_hw_of
from tiepoint.training.scenes.textures import Texture

NEAR_PX = 5
"""Clearances are measured up to this distance."""

NONE, CORNER, DOUBTFUL = 0, 1, 2
"""Kinds of a vertex: a bend of a curve, a corner, or something in between that is ignored."""

Box = tuple[int, int, int, int]
"""left, top, right, bottom px; right and bottom not included."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """A flat scene with its corners."""

    image: Grey  # `H W`
    corners_xy: NDArray[np.float32]  # N 2 px
    positive: Mask  # N; False for doubtful corners, which are ignored
    clearance: NDArray[np.float32]  # N px to the nearest shape above the corner's, <= NEAR_PX

    @property
    def size_hw(self) -> SizeHW:
        """(height, width) in px."""
        return size_hw_of(self.image)

    @property
    def outline(self) -> Points:
        """4 2 px: the outer edges of the outermost px."""
        right, bottom = self.size_hw[1] - 0.5, self.size_hw[0] - 0.5
        return np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])

    @cached_property
    def levels(self) -> tuple[Grey, ...]:
        """The image at scales 1, 1/2 and 1/4, for views that shrink it."""
        levels = [self.image]
        for _ in range(2):
            height, width = levels[-1].shape
            half = cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
            levels.append(np.asarray(half, np.uint8))
        return tuple(levels)


def sheet_without_corners(image: Grey) -> Sheet:
    """A sheet from an image whose corners are unknown, such as a photograph."""
    none = np.zeros(0, np.float32)
    return Sheet(image, np.zeros((0, 2), np.float32), none.astype(bool), none)


@dataclass(frozen=True, eq=False)
class Fill:
    """A texture with its position on the canvas and its greys."""

    texture: Texture
    matrix: Matrix  # 2 3, px of the texture -> px of the canvas
    greys: Grey  # 256: the grey for each value of the texture


class Canvas:
    """Grey values and occlusion order of a scene being drawn."""

    def __init__(self, size_hw: SizeHW, background: int | Fill) -> None:
        self._image: Grey = np.zeros(size_hw, np.uint8)
        self._owner = np.zeros(size_hw, np.int32)  # number of the last shape that covers each px
        self._count = 0
        self._vertices: list[tuple[Points, Kinds, Kinds, Mask]] = []
        """Points of one shape, their kinds, its number, and whether they are of its texture."""
        self.points(np.zeros((0, 2)), np.zeros(0, np.int64))
        height, width = size_hw
        frame = np.array([[-2, -2], [width + 1, -2], [width + 1, height + 1], [-2, height + 1.0]])
        self.polygon(frame, background, vertices=None)

    @property
    def size_hw(self) -> SizeHW:
        """(height, width) in px."""
        return size_hw_of(self._image)

    def polygon(
        self,
        points: ArrayLike,
        fill: int | Fill,
        *,
        vertices: Kinds | None,
        holes: Sequence[Points] = (),
    ) -> None:
        """Draw a polygon on top of everything drawn so far.

        Args:
            points: N 2 px, clockwise or counter-clockwise, without self-intersection.
            fill: A grey of 0..255 or a texture.
            vertices: N kinds: `NONE`, `CORNER` or `DOUBTFUL`; None = all `NONE`.
            holes: Outlines inside it that stay as they were; their corners are added by `points`.
        """
        outline = np.asarray(points, np.float64)
        box = _box(outline, self.size_hw)
        if box is None:
            return
        left, top, right, bottom = box
        cover = coverage(outline, box, holes)
        image = self._image[top:bottom, left:right]
        image[:] = _blend(image, _front(fill, box), cover)
        self._count += 1
        self._owner[top:bottom, left:right][cover >= 128] = self._count
        if vertices is not None:
            kept = vertices != NONE
            self.points(outline[kept], vertices[kept])
        if isinstance(fill, Fill) and len(fill.texture.corners_xy):
            xy = fill.texture.mirrored_xy @ fill.matrix[:, :2].T + fill.matrix[:, 2]  # N 2
            inside = (xy >= (left, top)).all(axis=1) & (xy < (right, bottom)).all(axis=1)
            self.points(xy[inside], np.full(int(inside.sum()), CORNER), of_texture=True)

    def points(self, xy: ArrayLike, kinds: Kinds, *, of_texture: bool = False) -> None:
        """Add points of the shape drawn last: N 2 px, N kinds; all but `CORNER` are doubtful."""
        points = np.asarray(xy, np.float64)
        shape, inner = np.full(len(points), self._count), np.full(len(points), of_texture)
        self._vertices.append((points, kinds, shape, inner))

    def sheet(self) -> Sheet:
        """The finished scene, with the corners that nothing covers."""
        xy, kinds, shape, inner = map(np.concatenate, zip(*self._vertices, strict=True))
        height, width = self.size_hw
        inside = (xy > 0).all(axis=1) & (xy < (width - 1, height - 1)).all(axis=1)
        clearance = np.zeros(len(xy))
        clearance[inside] = self._clearance(xy[inside], shape[inside], inner[inside])
        kept = clearance > 1.0
        xy, kinds, clearance = xy[kept], kinds[kept], clearance[kept]
        junctions = self._junctions(xy)
        return Sheet(
            self._image,
            np.concatenate([xy, junctions]).astype(np.float32),
            np.concatenate([kinds == CORNER, np.zeros(len(junctions), bool)]),
            np.concatenate([clearance, np.full(len(junctions), NEAR_PX)]).astype(np.float32),
        )

    def _clearance(self, xy: Points, shape: Kinds, inner: Mask) -> NDArray[np.float64]:
        """N: distance from each corner to the nearest px of a shape above its own.

        For corners of a texture, a shape below counts too, because the texture ends there.
        """
        height, width = self.size_hw
        steps = np.arange(-NEAR_PX, NEAR_PX + 1)
        dy, dx = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
        centre = np.rint(xy).astype(np.int64)
        x = np.clip(centre[:, :1] + dx, 0, width - 1)  # N P
        y = np.clip(centre[:, 1:] + dy, 0, height - 1)
        owner, own = self._owner[y, x], shape[:, None]
        other = np.where(inner[:, None], owner != own, owner > own)
        distance = np.hypot(x - xy[:, :1], y - xy[:, 1:]) - 0.5  # to the near side of that px
        nearest = np.min(np.where(other, distance, NEAR_PX), axis=1, initial=NEAR_PX)
        return np.asarray(nearest, np.float64)

    def _junctions(self, corners: Points) -> Points:
        """N 2 px: T-junctions, where three shapes meet, unless a corner is near."""
        a, b = self._owner[:-1, :-1], self._owner[:-1, 1:]
        c, d = self._owner[1:, :-1], self._owner[1:, 1:]
        third = (c != a) & (c != b) & (b != a)
        fourth = (d != a) & (((d != b) & (b != a)) | ((d != c) & (c != a)))
        rows, columns = np.nonzero(third | fourth)
        xy = np.stack([columns, rows], axis=1) + 0.5  # N 2: the point between the four px
        _, first = np.unique(np.floor(xy / 3), axis=0, return_index=True)
        xy = xy[np.sort(first)]
        if len(corners) and len(xy):
            near = np.zeros(self.size_hw, np.uint8)
            column, row = np.rint(corners).astype(np.int64).T
            near[row, column] = 1
            near = np.asarray(cv2.dilate(near, np.ones((5, 5), np.uint8)))
            xy = xy[near[xy[:, 1].astype(np.int64), xy[:, 0].astype(np.int64)] == 0]
        return np.asarray(xy, np.float64)


def vertex_kinds(points: ArrayLike, least_edge_px: float = 5.0, bend_deg: float = 15.0) -> Kinds:
    """N: `NONE`, `CORNER` or `DOUBTFUL` by angle and lengths of edges, for N 2 px of an outline.

    Turns below `bend_deg` are bends of a curve. Doubtful are turns of up to twice `bend_deg`,
    needles over 160 degrees and vertices of edges shorter than `least_edge_px`.
    """
    outline = np.asarray(points, np.float64)
    after_x, after_y = edges(outline)  # N each
    before_x, before_y = previous(after_x), previous(after_y)
    cross = before_x * after_y - before_y * after_x
    turn = np.degrees(np.abs(np.arctan2(cross, before_x * after_x + before_y * after_y)))
    length = np.hypot(after_x, after_y)
    short = np.minimum(length, previous(length)) < least_edge_px
    kinds = np.where((turn < 2 * bend_deg) | (turn > 160) | short, DOUBTFUL, CORNER)
    return np.asarray(np.where(turn < bend_deg, NONE, kinds), np.int64)


def edges(points: Points) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y of the steps from each vertex to the next, N each."""
    x, y = points[:, 0], points[:, 1]
    return np.concatenate([x[1:], x[:1]]) - x, np.concatenate([y[1:], y[:1]]) - y


def previous(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """N: the values of the vertex before."""
    return np.concatenate([values[-1:], values[:-1]])


def coverage(points: Points, box: Box, holes: Sequence[Points] = ()) -> Grey:
    """Exact area of each px of a box that a polygon without its holes covers; 255 = all of it.

    Every edge is cut where it passes from px to px. A piece that descends by dy covers dy of all
    px to its right and part of its own px; cumulative sums along the rows give the areas.
    """
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    clockwise = doubled_area(points) > 0
    rings = [points, *(h if (doubled_area(h) > 0) != clockwise else h[::-1] for h in holes)]
    starts = np.concatenate(rings) - (left - 0.5, top - 0.5)  # px borders at whole numbers
    steps = np.concatenate([np.stack(edges(ring), axis=1) for ring in rings])  # N 2
    middle, fall = _pieces(starts, steps)
    column, row = np.floor(middle).T
    kept = (row >= 0) & (row < height) & (column < width)
    x, fall, column, row = middle[kept, 0], fall[kept], column[kept], row[kept].astype(np.int64)
    beyond = np.where(column < 0, 0.0, x - column)  # 0..1: position from the left side of its px
    at = row * (width + 1) + np.maximum(column, 0).astype(np.int64)
    sums = np.bincount(
        np.concatenate([at, at + 1]),
        np.concatenate([fall * (1 - beyond), fall * beyond]),
        minlength=height * (width + 1),
    ).reshape(height, width + 1)
    # The dtype matters without any edge, where bincount gives whole numbers.
    covered = np.abs(np.cumsum(sums[:, :width], axis=1, dtype=np.float64))
    covered *= 255
    covered += 0.5
    return np.asarray(np.minimum(covered, 255).astype(np.uint8))


def _pieces(starts: Points, steps: Points) -> tuple[Points, NDArray[np.float64]]:
    """Edges cut at whole x and y: the middle of each of N pieces, N 2, and its descent in y, N."""
    edge, cut = [np.arange(len(starts))] * 2, [np.zeros(len(starts)), np.ones(len(starts))]
    for axis in range(2):
        start, step = starts[:, axis], steps[:, axis]
        first = np.ceil(np.minimum(start, start + step))
        counts = np.maximum(np.ceil(np.maximum(start, start + step)) - first, 0).astype(np.int64)
        owner = np.repeat(np.arange(len(starts)), counts)
        number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        edge.append(owner)
        cut.append((first[owner] + number - start[owner]) / step[owner])
    edges, cuts = np.concatenate(edge), np.clip(np.concatenate(cut), 0, 1)
    order = np.argsort(2 * edges + cuts)
    edges, cuts = edges[order], cuts[order]
    same = edges[1:] == edges[:-1]
    edges, before, after = edges[1:][same], cuts[:-1][same], cuts[1:][same]
    middle = starts[edges] + steps[edges] * ((before + after) / 2)[:, None]
    return middle, steps[edges, 1] * (after - before)


def doubled_area(points: Points) -> float:
    """Twice the signed area of an outline; positive if it is clockwise on the screen."""
    x, y = edges(points)
    return float(np.dot(points[:, 0], y) - np.dot(points[:, 1], x))


def _box(points: Points, size_hw: SizeHW) -> Box | None:
    """The px that a polygon touches; None outside the canvas."""
    height, width = size_hw
    x, y = points[:, 0], points[:, 1]
    left, top = max(math.floor(x.min()) - 1, 0), max(math.floor(y.min()) - 1, 0)
    right, bottom = min(math.ceil(x.max()) + 2, width), min(math.ceil(y.max()) + 2, height)
    return (left, top, right, bottom) if left < right and top < bottom else None


def _front(fill: int | Fill, box: Box) -> int | Grey:
    """A grey unchanged, or the texture over a box."""
    if not isinstance(fill, Fill):
        return fill
    left, top, right, bottom = box
    matrix = fill.matrix - [[0, 0, left], [0, 0, top]]
    size_wh = right - left, bottom - top
    values = cv2.warpAffine(
        fill.texture.image, matrix, size_wh, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(cv2.LUT(np.asarray(values, np.uint8), fill.greys), np.uint8)


def _blend(behind: Grey, front: int | Grey, cover: Grey) -> Grey:
    """Mix both by the coverage, in whole numbers with rounding."""
    difference = np.subtract(front, behind, dtype=np.int32)
    difference *= cover
    difference += 127
    mixed: Grey = (behind + difference // 255).astype(np.uint8)
    return mixed
