"""Layers seen by a camera: grey values, who is seen where, corners; flows between two views.

Everything is a plane with a homography into the view, drawn from far to near at twice the
resolution and averaged. A flow is therefore exact: the homography of the plane that a px shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import SizeHW, apply_homography, resize_matrix
from tiepoint.training.scenes.cameras import Matrix, scale_at
from tiepoint.training.scenes.canvas import NEAR_PX, Points, Sheet, edges, previous, turning
from tiepoint.training.scenes.textures import Grey

FINE = 2
SHIFT = 6  # bits of fraction in OpenCV's coordinates
OUTLINE_PX = 0.667
"""OpenCV's antialiased convex polygons are so much too wide on each side (measured: mean over 200
polygons, 0.016 px deviation); twice as fine, what is left is below 0.01 px of the view."""
NOBODY = 0
"""Owner of px that show what has no counterpart: the backdrop, or two surfaces at once."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A plane of a scene.

    Attributes:
        sheet: What stands on it.
        outline: N 2 px of the sheet, convex: where the plane ends; None = the whole sheet.
        vertices: N bool, which vertices of the outline are corners.
        body: Layers of one convex body (a box) share edges and do not hide one another's corners.
    """

    sheet: Sheet
    outline: Points
    vertices: NDArray[np.bool_]
    body: int


@dataclass(frozen=True, eq=False)
class Rendering:
    """What a camera sees, before light and lens.

    Attributes:
        image: `H W` uint8.
        owner: `H W` int16, 1 + the number of the layer that fills the px, or `NOBODY`.
        corners_xy: N 2 float64 px, inside the view.
        positive: N bool.
    """

    image: Grey
    owner: NDArray[np.int16]
    corners_xy: Points
    positive: NDArray[np.bool_]


def render(
    layers: Sequence[Layer],
    to_view: Sequence[Matrix],
    order: Sequence[int],
    backdrop: Grey,
    size_hw: SizeHW,
    cover_px: float,
) -> Rendering:
    """Draw one view.

    Args:
        layers: Of both views, so that owners mean the same.
        to_view: 3x3 for each layer, px of its sheet -> px of the view.
        order: The layers to draw, far ones first.
        backdrop: `H W` uint8 of any size, behind everything.
        cover_px: A corner with anything above it nearer than this is not seen.
    """
    fine_hw = size_hw[0] * FINE, size_hw[1] * FINE
    enlarge = resize_matrix(size_hw, fine_hw)
    image = cv2.resize(backdrop, fine_hw[::-1], interpolation=cv2.INTER_LINEAR)
    image = np.array(image, np.uint8)
    owner = np.zeros(fine_hw, np.int16)
    begun = set()
    for number in order:
        layer, matrix = layers[number], enlarge @ to_view[number]
        drawn = apply_homography(matrix, layer.outline)
        if layer.body not in begun:  # its first face fills all of it: no gap shows at the edges
            begun.add(layer.body)
            faces = [n for n in order if layers[n].body == layer.body]
            drawn = _hull(
                [apply_homography(enlarge @ to_view[n], layers[n].outline) for n in faces]
            )
        _draw(image, owner, layer, matrix, drawn, number + 1)
    small = np.asarray(cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    bodies = np.array([-1] + [layer.body for layer in layers])
    rank = np.zeros(len(layers) + 1, np.int64)  # of each owner's body in the order of drawing
    for place, number in enumerate(order):
        rank[bodies == layers[number].body] = place + 1
    xy, positive = [np.zeros((0, 2))], [np.zeros(0, bool)]
    for number in order:
        found, sure = _corners(
            layers[number], to_view[number], number + 1, owner, rank, size_hw, cover_px
        )
        xy.append(found)
        positive.append(sure)
    return Rendering(small, _whole(owner), np.concatenate(xy), np.concatenate(positive))


def flow(
    here: Rendering, there: Rendering, to_here: Sequence[Matrix], to_there: Sequence[Matrix]
) -> NDArray[np.float32]:
    """Where each px centre of one view lies in the other.

    Returns:
        `H W 2` float32 px (x, y); NaN where the other view does not show it.
    """
    height, width = here.owner.shape
    result = np.full((height, width, 2), np.nan, np.float32)
    for owner in np.unique(here.owner):
        if owner == NOBODY:
            continue
        rows, columns = np.nonzero(here.owner == owner)
        matrix = to_there[owner - 1] @ np.linalg.inv(to_here[owner - 1])
        matrix = matrix / matrix[2, 2]
        w = matrix[2, 0] * columns + matrix[2, 1] * rows + matrix[2, 2]
        x = (matrix[0, 0] * columns + matrix[0, 1] * rows + matrix[0, 2]) / w
        y = (matrix[1, 0] * columns + matrix[1, 1] * rows + matrix[1, 2]) / w
        column, row = np.rint(x), np.rint(y)
        seen = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        rows, columns, x, y = rows[seen], columns[seen], x[seen], y[seen]
        at = row[seen].astype(np.int64), column[seen].astype(np.int64)
        same = there.owner[at] == owner
        rows, columns = rows[same], columns[same]
        result[rows, columns, 0] = x[same]
        result[rows, columns, 1] = y[same]
    return result


def _draw(
    image: Grey,
    owner: NDArray[np.int16],
    layer: Layer,
    matrix: Matrix,
    drawn: Points,
    name: int,
) -> None:
    """One layer over what stands there, in px of the fine view, as far as `drawn` reaches."""
    if not np.isfinite(drawn).all():
        return  # a part lies behind the camera: layouts avoid it
    height, width = image.shape
    left, top = np.maximum(np.floor(drawn.min(axis=0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(drawn.max(axis=0)).astype(int) + 2, (width, height))
    if left >= right or top >= bottom:
        return
    level = _level(layer.sheet, matrix, layer.outline)
    shift = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]])
    source = layer.sheet.levels[level]
    laid = cv2.warpPerspective(
        source,
        shift @ matrix @ resize_matrix(_hw(source), _hw(layer.sheet.image)),
        (int(right - left), int(bottom - top)),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    cover = _cover(drawn - (left, top), _hw(laid))
    there = image[top:bottom, left:right]
    weight = cover.astype(np.float32) * np.float32(1 / 255)
    there[:] = cv2.blendLinear(laid, np.ascontiguousarray(there), weight, 1 - weight)
    owner[top:bottom, left:right][cover >= 128] = name


def _hull(outlines: list[Points]) -> Points:
    """The outline around the faces of a convex body; a single one stays as it is."""
    if len(outlines) == 1:
        return outlines[0]
    every = np.concatenate(outlines)
    if not np.isfinite(every).all():
        return np.full((3, 2), np.nan)
    return np.asarray(cv2.convexHull(every.astype(np.float32))[:, 0], np.float64)


def _cover(points: Points, size_hw: SizeHW) -> Grey:
    cover = np.zeros(size_hw, np.uint8)
    limit = 8.0 * max(size_hw)  # a vertex near the horizon would leave OpenCV's range of 2^31
    points = np.clip(_inset(points, OUTLINE_PX), -limit, limit)
    pixels = np.rint(points * (1 << SHIFT)).astype(np.int32)
    cv2.fillConvexPoly(cover, pixels, 255, cv2.LINE_AA, SHIFT)
    return cover


def _inset(points: Points, distance: float) -> Points:
    """The outline moved inwards by a distance in px; needles no further than four times it."""
    after_x, after_y = edges(points)  # N each
    scale = math.copysign(1, turning(points)) / np.maximum(np.hypot(after_x, after_y), 1e-9)
    x, y = -after_y * scale, after_x * scale  # N: unit vectors inwards
    last_x, last_y = previous(x), previous(y)
    mitre = distance / np.maximum(1 + x * last_x + y * last_y, 0.125)
    return np.stack(
        [points[:, 0] + mitre * (x + last_x), points[:, 1] + mitre * (y + last_y)], axis=1
    )


def _level(sheet: Sheet, matrix: Matrix, outline: Points) -> int:
    """Which reduced image comes nearest to one px of it per px of the fine view."""
    shrink = 1 / max(float(scale_at(matrix, outline.mean(axis=0)[None])[0]), 1e-6)
    return int(np.clip(np.floor(np.log2(max(shrink, 1e-6)) + 0.4), 0, len(sheet.levels) - 1))


def _corners(
    layer: Layer,
    matrix: Matrix,
    name: int,
    owner: NDArray[np.int16],
    rank: NDArray[np.int64],
    size_hw: SizeHW,
    cover_px: float,
) -> tuple[Points, NDArray[np.bool_]]:
    """The layer's corners that the view shows: N 2 px, and which are positive."""
    sheet = layer.sheet
    low, high = layer.outline.min(axis=0), layer.outline.max(axis=0)
    part = ((sheet.corners_xy > low) & (sheet.corners_xy < high)).all(axis=1)
    there, clearance = sheet.corners_xy[part].astype(np.float64), sheet.clearance[part]
    far = clearance * scale_at(matrix, there) >= cover_px
    clear = far | (clearance >= NEAR_PX)
    xy = apply_homography(matrix, there[clear])
    xy, sure = _framed(xy, sheet.positive[part][clear], size_hw)
    shown = _ring_owners(owner, xy, cover_px)  # N P
    alone = (shown == name).all(axis=1)
    xy, sure = xy[alone], sure[alone]
    ends = apply_homography(matrix, layer.outline[layer.vertices])
    ends, sure_ends = _framed(ends, np.ones(len(ends), bool), size_hw)
    above = (rank[_ring_owners(owner, ends, cover_px)] > rank[name]).any(axis=1)
    return np.concatenate([xy, ends[~above]]), np.concatenate([sure, sure_ends[~above]])


