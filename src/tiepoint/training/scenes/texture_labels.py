"""Texture points: blobs and corners that both views of a pair show at corresponding positions.

Drawn corners are exact, but photographs and most textures have none. There, the pair itself gives
the labels: a point of the view without noise is a label if the other view has one at the
corresponding position. The probability of a keypoint is thus its repeatability. Nothing is
averaged over warps, and no network labels anything.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from tiepoint.keypoints.nms import maxima
from tiepoint.keypoints.positions import hessian_response
from tiepoint.training.scenes.basics import Mask, Points, Values, nearest_distance

LEAST = 0.008
"""Least root of the Hessian determinant; a Gaussian blob of contrast c reaches c / 4."""
REACH_PX = 2  # radius of NMS; of equal maxima the first in reading order counts
CLEAR_PX = 4  # least distance to an object in front of the lens, which may cause nearer points
SAME_PX = 1.0  # largest distance between a point and its counterpart, in px of the coarser view


class Repeated(NamedTuple):
    """N each: whether another view shows a position, and whether it has a point there."""

    visible: Mask
    repeated: Mask


def texture_points(clean: Values, hidden: Mask) -> Points:
    """N 2 px: maxima of the determinant of the Hessian, sub-pixel, in reading order.

    From the view without noise (0..1) and the px that an object in front of the lens covers.
    """
    response = np.sqrt(hessian_response(clean))
    side = 2 * CLEAR_PX + 1
    near = cv2.dilate(hidden.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
    peaks = (response > np.float32(LEAST)) & maxima(response, REACH_PX) & ~near
    inner = np.zeros_like(peaks)
    inner[2:-2, 2:-2] = True
    rows, columns = np.nonzero(peaks & inner)
    peak = response[rows, columns]
    shift = []
    for down, right in ((0, 1), (1, 0)):
        ahead, behind = (response[rows + s * down, columns + s * right] for s in (1, -1))
        curvature = np.maximum(2 * peak - ahead - behind, np.float32(1e-9))
        shift.append(np.clip((ahead - behind) / (2 * curvature), -0.5, 0.5))  # top of a parabola
    return np.stack([columns + shift[0], rows + shift[1]], axis=1).astype(np.float64)


def repeated_in(xy: Points, flow: Values, others: Points) -> Repeated:
    """Which points another view shows, and which of them it has too.

    Args:
        xy: N 2 px, not in the outermost px.
        flow: `H W 2`, position of each px in the other view, px; NaN where it is not visible.
        others: M 2 px, the points of the other view.
    """
    x, y = np.rint(xy).astype(np.int64).T
    along_x = (flow[y, x + 1] - flow[y, x - 1]) / 2  # N 2
    along_y = (flow[y + 1, x] - flow[y - 1, x]) / 2
    scale2 = np.abs(along_x[:, 0] * along_y[:, 1] - along_x[:, 1] * along_y[:, 0])
    rest = (xy - np.stack([x, y], axis=1))[:, :, None]  # N 2 1, within the px
    position = flow[y, x] + along_x * rest[:, 0] + along_y * rest[:, 1]
    visible = np.isfinite(position).all(axis=1)  # NaN also beside a border of the visible area
    repeated = np.zeros(len(xy), bool)
    if len(others):
        gaps = nearest_distance(position[visible], others)
        repeated[visible] = gaps <= SAME_PX * np.sqrt(np.maximum(scale2[visible], 1))
    return Repeated(visible, repeated)
