"""Views of planes: grey values, which plane each px shows, corners; flow between two views.

Every plane has a homography into the view. Planes are drawn from far to near at twice the
resolution and averaged. The flow is exact: it is the homography of the plane that a px shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import SizeHW, apply_homography, resize_matrix
from tiepoint.training.scenes.basics import Grey, Mask, Matrix, Points, size_hw_of
from tiepoint.training.scenes.cameras import scale_at
from tiepoint.training.scenes.canvas import NEAR_PX, Sheet, doubled_area, edges, previous

FINE = 2
"""Px of the fine view per px of the view."""
SHIFT = 6  # bits of fraction in OpenCV's coordinates
OUTLINE_PX = 0.667
"""Excess of OpenCV's antialiased convex polygons on each side, px of the fine view. Measured as the
mean over 200 polygons, deviation 0.016 px; the rest is below 0.01 px of the view."""
Owners = NDArray[np.int16]
"""`H W`, 1 + number of the plane that fills the px, or `NOBODY`."""
NOBODY = 0
"""Owner of px without a counterpart: they show the backdrop, or several planes at once."""


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane of a scene, or a face of a convex body.

    Faces of one body, such as a box, share edges and do not hide one another's corners.
    """

    sheet: Sheet
    outline: Points  # N 2 px of the sheet, convex: the border of the plane
    vertices: Mask  # N: which vertices of the outline are corners
    body: int


@dataclass(frozen=True, eq=False)
class ViewPair:
    """Cameras A and B before the same planes."""

    planes: Sequence[Plane]
    to_views: tuple[Sequence[Matrix], Sequence[Matrix]]  # 3x3 per plane, px of its sheet -> view
    orders: tuple[Sequence[int], Sequence[int]]  # numbers of the planes to draw, far ones first


@dataclass(frozen=True, eq=False)
class Rendering:
    """A view before photometry."""

    image: Grey
    owner: Owners
    corners_xy: Points  # inside the view
    positive: Mask  # N; False for doubtful corners


