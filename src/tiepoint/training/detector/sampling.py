"""Sample the points of a pair at which the descriptor loss compares descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.architecture import CELL_PX
from tiepoint.keypoints.on_torch import describe_phases
from tiepoint.training.detector.batch import Batch

DETECTOR_SHARE, TEXTURED_SHARE = 0.5, 0.25
"""Fractions of detector maxima and of textured points; the others are anywhere. Descriptors are
mostly sampled at keypoints, but keypoints move during training, so other points count too."""

OVERSAMPLING = 4
"""Random candidates per textured point; the most textured ones are taken."""

SATELLITES = 2
SATELLITE_PX = (3.0, 8.0)
"""Number of extra points around each point, and their distance range. Near points are the hardest
negatives, and random sampling rarely gives any."""

BORDER_PX = 4
"""Minimum distance to the sides of both views, because inference has no keypoints nearer."""


class PointPairs(NamedTuple):
    """The same M scene points in both views: index of the pair, M int64; xy, M 2 float32, px."""

    pair: Tensor
    xy_a: Tensor
    xy_b: Tensor

    def descriptors(self, dense: Sequence[Tensor]) -> list[Tensor]:
        """Sample dense descriptors, 2P D h w of each cell phase, at the points.

        Returns:
            2M D of unit length for each phase: view A, then view B.
        """
        image = torch.cat([self.pair, self.pair + len(dense[0]) // 2])  # 2M
        xy = torch.cat([self.xy_a, self.xy_b])  # 2M 2
        h, w = dense[0].shape[2:]
        cells_hw = torch.tensor([[h, w]], device=xy.device).expand(len(dense[0]), 2)  # 2P 2
        return describe_phases(dense, image, xy, cells_hw)


def sample_points(
    batch: Batch, heatmap: Tensor, per_pair: int, generator: torch.Generator
) -> PointPairs:
    """Sample points visible in both views: half detector maxima, a quarter textured, the rest any.

    Each point has `SATELLITES` more around it, where both views show these too. A point is a whole
    pixel in one view: A for even pairs, B for odd ones. In the other view it is at the subpixel
    position given by the flow.

    Args:
        heatmap: 2P H W, detector probabilities.
        per_pair: Number of points per pair without satellites; fewer if the common view is small.
    """
    P, device = batch.pairs, heatmap.device
    height, width = batch.size_hw
    pair = torch.arange(P, device=device)
    image = pair + P * (pair % 2)  # P, the view in which a point is a whole pixel
    flow = batch.flow[image]  # P H W 2
    usable = _usable(flow)  # P H W
    detected, textured = round(per_pair * DETECTOR_SHARE), round(per_pair * TEXTURED_SHARE)
    peaks, peak_pixel = _peak_of_each_cell(heatmap[image] * usable)  # P cells
    strength, best = peaks.topk(min(detected, peaks.shape[1]), dim=1)  # P K
    best = peak_pixel.gather(1, best)  # P K
    drawn = torch.randint(
        height * width, (P, OVERSAMPLING * textured + per_pair), generator=generator, device=device
    )
    candidates, anywhere = drawn[:, : OVERSAMPLING * textured], drawn[:, OVERSAMPLING * textured :]
    texture = _texture(batch.pixels[image, 0], candidates) + 1e-6  # P candidates
    texture = texture * usable.flatten(1).gather(1, candidates)  # 0 = not usable
    contrast, order = texture.topk(textured, dim=1)  # P T
    spare = usable.flatten(1).gather(1, anywhere)  # P per_pair
    rest = per_pair - detected - textured
    kept = torch.cat([strength > 0, contrast > 0, spare & (spare.cumsum(1) <= rest)], dim=1)
    pixel = torch.cat([best, candidates.gather(1, order), anywhere], dim=1)[kept]  # M
    pair = pair[:, None].expand_as(kept)[kept]  # M
    satellites, pair_of_satellites = _satellites(pixel, pair, usable, generator)
    pixel, pair = torch.cat([pixel, satellites]), torch.cat([pair, pair_of_satellites])  # M
    xy = torch.stack([pixel % width, pixel // width], dim=1).float()  # M 2
    other_xy = flow.flatten(1, 2)[pair, pixel]  # M 2
    swapped = (pair % 2 == 1)[:, None]
    return PointPairs(pair, torch.where(swapped, other_xy, xy), torch.where(swapped, xy, other_xy))


def _satellites(
    pixel: Tensor, pair: Tensor, usable: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Sample usable pixels around pixels M of pairs M, as pixel indices and pairs."""
    height, width = usable.shape[1:]
    pixel, pair = pixel.repeat(SATELLITES), pair.repeat(SATELLITES)  # S M
    near, far = SATELLITE_PX
    drawn = torch.rand(2, len(pixel), generator=generator, device=pixel.device)
    radius, angle = near + (far - near) * drawn[0], 2 * torch.pi * drawn[1]
    x = pixel % width + (radius * angle.cos()).round().long()
    y = pixel // width + (radius * angle.sin()).round().long()
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    pixel, pair = (y * width + x)[inside], pair[inside]
    visible = usable.flatten(1)[pair, pixel]
    return pixel[visible], pair[visible]


def _usable(flow: Tensor) -> Tensor:
    """P H W bool: visible in both views, and not at the border of either."""
    last_xy = flow.new_tensor(flow.shape[2:0:-1]) - 1 - BORDER_PX  # 2
    usable = ((flow >= BORDER_PX) & (flow <= last_xy)).all(dim=-1)  # NaN compares as False
    inner = torch.zeros_like(usable)
    inner[:, BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = True
    return usable & inner


def _peak_of_each_cell(heatmap: Tensor) -> tuple[Tensor, Tensor]:
    """P H W -> maximum of each cell and its pixel index: P cells each."""
    width = heatmap.shape[2]
    bins = functional.pixel_unshuffle(heatmap[:, None], CELL_PX)  # P 64 h w
    value, bin_index = bins.max(dim=1)  # P h w
    h, w = value.shape[1:]
    row = torch.arange(h, device=heatmap.device)[:, None] * CELL_PX + bin_index // CELL_PX
    column = torch.arange(w, device=heatmap.device) * CELL_PX + bin_index % CELL_PX
    return value.flatten(1), (row * width + column).flatten(1)


def _texture(pixels: Tensor, indices: Tensor) -> Tensor:
    """Sum of the differences of opposite neighbours: images P H W, indices P K -> P K."""
    height, width = pixels.shape[1:]
    flat = pixels.flatten(1)
    contrast = torch.zeros_like(indices, dtype=torch.float32)
    for dy, dx in ((0, 2), (2, 0), (2, 2), (2, -2)):
        step = dy * width + dx
        # Indices wrap around only at pixels too near to a side to be usable.
        ahead, behind = (indices + step) % (height * width), (indices - step) % (height * width)
        contrast += (flat.gather(1, ahead) - flat.gather(1, behind)).abs()
    return contrast
