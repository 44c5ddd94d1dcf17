"""Keypoints settle on the image's own structure, in torch, a whole batch at once.

The twin of `refinement`; tests hold the two equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.geometry import SizeHW
from tiepoint.refinement import (
    BLUR,
    LEAST,
    REACH_PX,
    SIGMA_PX,
    STEPS,
    WINDOW_PX,
    farthest_px,
)

SECOND, FIRST, SMOOTH = (1.0, -2.0, 1.0), (-1.0, 0.0, 1.0), (1.0, 2.0, 1.0)
"""Sobel's kernels of 3 px: a second and a first derivative, and what lies across it."""


def structure(images: Tensor, sizes_hw: Sequence[SizeHW]) -> Tensor:
    """See `refinement.structure`; each image is looked at by itself, without padding.

    Args:
        images: B H W, in 0..1.
        sizes_hw: (height, width) of each image in the batch, px.

    Returns:
        B H W, 0 in the padding.
    """
    if all(size == tuple(images.shape[1:]) for size in sizes_hw):
        return _structure(images)
    found = torch.zeros_like(images)
    for image, into, (height, width) in zip(images, found, sizes_hw, strict=True):
        into[:height, :width] = _structure(image[None, :height, :width])[0]
    return found


def _structure(images: Tensor) -> Tensor:
    blur = torch.from_numpy(BLUR).to(images)
    smooth = _filtered(images, blur, blur)
    second, first, across = (torch.tensor(k).to(images) for k in (SECOND, FIRST, SMOOTH))
    xx, yy = _filtered(smooth, second, across / 4), _filtered(smooth, across / 4, second)
    xy = _filtered(smooth, first / 4, first)
    return (xx * yy - xy**2).abs() * SIGMA_PX**4


def _filtered(images: Tensor, along_x: Tensor, along_y: Tensor) -> Tensor:
    """Correlate B H W with a separable kernel; the outermost pixels hold outside."""
    reach_x, reach_y = len(along_x) // 2, len(along_y) // 2
    padded = functional.pad(images[:, None], (reach_x, reach_x, reach_y, reach_y), "replicate")
    rows = functional.conv2d(padded, along_x[None, None, None])
    return functional.conv2d(rows, along_y[None, None, :, None])[:, 0]


def settle(
    structure_map: Tensor,
    image: Tensor,
    rows: Tensor,
    columns: Tensor,
    xy: Tensor,
    radius_px: int,
) -> Tensor:
    """Move each keypoint to the centre of the structure about it; see `refinement.settle`.

    Args:
        structure_map: B H W, 0 where no keypoint may go.
        image, rows, columns: M: which image of the batch, and the pixel that was chosen there.
        xy: M 2, px.
        radius_px: Chosen pixels of an image are farther apart than this in x or y.

    Returns:
        M 2 float32, px.
    """
    steps = torch.arange(-REACH_PX, REACH_PX + 1, device=xy.device)  # s
    around = functional.pad(structure_map, (REACH_PX,) * 4)
    y = rows[:, None, None] + REACH_PX + steps[:, None]  # M s 1
    x = columns[:, None, None] + REACH_PX + steps  # M 1 s
    mass = around[image[:, None, None], y, x]  # M s s
    offsets = steps.to(mass)
    chosen = torch.stack([columns, rows], dim=1).to(mass)  # M 2
    within, least = xy - chosen, float(LEAST)  # M 2
    for step in STEPS:
        weight = torch.exp(-(((offsets - within[:, :, None]) / WINDOW_PX) ** 2) / 2)  # M 2 s
        weighed = mass * weight[:, 1, :, None] * weight[:, 0, None, :]  # M s s
        total = weighed.sum(dim=(1, 2))[:, None]  # M 1
        centre = torch.stack([weighed.sum(dim=1) @ offsets, weighed.sum(dim=2) @ offsets], dim=1)
        move = centre / total.clamp(min=least) - within
        within = within + torch.where(total > least, step * move, 0)
    farthest = farthest_px(radius_px)
    return chosen + within.clamp(-farthest, farthest)
