"""What of its surroundings a tile must see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import CELL_PX
from tiepoint.geometry import SizeHW
from tiepoint.images.windows import Window
from tiepoint.keypoints.nms import NMS_ROUNDS

NETWORK_MARGIN_PX = 56
"""Reach of the network (44 px with several phases) and of the cells around a keypoint."""


def margin_px(nms_radius: int) -> int:
    """Margin of a tile, px, a multiple of 8: beyond it nothing changes the tile's keypoints.

    Each round of suppression reaches three radii: to maxima, to the pixels that these cover, and to
    the maxima among the uncovered ones.
    """
    reach = NETWORK_MARGIN_PX + 3 * NMS_ROUNDS * nms_radius
    return -(-reach // CELL_PX) * CELL_PX


def within_border(
    mask: NDArray[np.bool_] | None, window: Window, size_hw: SizeHW, border: int
) -> NDArray[np.bool_] | None:
    """A window's mask without the border of the whole image."""
    allowed = np.ones((window.height, window.width), bool) if mask is None else mask.copy()
    for axis, (at, length) in enumerate(zip(window.slices, size_hw, strict=True)):
        place = np.arange(at.start, at.stop)
        outside = (place < border) | (place >= length - border)
        allowed[(outside, slice(None)) if axis == 0 else (slice(None), outside)] = False
    return None if mask is None and allowed.all() else allowed
