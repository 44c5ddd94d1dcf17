"""Dense maps -> keypoints in torch: the whole batch at once, on its device, differentiable.

The twin of `postprocess`; tests hold the two equal. Keypoints of all images lie in one flat
list, each with the number of its image, so that ragged counts need no loop and no padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.architecture import CELL_PX
from tiepoint.config import DescriptorSampling, DetectionConfig
from tiepoint.geometry import Placement, SizeHW
from tiepoint.keypoints.nms import NMS_ROUNDS
from tiepoint.keypoints.postprocess import (
    FLOOR,
    PIXEL_VARIANCE,
    SUBPIXEL_REACH_PX,
    widest_radius,
)
from tiepoint.keypoints.refinement_torch import settle, structure
from tiepoint.keypoints.result import Keypoints, Masks
from tiepoint.network.dense_maps import DenseMaps


class FlatKeypoints(NamedTuple):
    """Keypoints of a batch in one list, image by image, best score first within each.

    Attributes:
        image: M int64, which image of the batch.
        xy: M 2 float32, px of the network's input.
        scores: M float32.
        covariance: M 2 2 float32, px^2, or None.
        descriptors: M D float32, or None.
    """

    image: Tensor
    xy: Tensor
    scores: Tensor
    covariance: Tensor | None = None
    descriptors: Tensor | None = None


def extract(
    maps: DenseMaps[Tensor],
    placements: Sequence[Placement],
    config: DetectionConfig,
    sampling: DescriptorSampling,
    masks: Masks = None,
) -> list[Keypoints[Tensor]]:
    """Keypoints of every image of a batch, in px of the network's input."""
    flat = extract_flat(maps, placements, config, sampling, masks)
    counts = torch.bincount(flat.image, minlength=len(placements)).tolist()
    parts = (flat.xy, flat.scores, flat.descriptors, flat.covariance)
    split = [[None] * len(counts) if part is None else torch.split(part, counts) for part in parts]
    return [Keypoints(*of_image) for of_image in zip(*split, strict=True)]


def extract_flat(
    maps: DenseMaps[Tensor],
    placements: Sequence[Placement],
    config: DetectionConfig,
    sampling: DescriptorSampling,
    masks: Masks = None,
) -> FlatKeypoints:
    """The same in one list: a GPU is waited for per batch, not per image."""
    sizes_hw = [placement.resized_hw for placement in placements]
    pixels = None if maps.pixels is None else maps.pixels[:, 0]  # B H W
    flat = select(maps.heatmap, sizes_hw, config, masks, pixels)
    if not config.descriptors or maps.descriptors is None:
        return flat
    fields = torch.tensor([p.padded_hw for p in placements], device=flat.xy.device)
    dense, cells_hw = maps.descriptors, fields // CELL_PX  # B D h w, B 2
    return flat._replace(descriptors=sample_at(dense, flat.image, flat.xy, cells_hw, sampling))


def cells_to_heatmap(logits: Tensor) -> Tensor:
    """Soft-max over the 65 channels, the first 64 laid out as pixels: B 65 h w -> B H W."""
    # Cell by cell along memory, so that equal cells come out equal to the last bit.
    cells = torch.softmax(logits.float().movedim(1, -1), dim=-1)[..., :-1]  # B h w 64
    B, h, w, _ = cells.shape
    rows = cells.reshape(B, h, w, CELL_PX, CELL_PX).transpose(2, 3)  # B h row w column
    return rows.reshape(B, h * CELL_PX, w * CELL_PX)  # B H W


