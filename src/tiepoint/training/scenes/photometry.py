"""Light, lens and sensor of one view. They change grey values and move nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from tiepoint.geometry import SizeHW
from tiepoint.training.scenes import draws
from tiepoint.training.scenes.basics import Grey, Mask, Rng, Values, size_hw_of
from tiepoint.training.scenes.settings import Photometry

LEAST_SPREAD = 0.055
"""Least standard deviation of the greys: flatter views are stretched, because they show nothing."""


@dataclass(frozen=True, eq=False)
class Exposed:
    """A view as its camera records it."""

    image: Grey  # with noise and compression
    clean: Values  # without them, 0..1
    covered: Mask  # `H W`, px covered by an object right in front of the lens


def expose(image: Grey, rng: Rng, ranges: Photometry) -> Exposed:
    """Apply shading, shadow, patches, blur, tone curve, noise and compression, in this order."""
    values = image.astype(np.float32) * np.float32(1 / 255)
    values *= _light(rng, size_hw_of(values), ranges)
    covered = np.zeros(values.shape, bool)
    if rng.random() < ranges.patches:
        _cover(values, covered, rng)
    values = _blurred(values, rng, ranges)
    clean = _toned(values, rng, ranges)
    noisy = _noisy(clean, rng, ranges)
    recorded: Grey = (noisy * 255 + 0.5).astype(np.uint8)
    if rng.random() < ranges.jpeg:
        recorded = _compressed(recorded, rng, ranges)
    return Exposed(recorded, clean, covered)


def _light(rng: Rng, size_hw: SizeHW, ranges: Photometry) -> Values:
    """`H W`: relative illumination; its smooth part is computed at 8x8 and enlarged."""
    height, width = size_hw
    small = np.ones((8, 8), np.float32)
    y, x = np.mgrid[-1:1:8j, -1:1:8j].astype(np.float32)
    angle, slope = draws.angle(rng), ranges.shading * rng.random() ** 2
    small += np.float32(slope * math.cos(angle)) * x + np.float32(slope * math.sin(angle)) * y
    if rng.random() < 0.3:
        cx, cy = rng.uniform(-1, 1, 2).astype(np.float32)
        bump = np.float32(ranges.shading * rng.uniform(-1, 1) / 2)
        small += bump * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / np.float32(rng.uniform(0.1, 0.8)))
    small -= np.float32(ranges.vignette * rng.random() ** 2 / 2) * (x * x + y * y)
    light = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    if rng.random() < ranges.shadow:
        light = light * _shadow(rng, size_hw)
    return np.asarray(np.maximum(light, np.float32(0.05)), np.float32)


def _shadow(rng: Rng, size_hw: SizeHW) -> Values:
    """`H W`: a darker polygon with a more or less sharp edge."""
    height, width = size_hw
    count = int(rng.integers(3, 6))
    angles = 2 * math.pi * (np.arange(count) + rng.random(count)) / count
    radius = max(size_hw) * rng.uniform(0.2, 0.9)
    centre = rng.uniform((0, 0), (width, height))
    corners = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    mask = np.ones(size_hw, np.float32)
    points = np.rint(corners * 64).astype(np.int32)
    cv2.fillPoly(mask, [points], float(rng.uniform(0.35, 0.8)), cv2.LINE_8, 6)
    sigma = draws.log_uniform(rng, 0.8, 8)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), sigma), np.float32)


def _cover(values: Values, covered: Mask, rng: Rng) -> None:
    """Draw one to three objects in front of the lens, each of one grey or of noise."""
    height, width = values.shape
    for _ in range(int(rng.integers(1, 4))):
        mask = np.zeros(values.shape, np.uint8)
        centre = rng.uniform((0, 0), (width, height))
        axes = rng.uniform(0.03, 0.16, 2) * min(values.shape)
        if rng.random() < 0.5:
            corners = cv2.boxPoints((centre.tolist(), (2 * axes).tolist(), rng.uniform(0, 90)))
            cv2.fillConvexPoly(mask, np.rint(corners).astype(np.int32), 1)
        else:
            box = centre.tolist(), (2 * axes).tolist(), rng.uniform(0, 180)
            cv2.ellipse(mask, box, 1, -1)
        hidden = mask > 0
        values[hidden] = np.float32(rng.random())
        if rng.random() < 0.3:
            values[hidden] += rng.normal(0, 0.1, int(hidden.sum())).astype(np.float32)
        covered |= hidden


def _blurred(values: Values, rng: Rng, ranges: Photometry) -> Values:
    sigma = ranges.blur_px * rng.random() ** 2
    if rng.random() >= 0.25 and sigma > 0.3:  # narrower ones change nothing
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), sigma), np.float32)
    if rng.random() < ranges.motion and ranges.motion_px >= 2:
        values = np.asarray(cv2.filter2D(values, -1, _motion(rng, ranges.motion_px)), np.float32)
    if rng.random() < ranges.rescale:
        height, width = values.shape
        factor = rng.uniform(0.4, 0.8)
        small_wh = round(width * factor), round(height * factor)
        small = cv2.resize(values, small_wh, interpolation=cv2.INTER_AREA)
        values = np.asarray(cv2.resize(small, (width, height)), np.float32)
    return values


def _motion(rng: Rng, longest: float) -> Values:
    """A line through the middle of a kernel, so that the blur does not shift the image."""
    length, angle = rng.uniform(2, max(longest, 2.01)), rng.uniform(0, math.pi)
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


def _toned(values: Values, rng: Rng, ranges: Photometry) -> Values:
    """Apply gamma, then contrast and bias around the mean; keep at least `LEAST_SPREAD`."""
    gamma = ranges.gamma ** _centred(rng)
    toned = np.asarray(cv2.pow(np.clip(values, 0, 1), gamma), np.float32)
    mean, spread = float(toned.mean()), float(toned.std())
    weakest, strongest = np.log(ranges.contrast)
    u = _centred(rng)
    contrast = math.exp(u * strongest if u > 0 else -u * weakest)
    if 1e-3 < spread < LEAST_SPREAD / contrast:
        contrast = LEAST_SPREAD / spread
    middle = mean + ranges.bias * rng.uniform(-1, 1)
    if contrast * spread < 0.2:  # keep most greys away from 0 and 1
        room = 1.5 * contrast * spread
        middle = float(np.clip(middle, room, 1 - room))
    shifted = (toned - np.float32(mean)) * np.float32(contrast) + np.float32(middle)
    return np.asarray(np.clip(shifted, 0, 1), np.float32)


def _centred(rng: Rng) -> float:
    """-1..1, mostly near 0: several extremes at once would leave no image."""
    return float(rng.uniform(-1, 1) + rng.uniform(-1, 1)) / 2


def _noisy(clean: Values, rng: Rng, ranges: Photometry) -> Values:
    """Add read-out noise, shot noise that grows with the root of the light, dead and hot px."""
    read = ranges.noise * rng.random() ** 2
    shot = ranges.noise * rng.random() ** 2
    deviation = np.sqrt(np.float32(read * read) + np.float32(shot * shot) * clean)
    noise = rng.standard_normal(clean.shape, np.float32)
    if rng.random() < 0.2:  # noise of an enlarged or smoothed image has a grain
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), 0.8), np.float32) * np.float32(2.5)
    noisy = clean + deviation * noise
    if rng.random() < ranges.pepper:
        count = int(clean.size * rng.uniform(0.0005, 0.01))
        pixels = rng.integers(0, clean.size, count)
        noisy.reshape(-1)[pixels] = rng.integers(0, 2, count).astype(np.float32)
    return np.asarray(np.clip(noisy, 0, 1), np.float32)


def _compressed(image: Grey, rng: Rng, ranges: Photometry) -> Grey:
    """JPEG compression whose 8x8 grid has a random offset from the network's cells.

    With the same grid a network would learn the blocks instead of the corners.
    """
    left, top = (int(shift) for shift in rng.integers(0, 8, 2))
    padded = cv2.copyMakeBorder(image, top, 8 - top, left, 8 - left, cv2.BORDER_REFLECT_101)
    quality = int(rng.integers(ranges.jpeg_quality, 96))
    encoded, packed = cv2.imencode(".jpg", padded, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert encoded
    unpacked = np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE), np.uint8)
    height, width = image.shape
    return np.ascontiguousarray(unpacked[top : top + height, left : left + width])
