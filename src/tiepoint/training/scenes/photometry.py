"""Light, lens and sensor of one view. They change grey values and move nothing.

All random numbers but those of single px are drawn first, as an `Exposure`. So the same exposure
can be applied here, or to a whole batch on a device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from tiepoint.geometry import SizeHW
from tiepoint.training.scenes import draws
from tiepoint.training.scenes.basics import Grey, Mask, Points, Rng, Values, size_hw_of
from tiepoint.training.scenes.settings import Photometry

LEAST_SPREAD = 0.055
"""Least standard deviation of the greys: flatter views are stretched, because they show nothing."""
LEAST_BLUR_PX = 0.3  # narrower blurs change nothing
LEAST_LIGHT = 0.05  # relative illumination
PATCH_NOISE = 0.1  # standard deviation inside a patch of noise
GRAIN_PX, GRAIN_GAIN = 0.8, 2.5  # blur of the noise of an enlarged image, and its compensation
MOST_PATCHES, MOST_VERTICES = 3, 5


@dataclass(frozen=True)
class Bump:
    """A Gaussian spot in the light.

    Attributes:
        x, y: Centre; -1..1 spans the view.
        height: Change of the relative illumination at the centre.
        spread: Square of the distance at which it falls to 1/e.
    """

    x: float
    y: float
    height: float
    spread: float


@dataclass(frozen=True, eq=False)
class Shadow:
    """A darker convex polygon with a more or less sharp edge."""

    corners_xy: Points  # 3..`MOST_VERTICES` 2 px
    light: float  # factor of the light inside, 0..1
    blur_px: float  # standard deviation of the edge


@dataclass(frozen=True)
class Patch:
    """An object in front of the lens, of one grey or of noise."""

    xy: tuple[float, float]  # centre, px
    half_wh: tuple[float, float]  # half-axes of the ellipse, or half the sides of the box, px
    angle_deg: float
    is_box: bool
    grey: float  # 0..1
    noise: float  # standard deviation around it


@dataclass(frozen=True)
class Motion:
    """Blur along a line through each px, which shifts nothing."""

    length_px: float
    angle: float  # radians


@dataclass(frozen=True)
class Jpeg:
    """Compression whose 8x8 grid begins left of and above the view."""

    left: int  # 0..7 px
    top: int  # 0..7 px
    quality: int  # 1..95


@dataclass(frozen=True, eq=False)
class Exposure:
    """Everything that one camera does to a view of one size, apart from its image.

    Attributes:
        slope: Change of the relative illumination per half a view, along x and y.
        bump: None without one, as for all other effects that a view may lack.
        vignette: Loss of light at the middle of a border, relative.
        shadow, motion, jpeg: See their classes.
        patches: Up to `MOST_PATCHES`, in the order in which they are drawn.
        blur_px: Standard deviation of the blur; 0 for none.
        small_hw: (height, width) through which the view is rescaled, px; its own for none.
        gamma: Exponent of the tone curve.
        contrast: Factor around the mean, unless it leaves too little; see `LEAST_SPREAD`.
        bias: Shift of the grey value.
        read, shot: Standard deviations of the read-out noise, and of the shot noise at full light.
        grain: Whether the noise is smooth, as that of an enlarged image.
        pepper: Share of dead and hot px, 0..1.
        seed: Seed of the noise, the grains in patches and the dead px.
    """

    slope: tuple[float, float]
    bump: Bump | None
    vignette: float
    shadow: Shadow | None
    patches: tuple[Patch, ...]
    blur_px: float
    motion: Motion | None
    small_hw: SizeHW
    gamma: float
    contrast: float
    bias: float
    read: float
    shot: float
    grain: bool
    pepper: float
    jpeg: Jpeg | None
    seed: int


@dataclass(frozen=True, eq=False)
class Exposed:
    """A view as its camera records it."""

    image: Grey  # with noise and compression
    clean: Values  # without them, 0..1
    covered: Mask  # `H W`, px covered by an object right in front of the lens


def draw_exposure(rng: Rng, size_hw: SizeHW, ranges: Photometry) -> Exposure:
    """Draw light, lens and sensor for a view of (height, width) px."""
    angle, slope = draws.angle(rng), ranges.shading * rng.random() ** 2
    return Exposure(
        slope=(slope * math.cos(angle), slope * math.sin(angle)),
        bump=_draw_bump(rng, ranges) if rng.random() < 0.3 else None,
        vignette=ranges.vignette * rng.random() ** 2 / 2,
        shadow=_draw_shadow(rng, size_hw) if rng.random() < ranges.shadow else None,
        patches=_draw_patches(rng, size_hw) if rng.random() < ranges.patches else (),
        blur_px=_draw_blur(rng, ranges),
        motion=_draw_motion(rng, ranges) if rng.random() < ranges.motion else None,
        small_hw=_draw_small(rng, size_hw) if rng.random() < ranges.rescale else size_hw,
        gamma=ranges.gamma ** _centred(rng),
        contrast=_draw_contrast(rng, ranges),
        bias=ranges.bias * rng.uniform(-1, 1),
        read=ranges.noise * rng.random() ** 2,
        shot=ranges.noise * rng.random() ** 2,
        grain=rng.random() < 0.2,
        pepper=rng.uniform(0.0005, 0.01) if rng.random() < ranges.pepper else 0.0,
        jpeg=_draw_jpeg(rng, ranges) if rng.random() < ranges.jpeg else None,
        seed=int(rng.integers(2**63)),
    )


def _draw_bump(rng: Rng, ranges: Photometry) -> Bump:
    x, y = rng.uniform(-1, 1, 2).tolist()
    return Bump(x, y, ranges.shading * rng.uniform(-1, 1) / 2, rng.uniform(0.1, 0.8))


def _draw_shadow(rng: Rng, size_hw: SizeHW) -> Shadow:
    height, width = size_hw
    count = int(rng.integers(3, MOST_VERTICES + 1))
    angles = 2 * math.pi * (np.arange(count) + rng.random(count)) / count
    radius = max(size_hw) * rng.uniform(0.2, 0.9)
    centre = rng.uniform((0, 0), (width, height))
    corners_xy = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return Shadow(corners_xy, rng.uniform(0.35, 0.8), draws.log_uniform(rng, 0.8, 8))


def _draw_patches(rng: Rng, size_hw: SizeHW) -> tuple[Patch, ...]:
    height, width = size_hw
    patches = []
    for _ in range(int(rng.integers(1, MOST_PATCHES + 1))):
        x, y = rng.uniform((0, 0), (width, height)).tolist()
        half_width, half_height = (rng.uniform(0.03, 0.16, 2) * min(size_hw)).tolist()
        is_box = rng.random() < 0.5
        angle = rng.uniform(0, 90 if is_box else 180)
        grey, noise = rng.random(), PATCH_NOISE if rng.random() < 0.3 else 0.0
        patches.append(Patch((x, y), (half_width, half_height), angle, is_box, grey, noise))
    return tuple(patches)


def _draw_blur(rng: Rng, ranges: Photometry) -> float:
    sigma = ranges.blur_px * rng.random() ** 2
    return float(sigma) if rng.random() >= 0.25 and sigma > LEAST_BLUR_PX else 0.0


def _draw_motion(rng: Rng, ranges: Photometry) -> Motion | None:
    if ranges.motion_px < 2:
        return None
    return Motion(rng.uniform(2, max(ranges.motion_px, 2.01)), rng.uniform(0, math.pi))


def _draw_small(rng: Rng, size_hw: SizeHW) -> SizeHW:
    factor = rng.uniform(0.4, 0.8)
    return round(size_hw[0] * factor), round(size_hw[1] * factor)


def _draw_contrast(rng: Rng, ranges: Photometry) -> float:
    weakest, strongest = np.log(ranges.contrast)
    u = _centred(rng)
    return math.exp(u * strongest if u > 0 else -u * weakest)


def _draw_jpeg(rng: Rng, ranges: Photometry) -> Jpeg:
    left, top = (int(shift) for shift in rng.integers(0, 8, 2))
    return Jpeg(left, top, int(rng.integers(ranges.jpeg_quality, 96)))


def _centred(rng: Rng) -> float:
    """-1..1, mostly near 0: several extremes at once would leave no image."""
    return float(rng.uniform(-1, 1) + rng.uniform(-1, 1)) / 2


def expose(image: Grey, exposure: Exposure) -> Exposed:
    """Apply shading, shadow, patches, blur, tone curve, noise and compression, in this order."""
    rng = np.random.default_rng(exposure.seed)
    values = image.astype(np.float32) * np.float32(1 / 255)
    values *= _light(exposure, size_hw_of(values))
    covered = np.zeros(values.shape, bool)
    for patch in exposure.patches:
        _cover(values, covered, patch, rng)
    values = _blurred(values, exposure)
    clean = _toned(values, exposure)
    noisy = _noisy(clean, exposure, rng)
    recorded: Grey = (noisy * 255 + 0.5).astype(np.uint8)
    if exposure.jpeg:
        recorded = _compressed(recorded, exposure.jpeg)
    return Exposed(recorded, clean, covered)


def _light(exposure: Exposure, size_hw: SizeHW) -> Values:
    """`H W`: relative illumination; its smooth part is computed at 8x8 and enlarged."""
    height, width = size_hw
    y, x = np.mgrid[-1:1:8j, -1:1:8j].astype(np.float32)
    slope_x, slope_y = exposure.slope
    small = 1 + np.float32(slope_x) * x + np.float32(slope_y) * y
    if bump := exposure.bump:
        square = (x - np.float32(bump.x)) ** 2 + (y - np.float32(bump.y)) ** 2
        small += np.float32(bump.height) * np.exp(-square / np.float32(bump.spread))
    small -= np.float32(exposure.vignette) * (x * x + y * y)
    light = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    if exposure.shadow:
        light = light * _shadowed(exposure.shadow, size_hw)
    return np.asarray(np.maximum(light, np.float32(LEAST_LIGHT)), np.float32)


def _shadowed(shadow: Shadow, size_hw: SizeHW) -> Values:
    """`H W`: light that the shadow leaves, 0..1."""
    mask = np.ones(size_hw, np.float32)
    points = np.rint(shadow.corners_xy * 64).astype(np.int32)
    cv2.fillConvexPoly(mask, points, shadow.light, cv2.LINE_8, 6)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), shadow.blur_px), np.float32)


def _cover(values: Values, covered: Mask, patch: Patch, rng: Rng) -> None:
    mask = np.zeros(values.shape, np.uint8)
    box = patch.xy, (2 * patch.half_wh[0], 2 * patch.half_wh[1]), patch.angle_deg
    if patch.is_box:
        cv2.fillConvexPoly(mask, np.rint(cv2.boxPoints(box)).astype(np.int32), 1)
    else:
        cv2.ellipse(mask, box, 1, -1)
    hidden = mask > 0
    values[hidden] = np.float32(patch.grey)
    if patch.noise:
        values[hidden] += rng.normal(0, patch.noise, int(hidden.sum())).astype(np.float32)
    covered |= hidden


def _blurred(values: Values, exposure: Exposure) -> Values:
    if exposure.blur_px > 0:
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), exposure.blur_px), np.float32)
    if exposure.motion:
        values = np.asarray(cv2.filter2D(values, -1, motion_kernel(exposure.motion)), np.float32)
    height, width = values.shape
    if exposure.small_hw != (height, width):
        small = cv2.resize(values, exposure.small_hw[::-1], interpolation=cv2.INTER_AREA)
        values = np.asarray(cv2.resize(small, (width, height)), np.float32)
    return values


def motion_kernel(motion: Motion) -> Values:
    """S S: a line through the middle of a kernel, so that the blur does not shift the image."""
    length, angle = motion.length_px, motion.angle
    side = 2 * math.ceil(length / 2) + 3
    steps = np.linspace(-length / 2, length / 2, 4 * side)
    middle = side // 2
    x, y = middle + steps * math.cos(angle), middle + steps * math.sin(angle)
    kernel = np.zeros((side, side), np.float32)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        weight = np.abs(1 - dx - (x - left)) * np.abs(1 - dy - (y - top))
        np.add.at(kernel, (top + dy, left + dx), weight)
    return np.asarray(kernel / kernel.sum(), np.float32)


def _toned(values: Values, exposure: Exposure) -> Values:
    """Apply gamma, then contrast and bias around the mean; keep at least `LEAST_SPREAD`."""
    toned = np.asarray(cv2.pow(np.clip(values, 0, 1), exposure.gamma), np.float32)
    mean, spread = float(toned.mean()), float(toned.std())
    contrast = exposure.contrast
    if 1e-3 < spread < LEAST_SPREAD / contrast:
        contrast = LEAST_SPREAD / spread
    middle = mean + exposure.bias
    if contrast * spread < 0.2:  # keep most greys away from 0 and 1
        room = 1.5 * contrast * spread
        middle = float(np.clip(middle, room, 1 - room))
    shifted = (toned - np.float32(mean)) * np.float32(contrast) + np.float32(middle)
    return np.asarray(np.clip(shifted, 0, 1), np.float32)


def _noisy(clean: Values, exposure: Exposure, rng: Rng) -> Values:
    """Add read-out noise, shot noise that grows with the root of the light, dead and hot px."""
    read, shot = exposure.read, exposure.shot
    deviation = np.sqrt(np.float32(read * read) + np.float32(shot * shot) * clean)
    noise = rng.standard_normal(clean.shape, np.float32)
    if exposure.grain:
        smooth = np.asarray(cv2.GaussianBlur(noise, (0, 0), GRAIN_PX), np.float32)
        noise = smooth * np.float32(GRAIN_GAIN)
    noisy = clean + deviation * noise
    count = int(clean.size * exposure.pepper)
    if count:
        pixels = rng.integers(0, clean.size, count)
        noisy.reshape(-1)[pixels] = rng.integers(0, 2, count).astype(np.float32)
    return np.asarray(np.clip(noisy, 0, 1), np.float32)


def _compressed(image: Grey, jpeg: Jpeg) -> Grey:
    """JPEG compression whose 8x8 grid has a random offset from the network's cells.

    With the same grid a network would learn the blocks instead of the corners.
    """
    left, top = jpeg.left, jpeg.top
    padded = cv2.copyMakeBorder(image, top, 8 - top, left, 8 - left, cv2.BORDER_REFLECT_101)
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg.quality]
    encoded, packed = cv2.imencode(".jpg", padded, options)
    assert encoded
    unpacked = np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE), np.uint8)
    height, width = image.shape
    return np.ascontiguousarray(unpacked[top : top + height, left : left + width])
