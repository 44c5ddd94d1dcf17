"""Chosen pixels -> sub-pixel positions, as graph nodes; see `keypoints.positions`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiepoint.export.graph import Value, concatenate
from tiepoint.export.selection import Pixels
from tiepoint.keypoints.positions import (
    BLUR,
    CENTROID_REACH_PX,
    MIN_DIVISOR,
    MIN_MASS,
    REACH_PX,
    SIGMA_PX,
    STEPS,
    WINDOW_PX,
    max_shift_px,
)

SECOND, FIRST, SMOOTH = (1, -2, 1), (-1, 0, 1), (1, 2, 1)
"""Sobel's kernels of 3 px: second derivative, first derivative, and smoothing across."""


def refine(
    pixels: Pixels, heatmap: Value, image: Value, allowed: Value, nms_radius_px: int
) -> Value:
    """Sub-pixel positions of chosen pixels.

    Args:
        pixels: B K.
        heatmap: B 1 H W.
        image: B 1 H W in 0..1.
        allowed: H W bool, where keypoints are allowed.

    Returns:
        B K 2 (x, y), px.
    """
    shift = _centroids(pixels, heatmap)
    response = hessian_response(image).where(allowed)
    return centres(pixels) + _mean_shift(pixels, response, shift, nms_radius_px)


def centres(pixels: Pixels) -> Value:
    """B K 2 (x, y), px: positions without refinement."""
    parts = [one.to("float").reshape(one.size(0), -1, 1) for one in (pixels.columns, pixels.rows)]
    return concatenate(parts, axis=2)


def _centroids(pixels: Pixels, heatmap: Value) -> Value:
    """B K 2: from each pixel to the centroid of the heat map around it."""
    B = pixels.scores.size(0)
    own = pixels.scores.maximum(MIN_DIVISOR).reshape(B, -1, 1, 1)
    mass = _windows(heatmap, pixels, CENTROID_REACH_PX) / own  # B K s s
    return _moments(mass, CENTROID_REACH_PX) / mass.sum(2, 3).maximum(MIN_DIVISOR).reshape(B, -1, 1)


def _mean_shift(pixels: Pixels, response: Value, shift: Value, nms_radius_px: int) -> Value:
    """B K 2: from each pixel to the local centroid of the response."""
    mass = _windows(response, pixels, REACH_PX)  # B K s s
    B, offsets = shift.size(0), np.arange(-REACH_PX, REACH_PX + 1, dtype=np.float32)
    offset_values = shift.graph.constant(offsets)
    for step in STEPS:
        distance = offset_values - shift.reshape(B, -1, 2, 1)  # B K 2 s
        weight = shift.graph.node("Exp", distance * distance * (-0.5 / WINDOW_PX**2))
        along_x = weight.slice(2, 0, 1)  # B K 1 s
        along_y = weight.slice(2, 1, 2).transpose(0, 1, 3, 2)  # B K s 1
        weighted = mass * along_x * along_y  # B K s s
        total = weighted.sum(2, 3).reshape(B, -1, 1)
        move = _moments(weighted, REACH_PX) / total.maximum(MIN_MASS) - shift
        shift = shift + (move * step).where(total.above(MIN_MASS))
    limit = max_shift_px(nms_radius_px)
    return shift.clip(-limit, limit)


def _moments(mass: Value, reach_px: int) -> Value:
    """B K s s -> B K 2: sums weighted by the offsets in x and in y."""
    offsets = np.arange(-reach_px, reach_px + 1, dtype=np.float32)
    B = mass.size(0)
    parts = [
        (mass.sum(axis) * mass.graph.constant(offsets)).sum(2).reshape(B, -1, 1) for axis in (2, 3)
    ]
    return concatenate(parts, axis=2)


def _windows(field: Value, pixels: Pixels, reach_px: int) -> Value:
    """Windows of B 1 H W around pixels, B K s s; 0 outside the map."""
    graph, side = field.graph, 2 * reach_px + 1
    padded = field.pad((2, 3), reach_px)
    B, H, W = padded.size(0), padded.size(2), padded.size(3)
    steps = graph.constant(np.arange(side))
    image = graph.arange(B).reshape(-1, 1) * (H * W)  # B 1
    corner = (image + pixels.rows * W + pixels.columns).reshape(B, -1, 1, 1)  # B K 1 1
    index = corner + (steps.reshape(-1, 1) * W + steps)  # B K s s
    return padded.reshape(-1).take(index, axis=0)


def hessian_response(image: Value) -> Value:
    """Absolute determinant of the Hessian, B 1 H W; see `positions.hessian_response`."""
    blurred = _filter(image, BLUR, BLUR)
    scale = SIGMA_PX**2 / 4
    xx, yy, xy = (
        _filter(blurred, np.array(along_x, np.float32), np.array(along_y, np.float32)) * scale
        for along_x, along_y in ((SECOND, SMOOTH), (SMOOTH, SECOND), (FIRST, FIRST))
    )
    return image.graph.node("Abs", xx * yy - xy * xy)


def _filter(image: Value, along_x: NDArray[np.float32], along_y: NDArray[np.float32]) -> Value:
    """Correlate with a separable kernel; the outermost pixels are repeated outside."""
    image = image.pad((2, 3), len(along_x) // 2, mode="edge")
    for kernel in (along_x.reshape(1, 1, 1, -1), along_y.reshape(1, 1, -1, 1)):
        image = image.graph.node("Conv", image, kernel, kernel_shape=list(kernel.shape[2:]))
    return image
