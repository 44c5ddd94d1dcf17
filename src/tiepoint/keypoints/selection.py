"""Heat map -> the pixels that become keypoints: candidates, and of these the top k.

The two steps are apart because tiles take candidates each and the top k of all.
Source: SuperPoint (DeTone et al. 2018), section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import DetectionConfig
from tiepoint.geometry import SizeHW
from tiepoint.keypoints.nms import suppress

Float32 = NDArray[np.float32]


Area = tuple[slice, slice]
"""Rows and columns of a rectangle."""


class Pixels(NamedTuple):
    """Pixels of a map.

    Attributes:
        rows: N intp.
        columns: N intp.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]


def candidates(
    heatmap: Float32, config: DetectionConfig, mask: NDArray[np.bool_] | None = None
) -> Pixels:
    """Pixels that may become keypoints: local maxima above threshold and noise floor, inside border
    and mask.

    Args:
        heatmap: H W contiguous, probabilities; only the image itself, without padding.
        mask: H W, where keypoints are allowed; None = everywhere. Pixels outside still suppress
            weaker neighbours, because the slope of a peak outside is no peak inside.

    Returns:
        Pixels in reading order. With `config.max_keypoints`, pixels that cannot be among the
        top k may be missing.
    """
    allowed = heatmap > config.min_score
    zero_outside(allowed, config.border, mask)

    def survivors(radius: int) -> NDArray[np.intp]:
        return suppress(heatmap, radius, config.min_score, allowed, config.max_keypoints)

    height, width = heatmap.shape
    radius = widest_radius(lambda r: len(survivors(r)), (height, width), config)
    return Pixels(*np.divmod(survivors(radius), width))


def top_k(heatmap: Float32, pixels: Pixels, k: int | None) -> Pixels:
    """The k pixels of highest score, best first; ties by y, then x.

    Args:
        heatmap: H W.
        pixels: In reading order.
        k: None keeps all.
    """
    rows, columns = pixels
    scores = heatmap[rows, columns]  # N
    if k is not None and k < len(scores):  # sort only those that may stay
        enough = scores >= np.partition(scores, -k)[-k]
        rows, columns, scores = rows[enough], columns[enough], scores[enough]
    order = np.argsort(-scores, kind="stable")[:k]
    return Pixels(rows[order], columns[order])


def within(pixels: Pixels, area: Area) -> Pixels:
    """The pixels in a rectangle, in the same order."""
    chosen = np.ones(len(pixels.rows), bool)
    for at, one in zip(pixels, area, strict=True):
        chosen &= (at >= one.start) & (at < one.stop)
    return Pixels(pixels.rows[chosen], pixels.columns[chosen])


def zero_outside(values: NDArray[Any], border: int, mask: NDArray[np.bool_] | None) -> None:
    """Set a map H W to 0 in place where no keypoint is allowed: along the border, off the mask."""
    height, width = values.shape
    top, left = min(border, height), min(border, width)
    values[:top], values[height - top :] = 0, 0
    values[:, :left], values[:, width - left :] = 0, 0
    if mask is not None:
        values *= mask


def widest_radius(count: Callable[[int], int], size_hw: SizeHW, config: DetectionConfig) -> int:
    """The NMS radius, widened to spread keypoints evenly if the config asks for that.

    The widest radius that still leaves `max_keypoints`, found by bisection, spreads them over the
    whole image, each the best of its neighbourhood.

    Args:
        count: radius -> number of keypoints it leaves.
    """
    if not config.spread or config.max_keypoints is None:
        return config.nms_radius
    # N points farther apart than r own squares of side r + 1: N (r + 1)^2 <= (H + r) (W + r).
    radius, too_wide = config.nms_radius, 1
    height, width = size_hw
    while config.max_keypoints * (too_wide + 1) ** 2 <= (height + too_wide) * (width + too_wide):
        too_wide *= 2
    while too_wide - radius > 1:
        middle = (radius + too_wide) // 2
        if count(middle) >= config.max_keypoints:
            radius = middle
        else:
            too_wide = middle
    return radius
