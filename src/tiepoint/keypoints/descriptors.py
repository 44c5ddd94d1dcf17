"""Dense descriptors -> one descriptor per keypoint.

Source: SuperPoint (DeTone et al. 2018), section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import CELL_PX, PHASES
from tiepoint.config import DescriptorSampling
from tiepoint.keypoints.positions import MIN_DIVISOR

Float32 = NDArray[np.float32]


def describe(
    descriptors: Sequence[Float32], xy: Float32, sampling: DescriptorSampling = "exact"
) -> Float32:
    """Sample the dense descriptors bilinearly between cell centres, and average the phases.

    Only the four cells around each keypoint are read. Beyond the outermost centres the outermost
    cells are repeated.

    Args:
        descriptors: D h w of each of `architecture.PHASES`, of any length.
        xy: N 2, px of the network's input.
        sampling: "exact", or "superpoint" for weights trained with its stretched coordinates.

    Returns:
        N D float32 of unit length.
    """
    moved_xy = xy + np.array(PHASES[len(descriptors)], np.float32)[:, None, ::-1]  # phases N 2
    each = [_sampled(*one, sampling) for one in zip(descriptors, moved_xy, strict=True)]
    return each[0] if len(each) == 1 else _unit(np.sum(each, axis=0))


def _sampled(descriptors: Float32, xy: Float32, sampling: DescriptorSampling) -> Float32:
    """N D of unit length from one phase, whose cells D h w begin at (0, 0)."""
    cells = np.moveaxis(descriptors, 0, -1)  # h w D
    h, w, D = cells.shape
    columns, rows = cell_coordinates(xy, (h, w), sampling).T  # N, N
    left = np.clip(np.floor(columns).astype(np.intp), 0, max(w - 2, 0))
    top = np.clip(np.floor(rows).astype(np.intp), 0, max(h - 2, 0))
    right, bottom = np.minimum(left + 1, w - 1), np.minimum(top + 1, h - 1)
    along_x = np.clip(columns - np.float32(left), 0, 1)
    along_y = np.clip(rows - np.float32(top), 0, 1)
    total: Float32 = np.zeros((len(xy), D), np.float32)
    for y, share_y in ((top, 1 - along_y), (bottom, along_y)):
        for x, share_x in ((left, 1 - along_x), (right, along_x)):
            cell = cells[y, x]  # N D
            cell *= (share_y * share_x / _length(cell))[:, None]
            total += cell
    return _unit(total)


def cell_coordinates(
    xy: Float32, size_hw: tuple[int, int], sampling: DescriptorSampling
) -> Float32:
    """Pixels -> cells (column, row); cell centres are whole numbers.

    "superpoint" is the published code's rule: the first centre at 3.5 px, the last at the
    image's end less 1 px, so it is off by up to 3.5 px at the right and bottom.

    Args:
        xy: N 2, px.
        size_hw: (h, w), cells.

    Returns:
        N 2 float32.
    """
    centred = xy - np.float32((CELL_PX - 1) / 2)
    if sampling == "exact":
        return centred / np.float32(CELL_PX)
    cells = np.array(size_hw[::-1], dtype=np.float32)  # 2 (w, h)
    return centred / (cells * CELL_PX - np.float32((CELL_PX + 1) / 2)) * (cells - 1)


def _unit(vectors: Float32) -> Float32:
    unit: Float32 = vectors / _length(vectors)[:, None]
    return unit


def _length(vectors: Float32) -> Float32:
    length: Float32 = np.maximum(np.sqrt(np.einsum("nd,nd->n", vectors, vectors)), MIN_DIVISOR)
    return length
