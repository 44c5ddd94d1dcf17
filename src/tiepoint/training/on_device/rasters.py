"""Points of a batch as maps of their px: what is near them is read without comparing all pairs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.geometry import SizeHW
from tiepoint.keypoints.on_torch import dilate
from tiepoint.training.scenes.labels import DISC

OUTSIDE_PX = -1e4
"""Position of a point that is not there, in x and y."""


def nearest_px(xy: Tensor, size_hw: SizeHW) -> Tensor:
    """V N 2 int64 (x, y): the px of the view nearest to each point V N 2."""
    rounded = xy.round().long()
    columns, rows = (
        rounded[..., 0].clamp(0, size_hw[1] - 1),
        rounded[..., 1].clamp(0, size_hw[0] - 1),
    )
    return torch.stack([columns, rows], dim=-1)


def read(maps: Tensor, pixels: Tensor) -> Tensor:
    """Values of V H W at px V N 2 (x, y) of the view: V N."""
    return maps.flatten(1).gather(1, pixels[..., 1] * maps.shape[2] + pixels[..., 0])


def marked(pixels: Tensor, used: Tensor, size_hw: SizeHW) -> Tensor:
    """V H W float32: 1 at the used ones of V N px (x, y), else 0."""
    height, width = size_hw
    index = torch.where(used, pixels[..., 1] * width + pixels[..., 0], height * width)  # V N
    flat = torch.zeros(len(index), height * width + 1, device=index.device)
    return flat.scatter_(1, index, 1.0)[:, :-1].reshape(-1, height, width)


def counted(pixels: Tensor, used: Tensor, size_hw: SizeHW) -> Tensor:
    """V H W float32: how many of the used ones of V N px each px is."""
    height, width = size_hw
    flat = torch.zeros(len(pixels), height * width, device=pixels.device)
    index = pixels[..., 1] * width + pixels[..., 0]  # V N
    return flat.scatter_add_(1, index, used.float()).reshape(-1, height, width)


def discs(centres: Tensor) -> Tensor:
    """V H W bool: the px around marked ones; see `labels.discs`."""
    reach = DISC.shape[0] // 2  # rows above and below have a single px, the others all of them
    wide = functional.max_pool2d(
        centres[:, None], (2 * reach - 1, 2 * reach + 1), 1, (reach - 1, reach)
    )
    high = functional.max_pool2d(centres[:, None], (2 * reach + 1, 1), 1, (reach, 0))
    return (torch.maximum(wide, high) > 0)[:, 0]


def near(area: Tensor, reach_px: int) -> Tensor:
    """V H W bool: px that have one of an area V H W bool within `reach_px` in x and y."""
    return dilate(area.float(), reach_px) > 0


def positions(xy: Tensor, pixels: Tensor, used: Tensor, size_hw: SizeHW) -> Tensor:
    """V H W 2: the position of the point in each px, `OUTSIDE_PX` without one.

    Several points in one px give the largest x and the largest y.

    Args:
        xy: V N 2 px.
        pixels: V N 2 int64 (x, y), the px of each point.
        used: V N bool.
    """
    height, width = size_hw
    index = torch.where(used, pixels[..., 1] * width + pixels[..., 0], height * width)  # V N
    flat = xy.new_full((len(xy), height * width + 1, 2), OUTSIDE_PX)
    flat.scatter_reduce_(1, index[..., None].expand_as(xy), xy, "amax")
    return flat[:, :-1].reshape(-1, height, width, 2)


def distance_squared(xy: Tensor, others: Tensor, reach_px: int, *, own: bool = True) -> Tensor:
    """Squared distance from points to the nearest ones of a map around them, px^2.

    Args:
        xy: V N 2 px.
        others: V H W 2, as `positions` returns it.
        reach_px: Others are found for sure up to 1 px less.
        own: Whether a point in the same px counts.

    Returns:
        V N; more than any that matters where there is none.
    """
    V, H, W, _ = others.shape
    side = 2 * reach_px + 1
    padded = functional.pad(others, (0, 0) + (reach_px,) * 4, value=OUTSIDE_PX)
    rows, columns = padded.shape[1:3]
    x, y = nearest_px(xy, (H, W)).unbind(dim=2)  # V N: of the first px of the window in `padded`
    view = torch.arange(V, device=xy.device)[:, None]
    steps = torch.arange(side * side, device=xy.device)
    if not own:
        steps = torch.cat([steps[: side * side // 2], steps[side * side // 2 + 1 :]])
    steps = steps // side * columns + steps % side  # S
    index = ((view * rows + y) * columns + x)[:, :, None] + steps  # V N S
    gaps = padded.reshape(-1, 2)[index] - xy[:, :, None]  # V N S 2
    return gaps.square().sum(dim=3).amin(dim=2)
