"""Places where images were taken -> pairs of images that are close to each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import check_positive, check_whole
from tiepoint.errors import ConfigError
from tiepoint.matching.pairing import Pairs, check_pairs

EARTH_M = 6_371_008.8
"""Mean radius of the Earth, m (IUGG)."""

_LEAF = 64  # places that are compared together
_ROUNDING_M = 1e-3  # of distances, so that equal ones tie


def near_pairs(
    places: NDArray[np.float64], k: int | None = None, metres: float | None = None
) -> Pairs:
    """Every image with the images that were taken near it.

    Distances are on the sphere. Heights are left out, as in COLMAP, because a GPS measures them
    several times worse.

    Args:
        places: n 2 latitude and longitude, degrees; NaN if unknown.
        k: Nearest images for each; None takes all within `metres`. The relation is not mutual, so
            an image can be in more than k pairs.
        metres: Largest distance; None has no limit.

    Returns:
        P 2 int64 with i < j, sorted. Of equally near images, to a millimetre, the lower index is
        taken. An image without a place is in no pair.

    Raises:
        ConfigError: Neither k nor metres, one out of range, places of another shape, or more pairs
            than `MOST_PAIRS`.
    """
    if k is None and metres is None:
        raise ConfigError("k and metres are None, expected one of them at least")
    if k is not None:
        check_whole("k", k, minimum=1, unit="images")
    if metres is not None:
        check_positive("metres", metres)
    if places.ndim != 2 or places.shape[1] != 2:
        raise ConfigError(f"places have shape {places.shape}, expected (images, 2)")
    known = np.flatnonzero(np.isfinite(places).all(axis=1))
    k = len(known) - 1 if k is None else min(k, len(known) - 1)
    if k < 1:
        return np.empty((0, 2), np.int64)
    points = _on_sphere(places[known])  # n 3, m
    limit = np.inf if metres is None else _chord(metres)
    found: list[NDArray[np.int64]] = []
    total = 0
    tree = _Blocks(points)
    for block in range(len(tree.members)):
        own, other = tree.neighbours(block, k, limit)
        total += len(own)
        check_pairs(total // 2, "images that were taken near each other")
        keys = np.minimum(own, other) * len(known) + np.maximum(own, other)
        found.append(np.unique(keys))
    keys = np.unique(np.concatenate(found))
    pairs: Pairs = known[np.stack([keys // len(known), keys % len(known)], axis=1)]  # P 2
    return pairs


class _Blocks:
    """Points in boxes of up to `_LEAF`, by halving along the longest side."""

    def __init__(self, points: NDArray[np.float64]) -> None:
        self.points = points
        self.members: list[NDArray[np.int64]] = []
        waiting = [np.arange(len(points))]
        while waiting:
            indices = waiting.pop()
            if len(indices) <= _LEAF:
                self.members.append(np.sort(indices))
                continue
            axis = np.argmax(np.ptp(points[indices], axis=0))
            order = indices[np.argsort(points[indices, axis], kind="stable")]
            waiting += [order[len(order) // 2 :], order[: len(order) // 2]]
        self.low = np.array([points[block].min(axis=0) for block in self.members])  # blocks 3
        self.high = np.array([points[block].max(axis=0) for block in self.members])
        self.sizes = np.array([len(block) for block in self.members])

    def neighbours(
        self, block: int, k: int, limit: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The k nearest points within a limit of each point of a block, as pairs of indices."""
        gaps = np.maximum(self.low - self.high[block], self.low[block] - self.high)  # blocks 3
        gap = np.linalg.norm(np.maximum(gaps, 0), axis=1) - 2 * _ROUNDING_M  # blocks
        own = self.members[block]
        radius = limit
        if k < len(self.points) - 1:
            order = np.argsort(gap, kind="stable")
            enough = np.searchsorted(np.cumsum(self.sizes[order]), k + 1) + 1
            distance = self._distances(own, self._of(order[:enough]))
            radius = min(limit, np.partition(distance, k, axis=1)[:, k].max())
        others = self._of(np.flatnonzero(gap <= radius))
        distance = self._distances(own, others)  # R C
        distance[distance > limit] = np.inf
        distance[own[:, None] == others] = np.inf
        # Columns are sorted by index, so a stable order takes the lower one of equal distances.
        nearest = np.argsort(distance, axis=1, kind="stable")[:, :k]
        within = np.isfinite(np.take_along_axis(distance, nearest, axis=1))
        rows = np.broadcast_to(own[:, None], nearest.shape)
        return rows[within], others[nearest[within]]

    def _of(self, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.sort(np.concatenate([self.members[block] for block in blocks]))

    def _distances(self, own: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
        between = self.points[own][:, None] - self.points[others]  # R C 3
        distance: NDArray[np.float64] = np.linalg.norm(between, axis=2)
        return np.round(distance / _ROUNDING_M) * _ROUNDING_M


def _on_sphere(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """n 3 points on the sphere, m. Their straight distances have the order of those on it."""
    latitude, longitude = np.radians(places).T
    across = np.cos(latitude)
    return EARTH_M * np.stack(
        [across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)], axis=1
    )


def _chord(metres: float) -> float:
    """Straight distance of two points that are `metres` apart on the sphere."""
    angle = min(metres / (2 * EARTH_M), np.pi / 2)
    return float(2 * EARTH_M * np.sin(angle)) + _ROUNDING_M / 2
