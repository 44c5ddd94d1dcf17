"""Texture points of a batch of views: the twin of `scenes.texture_labels`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.keypoints.on_torch import maxima, top_k
from tiepoint.keypoints.positions_torch import response_of
from tiepoint.training.on_device.rasters import distance_squared, near, positions
from tiepoint.training.scenes.texture_labels import CLEAR_PX, LEAST, REACH_PX, SAME_PX

PX_PER_POINT = 32
"""Area of a view for each point that is kept, the strongest first. The richest of 420 drawn views
had one point for each 41 px, and white noise has one for each 38."""
INNER_PX = 2  # the border without points
SAME_REACH_PX = 5
"""Reach of the search for counterparts, which is enough where a view is enlarged up to 4 times."""


class TexturePoints(NamedTuple):
    """Points of V views.

    Attributes:
        xy: V K 2 float32, px.
        pixels: V K 2 int64 (x, y), the px of each.
        used: V K bool.
    """

    xy: Tensor
    pixels: Tensor
    used: Tensor


class Repeated(NamedTuple):
    """V K bool: which points the other view shows, and which of them it has too."""

    visible: Tensor
    repeated: Tensor


def texture_points(clean: Tensor, covered: Tensor) -> TexturePoints:
    """The points of V H W in 0..1 without noise; see `texture_labels.texture_points`.

    Args:
        covered: V H W bool, px that an object in front of the lens covers.
    """
    V, H, W = clean.shape
    response = response_of(clean).sqrt()
    peaks = (response > LEAST) & maxima(response, REACH_PX) & ~near(covered, CLEAR_PX)
    inner = slice(INNER_PX, -INNER_PX)
    peaks = functional.pad(peaks[:, inner, inner], (INNER_PX,) * 4)
    places = top_k(response, peaks, REACH_PX, H * W // PX_PER_POINT)
    image, rows, columns = places.pixels  # V*K each
    rows, columns = rows.clamp(min=1), columns.clamp(min=1)  # those of unused places too
    peak = response[image, rows, columns]
    shift = []
    for down, right in ((0, 1), (1, 0)):
        ahead = response[image, rows + down, columns + right]
        behind = response[image, rows - down, columns - right]
        curvature = (2 * peak - ahead - behind).clamp(min=1e-9)
        shift.append(((ahead - behind) / (2 * curvature)).clamp(-0.5, 0.5))  # top of a parabola
    pixels = torch.stack([columns, rows], dim=1)  # V*K 2
    xy = pixels + torch.stack(shift, dim=1)
    return TexturePoints(xy.reshape(V, -1, 2), pixels.reshape(V, -1, 2), places.used.reshape(V, -1))


def repeated_in_other(points: TexturePoints, flows: Tensor) -> Repeated:
    """Which points the other view of the pair shows; see `texture_labels.repeated_in`.

    Args:
        points: Those of V views, all A before all B.
        flows: V H W 2 px, position of each px in the other view; NaN where it is not visible.
    """
    V, H, W, _ = flows.shape
    size_hw = H, W
    whole = points.xy.round()
    x, y = whole.long().unbind(dim=2)  # V K
    view = torch.arange(V, device=flows.device)[:, None]
    along_x = (flows[view, y, x + 1] - flows[view, y, x - 1]) / 2  # V K 2
    along_y = (flows[view, y + 1, x] - flows[view, y - 1, x]) / 2
    scale2 = (along_x[..., 0] * along_y[..., 1] - along_x[..., 1] * along_y[..., 0]).abs()
    rest = (points.xy - whole)[..., None]  # V K 2 1, within the px
    position = flows[view, y, x] + along_x * rest[:, :, 0] + along_y * rest[:, :, 1]  # V K 2
    visible = points.used & position.isfinite().all(dim=2)
    position = torch.where(visible[..., None], position, 0)
    others = positions(points.xy, points.pixels, points.used, size_hw).roll(V // 2, dims=0)
    gaps = distance_squared(position, others, SAME_REACH_PX)
    return Repeated(visible, visible & (gaps <= SAME_PX**2 * scale2.clamp(min=1)))
