"""Views of a chunk of pairs, their corners and flows: the twin of `scenes.render` on a device.

All planes of all views are warped at once; only the blending goes from far to near. Outlines are
antialiased by the distance to their edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.geometry import SizeHW
from tiepoint.training.devices import constant
from tiepoint.training.on_device.arrangement import Arrangement
from tiepoint.training.on_device.bank import SheetBank
from tiepoint.training.scenes.canvas import NEAR_PX
from tiepoint.training.scenes.render import FINE, NOBODY, ring_offsets

VIEW_PX_PER_CORNER = 20
"""px of a view per corner that is kept of it, before the tests of contrast."""


class Corners(NamedTuple):
    """Corners of V views; which of the N rows of a view are used differs.

    Attributes:
        xy: V N 2 float32, px.
        positive: V N bool; False for doubtful corners.
        valid: V N bool, rows that are used.
    """

    xy: Tensor
    positive: Tensor
    valid: Tensor


class Views(NamedTuple):
    """V views of V/2 pairs before photometry, all views A before all views B.

    Attributes:
        images: V H W float32, whole greys, 0..255.
        owners: V H W int16; see `render.Owners`.
        flows: V H W 2 float32 px, position in the other view of the pair; NaN where it is hidden.
    """

    images: Tensor
    owners: Tensor
    corners: Corners
    flows: Tensor


def render_views(bank: SheetBank, layout: Arrangement, size_hw: SizeHW, cover_px: float) -> Views:
    """Draw all views of a chunk.

    Args:
        bank: Has the scenes of the chunk.
        size_hw: (height, width) of the views, px.
        cover_px: Least distance from a visible corner to anything in front of it.
    """
    values = _warped(bank, layout, size_hw)  # T FH FW
    cover = _cover(layout, size_hw)  # T FH FW
    images, fine_owners = _blended(bank, layout, values, cover, size_hw)  # V FH FW
    del values, cover
    images = (functional.avg_pool2d(images[:, None], FINE)[:, 0] + 0.5).floor_()  # V H W
    owners = _unanimous(fine_owners)  # V H W
    corners = _corners(bank, layout, fine_owners, size_hw, cover_px)
    return Views(images, owners, corners, _flows(layout, owners))


def _warped(bank: SheetBank, layout: Arrangement, size_hw: SizeHW) -> Tensor:
    """T FH FW: the sheet of each plane over the whole fine view, 0..255."""
    sample, limits = layout.tensors["sample"], layout.tensors["limits"]
    x, y = _fine_axes(size_hw, sample.device)
    along = sample[:, None, None, :, 0] * x[:, None] + sample[:, None, None, :, 2]  # T 1 FW 3
    place = torch.addcmul(along, sample[:, None, None, :, 1], y[:, None, None])  # T FH FW 3
    grid = place[..., :2] / place[..., 2:]  # T FH FW 2
    del along, place  # the largest tensors of all
    low, high = limits[:, None, None, 0], limits[:, None, None, 1]  # T 1 1 2
    grid = torch.maximum(grid, low, out=grid)  # the border is repeated
    grid = torch.minimum(grid, high, out=grid)
    atlases = bank.atlases.index_select(0, layout.tensors["rows"])[:, None].float()  # T 1 h w
    warped: Tensor = functional.grid_sample(
        atlases, grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    return warped[:, 0]


def _cover(layout: Arrangement, size_hw: SizeHW) -> Tensor:
    """T FH FW: share of each px of the fine view that each plane's outline covers, 0..1."""
    tensors = layout.tensors
    cover = _inwards(tensors["edges"], size_hw)
    for number in range(layout.extra):
        of = tensors[f"more_planes_{number}"]
        more = _inwards(tensors[f"more_edges_{number}"], size_hw)
        cover.index_copy_(0, of, torch.minimum(cover.index_select(0, of), more))
    return cover.add_(0.5).clamp_(0, 1)


