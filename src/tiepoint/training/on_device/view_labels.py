"""Drawn corners of a batch of views -> positives and ignored px: the twin of `scenes.labels`."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tiepoint.keypoints.on_torch import dilate
from tiepoint.network.torch_device import uploaded
from tiepoint.training.on_device.rasters import (
    counted,
    distance_squared,
    marked,
    near,
    nearest_px,
    positions,
    read,
)
from tiepoint.training.on_device.rendering import Corners
from tiepoint.training.scenes.labels import APART_PX, FAINT, RINGS_PX, SAMPLES

HIDDEN_PX = 2  # reach of an object in front of the lens
APART_REACH_PX = 4  # `APART_PX`, and the rounding of two points


class ViewLabels(NamedTuple):
    """Labels from the drawn corners of V views.

    Attributes:
        sure: V N bool, the positive corners.
        centres: V H W float32, 1 at the px of doubtful corners.
        hidden: V H W bool, px that an object in front of the lens covers, or is near to.
    """

    sure: Tensor
    centres: Tensor
    hidden: Tensor


def view_labels(
    clean: Tensor, corners: Corners, covered: Tensor, min_contrast: float
) -> ViewLabels:
    """Sort corners into positives and ignored ones; see `labels.view_labels`.

    Args:
        clean: V H W in 0..1, without noise.
        covered: V H W bool.
    """
    size_hw = clean.shape[1], clean.shape[2]
    hidden = near(covered, HIDDEN_PX)
    pixels = nearest_px(corners.xy, size_hw)  # V N 2
    contrast = ring_contrast(clean, corners.xy)  # V N
    strength = read(dilate(corner_strength(clean), 1), pixels)
    visible = corners.valid & ~read(hidden, pixels)
    sure = corners.positive & visible & (contrast >= min_contrast) & (strength >= FAINT)
    sure = sure & ~crowded(corners.xy, pixels, sure, clean)
    doubtful = ~sure & visible & (contrast >= min_contrast / 2) & (strength >= FAINT / 2)
    return ViewLabels(sure, marked(pixels, doubtful, size_hw), hidden)


def crowded(xy: Tensor, pixels: Tensor, chosen: Tensor, clean: Tensor) -> Tensor:
    """V N bool: which chosen points have another chosen one nearer than `APART_PX`."""
    size_hw = clean.shape[1], clean.shape[2]
    others = positions(xy, pixels, chosen, size_hw)
    apart = distance_squared(xy, others, APART_REACH_PX, own=False) >= APART_PX**2
    alone = read(counted(pixels, chosen, size_hw), pixels) < 2
    return chosen & ~(apart & alone)


def corner_strength(clean: Tensor) -> Tensor:
    """V H W: the smaller eigenvalue of the structure tensor; see `labels.corner_strength`."""
    padded = functional.pad(clean[:, None], (1,) * 4, "reflect")[:, 0]
    across = padded[..., 2:] - padded[..., :-2]  # V H+2 W
    dx = (across[:, :-2] + across[:, 2:]) * (3 / 32) + across[:, 1:-1] * (10 / 32)  # V H W
    down = padded[:, 2:] - padded[:, :-2]  # V H W+2
    dy = (down[..., :-2] + down[..., 2:]) * (3 / 32) + down[..., 1:-1] * (10 / 32)
    products = torch.stack([dx * dx, dy * dy, dx * dy], dim=1)  # V 3 H W
    products = functional.pad(products, (2,) * 4, "reflect")
    xx, yy, xy = functional.avg_pool2d(products, 5, 1).unbind(dim=1)
    half, product = (xx + yy) / 2, xx * yy - xy * xy
    return half - (half * half - product).clamp(min=0).sqrt()


def ring_contrast(clean: Tensor, xy: Tensor) -> Tensor:
    """V N: the smaller of the grey ranges on rings around points; see `labels.ring_contrast`."""
    V, H, W = clean.shape
    places = xy[:, :, None] + _rings(xy.device)  # V N 2*S 2
    grid = [places[..., 0] * (2 / (W - 1)) - 1, places[..., 1] * (2 / (H - 1)) - 1]
    values = functional.grid_sample(
        clean[:, None], torch.stack(grid, dim=3), padding_mode="border", align_corners=True
    )  # V 1 N 2*S
    rings = values.reshape(V, -1, len(RINGS_PX), SAMPLES)
    return (rings.amax(dim=3) - rings.amin(dim=3)).amin(dim=2)


@lru_cache(maxsize=8)
def _rings(device: torch.device) -> Tensor:
    """2*S 2 px: points on both rings."""
    angles = np.arange(SAMPLES) * (2 * np.pi / SAMPLES)
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rings = np.concatenate([radius * unit for radius in RINGS_PX])
    return uploaded(torch.from_numpy(rings.astype(np.float32)), device)
