"""Which points of a pair the descriptor loss looks at."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.architecture import CELL_PX
from tiepoint.training.detector.batch import Batch

DETECTOR_SHARE, TEXTURED_SHARE = 0.5, 0.25
"""Of the points of a pair; the rest lies anywhere. Descriptors are read at keypoints above all,
but a detector that moves in training must find good ones at its new places too."""

POOL = 4
"""Textured points are the most textured of so many times their number drawn at random."""

SATELLITES = 2
SATELLITE_PX = (3.0, 8.0)
"""Around each point so many more are drawn, at distances between these: the points that a
descriptor must be told apart from first, and that hardly come together by chance."""

BORDER_PX = 4
"""No point nearer to a side of either view: inference has no keypoint there."""


class Points(NamedTuple):
    """The same M points in both views of their pairs.

    Attributes:
        pair: M int64.
        xy_a, xy_b: M 2 float32, px.
    """

    pair: Tensor
    xy_a: Tensor
    xy_b: Tensor


def choose_points(
    batch: Batch, heatmap: Tensor, per_pair: int, generator: torch.Generator
) -> Points:
    """Draw points that both views see: half detector maxima, a quarter textured, a quarter random.

    Each has `SATELLITES` more around it, where both views see these too. A point is a whole pixel
    of one view, the first for even pairs and the second for odd ones, and lies between pixels in
    the other, exactly where the flow says.

    Args:
        heatmap: 2P H W, the detector's probabilities.
        per_pair: Points wanted of each pair, satellites apart; fewer where the views share little.
    """
    P, device = batch.pairs, heatmap.device
    height, width = batch.size_hw
    pair = torch.arange(P, device=device)
    image = pair + P * (pair % 2)  # P, the view in which a point is a whole pixel
    flow = batch.flow[image]  # P H W 2
    usable = _usable(flow)  # P H W
    detected = round(per_pair * DETECTOR_SHARE)
    textured = round(per_pair * TEXTURED_SHARE)
    peaks, peak_at = _peak_of_each_cell(heatmap[image] * usable)  # P cells
    strength, best = peaks.topk(min(detected, peaks.shape[1]), dim=1)  # P K
    best = peak_at.gather(1, best)  # P K
    drawn = torch.randint(
        height * width, (P, POOL * textured + per_pair), generator=generator, device=device
    )
    pool, anywhere = drawn[:, : POOL * textured], drawn[:, POOL * textured :]
    texture = _texture(batch.pixels[image, 0], pool) + 1e-6  # P pool
    texture = texture * usable.flatten(1).gather(1, pool)  # 0 = not usable
    contrast, place = texture.topk(textured, dim=1)  # P T
    spare = usable.flatten(1).gather(1, anywhere)  # P per_pair
    rest = per_pair - detected - textured
    found = torch.cat([strength > 0, contrast > 0, spare & (spare.cumsum(1) <= rest)], dim=1)
    pixel = torch.cat([best, pool.gather(1, place), anywhere], dim=1)[found]  # M
    of = pair[:, None].expand_as(found)[found]  # M
    around, of_around = _satellites(pixel, of, usable, generator)
    pixel, of = torch.cat([pixel, around]), torch.cat([of, of_around])  # M
    xy = torch.stack([pixel % width, pixel // width], dim=1).float()  # M 2
    there = flow.flatten(1, 2)[of, pixel]  # M 2
    swapped = (of % 2 == 1)[:, None]
    return Points(of, torch.where(swapped, there, xy), torch.where(swapped, xy, there))


def _satellites(
    pixel: Tensor, pair: Tensor, usable: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Pixels around others, as many as are usable: their numbers, and their pairs.

    Args:
        pixel, pair: M int64.
        usable: P H W bool.
    """
    height, width = usable.shape[1:]
    pixel, pair = pixel.repeat(SATELLITES), pair.repeat(SATELLITES)  # S M
    near, far = SATELLITE_PX
    drawn = torch.rand(2, len(pixel), generator=generator, device=pixel.device)
    radius, angle = near + (far - near) * drawn[0], 2 * torch.pi * drawn[1]
    x = pixel % width + (radius * angle.cos()).round().long()
    y = pixel // width + (radius * angle.sin()).round().long()
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    pixel, pair = (y * width + x)[inside], pair[inside]
    seen = usable.flatten(1)[pair, pixel]
    return pixel[seen], pair[seen]


def _usable(flow: Tensor) -> Tensor:
    """P H W bool: seen in both views, and not at the border of either."""
    height, width = flow.shape[1:3]
    x, y = flow[..., 0], flow[..., 1]  # NaN compares as False
    usable = (x >= BORDER_PX) & (x <= width - 1 - BORDER_PX)
    usable &= (y >= BORDER_PX) & (y <= height - 1 - BORDER_PX)
    inner = torch.zeros_like(usable)
    inner[:, BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = True
    return usable & inner


def _peak_of_each_cell(heatmap: Tensor) -> tuple[Tensor, Tensor]:
    """P H W -> the highest value of each cell and its pixel's number: P cells each."""
    width = heatmap.shape[2]
    bins = functional.pixel_unshuffle(heatmap[:, None], CELL_PX)  # P 64 h w
    value, place = bins.max(dim=1)  # P h w
    h, w = value.shape[1:]
    row = torch.arange(h, device=heatmap.device)[:, None] * CELL_PX + place // CELL_PX
    column = torch.arange(w, device=heatmap.device) * CELL_PX + place % CELL_PX
    return value.flatten(1), (row * width + column).flatten(1)


def _texture(pixels: Tensor, places: Tensor) -> Tensor:
    """How much the grey value varies around some pixels.

    Args:
        pixels: P H W.
        places: P K, numbers of pixels in reading order.

    Returns:
        P K: the sum of the differences of opposite neighbours, four ways.
    """
    height, width = pixels.shape[1:]
    flat = pixels.flatten(1)
    around = torch.zeros_like(places, dtype=torch.float32)
    for dy, dx in ((0, 2), (2, 0), (2, 2), (2, -2)):
        step = dy * width + dx
        # Wrapping around a side does no harm: pixels that near to it are not usable.
        ahead, behind = (places + step) % (height * width), (places - step) % (height * width)
        around += (flat.gather(1, ahead) - flat.gather(1, behind)).abs()
    return around