def _inwards(edges: Tensor, size_hw: SizeHW) -> Tensor:
    """T FH FW: distance inwards from the nearest of T E edges (a, b, c), px of the fine view."""
    x, y = _fine_axes(size_hw, edges.device)
    across = edges[..., :1] * x + edges[..., 2:]  # T E FW
    down = edges[..., 1:2] * y  # T E FH
    return (across[:, :, None] + down[..., None]).amin(dim=1)


def _blended(
    bank: SheetBank, layout: Arrangement, values: Tensor, cover: Tensor, size_hw: SizeHW
) -> tuple[Tensor, Tensor]:
    """V FH FW: greys and owners of the fine views."""
    tensors = layout.tensors
    fine_hw = values.shape[1:]
    backdrops = bank.backdrops.index_select(0, tensors["backdrops"])[:, None].float()
    images = functional.interpolate(backdrops, tuple(fine_hw), mode="bilinear")[:, 0]  # V FH FW
    owners = torch.full_like(images, NOBODY, dtype=torch.int16)
    hit, names = cover >= 0.5, tensors["names"][:, None, None]
    first = 0
    for count in layout.ranks:  # the planes of one rank, over the first views
        last = first + count
        images[:count].lerp_(values[first:last], cover[first:last])
        owners[:count] = torch.where(hit[first:last], names[first:last], owners[:count])
        first = last
    place = tensors["place_of"]
    return images.index_select(0, place), owners.index_select(0, place)


