"""How far transforms of one pair of images agree with each other, without ground truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import Matrix, SizeHW, apply_homography, inside

GRID = 11
"""Points along each side of image A at which two transforms are compared."""


def distance_px(first: Matrix, second: Matrix, a_hw: SizeHW, b_hw: SizeHW) -> float:
    """The largest distance between two transforms over the overlap of the images, px of B.

    The overlap is where either of them puts a point of A inside B, so a wrong transform is
    compared where it is wrong. The corners of A may be far outside B, where good transforms differ.

    Args:
        first, second: 3x3, x_B ~ H x_A.
        a_hw, b_hw: Sizes of the images, px.

    Returns:
        Infinite where one of them puts a point behind the camera of B, or none overlaps.
    """
    height, width = a_hw
    x, y = np.meshgrid(np.linspace(0, width - 1, GRID), np.linspace(0, height - 1, GRID))
    points = np.stack([x.ravel(), y.ravel()], axis=1)  # GRID^2 2
    one, other = apply_homography(first, points), apply_homography(second, points)
    overlap = inside(one, b_hw) | inside(other, b_hw)  # GRID^2
    if not overlap.any():
        return math.inf
    offsets = one[overlap] - other[overlap]  # P 2
    largest = float(np.hypot(offsets[:, 0], offsets[:, 1]).max())
    return largest if math.isfinite(largest) else math.inf


def distances_px(
    matrices: Sequence[Matrix | None], a_hw: SizeHW, b_hw: SizeHW
) -> NDArray[np.float64]:
    """M M: `distance_px` of every two of M transforms; NaN where there is none."""
    count = len(matrices)
    distances = np.full((count, count), math.nan)
    for i, first in enumerate(matrices):
        for j, second in enumerate(matrices[: i + 1]):
            if first is not None and second is not None:
                found = 0.0 if i == j else distance_px(first, second, a_hw, b_hw)
                distances[i, j] = distances[j, i] = found
    return distances


def consensus(distances: NDArray[np.float64], within_px: float) -> frozenset[int]:
    """The majority that agrees: indices of the transforms near the one that most others are near.

    Args:
        distances: M M, as from `distances_px`.
        within_px: Largest distance of two that agree, px.

    Returns:
        More than half of the known transforms and at least two; empty without such a majority.
    """
    known = np.flatnonzero(~np.isnan(np.diagonal(distances)))  # K
    if len(known) < 2:
        return frozenset()
    among = distances[np.ix_(known, known)]  # K K
    near = among <= within_px
    counts, sums = near.sum(axis=1), np.where(near, among, 0).sum(axis=1)
    centre = min(range(len(known)), key=lambda one: (-counts[one], sums[one]))
    if 2 * counts[centre] <= len(known):
        return frozenset()
    return frozenset(known[near[centre]].tolist())


def from_others_px(distances: NDArray[np.float64]) -> list[float | None]:
    """For each of M transforms its median distance from the others, px; None without others.

    The one of an odd method out is large, and those of the others stay small.
    """
    medians: list[float | None] = []
    for index, row in enumerate(distances):
        others = np.delete(row, index)
        others = others[~np.isnan(others)]
        medians.append(float(np.median(others)) if len(others) else None)
    return medians
