"""Dense maps -> keypoints in torch: a whole batch at once, on its device, differentiable.

The same steps as in NumPy; tests hold the two equal. Keypoints of all images are in one flat
list, each with the index of its image, so that ragged counts need no loop and no padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tiepoint.architecture import CELL_PX, PHASES
from tiepoint.config import DescriptorSampling, DetectionConfig
from tiepoint.geometry import Placement, SizeHW
from tiepoint.keypoints.nms import NMS_ROUNDS
from tiepoint.keypoints.positions_torch import (
    LEAST,
    FlatPixels,
    centroids,
    heat_mass,
    hessian_response,
    mean_shift,
    second_moment,
)
from tiepoint.keypoints.result import Keypoints, Masks
from tiepoint.keypoints.selection import widest_radius
from tiepoint.network.dense_maps import DenseMaps
from tiepoint.network.torch_device import sizes_on, uploaded


class FlatKeypoints(NamedTuple):
    """Keypoints of a batch in one list, image by image, best score first within each.

    Attributes:
        image: M int64, index of the image in the batch.
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
    inputs: NDArray[np.float32],
    placements: Sequence[Placement],
    config: DetectionConfig,
    sampling: DescriptorSampling,
    masks: Masks = None,
) -> list[Keypoints[NDArray[np.float32]]]:
    """Keypoints of every image of a batch as NumPy arrays, in px of the network's input.

    All steps run on the maps' device. `on_device` is the way of a torch engine's own batches.

    Args:
        inputs: B 1 H W float32 in 0..1, the network's input.
    """
    with torch.inference_mode():
        device = maps.heatmap.device
        response_of = uploaded(torch.from_numpy(inputs[:, 0]), device)  # B H W
        sizes_hw = [placement.resized_hw for placement in placements]
        flat = select(maps.heatmap, sizes_hw, config, masks, response_of)
        if config.descriptors and maps.descriptors is not None:
            cells_hw = sizes_on([p.padded_hw for p in placements], device) // CELL_PX  # B 2
            descriptors = describe(maps.descriptors, flat.image, flat.xy, cells_hw, sampling)
            flat = flat._replace(descriptors=descriptors)
    return _split(flat, len(placements))


def _split(flat: FlatKeypoints, images: int) -> list[Keypoints[NDArray[np.float32]]]:
    """Off the device as whole arrays, then image by image."""
    ends = np.cumsum(np.bincount(flat.image.cpu().numpy(), minlength=images))[:-1]
    parts = (flat.xy, flat.scores, flat.descriptors, flat.covariance)
    # Copied: one image's keypoints must not keep those of its whole batch in memory.
    split = [
        [None] * images
        if part is None
        else [one.copy() for one in np.split(part.cpu().numpy(), ends)]
        for part in parts
    ]
    return [Keypoints(*fields) for fields in zip(*split, strict=True)]


def select(
    heatmap: Tensor,
    sizes_hw: Sequence[SizeHW],
    config: DetectionConfig,
    masks: Masks = None,
    inputs: Tensor | None = None,
) -> FlatKeypoints:
    """Candidates, top k, refinement and covariance, in all images at once.

    Args:
        heatmap: B H W, probabilities.
        sizes_hw: (height, width) of each image in the batch, px, without padding.
        masks: Where keypoints are allowed; see `selection.candidates`.
        inputs: B H W in 0..1, whose Hessian response refines positions; None leaves them to the
            heat map.
    """
    sizes = sizes_on(sizes_hw, heatmap.device)  # B 2
    given = _stacked(masks, heatmap)  # B H W
    heatmap, allowed_area = areas(heatmap, sizes, config.border, given)
    with torch.no_grad():
        allowed = allowed_area & (heatmap > config.min_score)
        kept = _suppress_each(heatmap, allowed, sizes_hw, config) & allowed
    places = top_k(heatmap, kept, config.nms_radius, config.max_keypoints)
    pixels = FlatPixels(*(part[places.used] for part in places.pixels))  # M; waits for M
    xy, covariance = located(heatmap, allowed_area, pixels, sizes, config, inputs)
    return FlatKeypoints(pixels.image, xy, heatmap[pixels], covariance)


