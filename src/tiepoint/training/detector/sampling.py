"""Sample the points of a pair at which the descriptor loss compares descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.architecture import CELL_PX
from tiepoint.keypoints.on_torch import describe_phases
from tiepoint.training import devices
from tiepoint.training.detector.batch import Batch
from tiepoint.training.devices import constant, first_chosen

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
    """The same M scene points in both views, in order of their pairs.

    Attributes:
        pair: M int64, index of each point's pair.
        xy_a, xy_b: M 2 float32, px.
        valid: P N bool, where each of P pairs has N points: False for padding, whose positions are
            finite and mean nothing. None if there is no padding.
    """

    pair: Tensor
    xy_a: Tensor
    xy_b: Tensor
    valid: Tensor | None = None

    def descriptors(self, dense: Sequence[Tensor]) -> list[Tensor]:
        """Sample dense descriptors, 2P D h w of each cell phase, at the points.

        Returns:
            2M D of unit length for each phase: view A, then view B.
        """
        image = torch.cat([self.pair, self.pair + len(dense[0]) // 2])  # 2M
        xy = torch.cat([self.xy_a, self.xy_b])  # 2M 2
        h, w = dense[0].shape[2:]
        cells_hw = constant((h, w), xy.device, torch.int64).expand(len(dense[0]), 2)  # 2P 2
        return describe_phases(dense, image, xy, cells_hw, cells_first=True)

    def without_padding(self) -> PointPairs:
        """The valid points. Their number decides the shape, so the host waits for it."""
        if self.valid is None:
            return self
        rows = self.valid.view(-1).nonzero()[:, 0]
        return PointPairs(self.pair[rows], self.xy_a[rows], self.xy_b[rows])


def sample_points(
    batch: Batch, heatmap: Tensor, per_pair: int, generator: torch.Generator
) -> PointPairs:
    """Sample points visible in both views: half detector maxima, a quarter textured, the rest any.

    Each point has `SATELLITES` more around it, where both views show these too. A point is a whole
    pixel in one view: A for even pairs, B for odd ones. In the other view it is at the subpixel
    position given by the flow. Pairs with fewer points are padded. On a CPU padding is removed,
    because it costs time there and its removal does not.

    Args:
        heatmap: 2P H W, detector probabilities.
        per_pair: Number of points per pair without satellites; fewer if the common view is small.
    """
    P, device = batch.pairs, heatmap.device
    width = batch.size_hw[1]
    pair = torch.arange(P, device=device)
    image = pair + P * (pair % 2)  # P, the view in which a point is a whole pixel
    flow = batch.flow[image]  # P H W 2
    usable = _usable(flow)  # P H W
    pixel, valid = _pixels(batch.pixels[image, 0], heatmap[image], usable, per_pair, generator)
    satellites, shown = _satellites(pixel, valid, usable, generator)  # P S N
    pixel = torch.cat([pixel, satellites.flatten(1)], dim=1)  # P N+S*N
    valid = torch.cat([valid, shown.flatten(1)], dim=1)  # P N+S*N
    xy = torch.stack([pixel % width, pixel // width], dim=-1).float()  # P N+S*N 2
    other_xy = flow.flatten(1, 2).gather(1, pixel[..., None].expand(-1, -1, 2))  # P N+S*N 2
    other_xy = other_xy.where(valid[..., None], xy)  # NaN where it is not visible
    swapped = (pair % 2 == 1)[:, None, None]
    points = PointPairs(
        pair[:, None].expand_as(pixel).flatten(),
        torch.where(swapped, other_xy, xy).flatten(0, 1),
        torch.where(swapped, xy, other_xy).flatten(0, 1),
        valid,
    )
    return points.without_padding() if devices.reads_at_once(device) else points


def _pixels(
    pixels: Tensor, heatmap: Tensor, usable: Tensor, per_pair: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Pixel indices of P pairs, P N, and whether they are usable, P N bool.

    Args:
        pixels, heatmap, usable: P H W, of the view in which the points are whole pixels.
    """
    P, device = len(pixels), pixels.device
    detected, textured = round(per_pair * DETECTOR_SHARE), round(per_pair * TEXTURED_SHARE)
    peaks, peak_pixel = _peak_of_each_cell(heatmap * usable)  # P cells
    strength, best = peaks.topk(min(detected, peaks.shape[1]), dim=1)  # P K
    drawn = torch.randint(
        usable[0].numel(), (P, OVERSAMPLING * textured + per_pair), generator=generator,
        device=device,
    )  # fmt: skip
    candidates, anywhere = drawn[:, : OVERSAMPLING * textured], drawn[:, OVERSAMPLING * textured :]
    texture = _texture(pixels, candidates) + 1e-6  # P candidates
    texture = texture * usable.flatten(1).gather(1, candidates)  # 0 = not usable
    contrast, order = texture.topk(textured, dim=1)  # P T
    spare = usable.flatten(1).gather(1, anywhere)  # P per_pair
    others, enough = first_chosen(anywhere, spare, per_pair - detected - textured)  # P R
    pixel = torch.cat([peak_pixel.gather(1, best), candidates.gather(1, order), others], dim=1)
    return pixel, torch.cat([strength > 0, contrast > 0, enough], dim=1)


def _satellites(
    pixel: Tensor, valid: Tensor, usable: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Sample pixels around pixels P N, as indices, P S N, and whether they are usable."""
    height, width = usable.shape[1:]
    near, far = SATELLITE_PX
    P, N = pixel.shape
    drawn = torch.rand(2, P, SATELLITES, N, generator=generator, device=pixel.device)
    radius, angle = near + (far - near) * drawn[0], 2 * torch.pi * drawn[1]  # P S N
    x = (pixel % width)[:, None] + (radius * angle.cos()).round().long()
    y = (pixel // width)[:, None] + (radius * angle.sin()).round().long()
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    satellite = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    shown = usable.flatten(1).gather(1, satellite.flatten(1)).view_as(satellite)
    return satellite, shown & inside & valid[:, None]


def _usable(flow: Tensor) -> Tensor:
    """P H W bool: visible in both views, and not at the border of either."""
    height, width = flow.shape[1:3]
    last_xy = constant((width - 1 - BORDER_PX, height - 1 - BORDER_PX), flow.device)  # 2
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
