"""Non-maximum suppression, as SuperPoint's published code does it in rounds.

Source: SuperPoint (DeTone et al. 2018), section 3.2, and its published code.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.windows import windows

Float32 = NDArray[np.float32]

NMS_ROUNDS = 3
"""Maxima, then twice the maxima of what is left over, as in SuperPoint's published code."""

FEW = 0.2
"""Pixels whose neighbourhoods together hold less than this part of the map are looked at one by one
sooner than the whole map is gone over."""


def suppress(
    heatmap: Float32,
    radius: int,
    threshold: float = 0.0,
    allowed: NDArray[np.bool_] | None = None,
    most: int | None = None,
) -> NDArray[np.bool_]:
    """Non-maximum suppression: which pixels are the best of their neighbourhood.

    Two keypoints never lie within `radius` of each other in both x and y. Of equal neighbours
    the first in reading order stays.

    Args:
        heatmap: H W, not below 0.
        radius: px; 0 keeps everything.
        threshold: At least 0; what does not exceed it is not asked for, and may be kept or not.
        allowed: H W, the pixels asked for; None = all. The others suppress their neighbours too.
        most: Only the best so many are asked for; None = all.

    Returns:
        H W bool.
    """
    if radius == 0:
        return np.ones(heatmap.shape, dtype=np.bool_)
    kept = _maxima(heatmap, radius)
    if most is not None:  # these stay whatever comes: what is below the last of them is too much
        scores = heatmap[kept > 0 if allowed is None else (kept > 0) & allowed]
        if len(scores) >= most > 0:
            last = np.partition(scores, -most)[-most]
            threshold = max(threshold, float(np.nextafter(last, np.float32(-np.inf))))
    uncovered = _uncovered(kept, radius)
    left = np.flatnonzero((heatmap > threshold) & (uncovered > 0))  # M
    if len(left) * (2 * radius + 1) ** 2 <= FEW * heatmap.size:
        _keep_few(kept, heatmap, uncovered, left, radius)
    else:
        for round_number in range(1, NMS_ROUNDS):
            if round_number > 1:
                uncovered = _uncovered(kept, radius)
            rest = cv2.copyTo(heatmap, uncovered)  # 0 where covered
            kept |= cv2.bitwise_and(_maxima(rest, radius), uncovered)
    return np.asarray(kept, np.bool_)


def _keep_few(
    kept: Any, heatmap: Float32, uncovered: Any, left: NDArray[np.intp], radius: int
) -> None:
    """The rounds after the first, at few pixels instead of all. Writes into both maps of bytes.

    Args:
        kept, uncovered: H W uint8, 0 or 255, after the first round.
        left: M, every uncovered pixel above some value, in reading order.
    """
    rows, columns = np.divmod(left, heatmap.shape[1])  # M, M
    around, offsets = windows(heatmap, rows, columns, radius)  # s s M, s
    score = heatmap[rows, columns]  # M
    before = len(offsets) ** 2 // 2  # pixels of a window that come before its centre
    for _ in range(NMS_ROUNDS - 1 if len(left) else 0):
        seen, _ = windows(uncovered, rows, columns, radius)  # s s M
        highest = score == np.where(seen > 0, around, 0).max(axis=(0, 1))
        highest &= uncovered[rows, columns] > 0
        marked = np.zeros_like(kept)
        marked[rows, columns] = highest
        tied, _ = windows(marked, rows, columns, radius)  # s s M
        highest &= ~tied.reshape(len(offsets) ** 2, len(left))[:before].any(axis=0)
        kept[rows[highest], columns[highest]] = 255
        near, _ = windows(kept, rows, columns, radius)  # s s M
        uncovered[rows, columns] = np.where(near.any(axis=(0, 1)), 0, 255)


def _uncovered(kept: Any, radius: int) -> Any:
    """Pixels with nothing kept within `radius`, H W uint8 of 0 and 255; so `kept`."""
    return cv2.bitwise_not(_dilate(kept, radius))


def maxima(heatmap: Float32, radius: int) -> NDArray[np.bool_]:
    """Pixels that no other within `radius` exceeds; of equal ones the first in reading order."""
    return np.asarray(_maxima(heatmap, radius), np.bool_)


def _maxima(heatmap: Float32, radius: int) -> Any:
    """`maxima` as OpenCV writes truth: H W uint8 of 0 and 255."""
    highest = cv2.compare(heatmap, _dilate(heatmap, radius), cv2.CMP_EQ)
    return cv2.subtract(highest, _follows(highest, radius))


def _follows(chosen: Any, radius: int) -> Any:
    """Pixels with a chosen one within `radius` that comes before them in reading order.

    Args:
        chosen: H W uint8, 0 or 255; so the result. Bytes are what makes it quick.
    """
    before = cv2.dilate(chosen, np.ones((1, radius), np.uint8), anchor=(radius - 1, 0))
    rows = np.ones((radius, 2 * radius + 1), np.uint8)
    above = cv2.dilate(chosen, rows, anchor=(radius, radius - 1))
    follows = np.zeros_like(chosen)
    follows[:, 1:] = before[:, :-1]
    follows[1:] |= above[:-1]
    return follows


def _dilate(values: Any, radius: int) -> Any:
    """Largest value within `radius` in x and y; outside the array counts as smaller than all."""
    return cv2.dilate(values, np.ones((2 * radius + 1, 2 * radius + 1), dtype=np.uint8))
