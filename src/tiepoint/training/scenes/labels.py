"""Which corners of a view a detector must find, must not be asked about, or both ways unknown."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]

RINGS_PX = (2.0, 4.0)
SAMPLES = 16
DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
"""What is left out of the loss around a doubtful corner: 2 px each way."""
SQUARE = np.ones((5, 5), np.uint8)
APART_PX = 3.0
"""Corners nearer than this to one another are one blur: none of them is sure."""
EDGE = 0.4
"""Product of the eigenvalues over their squared mean, below which it is an edge: 1 : 8.3."""
FAINT = 3e-5
"""Below this no corner can be made out, whatever passes by on its rings."""


def view_labels(
    clean: Values,
    corners_xy: NDArray[np.float64],
    positive: NDArray[np.bool_],
    hidden: NDArray[np.bool_],
    min_contrast: float,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Sort the corners of a view.

    Args:
        clean: `H W` float32 in 0..1, the view without noise.
        corners_xy: N 2 px, corners that nothing covers.
        positive: N bool; the others are doubtful by their form.
        hidden: `H W` bool, px that something before the lens covers.
        min_contrast: Least range of grey on both rings.

    Returns:
        N 2 float32 px of sure corners; `H W` bool, px of which nothing is said.
    """
    near = np.asarray(cv2.dilate(hidden.astype(np.uint8), SQUARE)) > 0
    if len(corners_xy) == 0:
        return np.zeros((0, 2), np.float32), near
    eigen, _ = structure_of(clean)
    at_x = np.clip(np.rint(corners_xy[:, 0]).astype(np.int64), 0, clean.shape[1] - 1)
    at_y = np.clip(np.rint(corners_xy[:, 1]).astype(np.int64), 0, clean.shape[0] - 1)
    contrast = ring_contrast(clean, corners_xy)
    strength = np.asarray(cv2.dilate(eigen, SQUARE[1:4, 1:4]))[at_y, at_x]
    shown = ~near[at_y, at_x]
    sure = positive & shown & (contrast >= min_contrast) & (strength >= FAINT)
    sure &= ~crowded(corners_xy, sure)
    # Doubt only where a corner may be seen at all.
    doubtful = ~sure & shown & (contrast >= min_contrast / 2) & (strength >= FAINT / 2)
    return corners_xy[sure].astype(np.float32), discs(corners_xy[doubtful], clean.shape) | near


def discs(xy: NDArray[np.float64], size_hw: tuple[int, ...]) -> NDArray[np.bool_]:
    """`H W` bool, the px around points that lie in the view."""
    points = np.zeros(size_hw, np.uint8)
    columns, rows = np.rint(xy).astype(np.int64).T
    points[np.clip(rows, 0, size_hw[0] - 1), np.clip(columns, 0, size_hw[1] - 1)] = 1
    return np.asarray(cv2.dilate(points, DISC)) > 0


def structure_of(clean: Values) -> tuple[Values, NDArray[np.bool_]]:
    """The structure tensor over 5x5 px: its smaller eigenvalue, and where it is no mere edge.

    Source: Shi and Tomasi, "Good features to track" (1994); the test of the ratio is Harris's.

    Args:
        clean: `H W` float32 in 0..1.

    Returns:
        `H W` float32, squared grey per px; `H W` bool, smaller > about 1/8 of the larger one.
    """
    dx = cv2.Scharr(clean, cv2.CV_32F, 1, 0, scale=1 / 32)
    dy = cv2.Scharr(clean, cv2.CV_32F, 0, 1, scale=1 / 32)
    xx = cv2.boxFilter(dx * dx, -1, (5, 5))
    yy = cv2.boxFilter(dy * dy, -1, (5, 5))
    xy = cv2.boxFilter(dx * dy, -1, (5, 5))
    half, product = (xx + yy) / 2, xx * yy - xy * xy
    smaller = half - np.sqrt(np.maximum(half * half - product, 0))
    return smaller.astype(np.float32), np.asarray(product > EDGE * half * half)


def ring_contrast(clean: Values, xy: NDArray[np.float64]) -> NDArray[np.float32]:
    """The smaller of the ranges of grey on rings of 2 and 4 px around points: N, 0..1."""
    angles = np.arange(SAMPLES) * (2 * np.pi / SAMPLES)
    radii = np.repeat(RINGS_PX, SAMPLES)
    dx, dy = radii * np.cos(np.tile(angles, 2)), radii * np.sin(np.tile(angles, 2))
    x = (xy[:, :1] + dx).astype(np.float32)  # N 2S
    y = (xy[:, 1:] + dy).astype(np.float32)
    values = np.empty(x.shape, np.float32)
    for start in range(0, len(x), 30_000):  # OpenCV's remap takes at most 32767 rows
        part = slice(start, start + 30_000)
        values[part] = cv2.remap(
            clean, x[part], y[part], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    rings = values.reshape(len(xy), len(RINGS_PX), SAMPLES)
    ranges: NDArray[np.float32] = (rings.max(axis=2) - rings.min(axis=2)).min(axis=1)
    return ranges


def crowded(xy: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which points have another chosen one nearer than `APART_PX`: N bool."""
    at = np.flatnonzero(chosen)
    result = np.zeros(len(xy), bool)
    if len(at) < 2:
        return result
    order = at[np.argsort(xy[at, 0], kind="stable")]
    sorted_xy = xy[order]
    for step in range(1, len(order)):  # neighbours in x only: stops after a few steps
        gap = sorted_xy[step:] - sorted_xy[:-step]
        if (gap[:, 0] >= APART_PX).all():
            break
        close = (gap**2).sum(axis=1) < APART_PX**2
        result[order[step:][close]] = True
        result[order[:-step][close]] = True
    return result
