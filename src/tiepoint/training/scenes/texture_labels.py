"""Points of a scene's own texture that both views of a pair show at one and the same place.

Drawn corners are known exactly, but photographs have none of them and most texture neither. There,
a detector learns what a pair itself proves: a blob or corner of the view without noise is a label
if the other view has one where the geometry says, and none if it has not. So a keypoint's
probability is that of being found again. Nothing is averaged over warps, and no network labels
anything.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.keypoints.nms import maxima
from tiepoint.keypoints.positions import hessian_response

Values = NDArray[np.float32]
Points = NDArray[np.float64]

LEAST = 0.008
"""Root of the structure: a Gaussian blob of its scale and the contrast c gives c / 4."""

REACH_PX = 2
"""A point exceeds all others so far around; of equal ones the first in reading order counts."""

CLEAR_PX = 4
"""Points nearer to something before the lens may be its own."""

SAME_PX = 1.0
"""Two views show one point if it lies this near its place, in px of the coarser view."""


class Seen(NamedTuple):
    """What another view says of N points; both N bool.

    Attributes:
        visible: Their places are seen there at all.
        again: And there is a point.
    """

    visible: NDArray[np.bool_]
    again: NDArray[np.bool_]


def structure_points(clean: Values, hidden: NDArray[np.bool_]) -> Points:
    """Maxima of the determinant of the Hessian, sub-pixel.

    Args:
        clean: `H W` float32 in 0..1, the view without noise.
        hidden: `H W` bool, px that something before the lens covers.

    Returns:
        N 2 px, in reading order.
    """
    strength = np.sqrt(hessian_response(clean))
    side = 2 * CLEAR_PX + 1
    near = cv2.dilate(hidden.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
    chosen = (strength > np.float32(LEAST)) & maxima(strength, REACH_PX) & ~near
    inner = np.zeros_like(chosen)
    inner[2:-2, 2:-2] = True
    rows, columns = np.nonzero(chosen & inner)
    here = strength[rows, columns]
    shift = []
    for down, right in ((0, 1), (1, 0)):
        ahead, behind = (strength[rows + s * down, columns + s * right] for s in (1, -1))
        bend = np.maximum(2 * here - ahead - behind, np.float32(1e-9))
        shift.append(np.clip((ahead - behind) / (2 * bend), -0.5, 0.5))  # a parabola's top
    return np.stack([columns + shift[0], rows + shift[1]], axis=1).astype(np.float64)


def seen_from(xy: Points, flow: Values, others: Points) -> Seen:
    """Which points the other view sees, and which of them it has too.

    Args:
        xy: N 2 px, not in the outermost px.
        flow: `H W 2`, where each px lies in the other view, px; NaN where it is not visible.
        others: M 2 px, the other view's points.
    """
    if len(xy) == 0:
        return Seen(np.zeros(0, bool), np.zeros(0, bool))
    x, y = np.rint(xy).astype(np.int64).T
    along_x = (flow[y, x + 1] - flow[y, x - 1]) / 2  # N 2
    along_y = (flow[y + 1, x] - flow[y - 1, x]) / 2
    scale2 = np.abs(along_x[:, 0] * along_y[:, 1] - along_x[:, 1] * along_y[:, 0])
    rest = (xy - np.stack([x, y], axis=1))[:, :, None]  # N 2 1, within the px
    there = flow[y, x] + along_x * rest[:, 0] + along_y * rest[:, 1]
    visible = np.isfinite(there).all(axis=1)  # with the px around: at a rim, nothing is sure
    again = np.zeros(len(xy), bool)
    if len(others) and visible.any():
        gaps = np.hypot(*(there[visible][:, None] - others[None]).transpose(2, 0, 1)).min(axis=1)
        again[visible] = gaps <= SAME_PX * np.sqrt(np.maximum(scale2[visible], 1))
    return Seen(visible, again)
