"""Chosen pixels -> sub-pixel positions and their covariances, in NumPy and OpenCV.

The network reads an image in cells of 8 px and localises corners to about one pixel; the image
itself is more precise. So a position is first the centroid of the heat map around its pixel, and
then moves to the local centroid of the Hessian determinant. `positions_torch` is the twin.

Sources: the determinant of the Hessian as a measure of blobs, corners and saddles (Beaudet 1978;
Lindeberg 1998, section 5); mean shift (Fukunaga and Hostetler 1975).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.keypoints.selection import Pixels
from tiepoint.keypoints.windows import Windows

Float32 = NDArray[np.float32]

CENTROID_REACH_PX = 2
"""Half-width of the heat map's window. Wider windows overlap those of neighbours and pull
keypoints together (benchmarks/subpixel.py)."""

PIXEL_VARIANCE = np.float32(1 / 12)
"""Variance of a uniform distribution over one pixel, px^2."""

SIGMA_PX = 1.8
"""Scale of the Hessian determinant. On photographs its maxima at 1.6 and at 2.4 px repeat within
1 px as well, and more often than those of the Harris and Shi-Tomasi measures."""

BLUR: Float32 = cv2.getGaussianKernel(11, SIGMA_PX, cv2.CV_32F)[:, 0]
"""The Gaussian of that scale, out to 5 px."""

WINDOW_PX = 1.0
"""Standard deviation of the mean-shift window."""

REACH_PX = 3
"""Half-width of the area that the mean shift sees around the chosen pixel."""

STEPS = (1.5, 1.5, 1.5, 1.0)
"""Step of each mean-shift iteration, in mean-shift vectors. The first three over-relax by 1.5,
because a wide blob pulls the window only about half-way; the last is a plain step, so that the
result stays in the allowed area."""

MIN_MASS = np.float32(1e-5)
"""Keypoints are not moved when the response in the window is below this: just above float32
round-off on an ideal straight edge. Sensor noise exceeds it, so along real edges the position is
arbitrary."""

MIN_DIVISOR = np.float32(1e-12)
"""Keeps divisions finite; no length and no probability that matters is smaller."""


class HeatMass(NamedTuple):
    """The heat map around chosen pixels.

    Attributes:
        mass: s s N float32 (row, column, pixel), relative to the chosen pixel's own probability.
        offsets: s float32, px from the chosen pixel.
    """

    mass: Float32
    offsets: Float32


def heat_mass(heatmap: Float32, pixels: Pixels) -> HeatMass:
    """Gather the windows that `centroids` and `covariance` read.

    Args:
        heatmap: H W contiguous; 0 outside.
    """
    windows = Windows(heatmap.shape, *pixels, CENTROID_REACH_PX)
    mass = windows.gather(heatmap)
    # Relative to the pixel itself, so that the faintest keypoint does not underflow.
    mass /= np.maximum(heatmap[pixels], MIN_DIVISOR)
    return HeatMass(mass, windows.offsets)


def pixel_centres(pixels: Pixels) -> Float32:
    """N 2 float32 (x, y), px: positions without refinement."""
    return np.stack([pixels.columns, pixels.rows], axis=1).astype(np.float32)


def refine(
    pixels: Pixels, around: HeatMass, response: Float32 | None, nms_radius_px: int
) -> Float32:
    """Sub-pixel positions of chosen pixels.

    Args:
        pixels: N.
        around: Their windows in the heat map.
        response: H W, `hessian_response` of the input, 0 where no keypoint is allowed; None
            leaves the positions to the heat map.
        nms_radius_px: As for `mean_shift`.

    Returns:
        N 2 float32 (x, y), px of the network's input.
    """
    xy = pixel_centres(pixels) + centroids(around)  # N 2
    return xy if response is None else mean_shift(response, pixels, xy, nms_radius_px)


def centroids(around: HeatMass) -> Float32:
    """From each pixel to the centroid of the probabilities around it.

    Returns:
        N 2 float32 (x, y), px; mostly well under 1, never beyond the window.
    """
    mass, offsets = around
    across, down = mass.sum(axis=0), mass.sum(axis=1)  # s N, s N: sums of columns, of rows
    moments = np.stack([offsets @ across, offsets @ down], axis=1)  # N 2
    shift: Float32 = moments / np.maximum(across.sum(axis=0), MIN_DIVISOR)[:, None]  # N 2
    return shift


def covariance(around: HeatMass, scale: float) -> Float32:
    """Covariance of each position: the heat map's second moment around it, scaled.

    Args:
        scale: As `tiepoint calibrate` estimates it for a checkpoint.

    Returns:
        N 2 2 float32 (x, y), px^2; before scaling the diagonal is at least the variance within a
        pixel, 1/12.
    """
    mass, offsets = around
    across, down = mass.sum(axis=0), mass.sum(axis=1)  # s N, s N: sums of columns, of rows
    total = np.maximum(across.sum(axis=0), MIN_DIVISOR)  # N
    mean = centroids(around)  # N 2
    squares = np.stack([offsets**2 @ across, offsets**2 @ down], axis=1) / total[:, None]  # N 2
    s = len(offsets)
    weighted_columns = (offsets @ mass.reshape(s, -1)).reshape(s, -1)  # s N, weighted by rows
    mixed = offsets @ weighted_columns / total  # N
    moment = np.empty((len(mean), 2, 2), np.float32)
    moment[:, [0, 1], [0, 1]] = np.maximum(squares - mean**2, 0) + PIXEL_VARIANCE
    moment[:, 0, 1] = moment[:, 1, 0] = mixed - mean[:, 0] * mean[:, 1]
    moment *= np.float32(scale)
    return moment


def hessian_response(image: Float32) -> Float32:
    """Absolute determinant of the Hessian: high where a position is well defined in x and y.

    Args:
        image: H W, in 0..1.

    Returns:
        H W, scale-normalised: c^2 / 16 at a Gaussian blob of that scale and of contrast c.
    """
    smooth = cv2.sepFilter2D(image, cv2.CV_32F, BLUR, BLUR, borderType=cv2.BORDER_REPLICATE)
    scale = SIGMA_PX**2 / 4  # Sobel's filter gives 4 times a second derivative
    xx, yy, xy = (
        cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3, scale=scale, borderType=cv2.BORDER_REPLICATE)
        for order in ((2, 0), (0, 2), (1, 1))
    )
    xx *= yy  # in place: fresh memory costs more than the arithmetic
    xy *= xy
    xx -= xy
    response: Float32 = np.abs(xx, out=xx)
    return response


def mean_shift(response: Float32, pixels: Pixels, xy: Float32, nms_radius_px: int) -> Float32:
    """Move each keypoint to the local centroid of the response.

    Args:
        response: H W, as `hessian_response` returns it; 0 where no keypoint is allowed.
        pixels: The chosen pixels.
        xy: N 2, px, where the iteration starts.
        nms_radius_px: Minimum distance of chosen pixels in x or y. No keypoint moves farther from
            its own than half of it, or half a pixel, so that no two meet.

    Returns:
        N 2 float32, px.
    """
    windows = Windows(response.shape, *pixels, REACH_PX)
    mass, offsets = windows.gather(response), windows.offsets  # s s N, s
    chosen = np.stack([pixels.columns, pixels.rows]).astype(np.float32)  # 2 N
    shift = xy.T - chosen  # 2 N
    falloff = np.float32(-1 / (2 * WINDOW_PX**2))
    for step in STEPS:
        weight = offsets[:, None] - shift[:, None]  # 2 s N
        weight *= weight
        weight *= falloff
        weight_x, weight_y = np.exp(weight, out=weight)  # s N, s N
        row_mass = np.einsum("yxn,xn->yn", mass, weight_x) * weight_y  # s N
        column_mass = np.einsum("yxn,yn->xn", mass, weight_y) * weight_x  # s N
        total = row_mass.sum(axis=0)  # N
        centroid = np.stack([offsets @ column_mass, offsets @ row_mass])  # 2 N
        move = centroid / np.maximum(total, MIN_MASS) - shift
        shift = shift + np.where(total > MIN_MASS, np.float32(step) * move, 0)
    limit = max_shift_px(nms_radius_px)
    moved: Float32 = (chosen + shift.clip(-limit, limit)).T.astype(np.float32, order="C")
    return moved


def max_shift_px(nms_radius_px: int) -> float:
    """How far a keypoint may move from its chosen pixel in x and in y; see `mean_shift`."""
    return nms_radius_px / 2 if nms_radius_px > 0 else 0.49
