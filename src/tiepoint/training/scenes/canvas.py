"""Where a flat scene is drawn: grey values, who covers whom, and the corners that stay visible.

Shapes are drawn in occlusion order, each px by the exact area that a shape covers of it. OpenCV's
antialiased polygons are 2/3 px too wide and up to 0.2 px off, which a label exact to 0.05 px cannot
bear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiepoint.training.scenes.textures import Grey, Texture

Points = NDArray[np.float64]

NEAR_PX = 5
"""Clearances are measured up to this distance."""

NONE, CORNER, DOUBTFUL = 0, 1, 2
"""What a vertex is: a bend of a curve, a corner, or neither positive nor negative."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """A flat scene with its corners.

    Attributes:
        image: `H W` uint8.
        corners_xy: N 2 float32 px.
        positive: N bool; False where the corner is neither positive nor negative.
        clearance: N float32 px, distance to what covers it, at most `NEAR_PX`.
    """

    image: Grey
    corners_xy: NDArray[np.float32]
    positive: NDArray[np.bool_]
    clearance: NDArray[np.float32]

    @cached_property
    def levels(self) -> tuple[Grey, ...]:
        """The image at scales 1, 1/2, 1/4: a smaller one is read where a view shrinks it."""
        levels = [self.image]
        for _ in range(2):
            height, width = levels[-1].shape
            half = cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
            levels.append(np.asarray(half, np.uint8))
        return tuple(levels)


@dataclass(frozen=True, eq=False)
class Fill:
    """A texture laid on the canvas.

    Attributes:
        texture: What is laid.
        matrix: 2 3, px of the texture -> px of the canvas.
        greys: 256 uint8, the grey that each value of the texture becomes.
    """

    texture: Texture
    matrix: NDArray[np.float64]
    greys: Grey


class Canvas:
    """Grey values and occlusion order of a scene being drawn."""

    def __init__(self, size_hw: tuple[int, int], background: int | Fill) -> None:
        self._image: Grey = np.zeros(size_hw, np.uint8)
        self._owner = np.zeros(size_hw, np.int32)  # the last shape that covers each px
        self._count = 0
        self._xy: list[NDArray[np.floating[Any]]] = []
        self._what: list[NDArray[np.int64]] = []
        self._shape: list[NDArray[np.int64]] = []
        self._inner: list[NDArray[np.bool_]] = []
        height, width = size_hw
        frame = np.array([[-2, -2], [width + 1, -2], [width + 1, height + 1], [-2, height + 1.0]])
        self.polygon(frame, background, vertices=None)

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in px."""
        return self._image.shape[0], self._image.shape[1]

    def polygon(
        self,
        points: ArrayLike,
        fill: int | Fill,
        *,
        vertices: NDArray[np.int64] | None,
        holes: Sequence[Points] = (),
    ) -> None:
        """Draw a polygon over all that stands there.

        Args:
            points: N 2 px, in either sense of turning, not crossing itself.
            fill: A grey of 0..255 or a texture.
            vertices: N, what each vertex is: `NONE`, `CORNER`, `DOUBTFUL`; None = all none.
            holes: Outlines inside it that stay as they were; say with `points` what stands there.
        """
        outline = np.asarray(points, np.float64)
        box = _box(outline, self.size_hw)
        if box is None:
            return
        left, top, right, bottom = box
        cover = coverage(outline, box, holes)
        image = self._image[top:bottom, left:right]
        front = _filled(fill, box)
        image[:] = _blend(image, front, cover)
        self._count += 1
        owner = self._owner[top:bottom, left:right]
        owner[cover >= 128] = self._count
        if vertices is not None and vertices.any():
            kept = vertices != NONE
            self.points(outline[kept], vertices[kept])
        if isinstance(fill, Fill) and len(fill.texture.corners_xy):
            self._texture_corners(fill, box)

    def points(self, xy: ArrayLike, what: NDArray[np.int64]) -> None:
        """Say what stands at points of the shape drawn last: N 2 px, N kinds of vertex."""
        self._add(np.asarray(xy, np.float64), what, inner=False)

    def _texture_corners(self, fill: Fill, box: tuple[int, int, int, int]) -> None:
        xy = fill.texture.mirrored_xy @ fill.matrix[:, :2].T + fill.matrix[:, 2]  # N 2
        left, top, right, bottom = box
        inside = (xy >= (left, top)).all(axis=1) & (xy < (right, bottom)).all(axis=1)
        self._add(xy[inside], np.full(int(inside.sum()), CORNER), inner=True)

    def _add(self, xy: Points, what: NDArray[np.int64], *, inner: bool) -> None:
        self._xy.append(xy)
        self._what.append(what)
        self._shape.append(np.full(len(xy), self._count))
        self._inner.append(np.full(len(xy), inner))

    def sheet(self) -> Sheet:
        """What has been drawn, with the corners that nothing covers."""
        if not self._xy:
            self._add(np.zeros((0, 2)), np.zeros(0, np.int64), inner=False)
        xy, what = np.concatenate(self._xy), np.concatenate(self._what)
        shape, inner = np.concatenate(self._shape), np.concatenate(self._inner)
        height, width = self.size_hw
        inside = (xy > 0).all(axis=1) & (xy < (width - 1, height - 1)).all(axis=1)
        xy, what, shape, inner = xy[inside], what[inside], shape[inside], inner[inside]
        clearance = self._clearance(xy, shape, inner)
        kept = clearance > 1.0
        xy, what, clearance = xy[kept], what[kept], clearance[kept]
        junctions = self._junctions(xy)
        return Sheet(
            self._image,
            np.concatenate([xy, junctions]).astype(np.float32),
            np.concatenate([what == CORNER, np.zeros(len(junctions), bool)]),
            np.concatenate([clearance, np.full(len(junctions), NEAR_PX)]).astype(np.float32),
        )

    def _clearance(
        self, xy: Points, shape: NDArray[np.int64], inner: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Distance from each corner to the nearest px of a shape above its own, or of any other."""
        height, width = self.size_hw
        steps = np.arange(-NEAR_PX, NEAR_PX + 1)
        dy, dx = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
        centre = np.rint(xy).astype(np.int64)
        x = np.clip(centre[:, :1] + dx, 0, width - 1)  # N P
        y = np.clip(centre[:, 1:] + dy, 0, height - 1)
        owner = self._owner[y, x]
        own = shape[:, None]
        other = np.where(inner[:, None], owner != own, owner > own)
        distance = np.hypot(x - xy[:, :1], y - xy[:, 1:]) - 0.5  # to the near side of that px
        nearest = np.min(np.where(other, distance, NEAR_PX), axis=1, initial=NEAR_PX)
        return np.asarray(nearest, np.float64)

    def _junctions(self, corners: Points) -> Points:
        """Where three shapes meet (T-junctions), unless a corner stands there: N 2 px."""
        a, b = self._owner[:-1, :-1], self._owner[:-1, 1:]
        c, d = self._owner[1:, :-1], self._owner[1:, 1:]
        third = (c != a) & (c != b) & (b != a)
        fourth = (d != a) & (((d != b) & (b != a)) | ((d != c) & (c != a)))
        rows, columns = np.nonzero(third | fourth)
        xy = np.stack([columns, rows], axis=1) + 0.5  # N 2: the point between the four px
        _, first = np.unique(np.floor(xy / 3), axis=0, return_index=True)
        xy = xy[np.sort(first)]
        if len(corners) and len(xy):
            taken = np.zeros(self.size_hw, np.uint8)
            at = np.rint(corners).astype(np.int64)
            taken[at[:, 1], at[:, 0]] = 1
            taken = np.asarray(cv2.dilate(taken, np.ones((5, 5), np.uint8)))
            xy = xy[taken[xy[:, 1].astype(np.int64), xy[:, 0].astype(np.int64)] == 0]
        return np.asarray(xy, np.float64)


def vertex_kinds(
    points: ArrayLike, least_edge_px: float = 5.0, bend_deg: float = 15.0
) -> NDArray[np.int64]:
    """What each vertex of an outline is, by its angle and the lengths of its edges.

    Smaller bends belong to a curve; those up to twice that, needles over 160 degrees and
    vertices of short edges are doubtful.

    Args:
        points: N 2 px.
        least_edge_px: Shorter edges make no corner.
        bend_deg: Turns up to this are bends.
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
    """From each vertex to the next: x and y, N each."""
    x, y = points[:, 0], points[:, 1]
    return np.concatenate([x[1:], x[:1]]) - x, np.concatenate([y[1:], y[:1]]) - y


def previous(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What stands at the vertex before, N."""
    return np.concatenate([values[-1:], values[:-1]])


def coverage(points: Points, box: tuple[int, int, int, int], holes: Sequence[Points] = ()) -> Grey:
    """How much of each px a polygon covers, exactly.

    Every edge is cut where it passes from px to px. A piece that falls by dy covers dy of all px to
    its right and, on average, a part of its own; sums along the rows give the areas.

    Args:
        points: N 2 px.
        box: left, top, right, bottom px; right and bottom not included.
        holes: Outlines of what is cut out of it.

    Returns:
        bottom - top, right - left, uint8: 255 = all of it.
    """
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    sense = turning(points) > 0
    rings = [points, *(h if (turning(h) > 0) != sense else h[::-1] for h in holes)]
    starts = np.concatenate(rings) - (left - 0.5, top - 0.5)  # px borders at whole numbers
    steps = np.concatenate([np.stack(edges(ring), axis=1) for ring in rings])  # N 2
    x, y, fall = _pieces(starts, steps)
    column, row = np.floor(x), np.floor(y)
    kept = (row >= 0) & (row < height) & (column < width)
    x, fall, column, row = x[kept], fall[kept], column[kept], row[kept].astype(np.int64)
    beyond = np.where(column < 0, 0.0, x - column)  # 0..1: how far right in its px
    at = row * (width + 1) + np.maximum(column, 0).astype(np.int64)
    sums = np.bincount(
        np.concatenate([at, at + 1]),
        np.concatenate([fall * (1 - beyond), fall * beyond]),
        minlength=height * (width + 1),
    ).reshape(height, width + 1)
    # No edge in sight leaves an empty sum of whole numbers.
    covered = np.abs(np.cumsum(sums[:, :width], axis=1, dtype=np.float64))
    covered *= 255
    covered += 0.5
    return np.asarray(np.minimum(covered, 255).astype(np.uint8))


def _pieces(
    starts: Points, steps: Points
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Edges cut at whole x and y: the middles' x and y, and how far each piece falls."""
    edge, cut = [np.arange(len(starts))] * 2, [np.zeros(len(starts)), np.ones(len(starts))]
    for axis in range(2):
        start, step = starts[:, axis], steps[:, axis]
        first = np.ceil(np.minimum(start, start + step))
        counts = np.maximum(np.ceil(np.maximum(start, start + step)) - first, 0).astype(np.int64)
        owner = np.repeat(np.arange(len(starts)), counts)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        edge.append(owner)
        cut.append((first[owner] + place - start[owner]) / step[owner])
    edges, cuts = np.concatenate(edge), np.clip(np.concatenate(cut), 0, 1)
    order = np.argsort(2 * edges + cuts)
    edges, cuts = edges[order], cuts[order]
    same = edges[1:] == edges[:-1]
    edges, before, after = edges[1:][same], cuts[:-1][same], cuts[1:][same]
    middle = starts[edges] + steps[edges] * ((before + after) / 2)[:, None]
    return middle[:, 0], middle[:, 1], steps[edges, 1] * (after - before)


def turning(points: Points) -> float:
    """Twice the signed area of an outline: its sign is the sense in which it turns."""
    x, y = edges(points)
    return float(np.dot(points[:, 0], y) - np.dot(points[:, 1], x))


def _box(points: Points, size_hw: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """The px that a polygon touches: left, top, right, bottom; None when it lies outside."""
    height, width = size_hw
    x, y = points[:, 0], points[:, 1]
    left, top = max(math.floor(x.min()) - 1, 0), max(math.floor(y.min()) - 1, 0)
    right, bottom = min(math.ceil(x.max()) + 2, width), min(math.ceil(y.max()) + 2, height)
    return (left, top, right, bottom) if left < right and top < bottom else None


def _filled(fill: int | Fill, box: tuple[int, int, int, int]) -> int | Grey:
    """A grey as it is, or the texture over a box."""
    if not isinstance(fill, Fill):
        return fill
    left, top, right, bottom = box
    matrix = fill.matrix - [[0, 0, left], [0, 0, top]]
    laid = cv2.warpAffine(
        fill.texture.image,
        matrix,
        (right - left, bottom - top),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    return np.asarray(cv2.LUT(np.asarray(laid, np.uint8), fill.greys), np.uint8)


def _blend(behind: Grey, front: int | Grey, cover: Grey) -> Grey:
    """The front where it covers, what is behind where not, in 8 bits with rounding."""
    difference = np.subtract(front, behind, dtype=np.int32)
    difference *= cover
    difference += 127
    mixed: Grey = (behind + difference // 255).astype(np.uint8)
    return mixed
