"""Dense descriptors -> one per keypoint, as graph nodes; see `keypoints.descriptors`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tiepoint.architecture import CELL_PX, PHASES
from tiepoint.config import DescriptorSampling
from tiepoint.export.graph import Value, rows_of
from tiepoint.keypoints.positions import MIN_DIVISOR


def describe(descriptors: Sequence[Value], xy: Value, sampling: DescriptorSampling) -> Value:
    """Sample bilinearly between cell centres, and average the phases.

    Args:
        descriptors: B D h w of each of `architecture.PHASES`, of any length.
        xy: B K 2, px.

    Returns:
        B K D of unit length.
    """
    each = [
        _sampled(dense, xy + np.array(shift[::-1], np.float32), sampling)
        for dense, shift in zip(descriptors, PHASES[len(descriptors)], strict=True)
    ]
    total = each[0]
    for one in each[1:]:
        total = total + one
    return total if len(each) == 1 else unit(total, axis=2)


def _sampled(dense: Value, xy: Value, sampling: DescriptorSampling) -> Value:
    """B K D of unit length from one phase, whose cells begin at (0, 0)."""
    B, D, h, w = (dense.size(axis) for axis in range(4))
    cells = dense.transpose(0, 2, 3, 1).reshape(B, h * w, D)  # B h*w D
    left, right, along_x = _neighbours(xy.slice(2, 0, 1), w, sampling)
    top, bottom, along_y = _neighbours(xy.slice(2, 1, 2), h, sampling)
    total = None
    for y, share_y in ((top, 1 - along_y), (bottom, along_y)):
        for x, share_x in ((left, 1 - along_x), (right, along_x)):
            cell = unit(rows_of(cells, y * w + x), axis=2)  # B K D
            part = cell * (share_y * share_x)
            total = part if total is None else total + part
    assert total is not None
    return unit(total, axis=2)


def _neighbours(
    position: Value, cells: Value, sampling: DescriptorSampling
) -> tuple[Value, Value, Value]:
    """The two cells around positions along one axis, B K each, and the way between, B K 1.

    Args:
        position: B K 1, px.
        cells: Number of cells, 1 element.
    """
    place = position - (CELL_PX - 1) / 2
    if sampling == "exact":
        place = place / CELL_PX
    else:
        last = cells.to("float")
        place = place / (last * CELL_PX - (CELL_PX + 1) / 2) * (last - 1)
    floor = place.graph.node("Floor", place).to("int")
    first = floor.maximum(0).minimum((cells - 2).maximum(0))  # B K 1
    second = (first + 1).minimum(cells - 1)
    along = (place - first.to("float")).clip(0, 1)
    B = position.size(0)
    return first.reshape(B, -1), second.reshape(B, -1), along


def unit(vectors: Value, axis: int) -> Value:
    """Vectors of unit length along an axis."""
    length = vectors.graph.node("Sqrt", (vectors * vectors).sum(axis, keep=True))
    return vectors / length.maximum(MIN_DIVISOR)
