"""Pixels -> keypoints of a batch without a return to the host: the whole way on a GPU.

The steps of `on_torch`, all with lengths that are known beforehand: nothing waits for the device
until the keypoints of the batch are downloaded. After the network, all scales are one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.architecture import CELL_PX
from tiepoint.config import DescriptorSampling, DetectionConfig
from tiepoint.geometry import SizeHW
from tiepoint.keypoints.on_torch import areas, located, sample, suppress, top_k, unit
from tiepoint.network.inputs import LUMA
from tiepoint.network.torch_inference import Grids, InferenceNetwork

MIN_SHARE = 1000
"""OpenCV leaves out pixels of which less than 1 / 1000 is under the new pixel."""


COLOURS: tuple[float, ...] = tuple((LUMA[0] / np.float32(255)).tolist())
"""Weights of R, G, B in bytes."""


@dataclass(frozen=True)
class Plan:
    """What a batch has beside its tensors: a compiled way is one for each plan.

    Attributes:
        config, sampling: How keypoints are found and described.
        base_hw: (height, width) of the images at scale 1, multiples of 8, px.
        levels_hw: The same of the inputs at each scale.
        taps: How many pixels at scale 1 a pixel of each scale is made from at most, in x and in y;
            0 where an input was made beforehand, or is the image at scale 1.
        places: Maximum number of keypoints of an image, at each scale and of all.
        mixed: Whether some image fills less than the inputs.
    """

    config: DetectionConfig
    sampling: DescriptorSampling
    base_hw: SizeHW
    levels_hw: tuple[SizeHW, ...]
    taps: tuple[int, ...]
    places: int
    mixed: bool

    def with_places(self, places: int) -> Plan:
        """The same plan with more places."""
        return replace(self, places=places)


class Batch(NamedTuple):
    """Images on a device; B images, L scales.

    Attributes:
        image: Values of all images one after the other, n or n 3 uint8, or n float32 in 0..1.
        starts: B int64, where each image starts.
        image_hw: B 2 int64, (height, width) of each original image, px.
        base_hw: B 2 int64, of what `image` has.
        levels_hw: L B 2 int64, of each image at each scale.
        shifts: P 2 int64, see `architecture.PHASES`.
        made: The inputs that were made beforehand, B H W each, by scale; None for others.
        allowed: L B H W bool, where keypoints are allowed, of the largest scale's size; None =
            everywhere.
    """

    image: Tensor
    starts: Tensor
    image_hw: Tensor
    base_hw: Tensor
    levels_hw: Tensor
    shifts: Tensor
    made: tuple[Tensor | None, ...]
    allowed: Tensor | None

    def shapes(self) -> tuple[object, ...]:
        """What decides how a compiled way is made, beside the plan."""
        return (self.image.shape, self.image.dtype, len(self.starts), self.allowed is None)


class Found(NamedTuple):
    """Keypoints of a batch in K places an image, best first, in px of the original images.

    Attributes:
        counts: L B, candidates of each scale; more than there are places if some are missing.
        total: B, keypoints of each image.
        xy: B K 2.
        scores: B K.
        scales_px: B K, px of the original image per px of the input.
        covariance: B K 2 2, or None.
        descriptors: B K D, or None.
    """

    counts: Tensor
    total: Tensor
    xy: Tensor
    scores: Tensor
    scales_px: Tensor
    covariance: Tensor | None
    descriptors: Tensor | None


def find(network: InferenceNetwork, plan: Plan, batch: Batch) -> Found:
    """The keypoints of a batch: every step, none of which waits."""
    config = plan.config
    inputs = _inputs(plan, batch)  # B H W each
    grids = []
    for pixels, sizes in zip(inputs, batch.levels_hw.unbind(), strict=True):
        inside = _inside(sizes, pixels) if plan.mixed else None
        grids.append(
            network(pixels[:, None], inside, descriptors=config.descriptors, phases=config.phases)
        )
    sizes = batch.levels_hw.flatten(0, 1)  # L*B 2
    heatmap = _stacked([one.heatmap for one in grids])  # L*B H W
    allowed = None if batch.allowed is None else batch.allowed.flatten(0, 1)
    heatmap, allowed = areas(heatmap, sizes, config.border, allowed)
    kept = suppress(heatmap, config.nms_radius) & allowed & (heatmap > config.min_score)
    places = top_k(heatmap, kept, config.nms_radius, plan.places)  # L*B*K
    xy, covariance = located(heatmap, allowed, places.pixels, sizes, config, _stacked(inputs))
    own_xy, own_covariance, scales_px = _in_image(batch, places.pixels.image, xy, covariance)
    L, B = batch.levels_hw.shape[:2]
    index = _best(own_xy, places.scores, L, B, plan.places)  # B K
    chosen = index.flatten()
    descriptors = None
    if config.descriptors:
        image = places.pixels.image[chosen]
        descriptors = _described(plan, batch, grids, image, xy[chosen])  # B*K D
        descriptors = descriptors.reshape(*index.shape, -1)
    return Found(
        places.counts.reshape(L, B),
        places.used[index].sum(dim=1),
        own_xy[index],
        places.scores[index],
        scales_px[index],
        None if own_covariance is None else own_covariance[index],
        descriptors,
    )


def _inputs(plan: Plan, batch: Batch) -> list[Tensor]:
    """The network's inputs at each scale, B H W; beyond an image its edge is repeated."""
    if all(made is not None for made in batch.made):
        return [made for made in batch.made if made is not None]
    base, inputs = _grey(_laid_out(plan, batch)), []  # B H W
    for level, (size_hw, taps) in enumerate(zip(plan.levels_hw, plan.taps, strict=True)):
        made = batch.made[level]
        if made is None:
            to_hw = batch.levels_hw[level]  # B 2
            made = base if taps == 0 else _resized(base, batch.base_hw, to_hw, size_hw, taps)
        inputs.append(made)
    return inputs