def _framed(
    xy: Points, positive: NDArray[np.bool_], size_hw: SizeHW
) -> tuple[Points, NDArray[np.bool_]]:
    limits = size_hw[1] - 0.5, size_hw[0] - 0.5
    with np.errstate(invalid="ignore"):
        inside = ((xy >= -0.5) & (xy < limits)).all(axis=1)
    return xy[inside], positive[inside]


def _ring_owners(owner: NDArray[np.int16], xy: Points, radius: float) -> NDArray[np.int16]:
    """Who owns the fine px around points of the view: N P."""
    angles = np.arange(8) * (np.pi / 4)
    dx = np.concatenate([[0], radius / 2 * np.cos(angles[::2]), radius * np.cos(angles)])
    dy = np.concatenate([[0], radius / 2 * np.sin(angles[::2]), radius * np.sin(angles)])
    height, width = owner.shape
    x = np.rint((xy[:, :1] + dx + 0.5) * FINE - 0.5).astype(np.int64)
    y = np.rint((xy[:, 1:] + dy + 0.5) * FINE - 0.5).astype(np.int64)
    owners: NDArray[np.int16] = owner[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    return owners


def _whole(owner: NDArray[np.int16]) -> NDArray[np.int16]:
    """`H W`: the owner of px whose four fine px agree, else `NOBODY`."""
    a, b, c, d = owner[::2, ::2], owner[::2, 1::2], owner[1::2, ::2], owner[1::2, 1::2]
    same = (a == b) & (a == c) & (a == d)
    return np.where(same, a, np.int16(NOBODY)).astype(np.int16)


def _hw(image: NDArray[np.uint8]) -> SizeHW:
    return image.shape[0], image.shape[1]
