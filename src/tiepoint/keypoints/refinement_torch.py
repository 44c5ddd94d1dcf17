"""Keypoints settle on the image's own structure, in torch, a whole batch at once.

The twin of `refinement`; tests hold the two equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.geometry import SizeHW
from tiepoint.keypoints.refinement import (
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
        images: B H W float32, in 0..1.
        sizes_hw: (height, width) of each image in the batch, px.

    Returns:
        B H W, 0 in the padding.
    """
    if len(set(sizes_hw)) == 1:
        return _of_size(images, sizes_hw[0])
    each = zip(images, sizes_hw, strict=True)
    return torch.cat([_of_size(image[None], size_hw) for image, size_hw in each])


def _of_size(images: Tensor, size_hw: SizeHW) -> Tensor:
    """The structure of the upper left parts of that size."""
    (H, W), (height, width) = images.shape[1:], size_hw
    blur = BLUR.tolist()
    smooth = _filtered(images[:, :height, :width], blur, blur)
    xx, yy = _filtered(smooth, SECOND, SMOOTH) / 4, _filtered(smooth, SMOOTH, SECOND) / 4
    xy = _filtered(smooth, FIRST, FIRST) / 4
    found = (xx * yy - xy**2).abs() * SIGMA_PX**4
    return functional.pad(found, (0, W - width, 0, H - height))


def _filtered(images: Tensor, along_x: Sequence[float], along_y: Sequence[float]) -> Tensor:
    """Correlate B H W with a separable kernel; the outermost pixels hold outside.

    As sums of moved images: autocast and TF32 would compute a convolution with 8 or 11 bits, of
    which the difference of two products leaves nothing.
    """
    height, width = images.shape[1:]
    reach_x, reach_y = len(along_x) // 2, len(along_y) // 2
    around = functional.pad(images[:, None], (reach_x, reach_x, reach_y, reach_y), "replicate")
    around = around[:, 0]
    rows = sum(k * around[:, :, n : n + width] for n, k in enumerate(along_x))
    assert isinstance(rows, Tensor)
    found = sum(k * rows[:, n : n + height] for n, k in enumerate(along_y))
    assert isinstance(found, Tensor)
    return found


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
