"""The steps of a tracker, each a function of arrays: matches near predictions, motion, starts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import Float, Matrix, apply_homography
from tiepoint.matching import neighbours
from tiepoint.matching.near import within
from tiepoint.registration import planar

Float32 = NDArray[np.float32]
Array = NDArray[np.float64]
Indices = NDArray[np.int64]

NEIGHBOURS = 8
"""Matches around a point whose median motion is that of its surroundings."""

ROUNDING = 1e-3
"""More than float32 cosines of unit vectors are off."""

MIN_SUPPORT = 8
"""Matches that must agree on the motion of a frame: twice the sample of a homography."""


def pairs_near(
    predicted: Array,
    described: Float32,
    xy: Float32,
    descriptors: Float32,
    radius_px: float,
    min_similarity: float,
) -> Indices:
    """Mutual nearest neighbours by cosine among the pairs within a distance.

    Args:
        predicted: K 2, where K tracks are expected, px.
        described: K D, their descriptors.
        xy: N 2, keypoints of the frame, px.
        descriptors: N D, unit length as those of the tracks.
        radius_px: Largest distance from the prediction; infinity allows all pairs.
        min_similarity: Minimum cosine.

    Returns:
        M 2 indices of tracks and keypoints, by track. Ties go to the lower index.
    """
    if len(predicted) == 0 or len(xy) == 0:
        return np.empty((0, 2), np.int64)
    if np.isinf(radius_px):
        nearest_a, nearest_b = neighbours.by_cosine(described, descriptors)
    else:
        blocks = [np.empty((0, 2), np.int64), *within(predicted, xy, radius_px)]
        pairs = np.concatenate(blocks)  # P 2
        pairs = _promising(pairs, described, descriptors, min_similarity)
        cosines = neighbours.cosines(described, descriptors, pairs).astype(np.float32)
        nearest_a, nearest_b = neighbours.among((len(predicted), len(xy)), pairs, cosines)
    mutual = nearest_b.index[nearest_a.index] == np.arange(len(predicted))
    kept = np.flatnonzero(mutual & (nearest_a.score >= np.float32(min_similarity)))
    return np.stack([kept, nearest_a.index[kept]], axis=1)


def _promising(
    pairs: Indices, described: Float32, descriptors: Float32, min_similarity: float
) -> Indices:
    """The pairs whose cosine in float32 may be the best of the track or of the keypoint."""
    i, j = pairs.T
    rough = np.einsum("ij,ij->i", described[i], descriptors[j])  # P
    kept = rough >= min_similarity - ROUNDING
    i, j, rough = i[kept], j[kept], rough[kept]
    best_i = np.full(len(described), -np.inf, np.float32)
    best_j = np.full(len(descriptors), -np.inf, np.float32)
    np.maximum.at(best_i, i, rough)
    np.maximum.at(best_j, j, rough)
    best = (rough >= best_i[i] - ROUNDING) | (rough >= best_j[j] - ROUNDING)
    return np.stack([i[best], j[best]], axis=1)


def motion_of(before: Array, after: Array, within_px: float) -> Matrix | None:
    """The homography that most matches agree on; None if fewer than `MIN_SUPPORT` do.

    Args:
        before, after: M 2, px.
        within_px: Largest distance of an inlier.
    """
    if len(before) < MIN_SUPPORT:
        return None
    matrix = planar.consensus("homography", before, after, within_px / 2)
    if matrix is None:
        return None
    matrix = planar.facing(matrix, before)
    off_px = np.linalg.norm(apply_homography(matrix, before) - after, axis=1)  # M, NaN is far
    return matrix if int((off_px <= within_px).sum()) >= MIN_SUPPORT else None


def moved(xy: Array, motion: Matrix | None) -> Array:
    """K 2: positions after the motion of the frame; without one, or at infinity, as they were."""
    if motion is None:
        return xy.copy()
    mapped = apply_homography(motion, xy)
    return np.where(np.isfinite(mapped), mapped, xy)


def local_residuals(xy: Array, at: Array, residuals: Array) -> Array:
    """The motion of a place's surroundings beyond that of the frame.

    Args:
        xy: K 2, places, px.
        at: M 2, positions of matches, px. A match at a place itself does not count there.
        residuals: M 2, motion of these beyond the frame's, px.

    Returns:
        K 2: median, by component, of the `NEIGHBOURS` nearest matches; NaN if there are fewer than
        three.
    """
    if len(at) < 4 or len(xy) == 0:
        return np.full((len(xy), 2), np.nan)
    count = min(NEIGHBOURS, len(at) - 1)
    squares = np.square(xy[:, None] - at[None]).sum(axis=2)  # K M
    squares[squares == 0] = np.inf
    nearest = np.argpartition(squares, count - 1, axis=1)[:, :count]  # K count
    return np.asarray(np.median(residuals[nearest], axis=1))


def agreeing(
    before: Array, after: Array, motion: Matrix | None, within_px: float
) -> NDArray[np.bool_]:
    """Which matches move as the frame or as their surroundings do.

    A homography alone would remove what has depth and what moves by itself. The surroundings of a
    wrong match move otherwise, wherever it is.

    Args:
        before, after: M 2, px.
        motion: 3x3 or None, the frame's.
        within_px: Largest difference.

    Returns:
        M 2 bool: as the frame; as the surroundings.
    """
    residuals = after - moved(before, motion)  # M 2
    as_frame = np.linalg.norm(residuals, axis=1) <= within_px
    if motion is None:
        as_frame[:] = False
    as_local = as_frame.copy()
    others = np.flatnonzero(~as_frame)
    around = local_residuals(before[others], before, residuals)  # of the others only: few
    with np.errstate(invalid="ignore"):
        as_local[others] = np.linalg.norm(residuals[others] - around, axis=1) <= within_px
    return np.stack([as_frame, as_local], axis=1)


def spaced(xy: Float32, taken: Float, order: Indices, spacing_px: float, most: int) -> Indices:
    """Choose points in an order, each at a distance from those taken and those chosen before.

    Args:
        xy: N 2, px.
        taken: T 2, px, points that exist.
        order: Indices of xy that may be chosen, best first.
        spacing_px: Minimum distance.
        most: Largest number of points to choose.

    Returns:
        Indices of the chosen points, in the given order.
    """
    if most <= 0 or len(order) == 0:
        return np.empty(0, np.int64)
    blocked = np.zeros(len(xy), bool)
    for pairs in within(np.asarray(taken, np.float64), xy, spacing_px):
        blocked[pairs[:, 1]] = True
    free = order[~blocked[order]]
    near: dict[int, list[int]] = {}
    for pairs in within(xy[free].astype(np.float64), xy[free], spacing_px):
        for i, j in pairs[pairs[:, 0] < pairs[:, 1]].tolist():
            near.setdefault(i, []).append(j)
    chosen: list[int] = []
    refused: set[int] = set()
    for place in range(len(free)):
        if place in refused:
            continue
        chosen.append(place)
        if len(chosen) == most:
            break
        refused.update(near.get(place, ()))
    return free[chosen]
