"""Keypoints spread evenly over an image of any size: those that the whole heat map would give.

`keypoints.selection` has the rule. Every radius needs all pixels above the threshold, because the
slope of a peak that is covered in part may have the maxima of a later round. So they are on disk,
in 8 bytes each. In memory are those of some tiles, and the maxima of one radius: the bisection
seldom tries a radius of which there are more than 4 k.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import DetectionConfig
from tiepoint.images.windows import Window
from tiepoint.keypoints.selection import widest_radius
from tiepoint.tiles.sparse_nms import Points, SparseMap, joined

PIXEL_ROWS = np.dtype([("at", "<u4"), ("score", "<f4")])
"""A pixel above the threshold: its place in the tile, in reading order, and its score."""

_ALLOWED = np.uint32(1 << 31)
"""Bit of the place that is set where keypoints are allowed; a tile has 2^26 px at most."""


def pixel_rows(
    heatmap: NDArray[np.float32], mask: NDArray[np.bool_] | None, min_score: float
) -> NDArray[Any]:
    """Pixels of a tile above the threshold.

    Args:
        heatmap: H W of the tile.
        mask: H W, where keypoints are allowed; None = everywhere.
        min_score: Score that a pixel must exceed.
    """
    at = np.flatnonzero(heatmap > min_score)
    rows = np.zeros(len(at), PIXEL_ROWS)
    rows["score"] = heatmap.reshape(-1)[at]
    allowed = np.ones(len(at), bool) if mask is None else mask.reshape(-1)[at]
    rows["at"] = at.astype(np.uint32) | np.where(allowed, _ALLOWED, np.uint32(0))
    return rows


def points_of(rows: NDArray[Any], tile: Window) -> Points:
    """The reverse of `pixel_rows`, in px of the map that has the tile."""
    at = rows["at"]
    down, across = np.divmod((at & ~_ALLOWED).astype(np.int64), tile.width)
    scores = np.ascontiguousarray(rows["score"])
    return Points(down + tile.top, across + tile.left, scores, (at & _ALLOWED) > 0)


def spread_points(heat: SparseMap, detection: DetectionConfig) -> Points:
    """The `max_keypoints` pixels that `selection.candidates` and `top_k` give for the whole map."""
    k = detection.max_keypoints
    assert k is not None

    def count(radius: int) -> int:
        return len(heat.survivors(radius, enough=k).rows)

    radius = widest_radius(count, heat.size_hw, detection)
    return best_points(heat.parts() if radius == 0 else [heat.survivors(radius)], k)


def best_points(parts: Iterable[Points], k: int) -> Points:
    """The k points of highest score, best first; ties by y, then x."""
    best = joined([])
    for part in parts:
        points = joined([best, part])
        order = np.lexsort((points.columns, points.rows, -points.scores))[:k]
        best = points.take(order)
    return best
