"""Labels of a batch of pairs on a device: the twin of the labels of `scenes.pairs`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tiepoint.training.on_device.exact import exact
from tiepoint.training.on_device.exposure import ExposedBatch
from tiepoint.training.on_device.rasters import (
    OUTSIDE_PX,
    discs,
    distance_squared,
    marked,
    nearest_px,
    positions,
)
from tiepoint.training.on_device.rendering import Corners
from tiepoint.training.on_device.texture_points import repeated_in_other, texture_points
from tiepoint.training.on_device.view_labels import APART_REACH_PX, view_labels
from tiepoint.training.scenes.labels import APART_PX


class PairLabels(NamedTuple):
    """Labels of V views of V/2 pairs, all views A before all views B.

    Attributes:
        corners_xy: V M 2 float32 px, as in `pairs.TrainingView`; `rasters.OUTSIDE_PX` in unused
            rows.
        ignore: V H W bool.
        flows: V H W 2 float32 px, position of each px in the other view of the pair; NaN where it
            is not visible, or something in front of either lens covers it.
    """

    corners_xy: Tensor
    ignore: Tensor
    flows: Tensor


def label_batch(
    exposed: ExposedBatch, corners: Corners, flows: Tensor, min_contrast: float
) -> PairLabels:
    """Label views: drawn corners, then texture points that the other view has too.

    Args:
        exposed: V views of V/2 pairs, all views A before all views B.
        corners: Their drawn corners that nothing covers.
        flows: V H W 2 float32 px, without the objects in front of the lens; see `PairLabels`.
        min_contrast: See `DataConfig`.
    """
    size_hw = flows.shape[1], flows.shape[2]
    with exact(flows.device):
        flows = without_covered(flows, exposed.covered)
        drawn = view_labels(exposed.clean, corners, exposed.covered, min_contrast)
        points = texture_points(exposed.clean, exposed.covered)
        visible, repeated = repeated_in_other(points, flows)
        whole = nearest_px(points.xy, size_hw)
        alone = marked(whole, points.used & ~visible, size_hw)
        ignore = drawn.hidden | discs(torch.maximum(drawn.centres, alone))
        sure_map = positions(corners.xy, nearest_px(corners.xy, size_hw), drawn.sure, size_hw)
        # The blob of a drawn corner is the same point.
        apart = distance_squared(points.xy, sure_map, APART_REACH_PX) > APART_PX**2
        kept = torch.cat([drawn.sure, repeated & apart], dim=1)  # V M
        xy = torch.cat([corners.xy, points.xy], dim=1)
        return PairLabels(torch.where(kept[..., None], xy, OUTSIDE_PX), ignore, flows)


def without_covered(flows: Tensor, covered: Tensor) -> Tensor:
    """Flows without px that an object in front of either lens covers; see `pairs.hide_covered`.

    Args:
        flows: V H W 2 px, all views A before all views B.
        covered: V H W bool.
    """
    V, H, W, _ = flows.shape
    other = covered.roll(V // 2, dims=0).flatten(1)  # V H*W
    target = nearest_px(flows.nan_to_num(0), (H, W))  # V H W 2
    index = (target[..., 1] * W + target[..., 0]).flatten(1)
    hidden = covered | other.gather(1, index).reshape(V, H, W)
    return torch.where(hidden[..., None], torch.nan, flows)
