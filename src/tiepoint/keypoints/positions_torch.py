"""Sub-pixel positions and covariances in torch, a whole batch at once: the twin of `positions`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.geometry import SizeHW
from tiepoint.keypoints.positions import (
    BLUR,
    CENTROID_REACH_PX,
    MIN_DIVISOR,
    MIN_MASS,
    PIXEL_VARIANCE,
    REACH_PX,
    SIGMA_PX,
    STEPS,
    WINDOW_PX,
    max_shift_px,
)

SECOND, FIRST, SMOOTH = (1.0, -2.0, 1.0), (-1.0, 0.0, 1.0), (1.0, 2.0, 1.0)
"""Sobel's kernels of 3 px: second derivative, first derivative, and smoothing across."""


class FlatPixels(NamedTuple):
    """Pixels of a batch in one list, M each: index of the image, row and column."""

    image: Tensor
    rows: Tensor
    columns: Tensor


def centroids(heatmap: Tensor, pixels: FlatPixels) -> Tensor:
    """From each pixel to the centroid of the heat map around it; see `positions.centroids`.

    Args:
        heatmap: B H W, 0 outside each image.

    Returns:
        M 2 float32 (x, y), px.
    """
    mass, offsets = _heat_mass(heatmap, pixels)
    moments = torch.stack([mass.sum(dim=1) @ offsets, mass.sum(dim=2) @ offsets], dim=1)  # M 2
    return moments / mass.sum(dim=(1, 2)).clamp(min=float(MIN_DIVISOR))[:, None]  # M 2


def second_moment(heatmap: Tensor, pixels: FlatPixels) -> Tensor:
    """Second moment of the heat map around each pixel; see `positions.covariance`.

    Args:
        heatmap: B H W, 0 outside each image.

    Returns:
        M 2 2 float32 (x, y), px^2.
    """
    mass, offsets = _heat_mass(heatmap, pixels)
    mass = mass / mass.sum(dim=(1, 2), keepdim=True).clamp(min=float(MIN_DIVISOR))
    mean = centroids(heatmap, pixels)  # M 2
    squares = torch.stack([mass.sum(dim=1) @ offsets**2, mass.sum(dim=2) @ offsets**2], dim=1)
    mixed = torch.einsum("nyx,y,x->n", mass, offsets, offsets) - mean.prod(dim=1)  # M
    variance = (squares - mean**2).clamp(min=0) + float(PIXEL_VARIANCE)  # M 2
    upper = torch.stack([variance[:, 0], mixed], dim=1)  # M 2
    return torch.stack([upper, torch.stack([mixed, variance[:, 1]], dim=1)], dim=1)  # M 2 2


def _heat_mass(heatmap: Tensor, pixels: FlatPixels) -> tuple[Tensor, Tensor]:
    """Probabilities around each pixel relative to its own, M s s; and the offsets, s px."""
    mass, offsets = _gather(heatmap, pixels, CENTROID_REACH_PX)
    return mass / heatmap[pixels].clamp(min=float(MIN_DIVISOR))[:, None, None], offsets


def _gather(values: Tensor, pixels: FlatPixels, reach_px: int) -> tuple[Tensor, Tensor]:
    """Windows of a map B H W around pixels, M s s, 0 outside the map; and their offsets, s px."""
    steps = torch.arange(-reach_px, reach_px + 1, device=values.device)  # s
    padded = functional.pad(values, (reach_px,) * 4)
    y = pixels.rows[:, None, None] + reach_px + steps[:, None]  # M s 1
    x = pixels.columns[:, None, None] + reach_px + steps  # M 1 s
    windows = padded[pixels.image[:, None, None], y, x]  # M s s
    return windows, steps.to(windows.dtype)


def hessian_response(images: Tensor, sizes_hw: Sequence[SizeHW]) -> Tensor:
    """See `positions.hessian_response`; each image by itself, without padding.

    Args:
        images: B H W float32, in 0..1.
        sizes_hw: (height, width) of each image in the batch, px.

    Returns:
        B H W, 0 in the padding.
    """
    if len(set(sizes_hw)) == 1:
        return _padded_response(images, sizes_hw[0])
    each = zip(images, sizes_hw, strict=True)
    return torch.cat([_padded_response(image[None], size_hw) for image, size_hw in each])


def _padded_response(images: Tensor, size_hw: SizeHW) -> Tensor:
    """The response of the upper left parts of that size."""
    (H, W), (height, width) = images.shape[1:], size_hw
    response = response_of(images[:, :height, :width])
    return functional.pad(response, (0, W - width, 0, H - height))


def response_of(images: Tensor) -> Tensor:
    """The Hessian response of images of one size, B H W; see `positions.hessian_response`."""
    blur = BLUR.tolist()
    smooth = _filter(images, blur, blur)
    xx, yy = _filter(smooth, SECOND, SMOOTH) / 4, _filter(smooth, SMOOTH, SECOND) / 4
    xy = _filter(smooth, FIRST, FIRST) / 4
    return (xx * yy - xy**2).abs() * SIGMA_PX**4


def _filter(images: Tensor, along_x: Sequence[float], along_y: Sequence[float]) -> Tensor:
    """Correlate B H W with a separable kernel; the outermost pixels are repeated outside.

    As sums of shifted images, because autocast and TF32 compute convolutions with 8 or 11 bits,
    which leaves nothing of the difference of two products.
    """
    height, width = images.shape[1:]
    reach_x, reach_y = len(along_x) // 2, len(along_y) // 2
    padded = functional.pad(images[:, None], (reach_x, reach_x, reach_y, reach_y), "replicate")
    padded = padded[:, 0]
    rows = sum(k * padded[:, :, n : n + width] for n, k in enumerate(along_x))
    assert isinstance(rows, Tensor)
    filtered = sum(k * rows[:, n : n + height] for n, k in enumerate(along_y))
    assert isinstance(filtered, Tensor)
    return filtered


def mean_shift(response: Tensor, pixels: FlatPixels, xy: Tensor, nms_radius_px: int) -> Tensor:
    """Move each keypoint to the local centroid of the response; see `positions.mean_shift`.

    Args:
        response: B H W, 0 where no keypoint is allowed.
        pixels: The chosen pixels, M.
        xy: M 2, px, where the iteration starts.
        nms_radius_px: Minimum distance of an image's chosen pixels in x or y.

    Returns:
        M 2 float32, px.
    """
    mass, offsets = _gather(response, pixels, REACH_PX)  # M s s, s
    chosen = torch.stack([pixels.columns, pixels.rows], dim=1).to(mass)  # M 2
    shift, min_mass = xy - chosen, float(MIN_MASS)  # M 2
    for step in STEPS:
        weight = torch.exp(-(((offsets - shift[:, :, None]) / WINDOW_PX) ** 2) / 2)  # M 2 s
        weighted = mass * weight[:, 1, :, None] * weight[:, 0, None, :]  # M s s
        total = weighted.sum(dim=(1, 2))[:, None]  # M 1
        centroid = torch.stack(
            [weighted.sum(dim=1) @ offsets, weighted.sum(dim=2) @ offsets], dim=1
        )
        move = centroid / total.clamp(min=min_mass) - shift
        shift = shift + torch.where(total > min_mass, step * move, 0)
    limit = max_shift_px(nms_radius_px)
    return chosen + shift.clamp(-limit, limit)
