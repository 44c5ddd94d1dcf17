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
from tiepoint.keypoints.positions import MIN_DIVISOR
from tiepoint.keypoints.positions_torch import (
    FlatPixels,
    centroids,
    hessian_response,
    mean_shift,
    second_moment,
)
from tiepoint.keypoints.result import Keypoints, Masks
from tiepoint.keypoints.selection import widest_radius
from tiepoint.network.dense_maps import DenseMaps


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

    All steps run on the maps' device, and it is waited for once per batch.

    Args:
        inputs: B 1 H W float32 in 0..1, the network's input.
    """
    with torch.inference_mode():
        response_of = torch.from_numpy(inputs[:, 0]).to(maps.heatmap.device)  # B H W
        sizes_hw = [placement.resized_hw for placement in placements]
        flat = select(maps.heatmap, sizes_hw, config, masks, response_of)
        if config.descriptors and maps.descriptors is not None:
            fields = torch.tensor([p.padded_hw for p in placements], device=flat.xy.device)
            cells_hw = fields // CELL_PX  # B 2
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
    image_area, allowed_area = _areas(heatmap, sizes_hw, config.border, masks)
    if not bool(image_area.all()):
        heatmap = heatmap.masked_fill(~image_area, 0)
    pixels = candidates(heatmap, sizes_hw, config, allowed_area)
    pixels = top_k(heatmap, pixels, config.max_keypoints)
    xy = torch.stack([pixels.columns, pixels.rows], dim=1).float()  # M 2
    if config.subpixel:
        xy = xy + centroids(heatmap, pixels)
        if inputs is not None:
            response = hessian_response(inputs.float(), sizes_hw) * allowed_area  # B H W
            xy = mean_shift(response, pixels, xy, config.nms_radius)
    covariance = None
    if config.covariance_scale is not None:
        covariance = second_moment(heatmap, pixels) * config.covariance_scale
    return FlatKeypoints(pixels.image, xy, heatmap[pixels], covariance)


def _areas(
    heatmap: Tensor, sizes_hw: Sequence[SizeHW], border: int, masks: Masks
) -> tuple[Tensor, Tensor]:
    """B H W bool each: inside the image; where keypoints are allowed."""
    B, H, W = heatmap.shape
    device = heatmap.device
    sizes = torch.tensor(sizes_hw, device=device).reshape(B, 2, 1)  # B 2 1
    y, x = torch.arange(H, device=device), torch.arange(W, device=device)
    in_rows, in_columns = y < sizes[:, 0], x < sizes[:, 1]  # B H, B W
    far_rows = (y >= border) & (y < sizes[:, 0] - border)  # B H
    far_columns = (x >= border) & (x < sizes[:, 1] - border)  # B W
    allowed = far_rows[:, :, None] & far_columns[:, None, :]  # B H W
    for index, mask in enumerate(masks or ()):
        if mask is not None:
            height, width = mask.shape
            allowed[index, :height, :width] &= torch.from_numpy(mask).to(device)
    return in_rows[:, :, None] & in_columns[:, None, :], allowed


def candidates(
    heatmap: Tensor, sizes_hw: Sequence[SizeHW], config: DetectionConfig, allowed_area: Tensor
) -> FlatPixels:
    """Pixels that may become keypoints, in reading order; see `selection.candidates`.

    Args:
        heatmap: B H W, 0 outside each image.
        allowed_area: B H W bool.
    """
    with torch.no_grad():
        allowed = allowed_area & (heatmap > config.min_score)
        kept = _suppress_each(heatmap, allowed, sizes_hw, config) & allowed
        return FlatPixels(*torch.nonzero(kept, as_tuple=True))


def top_k(heatmap: Tensor, pixels: FlatPixels, k: int | None) -> FlatPixels:
    """The k best pixels of each image, ordered by image, then score; ties stay in order.

    Args:
        heatmap: B H W.
        pixels: In reading order, image by image.
        k: None keeps all.
    """
    scores, image = heatmap[pixels].detach(), pixels.image  # M, M
    order = torch.argsort(scores, descending=True, stable=True)
    order = order[torch.argsort(image[order], stable=True)]  # M
    if k is not None:
        counts = torch.bincount(image, minlength=len(heatmap))  # B
        starts = torch.cumsum(counts, 0) - counts  # B
        rank = torch.arange(len(order), device=image.device) - starts[image[order]]  # M
        order = order[rank < k]
    return FlatPixels(*(part[order] for part in pixels))


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
    kept = _maxima(heatmap, radius)
    for _ in range(NMS_ROUNDS - 1):
        covered = _dilate(kept.float(), radius) > 0
        rest = heatmap.masked_fill(covered, 0)
        kept = kept | (_maxima(rest, radius) & ~covered)
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
    return each[0] if len(each) == 1 else _unit(torch.stack(each).sum(dim=0))


def describe_phases(
    descriptors: Sequence[Tensor],
    image: Tensor,
    xy: Tensor,
    cells_hw: Tensor,
    sampling: DescriptorSampling = "exact",
) -> list[Tensor]:
    """M D of unit length of each phase; see `describe`."""
    own_hw = cells_hw[image]  # M 2 (h, w)
    each = []
    for dense, shift in zip(descriptors, PHASES[len(descriptors)], strict=True):
        shift_yx = torch.tensor(shift, device=xy.device)  # 2
        cells = dense.permute(0, 2, 3, 1)  # B h w D
        hw = own_hw + (shift_yx > 0)
        position = cell_coordinates(xy.float() + shift_yx.flip(0), hw, sampling)
        each.append(_sample(cells, image, position, hw))
    return each


def _sample(cells: Tensor, image: Tensor, position: Tensor, own_hw: Tensor) -> Tensor:
    """Bilinear means of unit descriptors, of unit length.

    Args:
        cells: B h w D.
        image: M.
        position: M 2 (column, row), cells.
        own_hw: M 2, (h, w) of each point's image.

    Returns:
        M D.
    """
    last = (own_hw.flip(1) - 2).clamp(min=0)  # M 2
    first = torch.minimum(position.detach().floor().long().clamp(min=0), last)  # M 2
    second = torch.minimum(first + 1, own_hw.flip(1) - 1)  # M 2
    along = (position - first).clamp(0, 1)  # M 2
    along_x, along_y = along[:, :1], along[:, 1:]  # M 1, M 1
    left, top, right, bottom = first[:, 0], first[:, 1], second[:, 0], second[:, 1]
    upper = torch.lerp(_unit(cells[image, top, left]), _unit(cells[image, top, right]), along_x)
    lower = torch.lerp(
        _unit(cells[image, bottom, left]), _unit(cells[image, bottom, right]), along_x
    )
    return _unit(torch.lerp(upper, lower, along_y))  # M D


def cell_coordinates(xy: Tensor, cells_hw: Tensor, sampling: DescriptorSampling) -> Tensor:
    """Pixels -> cells (column, row); see `descriptors.cell_coordinates`.

    Args:
        xy: M 2, px.
        cells_hw: M 2, (h, w) of each point's image.
    """
    centred = xy - (CELL_PX - 1) / 2
    if sampling == "exact":
        return centred / CELL_PX
    cells = cells_hw.flip(1)  # M 2 (w, h)
    return centred / (cells * CELL_PX - (CELL_PX + 1) / 2) * (cells - 1)


def _maxima(heatmap: Tensor, radius: int) -> Tensor:
    """Pixels that no other within `radius` exceeds; of equal ones the first in reading order."""
    highest = heatmap == _dilate(heatmap, radius)  # B H W
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


def _dilate(values: Tensor, radius: int) -> Tensor:
    """Largest value within `radius` in x and y: two passes cost far less than one square."""
    side = 2 * radius + 1
    rows = functional.max_pool2d(values[:, None], (1, side), 1, (0, radius))
    return functional.max_pool2d(rows, (side, 1), 1, (radius, 0))[:, 0]


def _unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors.float(), dim=1, eps=float(MIN_DIVISOR))
