"""Keypoints settle on the image's own structure, in NumPy and OpenCV.

The network reads an image in cells of 8 px and says a corner's place to about one pixel. Where
exactly it lies the pixels say better: each keypoint moves to the centre of the structure about it.
`refinement_torch` follows the same rules.

Source: the determinant of the Hessian as a measure of blobs, corners and saddles (Beaudet 1978;
Lindeberg 1998, section 5); mean shift (Fukunaga and Hostetler 1975).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.keypoints.windows import Windows

Float32 = NDArray[np.float32]

SIGMA_PX = 1.8
"""Scale of the determinant of the Hessian. On photographs its maxima at 1.6 and at 2.4 px are found
again within 1 px alike, and more often than those of Harris's and of Shi and Tomasi's measures."""

BLUR: Float32 = cv2.getGaussianKernel(11, SIGMA_PX, cv2.CV_32F)[:, 0]
"""The Gaussian of that scale, out to 5 px."""

WINDOW_PX = 1.0
"""Standard deviation of the window that says what is about a keypoint."""

REACH_PX = 3
"""The window is looked at so far around the pixel in which the keypoint begins."""

STEPS = (1.5, 1.5, 1.5, 1.0)
"""How far the window moves each time, in parts of the way to the centre of what it holds. Half as
far again first, since a wide blob draws it by little more than half of the way; last to the centre
itself, which lies where keypoints may lie."""

LEAST = np.float32(1e-5)
"""Structure in a window, below which there is none and the keypoint stays: more than float32 leaves
of it along a straight edge. Noise and 8 bits leave more there, and then decide along the edge."""


def structure(image: Float32) -> Float32:
    """Size of the determinant of the Hessian: bright where a place is told apart from all around.

    Args:
        image: H W, in 0..1.

    Returns:
        H W, scale-normalised: a Gaussian blob of that scale and the contrast c has c^2 / 16.
    """
    smooth = cv2.sepFilter2D(image, cv2.CV_32F, BLUR, BLUR, borderType=cv2.BORDER_REPLICATE)
    scale = SIGMA_PX**2 / 4  # a second derivative by Sobel's filter is 4 of them
    xx, yy, xy = (
        cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3, scale=scale, borderType=cv2.BORDER_REPLICATE)
        for order in ((2, 0), (0, 2), (1, 1))
    )
    xx *= yy  # in place: fresh memory costs more than the arithmetic
    xy *= xy
    xx -= xy
    found: Float32 = np.abs(xx, out=xx)
    return found


def settle(
    structure_map: Float32,
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    xy: Float32,
    radius_px: int,
) -> Float32:
    """Move each keypoint to the centre of the structure about it.

    Args:
        structure_map: H W, as `structure` gives it; 0 where no keypoint may go.
        rows, columns: N, the pixels that were chosen.
        xy: N 2, px, where in them the keypoints are thought to lie.
        radius_px: Chosen pixels are farther apart than this in x or y. No keypoint goes farther
            from its own than half as far, or half a pixel, so that no two meet.

    Returns:
        N 2 float32, px.
    """
    around = Windows(structure_map.shape, rows, columns, REACH_PX)
    mass, offsets = around.of(structure_map), around.offsets  # s s N, s
    chosen = np.stack([columns, rows]).astype(np.float32)  # 2 N
    within = xy.T - chosen  # 2 N
    falloff = np.float32(-1 / (2 * WINDOW_PX**2))
    for step in STEPS:
        weight = offsets[:, None] - within[:, None]  # 2 s N
        weight *= weight
        weight *= falloff
        of_x, of_y = np.exp(weight, out=weight)  # s N, s N
        of_rows = np.einsum("yxn,xn->yn", mass, of_x) * of_y  # s N
        of_columns = np.einsum("yxn,yn->xn", mass, of_y) * of_x  # s N
        total = of_rows.sum(axis=0)  # N
        centre = np.stack([offsets @ of_columns, offsets @ of_rows])  # 2 N
        move = centre / np.maximum(total, LEAST) - within
        within = within + np.where(total > LEAST, np.float32(step) * move, 0)
    farthest = farthest_px(radius_px)
    settled: Float32 = (chosen + within.clip(-farthest, farthest)).T.astype(np.float32, order="C")
    return settled


def farthest_px(radius_px: int) -> float:
    """How far from its chosen pixel a keypoint may go in x and in y; see `settle`."""
    return radius_px / 2 if radius_px > 0 else 0.49
