"""Labels of a view: corners that a detector must find, and px that its loss ignores."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import SizeHW
from tiepoint.training.scenes.basics import Mask, Points, Values, size_hw_of

RINGS_PX = (2.0, 4.0)
SAMPLES = 16  # per ring
DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))  # ignored: 2 px each way
SQUARE = np.ones((5, 5), np.uint8)
APART_PX = 3.0  # least distance between corners: nearer ones merge, so both are doubtful
EDGE = 0.4
"""Least product of the eigenvalues over their squared mean (1 : 8.3); below it is an edge."""
FAINT = 3e-5  # least smaller eigenvalue of a visible corner, whatever the contrast of its rings


def view_labels(
    clean: Values, corners_xy: Points, positive: Mask, hidden: Mask, min_contrast: float
) -> tuple[NDArray[np.float32], Mask]:
    """Sort the corners of a view into positives and ignored ones.

    Args:
        clean: `H W` in 0..1, the view without noise.
        corners_xy: N 2 px, corners that nothing covers.
        positive: N; False for corners of doubtful shape.
        hidden: `H W`, px covered by an object in front of the lens.
        min_contrast: Least grey range on both rings of a positive corner, 0..1.

    Returns:
        N 2 px, the positive corners; `H W`, the px to ignore.
    """
    near = np.asarray(cv2.dilate(hidden.astype(np.uint8), SQUARE)) > 0
    if len(corners_xy) == 0:
        return np.zeros((0, 2), np.float32), near
    eigen, _ = corner_strength(clean)
    row_column = _nearest_px(corners_xy, size_hw_of(clean))
    contrast = ring_contrast(clean, corners_xy)
    strength = np.asarray(cv2.dilate(eigen, SQUARE[1:4, 1:4]))[row_column]
    visible = ~near[row_column]
    sure = positive & visible & (contrast >= min_contrast) & (strength >= FAINT)
    sure &= ~crowded(corners_xy, sure)
    # A corner that is too faint to be visible needs no doubt: "no keypoint" is right there.
    doubtful = ~sure & visible & (contrast >= min_contrast / 2) & (strength >= FAINT / 2)
    near |= discs(corners_xy[doubtful], size_hw_of(clean))
    return corners_xy[sure].astype(np.float32), near


def discs(xy: Points, size_hw: SizeHW) -> Mask:
    """`H W` bool, the px around points of the view."""
    centres = np.zeros(size_hw, np.uint8)
    centres[_nearest_px(xy, size_hw)] = 1
    return np.asarray(cv2.dilate(centres, DISC)) > 0


def _nearest_px(xy: Points, size_hw: SizeHW) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of the px nearest to each point, N each."""
    columns, rows = np.rint(xy).astype(np.int64).T
    return np.clip(rows, 0, size_hw[0] - 1), np.clip(columns, 0, size_hw[1] - 1)


def corner_strength(clean: Values) -> tuple[Values, Mask]:
    """Smaller eigenvalue of the structure tensor over 5x5 px, and whether it is more than an edge.

    From greys in 0..1: `H W`, squared grey per px; `H W`, smaller > about 1/8 of the larger.
    Source: Shi and Tomasi, "Good features to track" (1994); the test of the ratio is Harris's.
    """
    dx = cv2.Scharr(clean, cv2.CV_32F, 1, 0, scale=1 / 32)
    dy = cv2.Scharr(clean, cv2.CV_32F, 0, 1, scale=1 / 32)
    xx, yy, xy = (cv2.boxFilter(each, -1, (5, 5)) for each in (dx * dx, dy * dy, dx * dy))
    half, product = (xx + yy) / 2, xx * yy - xy * xy
    smaller = half - np.sqrt(np.maximum(half * half - product, 0))
    return smaller.astype(np.float32), np.asarray(product > EDGE * half * half)


def ring_contrast(clean: Values, xy: Points) -> NDArray[np.float32]:
    """N: the smaller of the grey ranges on rings of 2 and 4 px around points, 0..1."""
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


def crowded(xy: Points, chosen: Mask) -> Mask:
    """N bool: which chosen points have another chosen one nearer than `APART_PX`."""
    numbers = np.flatnonzero(chosen)
    result = np.zeros(len(xy), bool)
    order = numbers[np.argsort(xy[numbers, 0], kind="stable")]
    sorted_xy = xy[order]
    for step in range(1, len(order)):  # compares neighbours in x, so it stops after a few steps
        gap = sorted_xy[step:] - sorted_xy[:-step]
        if (gap[:, 0] >= APART_PX).all():
            break
        close = (gap**2).sum(axis=1) < APART_PX**2
        result[order[step:][close]] = True
        result[order[:-step][close]] = True
    return result
