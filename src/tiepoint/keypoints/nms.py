"""Non-maximum suppression, as SuperPoint's published code does it in rounds.

Source: SuperPoint (DeTone et al. 2018), section 3.2, and its published code.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.keypoints.windows import Windows

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
) -> NDArray[np.intp]:
    """Non-maximum suppression: which pixels are the best of their neighbourhood.

    Two keypoints never lie within `radius` of each other in both x and y. Of equal neighbours
    the first in reading order stays.

    Args:
        heatmap: H W, not below 0.
        radius: px; 0 keeps all that is asked for.
        threshold: At least 0; only what exceeds it is asked for.
        allowed: H W, the pixels asked for, all above the threshold; None = all that are. The others
            suppress their neighbours too.
        most: Only the best so many are asked for, more may come; None = all.

    Returns:
        N, indices into the map row by row, in that order.
    """
    asked = heatmap > threshold if allowed is None else allowed
    if radius == 0:
        return np.flatnonzero(asked)
    kept = _maxima(heatmap, radius)
    found = _where(kept, asked)
    if most is not None and len(found) >= most > 0:
        # These stay whatever comes: what is below the last of them is too much.
        above = heatmap >= np.partition(heatmap.reshape(-1)[found], -most)[-most]
    else:
        above = heatmap > threshold
    covered = _dilate(kept, radius)
    left = _where(cv2.bitwise_not(covered), above)  # M
    if len(left) * (2 * radius + 1) ** 2 <= FEW * heatmap.size:
        more = _keep_few(heatmap, covered, left, radius)
        return np.sort(np.concatenate([found, more[asked.reshape(-1)[more]]]))
    for round_number in range(1, NMS_ROUNDS):
        if round_number > 1:
            covered = _dilate(kept, radius)
        uncovered = cv2.bitwise_not(covered)
        rest = cv2.copyTo(heatmap, uncovered)  # 0 where covered
        kept |= cv2.bitwise_and(_maxima(rest, radius), uncovered)
    return _where(kept, asked)


def _keep_few(
    heatmap: Float32, covered: Any, left: NDArray[np.intp], radius: int
) -> NDArray[np.intp]:
    """The rounds after the first, at few pixels instead of all.

    Args:
        covered: H W uint8, 255 within `radius` of what the first round kept, else 0; changed.
        left: M, every uncovered pixel above some value, in reading order.

    Returns:
        Those of them that are kept.
    """
    if len(left) == 0:
        return left
    rows, columns = np.divmod(left, heatmap.shape[1])  # M, M
    around = Windows(heatmap.shape, rows, columns, radius)
    values, score = around.of(heatmap), heatmap.reshape(-1)[left]  # s s M, M
    before = len(around.offsets) ** 2 // 2  # pixels of a window that come before its centre
    stays, marked = np.zeros(len(left), np.bool_), np.zeros(heatmap.size, np.bool_)
    covered = covered.reshape(-1)
    for _ in range(NMS_ROUNDS - 1):
        still_open = covered[left] == 0  # M
        if not still_open.any():
            break
        values[around.of(covered) > 0] = 0
        highest = (score == values.max(axis=(0, 1))) & still_open
        marked[left] = highest
        highest &= ~around.of(marked).reshape(-1, len(left))[:before].any(axis=0)
        stays |= highest
        marked[left] = highest
        covered[left[around.of(marked).any(axis=(0, 1))]] = 255
    return left[stays]


def _where(chosen: Any, asked: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Indices of the pixels asked for among the chosen, H W uint8 of 0 and 255."""
    # 255 and 1 is 1: what NumPy takes for a truth without looking at every byte again.
    return np.flatnonzero(cv2.bitwise_and(chosen, asked.view(np.uint8)).view(np.bool_))


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
