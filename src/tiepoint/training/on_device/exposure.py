"""Light, lens and sensor of a batch of views, on its device: the twin of `scenes.photometry`.

The same steps in the same order. An effect that a view lacks is computed with numbers that change
nothing, so that all views of a batch take the same way.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from tiepoint.geometry import SizeHW
from tiepoint.network.torch_device import uploaded
from tiepoint.training.on_device.exact import exact
from tiepoint.training.on_device.exposures import Exposures
from tiepoint.training.on_device.jpeg import compressed
from tiepoint.training.on_device.resampling import (
    Separable,
    filtered,
    gaussian,
    motion_kernels,
    rescaling,
)
from tiepoint.training.scenes.photometry import (
    GRAIN_GAIN,
    GRAIN_PX,
    LEAST_LIGHT,
    LEAST_SPREAD,
    MOST_PATCHES,
)

LIGHT_SIDE = 8  # px of the small image of the light


class ExposedBatch(NamedTuple):
    """Views as their cameras record them; see `photometry.Exposed`.

    Attributes:
        image: B H W float32 in 0..1, multiples of 1/255.
        clean: B H W float32 in 0..1.
        covered: B H W bool.
    """

    image: Tensor
    clean: Tensor
    covered: Tensor


def expose_batch(images: Tensor, exposures: Exposures, generator: torch.Generator) -> ExposedBatch:
    """Apply shading, shadow, patches, blur, tone curve, noise and compression, in this order.

    Args:
        images: B H W float32, whole greys, 0..255.
        exposures: B, drawn for this (height, width).
        generator: On the images' device; decides all that differs from px to px.
    """
    size_hw = images.shape[1], images.shape[2]
    with exact(images.device):
        sigmas = torch.cat([exposures.field("shadow_blur_px"), exposures.field("blur_px")])  # 2B
        edge, lens = gaussian(sigmas, size_hw).chunk(2)
        values = images * (1 / 255) * _light(exposures, size_hw, edge)
        values, covered = _covered(values, exposures, generator)
        clean = _toned(_blurred(values, exposures, lens), exposures)
        noisy = _noisy(clean, exposures, generator)
        greys = (noisy * 255 + 0.5).floor()
        greys = compressed(greys, exposures.field("jpeg_left_top"), exposures.field("jpeg_quality"))
        return ExposedBatch(greys / 255, clean, covered)


def _light(exposures: Exposures, size_hw: SizeHW, edge: Separable) -> Tensor:
    """B H W: relative illumination; its smooth part is computed at 8x8 and enlarged."""
    axis = torch.linspace(-1, 1, LIGHT_SIDE, device=exposures.numbers.device)
    x, y = axis, axis[:, None]
    slope_x, slope_y = exposures.field("slope")[..., None, None].unbind(dim=1)  # B 1 1 each
    at_x, at_y, height, spread = exposures.field("bump")[..., None, None].unbind(dim=1)
    bump = height * torch.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / spread)  # B 8 8
    small = 1 + slope_x * x + slope_y * y + bump  # B 8 8
    small = small - exposures.plane("vignette") * (x * x + y * y)
    down, across = (_enlarging(side, small.device) for side in size_hw)  # H 8, W 8
    light = down @ small @ across.T  # B H W
    inside = _polygons(exposures.field("shadow_xy"), size_hw)
    shadow = edge(torch.where(inside, exposures.plane("shadow_light"), 1.0))
    return (light * shadow).clamp(min=LEAST_LIGHT)


@lru_cache(maxsize=8)
def _enlarging(side: int, device: torch.device) -> Tensor:
    """side 8: cubic enlargement, by OpenCV's own weights."""
    each = np.eye(LIGHT_SIDE, dtype=np.float32)
    weights = cv2.resize(each, (LIGHT_SIDE, side), interpolation=cv2.INTER_CUBIC)
    return uploaded(torch.from_numpy(weights), device)


def _grid(size_hw: SizeHW, device: torch.device) -> tuple[Tensor, Tensor]:
    """x, 1 W, and y, H 1, of the px centres."""
    y, x = (torch.arange(side, device=device, dtype=torch.float32) for side in size_hw)
    return x[None], y[:, None]