def select(
    heatmap: Tensor,
    sizes_hw: Sequence[SizeHW],
    config: DetectionConfig,
    masks: Masks = None,
    pixels: Tensor | None = None,
) -> FlatKeypoints:
    """Decide which pixels are keypoints, in all images at once, and where in them they lie.

    Args:
        heatmap: B H W, probabilities.
        sizes_hw: (height, width) of each image in the batch, px, without padding.
        masks: Where keypoints may lie; see `postprocess.select`.
        pixels: B H W in 0..1, on whose structure keypoints settle; None leaves it out.
    """
    B, H, W = heatmap.shape
    device = heatmap.device
    sizes = torch.tensor(sizes_hw, device=device).reshape(B, 2, 1)  # B 2 1
    y, x = torch.arange(H, device=device), torch.arange(W, device=device)
    in_rows, in_columns = y < sizes[:, 0], x < sizes[:, 1]  # B H, B W
    image_area = in_rows[:, :, None] & in_columns[:, None, :]  # B H W
    if not bool(image_area.all()):
        heatmap = heatmap.masked_fill(~image_area, 0)
    edge = config.border
    far_rows = (y >= edge) & (y < sizes[:, 0] - edge)  # B H
    far_columns = (x >= edge) & (x < sizes[:, 1] - edge)  # B W
    area = far_rows[:, :, None] & far_columns[:, None, :]  # B H W
    for index, mask in enumerate(masks or ()):
        if mask is not None:
            height, width = mask.shape
            area[index, :height, :width] &= torch.from_numpy(mask).to(device)
    with torch.no_grad():
        allowed = area & (heatmap > config.threshold)
        chosen = _spread(heatmap, allowed, sizes_hw, config) & allowed
        image, rows, columns = torch.nonzero(chosen, as_tuple=True)  # M each, in reading order
    best = _best_per_image(image, heatmap[image, rows, columns].detach(), B, config.max_keypoints)
    image, rows, columns = image[best], rows[best], columns[best]
    xy = torch.stack([columns, rows], dim=1).float()  # M 2
    if config.subpixel:
        xy = xy + subpixel_shift(heatmap, image, rows, columns)
        if pixels is not None:
            about = structure(pixels.float(), sizes_hw) * area  # B H W
            xy = settle(about, image, rows, columns, xy, config.nms_radius)
    covariance = None
    if config.covariance_scale is not None:
        covariance = second_moment(heatmap, image, rows, columns) * config.covariance_scale
    return FlatKeypoints(image, xy, heatmap[image, rows, columns], covariance)


def _spread(
    heatmap: Tensor, allowed: Tensor, sizes_hw: Sequence[SizeHW], config: DetectionConfig
) -> Tensor:
    """`suppress`, with a radius of its own for each image where they shall be spread evenly."""
    if not config.spread or config.max_keypoints is None:
        return suppress(heatmap, config.nms_radius)
    kept = []
    for index, size_hw in enumerate(sizes_hw):
        one, inside = heatmap[index : index + 1], allowed[index : index + 1]  # 1 H W

        def count(radius: int, one: Tensor = one, inside: Tensor = inside) -> int:
            return int((suppress(one, radius) & inside).sum())

        kept.append(suppress(one, widest_radius(count, size_hw, config)))
    return torch.cat(kept)


def suppress(heatmap: Tensor, radius: int) -> Tensor:
    """Non-maximum suppression of B H W; see `suppression.suppress`. Returns B H W bool."""
    if radius == 0:
        return torch.ones_like(heatmap, dtype=torch.bool)
    kept = _maxima(heatmap, radius)
    for _ in range(NMS_ROUNDS - 1):
        covered = _dilate(kept.float(), radius) > 0
        rest = heatmap.masked_fill(covered, 0)
        kept = kept | (_maxima(rest, radius) & ~covered)
    return kept