def _laid_out(plan: Plan, batch: Batch) -> Tensor:
    """The images side by side, B H W or B H W 3; beyond an image its edge is repeated."""
    (H, W), values = plan.base_hw, batch.image
    if len(values) == len(batch.starts) * H * W and not plan.mixed:
        return values.reshape(-1, H, W, *values.shape[1:])
    y, x = (torch.arange(side, device=values.device) for side in (H, W))
    height, width = batch.base_hw[:, :1], batch.base_hw[:, 1:]  # B 1
    rows = torch.minimum(y, height - 1) * width + batch.starts[:, None]  # B H
    return values[rows[:, :, None] + torch.minimum(x, width - 1)[:, None]]


def _grey(values: Tensor) -> Tensor:
    """B H W or B H W 3 uint8, or B H W float32 -> B H W float32 in 0..1; see `inputs.luma`."""
    if values.dtype == torch.float32:
        return values
    if values.ndim == 3:
        return values * (1 / 255)
    red, green, blue = COLOURS
    colours = values.float()
    grey = torch.add(colours[..., 0] * red, colours[..., 1], alpha=green)
    return torch.add(grey, colours[..., 2], alpha=blue).clamp(max=1)


def _resized(base: Tensor, from_hw: Tensor, to_hw: Tensor, size_hw: SizeHW, taps: int) -> Tensor:
    """Area averages of each image, as OpenCV's INTER_AREA gives them.

    Args:
        base: B H W.
        from_hw, to_hw: B 2 int64, (height, width) of each image before and after.
        size_hw: (height, width) of the result; beyond an image its edge is repeated.
        taps: At most this number of rows, and of columns, are averaged.

    Returns:
        B height width.
    """
    H, W = size_hw
    place = torch.arange(max(H, W), device=base.device)
    old, new = from_hw[..., None, None], to_hw[..., None, None]  # B 2 1 1
    place = torch.minimum(place[:, None], new - 1)  # B 2 K 1
    tap = torch.arange(taps, device=base.device)
    source = (place * old).div(new, rounding_mode="floor") + tap  # B 2 K taps
    # In whole numbers, 1 / new px: what of each old pixel is under the new one.
    ends = torch.minimum((source + 1) * new, (place + 1) * old)
    common = ends - torch.maximum(source * new, place * old)
    shares = common.where(common * MIN_SHARE > new, 0) / old  # B 2 K taps
    source = torch.minimum(source, old - 1)
    image = torch.arange(len(base), device=base.device)[:, None, None]
    rows = base[image, source[:, 0, :H]] * shares[:, 0, :H, :, None]  # B H taps W
    columns = rows.sum(dim=2).transpose(1, 2)[image, source[:, 1, :W]]  # B W taps H
    return (columns * shares[:, 1, :W, :, None]).sum(dim=2).transpose(1, 2)