def located(
    heatmap: Tensor,
    allowed_area: Tensor,
    pixels: FlatPixels,
    sizes: Tensor,
    config: DetectionConfig,
    inputs: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Chosen pixels -> positions M 2, px; and their covariances M 2 2, px^2, or None.

    Args:
        heatmap, allowed_area: B H W, as `areas` returns them.
        sizes: B 2 int64, (height, width) of each image.
        inputs: See `select`.
    """
    xy = torch.stack([pixels.columns, pixels.rows], dim=1).float()  # M 2
    around = heat_mass(heatmap, pixels)
    if config.subpixel:
        xy = xy + centroids(around)
        if inputs is not None:
            response = hessian_response(inputs.float(), sizes) * allowed_area  # B H W
            xy = mean_shift(response, pixels, xy, config.nms_radius)
    scale = config.covariance_scale
    return xy, None if scale is None else second_moment(around) * scale


def _stacked(masks: Masks, heatmap: Tensor) -> Tensor | None:
    """The masks of a batch, B H W bool on its device; None if no image has one."""
    if masks is None or all(mask is None for mask in masks):
        return None
    together = np.ones(tuple(heatmap.shape), np.bool_)
    for one, mask in zip(together, masks, strict=True):
        if mask is not None:
            one[: mask.shape[0], : mask.shape[1]] = mask
    return uploaded(torch.from_numpy(together), heatmap.device)


def areas(
    heatmap: Tensor, sizes: Tensor, border: int, given: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The heat map, 0 outside each image; and where keypoints are allowed, B H W bool.

    Args:
        heatmap: B H W.
        sizes: B 2 int64, (height, width) of each image.
        border: Width of the margin without keypoints, px.
        given: B H W bool, where masks allow keypoints; None = everywhere.
    """
    _, H, W = heatmap.shape
    y, x = (torch.arange(side, device=heatmap.device) for side in (H, W))
    height, width = sizes[:, :1], sizes[:, 1:]  # B 1
    is_image = (y < height)[:, :, None] & (x < width)[:, None]  # B H W
    rows, columns = (
        (place >= border) & (place < side - border) for place, side in ((y, height), (x, width))
    )
    allowed = rows[:, :, None] & columns[:, None]  # B H W
    return heatmap.where(is_image, 0), allowed if given is None else allowed & given


class Places(NamedTuple):
    """The best pixels of each image, in the same number of places for each.

    Attributes:
        pixels: B*K, image by image, best first; (0, 0) in an empty place.
        used: B*K bool.
        scores: B*K float32, -1 in an empty place.
        counts: B int64, how many pixels there were to choose from.
    """

    pixels: FlatPixels
    used: Tensor
    scores: Tensor
    counts: Tensor


def top_k(heatmap: Tensor, kept: Tensor, radius: int, k: int | None) -> Places:
    """The k best pixels of each image, best first; ties in reading order. Waits for nothing.

    Two kept pixels are never in the same block of radius + 1 px, so the best pixels of all blocks
    are all of them, and their number is known beforehand.

    Args:
        heatmap: B H W float32, not below 0.
        kept: B H W bool, no two within `radius` in both x and y.
        k: None has a place for each block.
    """
    B, H, W = heatmap.shape
    block = radius + 1
    with torch.no_grad():
        # The bits of a float32 above 0 are ordered as it is. Among equals the first is the highest.
        bits = heatmap.detach().contiguous().view(torch.int32).long()  # B H W
        later = torch.arange(H * W - 1, -1, -1, device=heatmap.device).reshape(H, W)
        keys = (bits.bitwise_left_shift(32) + later).where(kept, -1)
        keys = functional.pad(keys, (0, -W % block, 0, -H % block), value=-1)
        rows, columns = keys.shape[1] // block, keys.shape[2] // block
        best = keys.reshape(B, rows, block, columns, block).amax(dim=(2, 4)).flatten(1)  # B S
        counts = (best >= 0).sum(dim=1)  # B
        K = min(k or best.shape[1], best.shape[1])
        chosen = best.topk(K).values.flatten()  # B*K
        used = chosen >= 0
        index = (H * W - 1 - (chosen & 0xFFFFFFFF)).where(used, 0)
        row = index.div(W, rounding_mode="floor")
        image = torch.arange(B, device=heatmap.device)[:, None].expand(B, K).flatten()
        scores = (chosen >> 32).int().view(torch.float32).where(used, -1)
        return Places(FlatPixels(image, row, index - row * W), used, scores, counts)


def _suppress_each(
    heatmap: Tensor, allowed: Tensor, sizes_hw: Sequence[SizeHW], config: DetectionConfig
) -> Tensor:
    """`suppress`, with a radius for each image if its keypoints are spread evenly."""
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
    """Non-maximum suppression of B H W; see `nms.suppress`. Returns B H W bool."""
    if radius == 0:
        return torch.ones_like(heatmap, dtype=torch.bool)
    kept = maxima(heatmap, radius)
    for _ in range(NMS_ROUNDS - 1):
        is_open = dilate(kept.float(), radius) == 0
        kept = kept | (maxima(heatmap.where(is_open, 0), radius) & is_open)
    return kept


def describe(
    descriptors: Sequence[Tensor],
    image: Tensor,
    xy: Tensor,
    cells_hw: Tensor,
    sampling: DescriptorSampling = "exact",
) -> Tensor:
    """Sample the dense descriptors between cell centres; see `descriptors.describe`.

    Args:
        descriptors: B D h w of each phase, of any length.
        image: M, index of the image in the batch.
        xy: M 2, px of the network's input.
        cells_hw: B 2 int64, (h, w) of each image's own cells.

    Returns:
        M D float32 of unit length.
    """
    each = describe_phases(descriptors, image, xy, cells_hw, sampling)
    return each[0] if len(each) == 1 else unit(torch.stack(each).sum(dim=0))


def describe_phases(
    descriptors: Sequence[Tensor],
    image: Tensor,
    xy: Tensor,
    cells_hw: Tensor,
    sampling: DescriptorSampling = "exact",
    *,
    cells_first: bool = False,
) -> list[Tensor]:
    """M D of unit length of each phase; see `describe`.

    Args:
        cells_first: Whether to divide all cells by their length rather than those that are read,
            which takes less time where most cells are read several times.
    """
    own_hw, each = cells_hw[image], []  # M 2 (h, w)
    for dense, shift in zip(descriptors, PHASES[len(descriptors)], strict=True):
        cells = (unit(dense) if cells_first else dense).permute(0, 2, 3, 1)  # B h w D
        steps = _pair(shift, own_hw)
        each.append(sample(cells, image, xy, own_hw, steps, sampling, are_unit=cells_first))
    return each


def sample(
    cells: Tensor,
    grid: Tensor,
    xy: Tensor,
    own_hw: Tensor,
    shift: Tensor,
    sampling: DescriptorSampling,
    *,
    are_unit: bool = False,
) -> Tensor:
    """Bilinear means of unit descriptors, M D of unit length, from one phase.

    Args:
        cells: G h w D of any number of grids.
        grid: M, the grid of each point.
        xy: M 2, px.
        own_hw: M 2 int64, (h, w) of each point's image, without the shift.
        shift: M 2 int64, or 2 for all points: (y, x) of the grid, px.
        are_unit: Whether the cells have unit length already.
    """
    own_wh = (own_hw + (shift > 0)).flip(1)  # M 2
    position = cell_coordinates(xy.float() + shift.flip(-1), own_wh, sampling)  # M 2
    first = position.detach().floor().long().clamp(min=0)
    first = torch.minimum(first, (own_wh - 2).clamp(min=0))  # M 2
    second = torch.minimum(first + 1, own_wh - 1)  # M 2
    along = (position - first).clamp(0, 1)  # M 2
    along_x, along_y = along[:, :1], along[:, 1:]  # M 1, M 1
    left, top, right, bottom = first[:, 0], first[:, 1], second[:, 0], second[:, 1]
    # Four reads rather than one of all corners: their gradients take less time.
    corners = [cells[grid, row, column] for row in (top, bottom) for column in (left, right)]
    corners = corners if are_unit else [unit(corner) for corner in corners]
    upper = torch.lerp(corners[0], corners[1], along_x)
    lower = torch.lerp(corners[2], corners[3], along_x)
    return unit(torch.lerp(upper, lower, along_y))  # M D


def _pair(values: Sequence[int], like: Tensor) -> Tensor:
    """Two whole numbers on the device of another tensor, without an upload."""
    first, second = values
    steps = torch.arange(2, device=like.device)
    return steps * (second - first) + first


def cell_coordinates(xy: Tensor, cells_wh: Tensor, sampling: DescriptorSampling) -> Tensor:
    """Pixels -> cells (column, row); see `descriptors.cell_coordinates`.

    Args:
        xy: M 2, px.
        cells_wh: M 2, (w, h) of each point's grid.
    """
    centred = xy - (CELL_PX - 1) / 2
    if sampling == "exact":
        return centred / CELL_PX
    return centred / (cells_wh * CELL_PX - (CELL_PX + 1) / 2) * (cells_wh - 1)


def maxima(heatmap: Tensor, radius: int) -> Tensor:
    """Pixels that no other within `radius` exceeds; of equal ones the first in reading order."""
    highest = heatmap == dilate(heatmap, radius)  # B H W
    return highest & ~_follows(highest, radius)


def _follows(chosen: Tensor, radius: int) -> Tensor:
    """Pixels of B H W with a chosen one within `radius` that precedes them in reading order."""
    numbers = chosen.float()[:, None]  # B 1 H W
    before = functional.pad(numbers, (radius, 0))[..., :-1]  # B 1 H W+radius-1
    before = functional.max_pool2d(before, (1, radius), 1)  # B 1 H W
    rows = functional.max_pool2d(numbers, (1, 2 * radius + 1), 1, (0, radius))
    above = functional.pad(rows, (0, 0, radius, 0))[..., :-1, :]  # B 1 H+radius-1 W
    above = functional.max_pool2d(above, (radius, 1), 1)  # B 1 H W
    return (torch.maximum(before, above) > 0)[:, 0]


def dilate(values: Tensor, radius: int) -> Tensor:
    """Largest value within `radius` in x and y: two passes cost far less than one square."""
    side = 2 * radius + 1
    rows = functional.max_pool2d(values[:, None], (1, side), 1, (0, radius))
    return functional.max_pool2d(rows, (side, 1), 1, (radius, 0))[:, 0]


def unit(vectors: Tensor) -> Tensor:
    """Vectors M D ... of length 1, float32; those of no length stay."""
    return functional.normalize(vectors.float(), dim=1, eps=LEAST)
