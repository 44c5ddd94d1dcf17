"""Non-maximum suppression of any radius in a heat map of any size, from its pixels tile by tile.

The pixels above the threshold decide alone, and few are in memory: those of the tiles around a
block, and the maxima. `keypoints.nms` is the twin for a heat map as a whole.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import SizeHW
from tiepoint.images.windows import Window, tiles
from tiepoint.keypoints.nms import NMS_ROUNDS
from tiepoint.streaming import read_ahead

Int = NDArray[np.int64]

BLOCK_PX = 2048
"""Least side of a block whose maxima are found together, px. Pixels around it, as far as the
radius, are read as well."""

CACHE_BYTES = 1 << 27
"""Memory for the pixels of tiles that several blocks read."""

MOST_PAIRS = 1 << 20
"""Pairs of pixels compared at a time."""

NEIGHBOUR_CELLS = 2
"""Cells of half the radius that a window reaches beyond the cell of its centre."""


class Points(NamedTuple):
    """Pixels of a heat map and their scores.

    Attributes:
        rows, columns: N int64, px.
        scores: N float32.
        allowed: N, where keypoints are allowed; others only suppress their neighbours.
    """

    rows: Int
    columns: Int
    scores: NDArray[np.float32]
    allowed: NDArray[np.bool_]

    def take(self, index: NDArray[np.bool_] | Int | slice) -> Points:
        """The points at an index."""
        rows, columns, scores, allowed = self
        return Points(rows[index], columns[index], scores[index], allowed[index])

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, bytes."""
        return sum(one.nbytes for one in self)


def joined(parts: Sequence[Points]) -> Points:
    """All points in one."""
    if not parts:
        none = np.zeros(0, np.int64)
        return Points(none, none, np.zeros(0, np.float32), np.zeros(0, bool))
    return Points(*(np.concatenate(one) for one in zip(*parts, strict=True)))