def _inside(sizes: Tensor, pixels: Tensor) -> Tensor:
    """Which cells belong to an image, B 1 h w float32; see `superpoint.cell_mask`."""
    h, w = (side // CELL_PX for side in pixels.shape[1:])
    y, x = (CELL_PX * torch.arange(side, device=pixels.device) for side in (h, w))
    own = (y < sizes[:, :1])[:, :, None] & (x < sizes[:, 1:])[:, None]
    return own[:, None].float()


def _stacked(maps: Sequence[Tensor]) -> Tensor:
    """Maps of several scales as one batch, 0 beyond the smaller ones: L*B ... H W."""
    if len(maps) == 1:
        return maps[0]
    H, W = (max(one.shape[axis] for one in maps) for axis in (-2, -1))
    return torch.cat(
        [functional.pad(one, (0, W - one.shape[-1], 0, H - one.shape[-2])) for one in maps]
    )


def _in_image(
    batch: Batch, image: Tensor, xy: Tensor, covariance: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Positions, covariances and px per px of the input, in px of the original images.

    In float64, as `geometry.resize_xy`, so that the last digits are the same.

    Args:
        image: M, index of each point's image in the scales together, L*B.
        xy: M 2, px of the input.
        covariance: M 2 2, px^2, or None.
    """
    levels_hw = batch.levels_hw.double()  # L B 2
    scale = (batch.image_hw / levels_hw).flip(2).flatten(0, 1)  # L*B 2 (x, y)
    longer = (batch.image_hw.amax(dim=1) / levels_hw.amax(dim=2)).flatten()  # L*B
    own = scale[image]  # M 2
    if covariance is not None:
        covariance = (covariance * (own[:, :, None] * own[:, None])).float()
    return ((xy.double() + 0.5) * own - 0.5).float(), covariance, longer.float()[image]


def _best(xy: Tensor, scores: Tensor, scales: int, images: int, k: int) -> Tensor:
    """The order of each image's keypoints: scores, then y, then x; see `result.merge_scales`.

    Args:
        xy: L*B*K 2, px of the original images.
        scores: L*B*K, best first at each scale, -1 in an empty place.
        k: Maximum number of keypoints of an image.

    Returns:
        B K', indices into L*B*K.
    """
    places = torch.arange(len(scores), device=scores.device)
    index = places.reshape(scales, images, -1).transpose(0, 1).flatten(1)  # B L*K
    if scales > 1:
        for key in (xy[:, 0], xy[:, 1], -scores):
            order = key[index].argsort(dim=1, stable=True)
            index = index.gather(1, order)
    return index[:, :k]


def _described(
    plan: Plan, batch: Batch, grids: Sequence[Grids], image: Tensor, xy: Tensor
) -> Tensor:
    """Descriptors of points of all scales, M D of unit length.

    Args:
        image: M, index of each point's image in the scales together, L*B.
        xy: M 2, px of the input.
    """
    images, sizes = len(batch.starts), batch.levels_hw.flatten(0, 1)  # L*B 2
    phases, points = len(batch.shifts), len(xy)
    cells = _stacked([one.dense for one in grids if one.dense is not None]).permute(0, 2, 3, 1)
    own_hw = -(-sizes // CELL_PX)[image]  # M 2
    level = image.div(images, rounding_mode="floor")
    grid = image + level * (images * (phases - 1))  # of phase 0; those of the others follow
    if phases == 1:
        return sample(cells, grid, xy, own_hw, batch.shifts[0], plan.sampling)
    phase = torch.arange(phases, device=xy.device)[:, None]
    each = sample(
        cells,
        (grid + phase * images).flatten(),  # P*M
        xy.repeat(phases, 1),
        own_hw.repeat(phases, 1),
        batch.shifts.repeat_interleave(points, dim=0),
        plan.sampling,
    )
    return unit(each.reshape(phases, points, -1).sum(dim=0))