def render(
    planes: Sequence[Plane],
    to_view: Sequence[Matrix],
    order: Sequence[int],
    backdrop: Grey,
    size_hw: SizeHW,
    cover_px: float,
) -> Rendering:
    """Draw one view.

    Args:
        planes: The same list for both views of a pair, so that owners agree.
        to_view: 3x3 for each plane, px of its sheet -> px of the view.
        order: Numbers of the planes to draw, far ones first.
        backdrop: `H W` uint8 of any size, behind everything.
        cover_px: Least distance from a visible corner to anything in front of it.
    """
    fine_hw = size_hw[0] * FINE, size_hw[1] * FINE
    enlarge = resize_matrix(size_hw, fine_hw)
    image = np.array(cv2.resize(backdrop, fine_hw[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
    owner = np.zeros(fine_hw, np.int16)
    begun = set()
    for number in order:
        plane, matrix = planes[number], enlarge @ to_view[number]
        outline = apply_homography(matrix, plane.outline)
        if plane.body not in begun:  # its first face fills all of it: no gap shows at the edges
            begun.add(plane.body)
            faces = [n for n in order if planes[n].body == plane.body]
            outline = _hull(
                [apply_homography(enlarge @ to_view[n], planes[n].outline) for n in faces]
            )
        _draw(image, owner, plane, matrix, outline, number + 1)
    small = np.asarray(cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    bodies = np.array([-1] + [plane.body for plane in planes])
    rank = np.zeros(len(planes) + 1, np.int64)  # rank of each owner's body in the drawing order
    for position, number in enumerate(order):
        rank[bodies == planes[number].body] = position + 1
    corners = [
        _corners(planes[number], to_view[number], number + 1, owner, rank, cover_px)
        for number in order
    ]
    none = np.zeros((0, 2)), np.zeros(0, bool)
    xy, positive = (np.concatenate(each) for each in zip(none, *corners, strict=True))
    return Rendering(small, _unanimous(owner), xy, positive)


def flow(
    source: Rendering, target: Rendering, to_source: Sequence[Matrix], to_target: Sequence[Matrix]
) -> NDArray[np.float32]:
    """The position of each px centre of one view in the other, which has the same size.

    Args:
        to_source, to_target: 3x3 for each plane, px of its sheet -> px of the view.

    Returns:
        `H W 2` px (x, y); NaN where the target does not show the point.
    """
    height, width = source.owner.shape
    result = np.full((height, width, 2), np.nan, np.float32)
    for owner in np.unique(source.owner[source.owner != NOBODY]):
        rows, columns = np.nonzero(source.owner == owner)
        matrix = to_target[owner - 1] @ np.linalg.inv(to_source[owner - 1])
        matrix = matrix / matrix[2, 2]
        w = matrix[2, 0] * columns + matrix[2, 1] * rows + matrix[2, 2]
        x = (matrix[0, 0] * columns + matrix[0, 1] * rows + matrix[0, 2]) / w
        y = (matrix[1, 0] * columns + matrix[1, 1] * rows + matrix[1, 2]) / w
        column, row = np.rint(x), np.rint(y)
        seen = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        rows, columns, x, y = rows[seen], columns[seen], x[seen], y[seen]
        same = target.owner[row[seen].astype(np.int64), column[seen].astype(np.int64)] == owner
        result[rows[same], columns[same]] = np.stack([x[same], y[same]], axis=1)
    return result


def _draw(
    image: Grey, owner: Owners, plane: Plane, matrix: Matrix, outline: Points, name: int
) -> None:
    """Draw one plane inside an outline over the fine view, and enter its name as owner."""
    if not np.isfinite(outline).all():
        return  # partly behind the camera, which layouts avoid
    height, width = image.shape
    left, top = np.maximum(np.floor(outline.min(axis=0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + 2, (width, height))
    if left >= right or top >= bottom:
        return
    source = plane.sheet.levels[_level(plane.sheet, matrix, plane.outline)]
    shift = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]])
    to_box = shift @ matrix @ resize_matrix(size_hw_of(source), plane.sheet.size_hw)
    size_wh = int(right - left), int(bottom - top)
    border = cv2.BORDER_REPLICATE
    warped = cv2.warpPerspective(source, to_box, size_wh, flags=cv2.INTER_LINEAR, borderMode=border)
    cover = _cover(outline - (left, top), size_hw_of(warped))
    behind = image[top:bottom, left:right]
    weight = cover.astype(np.float32) * np.float32(1 / 255)
    behind[:] = cv2.blendLinear(warped, np.ascontiguousarray(behind), weight, 1 - weight)
    owner[top:bottom, left:right][cover >= 128] = name


def _hull(outlines: list[Points]) -> Points:
    """The outline around the faces of a convex body; a single one is returned unchanged."""
    if len(outlines) == 1:
        return outlines[0]
    points = np.concatenate(outlines)
    if not np.isfinite(points).all():
        return np.full((3, 2), np.nan)
    return np.asarray(cv2.convexHull(points.astype(np.float32))[:, 0], np.float64)


def _cover(points: Points, size_hw: SizeHW) -> Grey:
    cover = np.zeros(size_hw, np.uint8)
    limit = 8.0 * max(size_hw)  # a vertex near the horizon would exceed OpenCV's range of 2^31
    points = np.clip(_inset(points, OUTLINE_PX), -limit, limit)
    pixels = np.rint(points * (1 << SHIFT)).astype(np.int32)
    cv2.fillConvexPoly(cover, pixels, 255, cv2.LINE_AA, SHIFT)
    return cover


def _inset(points: Points, distance: float) -> Points:
    """The outline moved inwards by a distance in px; the tips of needles by at most four times."""
    after_x, after_y = edges(points)  # N each
    scale = math.copysign(1, doubled_area(points)) / np.maximum(np.hypot(after_x, after_y), 1e-9)
    x, y = -after_y * scale, after_x * scale  # N: unit vectors inwards
    last_x, last_y = previous(x), previous(y)
    mitre = distance / np.maximum(1 + x * last_x + y * last_y, 0.125)
    return points + np.stack([mitre * (x + last_x), mitre * (y + last_y)], axis=1)


def _level(sheet: Sheet, matrix: Matrix, outline: Points) -> int:
    """The level of the sheet whose resolution is nearest to that of the fine view."""
    shrink = 1 / max(float(scale_at(matrix, outline.mean(axis=0)[None])[0]), 1e-6)
    return int(np.clip(np.floor(np.log2(max(shrink, 1e-6)) + 0.4), 0, len(sheet.levels) - 1))


def _corners(
    plane: Plane, matrix: Matrix, name: int, owner: Owners, rank: NDArray[np.int64], cover_px: float
) -> tuple[Points, Mask]:
    """Corners of the plane that the view shows: N 2 px, and which of them are positive."""
    sheet, size_hw = plane.sheet, (owner.shape[0] // FINE, owner.shape[1] // FINE)
    low, high = plane.outline.min(axis=0), plane.outline.max(axis=0)
    part = ((sheet.corners_xy > low) & (sheet.corners_xy < high)).all(axis=1)
    sheet_xy, clearance = sheet.corners_xy[part].astype(np.float64), sheet.clearance[part]
    far = clearance * scale_at(matrix, sheet_xy) >= cover_px
    clear = far | (clearance >= NEAR_PX)
    xy, positive = apply_homography(matrix, sheet_xy[clear]), sheet.positive[part][clear]
    inside = _in_view(xy, size_hw)
    xy, positive = xy[inside], positive[inside]
    alone = (_ring_owners(owner, xy, cover_px) == name).all(axis=1)
    xy, positive = xy[alone], positive[alone]
    ends = apply_homography(matrix, plane.outline[plane.vertices])
    ends = ends[_in_view(ends, size_hw)]
    ends = ends[(rank[_ring_owners(owner, ends, cover_px)] <= rank[name]).all(axis=1)]
    return np.concatenate([xy, ends]), np.concatenate([positive, np.ones(len(ends), bool)])


def _in_view(xy: Points, size_hw: SizeHW) -> Mask:
    limits = size_hw[1] - 0.5, size_hw[0] - 0.5
    with np.errstate(invalid="ignore"):
        return np.asarray(((xy >= -0.5) & (xy < limits)).all(axis=1))


def _ring_owners(owner: Owners, xy: Points, radius: float) -> Owners:
    """N P: owners of the fine px in a disc around points of the view."""
    dx, dy = ring_offsets(radius).T
    height, width = owner.shape
    x = np.rint((xy[:, :1] + dx + 0.5) * FINE - 0.5).astype(np.int64)
    y = np.rint((xy[:, 1:] + dy + 0.5) * FINE - 0.5).astype(np.int64)
    owners: Owners = owner[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    return owners


def ring_offsets(radius: float) -> Points:
    """P 2 px: points of a disc around (0, 0) whose owners a corner needs."""
    angles = np.arange(8) * (np.pi / 4)
    dx = np.concatenate([[0], radius / 2 * np.cos(angles[::2]), radius * np.cos(angles)])
    dy = np.concatenate([[0], radius / 2 * np.sin(angles[::2]), radius * np.sin(angles)])
    return np.stack([dx, dy], axis=1)


def _unanimous(owner: Owners) -> Owners:
    """`H W`: the owner of px whose four fine px agree, else `NOBODY`."""
    a, b, c, d = owner[::2, ::2], owner[::2, 1::2], owner[1::2, ::2], owner[1::2, 1::2]
    same = (a == b) & (a == c) & (a == d)
    return np.where(same, a, np.int16(NOBODY)).astype(np.int16)
