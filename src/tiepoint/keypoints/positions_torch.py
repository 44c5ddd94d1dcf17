"""Sub-pixel positions and covariances in torch, a whole batch at once: the twin of `positions`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

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

KERNEL: tuple[float, ...] = tuple(BLUR.tolist())
LEAST, LEAST_MASS, WITHIN_PIXEL = float(MIN_DIVISOR), float(MIN_MASS), float(PIXEL_VARIANCE)


class FlatPixels(NamedTuple):
    """Pixels of a batch in one list, M each: index of the image, row and column."""

    image: Tensor
    rows: Tensor
    columns: Tensor


class HeatMass(NamedTuple):
    """Sums over the heat map around chosen pixels, relative to each pixel's own probability.

    Attributes:
        total: M 1.
        first: M 2, of x and y.
        second: M 3, of x^2, y^2 and x y.
    """

    total: Tensor
    first: Tensor
    second: Tensor


def heat_mass(heatmap: Tensor, pixels: FlatPixels) -> HeatMass:
    """The sums that `centroids` and `second_moment` need.

    Args:
        heatmap: B H W, 0 outside each image.
    """
    mass, x, y = _gather(heatmap, pixels, CENTROID_REACH_PX)  # M s s, s s, s s
    mass = mass / heatmap[pixels].clamp(min=LEAST)[:, None, None]
    sums = _sums(mass, torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], dim=2))  # M 6
    return HeatMass(sums[:, :1], sums[:, 1:3], sums[:, 3:])


def centroids(around: HeatMass) -> Tensor:
    """From each pixel to the centroid of the heat map around it, M 2 float32 (x, y), px.

    See `positions.centroids`.
    """
    return around.first / around.total.clamp(min=LEAST)


def second_moment(around: HeatMass) -> Tensor:
    """Second moment of the heat map around each pixel; see `positions.covariance`.

    Returns:
        M 2 2 float32 (x, y), px^2.
    """
    mean = centroids(around)  # M 2
    squares = around.second / around.total.clamp(min=LEAST)  # M 3
    variance = (squares[:, :2] - mean**2).clamp(min=0) + WITHIN_PIXEL  # M 2
    mixed = squares[:, 2:] - mean.prod(dim=1, keepdim=True)  # M 1
    rows = torch.cat([variance[:, :1], mixed, mixed, variance[:, 1:]], dim=1)  # M 4
    return rows.reshape(-1, 2, 2)


def _sums(mass: Tensor, factors: Tensor) -> Tensor:
    """Sums over windows M s s, times each of the factors s s F: M F.

    Not as a matrix product, in which TF32 would keep 11 bits.
    """
    return (mass[..., None] * factors).sum(dim=(1, 2))


def _gather(values: Tensor, pixels: FlatPixels, reach_px: int) -> tuple[Tensor, Tensor, Tensor]:
    """Windows of a map B H W around pixels, M s s, 0 outside the map; x and y there, s s px."""
    steps = torch.arange(-reach_px, reach_px + 1, device=values.device)  # s
    padded = functional.pad(values, (reach_px,) * 4)
    y = (pixels.rows + reach_px)[:, None, None] + steps[:, None]  # M s 1
    x = (pixels.columns + reach_px)[:, None, None] + steps  # M 1 s
    windows = padded[pixels.image[:, None, None], y, x]  # M s s
    offsets = steps.to(windows.dtype).expand(len(steps), -1)  # s s
    return windows, offsets, offsets.T


def hessian_response(images: Tensor, sizes: Tensor) -> Tensor:
    """See `positions.hessian_response`; each image by itself, whatever is beside it.

    Args:
        images: B H W float32, in 0..1.
        sizes: B 2 int64, (height, width) of each image in the batch, px.

    Returns:
        B H W, undefined outside each image.
    """
    _, H, W = images.shape
    y, x = (torch.arange(side, device=images.device) for side in (H, W))
    rows, columns = torch.minimum(y, sizes[:, :1] - 1), torch.minimum(x, sizes[:, 1:] - 1)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    nearest = (image, rows[:, :, None], columns[:, None])  # of B H W, the pixel of the image
    return _response(_smooth(images[nearest])[nearest])


def response_of(images: Tensor) -> Tensor:
    """The Hessian response of images of one size, B H W; see `positions.hessian_response`."""
    return _response(_smooth(images))


def _smooth(images: Tensor) -> Tensor:
    """Blur B H W; the outermost pixels are repeated outside.

    As sums of products, because autocast and TF32 compute convolutions with 8 or 11 bits, which
    leaves nothing of the difference of two products.
    """
    reach = len(KERNEL) // 2
    padded = functional.pad(images[:, None], (reach,) * 4, "replicate")[:, 0]
    for axis in (2, 1):
        padded = _weighted(padded, axis)
    return padded


def _weighted(values: Tensor, axis: int) -> Tensor:
    """Correlate with the blur along an axis, which loses its ends: pairs have equal weights."""
    length, reach = values.shape[axis] - len(KERNEL) + 1, len(KERNEL) // 2
    total = values.narrow(axis, reach, length) * KERNEL[reach]
    for step in range(reach):
        pair = values.narrow(axis, step, length) + values.narrow(axis, 2 * reach - step, length)
        total = torch.add(total, pair, alpha=KERNEL[step])
    return total


def _response(smooth: Tensor) -> Tensor:
    """Absolute determinant of the Hessian of B H W, by Sobel's kernels of 3 px."""
    padded = functional.pad(smooth[:, None], (1,) * 4, "replicate")[:, 0]
    left, middle, right = padded[..., :-2], padded[..., 1:-1], padded[..., 2:]
    both = left + right
    curved = torch.add(both, middle, alpha=-2)  # second derivative along x
    level = torch.add(both, middle, alpha=2)
    slope = right - left
    up, down = (slice(None, -2), slice(2, None))
    xx = torch.add(curved[:, up] + curved[:, down], curved[:, 1:-1], alpha=2)
    yy = torch.add(level[:, up] + level[:, down], level[:, 1:-1], alpha=-2)
    xy = slope[:, down] - slope[:, up]
    # Each kernel gives 4 times a derivative.
    return (xx * yy - xy * xy).abs() * (SIGMA_PX**4 / 16)


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
    mass, x, y = _gather(response, pixels, REACH_PX)  # M s s, s s, s s
    factors, offsets = torch.stack([x, y, torch.ones_like(x)], dim=2), x[0]  # s s 3, s
    chosen = torch.stack([pixels.columns, pixels.rows], dim=1).to(mass)  # M 2
    shift = xy - chosen  # M 2
    for step in STEPS:
        weight = torch.exp((offsets - shift[:, :, None]) ** 2 * (-1 / (2 * WINDOW_PX**2)))  # M 2 s
        weighted = mass * (weight[:, 1, :, None] * weight[:, 0, None, :])  # M s s
        sums = _sums(weighted, factors)  # M 3
        total = sums[:, 2:]  # M 1
        move = sums[:, :2] / total.clamp(min=LEAST_MASS) - shift
        shift = shift + (step * move).where(total > LEAST_MASS, 0)
    limit = max_shift_px(nms_radius_px)
    return chosen + shift.clamp(-limit, limit)
