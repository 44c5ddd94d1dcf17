"""Pairs of points within a distance, found by a grid of cells as wide as the distance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import Float

Points = NDArray[np.floating[Any]]

MOST_PAIRS = 2**19
"""Pairs examined at a time, unless one point alone has more: 30 MB."""


def within(a: Float, b: Points, radius: float) -> Iterator[NDArray[np.int64]]:
    """All pairs of a point of a and a point of b within a distance.

    Args:
        a, b: N_A 2 and N_B 2; a point with NaN or infinite coordinates is near none.
        radius: Largest distance, at least 0, in the unit of the points.

    Yields:
        P 2 indices into a and b, by the index in a; all pairs of one point of a together.
    """
    b = b.astype(np.float64)
    usable = np.flatnonzero(np.isfinite(b).all(axis=1))
    if len(usable) == 0:
        return
    low, high = b[usable].min(axis=0) - radius, b[usable].max(axis=0) + radius
    inside = np.flatnonzero(((a >= low) & (a <= high)).all(axis=1))  # NaN is not inside
    # The cell is larger than the radius by far more than rounding; at most 2^20 cells form a row.
    cell = max(1.001 * radius, float((high - low).max()) / 2**20, 1e-6)
    cells_b, cells_a = _cells(b[usable], low, cell), _cells(a[inside], low, cell)
    row_length = int(cells_b[:, 0].max()) + 4
    keys = cells_b[:, 1] * row_length + cells_b[:, 0]
    order = np.argsort(keys, kind="stable")
    keys, usable = keys[order], usable[order]
    middle = (cells_a[:, 1, None] + [-1, 0, 1]) * row_length + cells_a[:, 0, None]  # N 3
    start = np.searchsorted(keys, middle - 1, side="left")
    count = np.searchsorted(keys, middle + 1, side="right") - start
    upto = np.cumsum(count.sum(axis=1))
    first = 0
    while first < len(inside):
        before = upto[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(upto, before + MOST_PAIRS, side="right")))
        part = slice(first, last)
        i = np.repeat(inside[part], count[part].sum(axis=1))
        j = usable[_ranges(start[part].ravel(), count[part].ravel())]
        offset = a[i] - b[j]
        near = np.hypot(offset[:, 0], offset[:, 1]) <= radius
        yield np.stack([i[near], j[near]], axis=1)
        first = last


def _cells(points: Float, low: Float, cell: float) -> NDArray[np.int64]:
    """N 2: column and row of each point's cell, from 1 on."""
    return np.asarray(np.floor((points - low) / cell), np.int64) + 1


def _ranges(start: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """start[0], start[0] + 1, ..., as many as count[0]; then those of start[1]; and so on."""
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    offsets = np.repeat(start - (ends - count), count)
    return np.asarray(np.arange(total) + offsets, np.int64)
