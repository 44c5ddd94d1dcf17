"""Non-maximum suppression in rounds, as in SuperPoint's published code.

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
"""Maxima, then twice the maxima of the pixels that are still uncovered."""

SPARSE_FRACTION = 0.2
"""Below this covered fraction, later rounds visit candidates one by one instead of dilating the
whole map."""


def suppress(
    heatmap: Float32,
    radius: int,
    threshold: float = 0.0,
    allowed: NDArray[np.bool_] | None = None,
    top_k: int | None = None,
) -> NDArray[np.intp]:
    """Non-maximum suppression: the pixels that are the best of their neighbourhood.

    No two of them are within `radius` of each other in both x and y. Of equal neighbours the
    first in reading order stays.

    Args:
        heatmap: H W, not below 0.
        radius: px; 0 keeps all candidates.
        threshold: At least 0; candidates exceed it.
        allowed: H W, the candidates, all above the threshold; None = all above it. Other pixels
            suppress their neighbours too.
        top_k: Only the best k are needed, more may be returned; None = all.

    Returns:
        N, indices into the flat map, in reading order.
    """
    candidates = heatmap > threshold if allowed is None else allowed
    if radius == 0:
        return np.flatnonzero(candidates)
    kept = _maxima(heatmap, radius)
    first = _flat_index(kept, candidates)
    if top_k is not None and len(first) >= top_k > 0:
        # The current top k cannot be displaced, so candidates below the k-th score are dropped.
        above = heatmap >= np.partition(heatmap.reshape(-1)[first], -top_k)[-top_k]
    else:
        above = heatmap > threshold
    covered = _dilate(kept, radius)
    uncovered = _flat_index(cv2.bitwise_not(covered), above)  # M
    if len(uncovered) * (2 * radius + 1) ** 2 <= SPARSE_FRACTION * heatmap.size:
        later = _later_rounds_sparse(heatmap, covered, uncovered, radius)
        return np.sort(np.concatenate([first, later[candidates.reshape(-1)[later]]]))
    for round_number in range(1, NMS_ROUNDS):
        if round_number > 1:
            covered = _dilate(kept, radius)
        open_map = cv2.bitwise_not(covered)
        rest = cv2.copyTo(heatmap, open_map)  # 0 where covered
        kept |= cv2.bitwise_and(_maxima(rest, radius), open_map)
    return _flat_index(kept, candidates)


def _later_rounds_sparse(
    heatmap: Float32, covered: Any, uncovered: NDArray[np.intp], radius: int
) -> NDArray[np.intp]:
    """The rounds after the first, on few pixels instead of the whole map.

    Args:
        covered: H W uint8, 255 within `radius` of the first round's maxima, else 0; modified.
        uncovered: M, every uncovered pixel above some value, in reading order.

    Returns:
        The pixels among them that are kept.
    """
    if len(uncovered) == 0:
        return uncovered
    rows, columns = np.divmod(uncovered, heatmap.shape[1])  # M, M
    windows = Windows(heatmap.shape, rows, columns, radius)
    values, score = windows.gather(heatmap), heatmap.reshape(-1)[uncovered]  # s s M, M
    before = len(windows.offsets) ** 2 // 2  # pixels of a window that precede its centre
    kept, marked = np.zeros(len(uncovered), np.bool_), np.zeros(heatmap.size, np.bool_)
    covered = covered.reshape(-1)
    for _ in range(NMS_ROUNDS - 1):
        still_open = covered[uncovered] == 0  # M
        if not still_open.any():
            break
        values[windows.gather(covered) > 0] = 0
        highest = (score == values.max(axis=(0, 1))) & still_open
        marked[uncovered] = highest
        highest &= ~windows.gather(marked).reshape(-1, len(uncovered))[:before].any(axis=0)
        kept |= highest
        marked[uncovered] = highest
        covered[uncovered[windows.gather(marked).any(axis=(0, 1))]] = 255
    return uncovered[kept]


def _flat_index(chosen: Any, candidates: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Flat indices of the candidates among the chosen, H W uint8 of 0 and 255."""
    # 255 & 1 is 1, which NumPy reads as True without another pass over the bytes.
    return np.flatnonzero(cv2.bitwise_and(chosen, candidates.view(np.uint8)).view(np.bool_))


def maxima(heatmap: Float32, radius: int) -> NDArray[np.bool_]:
    """Pixels that no other within `radius` exceeds; of equal ones the first in reading order."""
    return np.asarray(_maxima(heatmap, radius), np.bool_)


def _maxima(heatmap: Float32, radius: int) -> Any:
    """`maxima` as an OpenCV mask: H W uint8 of 0 and 255."""
    highest = cv2.compare(heatmap, _dilate(heatmap, radius), cv2.CMP_EQ)
    return cv2.subtract(highest, _follows(highest, radius))


def _follows(chosen: Any, radius: int) -> Any:
    """Pixels with a chosen one within `radius` that precedes them in reading order.

    Args:
        chosen: H W uint8, 0 or 255; the result is as well. Bytes make it fast.
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