def _polygons(corners_xy: Tensor, size_hw: SizeHW) -> Tensor:
    """... H W bool: px of convex polygons and of their outlines, as OpenCV draws them.

    Args:
        corners_xy: ... V 2 px, turning from x to y; equal ones in a row count once.
    """
    x, y = _grid(size_hw, corners_xy.device)
    edge = corners_xy.roll(-1, dims=-2) - corners_xy  # ... V 2
    slack = edge.abs().amax(dim=-1) / 2  # an outline reaches half a px in x or in y
    offset = slack - edge[..., 0] * corners_xy[..., 1] + edge[..., 1] * corners_xy[..., 0]  # ... V
    edge_x, edge_y = edge[..., None, None].unbind(dim=-3)  # ... V 1 1
    inwards = edge_x * y + (offset[..., None, None] - edge_y * x)  # ... V H W
    return inwards.amin(dim=-3) >= 0


def _ellipses(exposures: Exposures, size_hw: SizeHW) -> Tensor:
    """B 3 H W bool: px of the ellipses of all patches and of their outlines."""
    x, y = _grid(size_hw, exposures.numbers.device)
    at_x, at_y = exposures.patches("xy")[..., None, None].unbind(dim=2)  # B 3 1 1
    half_width, half_height = exposures.patches("half_wh")[..., None, None].unbind(dim=2)
    angle = exposures.patches("angle_deg").deg2rad()[..., None, None]
    cos, sin = angle.cos(), angle.sin()
    right, below = x - at_x, y - at_y  # B 3 1 W, B 3 H 1
    u = (cos * right + sin * below) / half_width  # B 3 H W, 1 at the outline
    v = (cos * below - sin * right) / half_height
    square = u * u + v * v
    u, v = u / half_width, v / half_height
    gradient = torch.maximum((cos * u - sin * v).abs(), (sin * u + cos * v).abs())
    return square - square.sqrt() <= gradient / 2


def _covered(
    values: Tensor, exposures: Exposures, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw the patches; B H W each, the values and the px that any of them covers."""
    size_hw = values.shape[1], values.shape[2]
    is_box, drawn, grey, spread = (
        exposures.patches(name)[..., None, None] for name in ("is_box", "drawn", "grey", "noise")
    )  # B 3 1 1 each
    boxes = _polygons(exposures.patches("corners_xy"), size_hw)  # B 3 H W
    hidden = torch.where(is_box > 0, boxes, _ellipses(exposures, size_hw)) & (drawn > 0)
    noise = _normal(values, generator)
    for number in range(MOST_PATCHES):
        fill = grey[:, number] + spread[:, number] * noise
        values = torch.where(hidden[:, number], fill, values)
    return values, hidden.any(dim=1)


def _blurred(values: Tensor, exposures: Exposures, lens: Separable) -> Tensor:
    size_hw = values.shape[1], values.shape[2]
    values = lens(values)
    if exposures.motion_side > 1:
        motion = exposures.field("motion_px"), exposures.field("motion_angle")
        values = filtered(values, motion_kernels(*motion, exposures.motion_side))
    return rescaling(exposures.field("small_hw"), size_hw)(values)


def _toned(values: Tensor, exposures: Exposures) -> Tensor:
    """Apply gamma, then contrast and bias around the mean; keep at least `LEAST_SPREAD`."""
    toned = values.clamp(0, 1) ** exposures.plane("gamma")
    variance, mean = torch.var_mean(toned, dim=(1, 2), correction=0, keepdim=True)  # B 1 1
    spread, contrast = variance.sqrt(), exposures.plane("contrast")
    is_faint = (spread > 1e-3) & (spread * contrast < LEAST_SPREAD)
    contrast = torch.where(is_faint, LEAST_SPREAD / spread.clamp(min=1e-3), contrast)
    middle = mean + exposures.plane("bias")
    room = 1.5 * contrast * spread  # keeps most greys away from 0 and 1
    inner = torch.minimum(torch.maximum(middle, room), 1 - room)
    middle = torch.where(contrast * spread < 0.2, inner, middle)
    return ((toned - mean) * contrast + middle).clamp(0, 1)


def _noisy(clean: Tensor, exposures: Exposures, generator: torch.Generator) -> Tensor:
    """Add read-out noise, shot noise that grows with the root of the light, dead and hot px."""
    read, shot = exposures.plane("read"), exposures.plane("shot")
    noise = _normal(clean, generator)
    smooth = gaussian(noise.new_full((1,), GRAIN_PX), (clean.shape[1], clean.shape[2]))
    noise = torch.where(exposures.plane("grain") > 0, smooth(noise) * GRAIN_GAIN, noise)
    noisy = clean + (read * read + shot * shot * clean).sqrt() * noise
    chance = torch.rand(clean.shape, generator=generator, device=clean.device)
    share = exposures.plane("pepper")
    noisy = torch.where(chance < share, (chance < share / 2).float(), noisy)
    return noisy.clamp(0, 1)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device)