def _unanimous(fine: Tensor) -> Tensor:
    """V H W: the owner of px whose fine px agree, else `NOBODY`."""
    views, height, width = fine.shape
    blocks = fine.view(views, height // FINE, FINE, width // FINE, FINE)
    low, high = blocks.amin(dim=(2, 4)), blocks.amax(dim=(2, 4))
    return torch.where(low == high, low, NOBODY)


def _corners(
    bank: SheetBank, layout: Arrangement, fine: Tensor, size_hw: SizeHW, cover_px: float
) -> Corners:
    """Corners of the sheets, then the ends of outlines, that the views show."""
    tensors = layout.tensors
    height, width = size_hw
    room = height * width // VIEW_PX_PER_CORNER
    found, names = _candidates(bank, layout, size_hw, cover_px, room)  # V N 3, V N
    xy = torch.cat([found[..., :2], tensors["ends_xy"]], dim=1)  # V N+E 2
    owners = _ring_owners(fine, xy, cover_px)  # V N+E P
    alone = (owners[:, :room] == names[..., None]).all(dim=2) & (names != NOBODY)
    ranks, ends_name = tensors["body_ranks"], tensors["ends_name"].long()
    hidden_by = ranks.gather(1, owners[:, room:].flatten(1).long()).view_as(owners[:, room:])
    own = ranks.gather(1, ends_name)[..., None]  # V E 1
    free = (hidden_by <= own).all(dim=2) & (ends_name != NOBODY)
    positive = torch.cat([found[..., 2] > 0.5, torch.ones_like(free)], dim=1)
    return Corners(xy, positive, torch.cat([alone, free], dim=1))


def _candidates(
    bank: SheetBank, layout: Arrangement, size_hw: SizeHW, cover_px: float, room: int
) -> tuple[Tensor, Tensor]:
    """V N 3 (x, y, positive) and V N names: corners inside the view; name `NOBODY` in free rows."""
    tensors = layout.tensors
    corners = bank.corners[:, : max(layout.corners, 1)]
    corners = corners.index_select(0, tensors["corner_rows"])  # T C 4
    sheet_xy, clearance = corners[..., :2], corners[..., 2]
    low, high = tensors["part"][:, None].unbind(dim=2)  # T 1 2 each
    matrix = tensors["to_view"][:, None]  # T 1 3 3
    mapped = torch.addcmul(matrix[..., 2], matrix[..., 0], sheet_xy[..., :1])
    mapped = torch.addcmul(mapped, matrix[..., 1], sheet_xy[..., 1:])  # T C 3
    w = mapped[..., 2:]
    xy = mapped[..., :2] / w  # T C 2
    scale = (tensors["determinant"][:, None] / w[..., 0].abs().clamp(min=1e-12) ** 3).sqrt()
    last = constant((size_hw[1] - 0.5, size_hw[0] - 0.5), matrix.device)
    inside = (sheet_xy > low) & (sheet_xy < high) & (xy >= -0.5) & (xy < last)  # T C 2
    kept = inside.all(dim=2) & (w[..., 0] > 0)
    kept &= (clearance * scale >= cover_px) | (clearance >= NEAR_PX)
    # Their numbers in their views: a running count, less the count where the view begins.
    before = functional.pad(kept.flatten().cumsum(0, dtype=torch.int32), (1, 0))  # T*C + 1
    views, starts = tensors["corner_views"], tensors["starts"]
    begin = before.index_select(0, starts * kept.shape[1])  # V
    number = before[1:].view_as(kept) - 1 - begin.index_select(0, views)[:, None]
    number = torch.where(kept, number.clamp(max=room), room)  # the last row takes what is left out
    at = (views[:, None] * (room + 1) + number).flatten()
    names = tensors["corner_names"][:, None].expand(kept.shape).to(xy.dtype)
    rows = torch.stack([xy[..., 0], xy[..., 1], corners[..., 3], names], dim=2)  # T C 4
    table = rows.new_zeros((len(starts) * (room + 1), 4))
    table = table.index_copy_(0, at, rows.flatten(0, 1)).view(len(starts), room + 1, 4)[:, :room]
    return table[..., :3], table[..., 3].to(torch.int16)


def _ring_owners(fine: Tensor, xy: Tensor, radius: float) -> Tensor:
    """V N P: owners of the fine px in a disc around V N points of the views."""
    offsets = constant(tuple(ring_offsets(radius).ravel()), xy.device).view(-1, 2)  # P 2
    at = ((xy[:, :, None] + offsets + 0.5) * FINE - 0.5).round()  # V N P 2
    index = px_numbers(at, fine.shape[1:])  # V N P
    return fine.flatten(1).gather(1, index.flatten(1)).view(index.shape)


def px_numbers(xy: Tensor, size_hw: Sequence[int]) -> Tensor:
    """... int64: numbers of px, row by row, of the nearest px inside to ... 2 whole xy."""
    height, width = size_hw
    # Multiplied as integers: float32 has all of them only up to 2^24.
    row, column = xy[..., 1].clamp(0, height - 1).long(), xy[..., 0].clamp(0, width - 1).long()
    return row * width + column


def _flows(layout: Arrangement, owners: Tensor) -> Tensor:
    """V H W 2: by the homography of the plane that each px shows; NaN where it is hidden."""
    views, height, width = owners.shape
    table = layout.tensors["to_other"]  # V * names, 9
    x = torch.arange(width, device=owners.device, dtype=torch.float32)
    y = torch.arange(height, device=owners.device, dtype=torch.float32)[:, None]
    first = torch.arange(views, device=owners.device)[:, None, None] * (len(table) // views)
    matrix = table.index_select(0, (first + owners).flatten()).view(views, height, width, 3, 3)
    place = torch.addcmul(matrix[..., 2], matrix[..., 0], x[:, None])
    place = torch.addcmul(place, matrix[..., 1], y[..., None])  # V H W 3
    xy = place[..., :2] / place[..., 2:]  # V H W 2
    nearest = xy.nan_to_num(nan=-1.0).round()
    column, row = nearest.unbind(dim=3)
    seen = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    index = px_numbers(nearest, (height, width)).flatten(1)  # V H*W
    others = owners.roll(views // 2, dims=0).flatten(1)  # the other view of each pair
    same = others.gather(1, index).view_as(owners) == owners
    return torch.where((seen & same)[..., None], xy, torch.nan)


@lru_cache(maxsize=16)
def _fine_axes(size_hw: SizeHW, place: torch.device) -> tuple[Tensor, Tensor]:
    """FW and FH: x and y of the px centres of the fine view."""
    height, width = size_hw[0] * FINE, size_hw[1] * FINE
    axes = (torch.arange(side, device=place, dtype=torch.float32) for side in (width, height))
    x, y = axes
    return x, y