class SparseMap:
    """A heat map of which only the pixels above the threshold are known.

    Args:
        size_hw: (height, width), px.
        tile_px: Side of its tiles, in reading order.
        read: Index of a tile -> its points, in px of the map; from any thread.
        workers: Threads that find maxima.
    """

    def __init__(
        self, size_hw: SizeHW, tile_px: int, read: Callable[[int], Points], workers: int = 1
    ) -> None:
        self.size_hw, self.tile_px = size_hw, tile_px
        self._read, self._workers = read, workers
        self._across = -(-size_hw[1] // tile_px)

    def survivors(self, radius: int, enough: int | None = None) -> Points:
        """What `nms.suppress` leaves where keypoints are allowed.

        Args:
            radius: px, at least 1.
            enough: Stop with at least this number; None = all.
        """
        kept, count = joined([]), 0
        for _ in range(NMS_ROUNDS):
            maxima = first_of_equals(self._maxima(radius, kept), radius)
            kept = joined([kept, maxima])
            count += int(np.count_nonzero(maxima.allowed))
            if len(maxima.rows) == 0 or (enough is not None and count >= enough):
                break
        return kept.take(kept.allowed)

    def parts(self) -> Iterator[Points]:
        """The points where keypoints are allowed, tile by tile."""
        for index in range(self._across * -(-self.size_hw[0] // self.tile_px)):
            points = self._read(index)
            yield points.take(points.allowed)

    def _maxima(self, radius: int, kept: Points) -> Points:
        """Points beyond the reach of those kept that no other one within `radius` exceeds."""
        uncovered = _Uncovered(self._read, _Cover(kept, radius, self.size_hw))
        side = -(-max(BLOCK_PX, 2 * radius) // self.tile_px) * self.tile_px
        work = partial(self._maxima_of, radius=radius, uncovered=uncovered)
        return joined(
            [one for _, one in read_ahead(tiles(self.size_hw, side), work, self._workers)]
        )

    def _maxima_of(self, block: Window, radius: int, uncovered: _Uncovered) -> Points:
        """The maxima in a block of whole tiles."""
        around = block.grown(radius, self.size_hw)
        cell = (radius + 1) // 2  # all of the cells next to a pixel's own are within the radius
        highest = np.zeros((around.height // cell + 1, around.width // cell + 1), np.float32)
        for index in self._tiles_in(around):
            points = _inside(uncovered.of(index), around)
            np.maximum.at(highest, _cells(points, around, cell), points.scores)
        highest = cv2.dilate(highest, np.ones((3, 3), np.uint8))
        own = []
        for index in self._tiles_in(block):
            points = uncovered.of(index)
            own.append(points.take(points.scores >= highest[_cells(points, around, cell)]))
        candidates = joined(own)
        for index in self._tiles_in(around):
            if len(candidates.rows) == 0:
                break
            points = uncovered.of(index)
            points = _inside(points.take(points.scores > candidates.scores.min()), around)
            if len(points.rows):
                candidates = candidates.take(~_exceeded(candidates, points, around, radius))
        return candidates

    def _tiles_in(self, window: Window) -> Iterator[int]:
        """Indices of the tiles that a window overlaps."""
        (top, bottom), (left, right) = (
            (one.start // self.tile_px, (one.stop - 1) // self.tile_px) for one in window.slices
        )
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                yield row * self._across + column


class _Cover:
    """The squares of radius r around points of which no two are within r of each other."""

    def __init__(self, points: Points, radius: int, size_hw: SizeHW) -> None:
        self._radius, self._side = radius, radius + 1  # a cell of this side has one point at most
        self._across = size_hw[1] // self._side + 3
        keys = self._keys(points.rows // self._side, points.columns // self._side)
        order = np.argsort(keys)
        self._keys_sorted = keys[order]
        self._rows, self._columns = points.rows[order], points.columns[order]

    def leaves(self, points: Points) -> NDArray[np.bool_]:
        """Whether each of N points is in none of the squares."""
        free = np.ones(len(points.rows), bool)
        if len(free) == 0 or len(self._rows) == 0:
            return free
        rows, columns = points.rows // self._side, points.columns // self._side
        top, left = int(rows.min()) - 1, int(columns.min()) - 1
        height, width = int(rows.max()) + 2 - top, int(columns.max()) + 2 - left
        near = slice(*np.searchsorted(self._keys_sorted, self._keys(
            np.array([top, top + height]), np.array([-1, -1]))))  # fmt: skip
        near_rows, near_columns = self._rows[near], self._columns[near]
        y, x = near_rows // self._side - top, near_columns // self._side - left
        inside = (x >= 0) & (x < width)
        if not inside.any():
            return free
        places = np.full((height, width), -1, np.int64)
        places[y[inside], x[inside]] = np.flatnonzero(inside)
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                at = places[rows - top + down, columns - left + across]
                close = (at >= 0) & (np.abs(near_rows[at] - points.rows) <= self._radius)
                close &= np.abs(near_columns[at] - points.columns) <= self._radius
                free &= ~close
        return free

    def _keys(self, rows: Int, columns: Int) -> Int:
        return (rows + 1) * self._across + columns + 1


class _Uncovered:
    """The points of tiles that a cover leaves; the last ones used stay in memory."""

    def __init__(self, read: Callable[[int], Points], cover: _Cover) -> None:
        self._read, self._cover = read, cover
        self._cache: OrderedDict[int, Points] = OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()

    def of(self, index: int) -> Points:
        """The points of a tile."""
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
        points = self._read(index)
        points = points.take(self._cover.leaves(points))
        with self._lock:
            if index not in self._cache:
                self._cache[index] = points
                self._bytes += points.nbytes
            while self._bytes > CACHE_BYTES and len(self._cache) > 1:
                self._bytes -= self._cache.popitem(last=False)[1].nbytes
        return points


def first_of_equals(maxima: Points, radius: int) -> Points:
    """The maxima without those that an equal one within `radius` precedes in reading order."""
    order = np.lexsort((maxima.columns, maxima.rows, maxima.scores))
    points = maxima.take(order)
    changes = np.flatnonzero(np.diff(points.scores)) + 1
    starts = np.concatenate([[0], changes]).astype(np.int64)
    sizes = np.diff(np.concatenate([starts, [len(order)]]))
    alone = np.repeat(sizes == 1, sizes) if len(order) else np.zeros(0, bool)
    if alone.all():
        return maxima
    equals = points.take(~alone)
    run = np.repeat(np.arange(len(sizes)), sizes)[~alone]
    side = radius + 1  # all in a cell of this side are within the radius
    cells = equals.rows // side + 1, equals.columns // side + 1
    across, down = int(cells[1].max()) + 2, int(cells[0].max()) + 2
    keys = (run * down + cells[0]) * across + cells[1]
    order = np.lexsort((equals.columns, equals.rows, keys))
    equals, keys = equals.take(order), keys[order]
    leaders = np.flatnonzero(np.diff(keys, prepend=-1))  # the first of each cell
    follows = np.zeros(len(leaders), bool)
    for row in (-1, 0):  # those below follow
        first = np.searchsorted(keys, keys[leaders] + row * across - 1)
        last = np.searchsorted(keys, keys[leaders] + row * across + 1, side="right")
        for one, other in _pairs(first, last):
            a, b = leaders[one], other
            before = equals.rows[b] < equals.rows[a]
            before |= (equals.rows[b] == equals.rows[a]) & (equals.columns[b] < equals.columns[a])
            follows[one[before & _within(equals, a, equals, b, radius)]] = True
    return joined([points.take(alone), equals.take(leaders[~follows])])


def _exceeded(candidates: Points, points: Points, around: Window, radius: int) -> NDArray[np.bool_]:
    """Whether one of the points within `radius` exceeds each candidate."""
    cell = (radius + 1) // 2
    across = around.width // cell + 2 * NEIGHBOUR_CELLS + 1
    rows, columns = _cells(points, around, cell)
    keys = rows * across + columns
    order = np.argsort(keys, kind="stable")
    points, keys = points.take(order), keys[order]
    (top, bottom), (left, right) = (
        (one.min() - radius, one.max() + radius) for one in (points.rows, points.columns)
    )
    near = np.flatnonzero(
        (candidates.rows >= top) & (candidates.rows <= bottom)
        & (candidates.columns >= left) & (candidates.columns <= right)
    )  # fmt: skip
    rows, columns = _cells(candidates.take(near), around, cell)
    exceeded = np.zeros(len(candidates.rows), bool)
    for down in range(-NEIGHBOUR_CELLS, NEIGHBOUR_CELLS + 1):
        middle = (rows + down) * across + columns
        first = np.searchsorted(keys, middle - NEIGHBOUR_CELLS)
        last = np.searchsorted(keys, middle + NEIGHBOUR_CELLS, side="right")
        for one, other in _pairs(first, last):
            a = near[one]
            higher = points.scores[other] > candidates.scores[a]
            exceeded[a[higher & _within(candidates, a, points, other, radius)]] = True
    return exceeded


def _within(a: Points, i: Int, b: Points, j: Int, radius: int) -> NDArray[np.bool_]:
    rows = np.abs(a.rows[i] - b.rows[j]) <= radius
    return np.asarray(rows & (np.abs(a.columns[i] - b.columns[j]) <= radius))


def _pairs(first: Int, last: Int) -> Iterator[tuple[Int, Int]]:
    """(i, j) with first[i] <= j < last[i], some at a time."""
    counts = last - first
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        begun = ends[start] - counts[start]
        stop = max(start + 1, int(np.searchsorted(ends, begun + MOST_PAIRS, side="right")))
        part = counts[start:stop]
        i = np.repeat(np.arange(start, stop), part)
        j = np.arange(len(i)) - np.repeat(np.cumsum(part) - part, part) + first[i]
        yield i, j
        start = stop


def _inside(points: Points, window: Window) -> Points:
    rows, columns = window.slices
    chosen = (points.rows >= rows.start) & (points.rows < rows.stop)
    chosen &= (points.columns >= columns.start) & (points.columns < columns.stop)
    return points if chosen.all() else points.take(chosen)


def _cells(points: Points, window: Window, cell: int) -> tuple[Int, Int]:
    return (points.rows - window.top) // cell, (points.columns - window.left) // cell
