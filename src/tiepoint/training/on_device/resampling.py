"""Separable filters as matrices, one for each image of a batch: rows @ image @ columns.

Each image has its own width of the blur and its own size in between, so no convolution serves all
of them. Filters that change nothing are identities. OpenCV's rules hold throughout.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.geometry import SizeHW
from tiepoint.network.torch_device import uploaded

NARROWEST_PX = 1e-3
"""Least standard deviation of a blur, whose kernel is then a single 1."""


class Separable(NamedTuple):
    """A filter of each image: B H H for its columns, and B W W for its rows."""

    down: Tensor
    across: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """The filtered values, B H W."""
        return self.down @ values @ self.across.mT

    def chunk(self, parts: int) -> tuple[Separable, ...]:
        """The filters of equal parts of the batch."""
        each = zip(self.down.chunk(parts), self.across.chunk(parts), strict=True)
        return tuple(Separable(down, across) for down, across in each)


def gaussian(sigma_px: Tensor, size_hw: SizeHW) -> Separable:
    """Gaussian blur of each image, as `cv2.GaussianBlur` with a kernel size of 0.

    Kernels must be narrower than twice the view.

    Args:
        sigma_px: B; 0 for none.
    """
    down = _gaussian(sigma_px, size_hw[0])
    return Separable(down, down if size_hw[0] == size_hw[1] else _gaussian(sigma_px, size_hw[1]))


def _gaussian(sigma_px: Tensor, side: int) -> Tensor:
    """B side side. Outside, the view is mirrored at its outermost px."""
    sigma = sigma_px.clamp(min=NARROWEST_PX)[:, None]
    radius = (sigma * 8 + 1).round().div(2, rounding_mode="floor")
    distance = torch.arange(2 * side, device=sigma.device)
    kernel = torch.exp(-0.5 * (distance / sigma) ** 2) * (distance <= radius)  # B 2*side
    weights = kernel[:, _mirrored_distances(side, sigma.device)].sum(dim=1)  # B side side
    return weights / weights.sum(dim=2, keepdim=True)


@lru_cache(maxsize=16)
def _mirrored_distances(side: int, device: torch.device) -> Tensor:
    """3 side side int64: px from each place to each px, and to its images in both mirrors.

    The outermost px are on the mirrors, so they have one image less, at 2 * side - 1.
    """
    start, end, none = torch.arange(side)[:, None], torch.arange(side), 2 * side - 1
    before = torch.where(end > 0, start + end, none)
    after = torch.where(end < side - 1, 2 * (side - 1) - start - end, none)
    return uploaded(torch.stack([(start - end).abs(), before, after]), device)


def rescaling(small_hw: Tensor, size_hw: SizeHW) -> Separable:
    """Reduction of each image by area and bilinear enlargement, as by `cv2.resize`.

    Args:
        small_hw: B 2, whole (height, width) in between, at most `size_hw`; equal for none.
    """
    down, across = (_rescaling(small_hw[:, axis], side) for axis, side in enumerate(size_hw))
    return Separable(down, across)


def _rescaling(small: Tensor, side: int) -> Tensor:
    """B side side."""
    small = small[:, None, None]
    index = torch.arange(side, device=small.device, dtype=torch.float32)
    start, end = index[:, None], index
    scale = side / small
    common = torch.minimum((start + 1) * scale, end + 1) - torch.maximum(start * scale, end)
    reduce = common.clamp(min=0) / scale  # B small side; rows beyond the small size are 0
    position = ((start + 0.5) / scale - 0.5).clamp(min=0)
    position = torch.minimum(position, small - 1)
    enlarge = functional.relu(1 - (position - end).abs())  # B side small
    return enlarge @ reduce


def motion_kernels(length_px: Tensor, angle: Tensor, side: int) -> Tensor:
    """B side side: lines through the middle of a kernel; see `photometry.motion_kernel`.

    Args:
        length_px: B; 0 for no motion.
        angle: B radians.
        side: Odd, at least that of the longest line's own kernel.
    """
    counts = 4 * (2 * (length_px / 2).ceil() + 3)[:, None]  # B 1: points on each line
    number = torch.arange(4 * side, device=angle.device)
    steps = length_px[:, None] * (number / (counts - 1) - 0.5)  # B P
    pixels = torch.arange(side, device=angle.device) - side // 2
    weights = [
        functional.relu(1 - (pixels - (steps * direction[:, None])[:, :, None]).abs())  # B P side
        for direction in (angle.cos(), angle.sin())
    ]
    across, down = weights[0], weights[1] * (number < counts)[:, :, None]
    kernels = down.mT @ across  # B side side
    return kernels / kernels.sum(dim=(1, 2), keepdim=True)


def filtered(values: Tensor, kernels: Tensor) -> Tensor:
    """B H W, each correlated with its own kernel, as `cv2.filter2D` does.

    Args:
        kernels: B S S with an odd S.
    """
    reach = kernels.shape[1] // 2
    padded = functional.pad(values[None], (reach,) * 4, "reflect")  # 1 B H W
    return functional.conv2d(padded, kernels[:, None], groups=len(kernels))[0]