def subpixel_shift(heatmap: Tensor, image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """From each pixel to the centre of mass around it; see `postprocess.subpixel_shift`.

    Args:
        heatmap: B H W, 0 outside each image.
        image, rows, columns: M.

    Returns:
        M 2 float32 (x, y), px.
    """
    mass, offsets = _around(heatmap, image, rows, columns)
    moments = torch.stack([mass.sum(dim=1) @ offsets, mass.sum(dim=2) @ offsets], dim=1)  # M 2
    return moments / mass.sum(dim=(1, 2)).clamp(min=float(FLOOR))[:, None]  # M 2


def second_moment(heatmap: Tensor, image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """How wide the probabilities lie around each pixel; see `postprocess.second_moment`.

    Args:
        heatmap: B H W, 0 outside each image.
        image, rows, columns: M.

    Returns:
        M 2 2 float32 (x, y), px^2.
    """
    mass, offsets = _around(heatmap, image, rows, columns)
    mass = mass / mass.sum(dim=(1, 2), keepdim=True).clamp(min=float(FLOOR))
    mean = subpixel_shift(heatmap, image, rows, columns)  # M 2
    squares = torch.stack([mass.sum(dim=1) @ offsets**2, mass.sum(dim=2) @ offsets**2], dim=1)
    mixed = torch.einsum("nyx,y,x->n", mass, offsets, offsets) - mean.prod(dim=1)  # M
    variance = (squares - mean**2).clamp(min=0) + float(PIXEL_VARIANCE)  # M 2
    upper = torch.stack([variance[:, 0], mixed], dim=1)  # M 2
    return torch.stack([upper, torch.stack([mixed, variance[:, 1]], dim=1)], dim=1)  # M 2 2


def _around(heatmap: Tensor, image: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """The probabilities around each pixel, in parts of its own, M s s; and the offsets, s px."""
    reach = SUBPIXEL_REACH_PX
    steps = torch.arange(-reach, reach + 1, device=heatmap.device)  # s
    around = functional.pad(heatmap, (reach, reach, reach, reach))
    y = rows[:, None, None] + reach + steps[:, None]  # M s 1
    x = columns[:, None, None] + reach + steps  # M 1 s
    peak = heatmap[image, rows, columns].clamp(min=float(FLOOR))[:, None, None]
    mass = around[image[:, None, None], y, x] / peak  # M s s
    return mass, steps.to(mass.dtype)


def sample_at(
    descriptors: Tensor,
    image: Tensor,
    xy: Tensor,
    cells_hw: Tensor,
    sampling: DescriptorSampling = "exact",
) -> Tensor:
    """Read the dense descriptors between cell centres; see `postprocess.sample_at`.

    Args:
        descriptors: B D h w, of any length.
        image: M, which image of the batch.
        xy: M 2, px of the network's input.
        cells_hw: B 2 int64, (h, w) of each image's own cells.

    Returns:
        M D float32 of unit length.
    """
    cells = descriptors.permute(0, 2, 3, 1)  # B h w D
    most = cells_hw[image]  # M 2 (h, w)
    position = cell_coordinates(xy.float(), most, sampling)  # M 2 (column, row)
    highest = (most.flip(1) - 2).clamp(min=0)  # M 2
    first = torch.minimum(position.detach().floor().long().clamp(min=0), highest)  # M 2
    second = torch.minimum(first + 1, most.flip(1) - 1)  # M 2
    along = (position - first).clamp(0, 1)  # M 2
    along_x, along_y = along[:, :1], along[:, 1:]  # M 1, M 1
    left, top, right, bottom = first[:, 0], first[:, 1], second[:, 0], second[:, 1]
    upper = torch.lerp(_unit(cells[image, top, left]), _unit(cells[image, top, right]), along_x)
    lower = torch.lerp(
        _unit(cells[image, bottom, left]), _unit(cells[image, bottom, right]), along_x
    )
    return _unit(torch.lerp(upper, lower, along_y))  # M D


def cell_coordinates(xy: Tensor, cells_hw: Tensor, sampling: DescriptorSampling) -> Tensor:
    """Pixels -> cells (column, row); see `postprocess.cell_coordinates`.

    Args:
        xy: M 2, px.
        cells_hw: M 2, (h, w) of the image each point lies in.
    """
    centred = xy - (CELL_PX - 1) / 2
    if sampling == "exact":
        return centred / CELL_PX
    cells = cells_hw.flip(1)  # M 2 (w, h)
    return centred / (cells * CELL_PX - (CELL_PX + 1) / 2) * (cells - 1)


def _best_per_image(image: Tensor, scores: Tensor, batch: int, most: int | None) -> Tensor:
    """Order by image, then score; the best `most` of each. Equal scores stay in order."""
    order = torch.argsort(scores, descending=True, stable=True)
    order = order[torch.argsort(image[order], stable=True)]  # M
    if most is None:
        return order
    counts = torch.bincount(image, minlength=batch)  # B
    starts = torch.cumsum(counts, 0) - counts  # B
    rank = torch.arange(len(order), device=image.device) - starts[image[order]]  # M
    return order[rank < most]


def _maxima(heatmap: Tensor, radius: int) -> Tensor:
    """Pixels that no other within `radius` exceeds; of equal ones the first in reading order."""
    highest = heatmap == _dilate(heatmap, radius)  # B H W
    H, W = heatmap.shape[1:]
    # Reading order as a number that float32 holds exactly up to 2**24 pixels.
    exact = torch.float32 if H * W < 2**24 else torch.float64
    order = torch.arange(H * W, 0, -1, dtype=exact, device=heatmap.device).reshape(1, H, W)
    order = order * highest  # B H W
    return highest & (order == _dilate(order, radius))


def _dilate(values: Tensor, radius: int) -> Tensor:
    """Largest value within `radius` in x and y: two passes cost far less than one square."""
    side = 2 * radius + 1
    rows = functional.max_pool2d(values[:, None], (1, side), 1, (0, radius))
    return functional.max_pool2d(rows, (side, 1), 1, (radius, 0))[:, 0]


def _unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors.float(), dim=1, eps=float(FLOOR))
