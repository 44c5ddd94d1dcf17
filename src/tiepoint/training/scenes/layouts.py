"""Layouts: what both views of a pair show, as flat arrays that a device renders in batches.

Everything that depends on a plane alone is computed here in float64: homographies, outlines, levels
of detail. Rows of all pairs are in one array each, so a chunk of pairs is one concatenation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import SizeHW, resize_matrix
from tiepoint.training.scenes.basics import Matrix
from tiepoint.training.scenes.composition import Scene
from tiepoint.training.scenes.render import FINE, ViewPair
from tiepoint.training.scenes.stored import atlas_shape

Rows = NDArray[Any]
"""A structured array."""

PLANE = np.dtype([
    ("view", np.int32),  # number of the view in the chunk
    ("rank", np.int32),  # position in the drawing order of its view, from far to near
    ("name", np.int16),  # 1 + number of the plane in its scene, as an owner
    ("sheet", np.int32),  # number of the sheet in its scene
    ("sample", np.float32, (3, 3)),  # px of the fine view -> atlas of the sheet, -1..1
    ("limits", np.float32, (2, 2)),  # first and last px centre of the level in the atlas, -1..1
    ("to_view", np.float32, (3, 3)),  # px of the sheet -> px of the view
    ("determinant", np.float32),  # |det| of it
    ("part", np.float32, (2, 2)),  # box around the plane, px of the sheet: low, high
    ("edges", np.int32),  # number of its rows in the edges
])  # fmt: skip
"""A plane that a view shows."""

EDGE = np.dtype((np.float32, 3))
"""(a, b, c): a x + b y + c is the distance inwards from an edge, px of the fine view."""

END = np.dtype([("view", np.int32), ("name", np.int16), ("xy", np.float32, 2)])
"""A vertex of an outline that is a corner, px of the view."""

NAME = np.dtype([
    ("view", np.int32), ("name", np.int16),
    ("to_other", np.float32, (3, 3)),  # px of the view -> px of the pair's other view
    ("rank", np.int16),  # of the plane's body, as `render` orders them; 0 = not drawn
])  # fmt: skip
"""A plane in a view, drawn or not."""

UNSEEN_PX = 0.5
"""Distance inwards from an edge, px of the fine view, from which on it covers a px whole."""


@dataclass(frozen=True, eq=False)
class Layouts:
    """Layouts of several pairs.

    Attributes:
        planes, edges, ends, names: Rows of `PLANE`, `EDGE`, `END` and `NAME`; the edges of each
            plane follow those of the plane before it.
    """

    planes: Rows
    edges: Rows
    ends: Rows
    names: Rows


def layouts_of(
    pairs: Sequence[tuple[Scene, ViewPair]], view_numbers: NDArray[np.int64], size_hw: SizeHW
) -> Layouts:
    """Flat arrays for pairs of views.

    Args:
        pairs: At least one.
        view_numbers: 2 P, numbers of the views A and of the views B.
        size_hw: (height, width) of the views, px.
    """
    planes = [plane for _, pair in pairs for plane in pair.planes]
    sheets = [scene.sheets.index(p.sheet) for scene, pair in pairs for p in pair.planes]
    sheet_hw = np.array([plane.sheet.size_hw for plane in planes])  # G 2
    outlines = [plane.outline for plane in planes]
    to_views = np.stack([  # 2 G 3 3
        np.concatenate([np.asarray(pair.to_views[side]) for _, pair in pairs]) for side in (0, 1)
    ])  # fmt: skip
    drawn = _Drawn(pairs, view_numbers)
    to_view = to_views[drawn.side, drawn.plane]  # T 3 3
    fine_hw = size_hw[0] * FINE, size_hw[1] * FINE
    to_fine = resize_matrix(size_hw, fine_hw) @ to_view
    polygons = _filled(drawn, [outlines[g] for g in drawn.plane], to_fine)
    edges, counts, visible = _edges(polygons, fine_hw)
    rows = np.zeros(len(drawn.plane), PLANE)
    rows["view"], rows["rank"], rows["name"] = drawn.view, drawn.position, drawn.name
    rows["sheet"] = np.asarray(sheets)[drawn.plane]
    rows["to_view"], rows["determinant"] = to_view, np.abs(np.linalg.det(to_view))
    low, high, middle = (
        np.array([reduced(outline, axis=0) for outline in outlines])[drawn.plane]
        for reduced in (np.min, np.max, np.mean)
    )
    rows["part"] = np.stack([low, high], axis=1)
    _sample(rows, to_fine, middle, sheet_hw[drawn.plane], size_hw)
    rows["edges"] = counts
    rows = rows[visible]
    edges = edges[np.repeat(visible, counts)]
    return Layouts(rows, edges, _ends(drawn, planes, to_view, size_hw), _names(drawn, to_views))


class _Drawn:
    """T planes in the drawing orders of all views, and G planes of all pairs.

    Attributes:
        plane, side, view, position, name: T each.
        body: T, unique over all pairs and sides.
        owned_view, owned_name: 2 G each.
        owned_body: 2 G, of the same numbers as `body`.
    """

    def __init__(
        self, pairs: Sequence[tuple[Scene, ViewPair]], view_numbers: NDArray[np.int64]
    ) -> None:
        rows: list[tuple[int, ...]] = []
        owned: tuple[list[tuple[int, ...]], ...] = [], []
        first = body = 0
        for (_, pair), views in zip(pairs, view_numbers.T.tolist(), strict=True):
            bodies = [plane.body for plane in pair.planes]
            most = max(bodies) + 1
            for side in (0, 1):
                rows += [
                    (first + n, side, views[side], position, n + 1, body + bodies[n])
                    for position, n in enumerate(pair.orders[side])
                ]
                owned[side].extend((views[side], n + 1, body + b) for n, b in enumerate(bodies))
                body += most
            first += len(bodies)
        columns = np.array(rows, np.int64).reshape(-1, 6).T
        self.plane, self.side, self.view, self.position, self.name, self.body = columns
        self.owned_view, self.owned_name, self.owned_body = np.array(owned, np.int64).transpose(
            2, 0, 1
        )


def _filled(
    drawn: _Drawn, outlines: Sequence[NDArray[np.float64]], to_fine: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """The outline that each drawn plane fills, px of the fine view; NaN if it cannot be drawn.

    The first face of a body fills the hull of all, so that no gap shows at the edges.
    """
    counts = np.array([len(outline) for outline in outlines])
    xy = _mapped(np.repeat(to_fine, counts, axis=0), np.concatenate(outlines))
    polygons = np.split(xy, np.cumsum(counts)[:-1])
    _, first, inverse, faces = np.unique(
        drawn.body, return_index=True, return_inverse=True, return_counts=True
    )
    for number in np.flatnonzero(faces > 1):
        points = np.concatenate([polygons[t] for t in np.flatnonzero(inverse == number)])
        if not np.isfinite(points).all():
            polygons[first[number]] = np.full((3, 2), np.nan)
            continue
        hull = cv2.convexHull(points.astype(np.float32))[:, 0]
        polygons[first[number]] = np.asarray(hull, np.float64)
    return polygons


def _edges(
    polygons: Sequence[NDArray[np.float64]], fine_hw: SizeHW
) -> tuple[Rows, NDArray[np.int64], NDArray[np.bool_]]:
    """The edges that cross the view, their number for each polygon, and which polygons it shows."""
    counts = np.array([len(polygon) for polygon in polygons])
    x, y = np.concatenate(polygons).T
    ends = np.cumsum(counts)
    starts = ends - counts
    following = np.arange(1, len(x) + 1)
    following[ends - 1] = starts
    dx, dy = x[following] - x, y[following] - y
    area = np.add.reduceat(x * dy - y * dx, starts)
    length = np.hypot(dx, dy)
    with np.errstate(invalid="ignore", divide="ignore"):
        inwards = np.repeat(np.copysign(1, area), counts) / length
        a, b = -dy * inwards, dx * inwards
        c = -(a * x + b * y)
        across, along = a * (fine_hw[1] - 1), b * (fine_hw[0] - 1)
        least = c + np.minimum(across, 0) + np.minimum(along, 0)  # over all px of the view
        most = c + np.maximum(across, 0) + np.maximum(along, 0)
        beyond = np.add.reduceat((most <= -UNSEEN_PX).astype(np.int64), starts) > 0
        visible = np.isfinite(np.add.reduceat(x + y, starts)) & ~beyond
        kept = (least < UNSEEN_PX) & (length > 1e-6)
    left = np.add.reduceat(kept.astype(np.int64), starts)
    return np.stack([a, b, c], axis=1)[kept].astype(np.float32), left, visible


def _sample(
    rows: Rows,
    to_fine: NDArray[np.float64],
    middle: NDArray[np.float64],
    sheet_hw: NDArray[np.int64],
    size_hw: SizeHW,
) -> None:
    """Enter the level of detail, and where in the atlas each px of the fine view is."""
    atlas = atlas_shape(size_hw)
    w = (to_fine[:, 2, :2] * middle).sum(axis=1) + to_fine[:, 2, 2]
    scale = np.sqrt(np.abs(np.linalg.det(to_fine)) / np.maximum(np.abs(w), 1e-12) ** 3)
    shrink = 1 / np.maximum(scale, 1e-6)
    levels = np.clip(np.floor(np.log2(np.maximum(shrink, 1e-6)) + 0.4), 0, 2).astype(np.int64)
    level_wh = (sheet_hw >> levels[:, None])[:, ::-1]  # T 2
    factor = level_wh / sheet_hw[:, ::-1]
    offset = atlas.offsets_xy(levels)
    unit = 2 / (np.array(atlas.size_hw[::-1]) - 1)  # px of the atlas -> -1..1
    placed = np.zeros((len(rows), 3, 3))
    placed[:, [0, 1], [0, 1]] = factor * unit
    placed[:, :2, 2] = (0.5 * factor - 0.5 + offset) * unit - 1
    placed[:, 2, 2] = 1
    rows["sample"] = _scaled(placed @ _inverse(to_fine))
    rows["limits"] = np.stack([offset, offset + level_wh - 1], axis=1) * unit - 1


def _ends(
    drawn: _Drawn, planes: Sequence[Any], to_view: NDArray[np.float64], size_hw: SizeHW
) -> Rows:
    """The vertices of outlines that are corners inside the views."""
    xy = [planes[g].outline[planes[g].vertices] for g in drawn.plane]
    plane = np.repeat(np.arange(len(xy)), [len(each) for each in xy])
    rows = np.zeros(len(plane), END)
    rows["view"], rows["name"] = drawn.view[plane], drawn.name[plane]
    rows["xy"] = xy_in_view = _mapped(to_view[plane], np.concatenate(xy))
    limits = np.array([size_hw[1] - 0.5, size_hw[0] - 0.5])
    with np.errstate(invalid="ignore"):
        return rows[((xy_in_view >= -0.5) & (xy_in_view < limits)).all(axis=1)]


def _names(drawn: _Drawn, to_views: NDArray[np.float64]) -> Rows:
    """All planes of all views."""
    rows = np.zeros(drawn.owned_view.shape, NAME)  # 2 G
    rows["view"], rows["name"] = drawn.owned_view, drawn.owned_name
    ranks = np.zeros(int(drawn.owned_body.max()) + 1, np.int64)
    np.maximum.at(ranks, drawn.body, drawn.position + 1)
    rows["rank"] = ranks[drawn.owned_body]
    for side in (0, 1):
        rows["to_other"][side] = _scaled(to_views[1 - side] @ _inverse(to_views[side]))
    return rows.reshape(-1)


def _mapped(matrices: NDArray[np.float64], xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """N 2: N 2 px, each by its own homography; NaN behind infinity."""
    mapped = (matrices[:, :, :2] * xy[:, None]).sum(axis=2) + matrices[:, :, 2]  # N 3
    w = mapped[:, 2:]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.asarray(np.where(w > 0, mapped[:, :2] / w, np.nan), np.float64)


def _inverse(matrices: NDArray[np.float64]) -> Matrix:
    """N 3 3: the inverse homographies up to a factor; singular ones raise nothing."""
    a, b, c = matrices.transpose(1, 0, 2)  # rows, N 3 each
    columns = [np.cross(b, c), np.cross(c, a), np.cross(a, b)]
    determinant = (a * columns[0]).sum(axis=1)
    inverse = np.stack(columns, axis=2) * np.copysign(1, determinant)[:, None, None]
    return np.asarray(inverse, np.float64)


def _scaled(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """N 3 3 homographies whose largest number is 1, so that float32 can hold them."""
    largest = np.abs(matrices).max(axis=(1, 2), keepdims=True)
    return np.asarray(matrices / np.maximum(largest, np.finfo(np.float64).tiny), np.float64)


def joined(parts: Sequence[Layouts]) -> Layouts:
    """Layouts of several parts as one."""
    return Layouts(*(
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("planes", "edges", "ends", "names")
    ))  # fmt: skip
