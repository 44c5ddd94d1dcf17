"""Range of values of an image: the nominal one of its type, and the robust one that it uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.config import Contrast
from tiepoint.errors import ImageError
from tiepoint.images.arrays import Pixels, in_unit_range
from tiepoint.images.reading import SourceImage

Range = tuple[float, float]
"""Values of black and of white."""

PERCENTILES = (0.1, 99.9)
"""Hot and dead pixels are beyond these."""

MARGIN = 0.05
"""Part of the distance between the percentiles that is added at each end, up to the extremes."""

MIN_STEPS = 32
"""Smallest range, in steps of the stored numbers: noise of one step stays below 8 of 255 levels."""

NOISE_SHARE = 0.35
"""Part of the variance of fine detail that is left after averaging 2x2 px, below which an image is
only noise. White noise keeps 0.25; photographs keep 0.62 at least, with noise of 10 of 255 levels
0.49 (measured)."""

NOISE_LEVELS = 2 / 255
"""Standard deviation of the noise of such an image after the stretch: below the noise floors."""

DETAIL_PX = 4.0  # standard deviation of the blur that leaves shading
LEAST_SIDE_PX = 16

MIN_USE = 0.5
"""Part of the nominal range that an image uses if "auto" keeps its values."""

SAMPLE_PX = 1 << 20
"""Approximate number of pixels for percentiles."""


def nominal_white(pixels: Pixels) -> float:
    """White of an image's type; black is 0."""
    return white_of(pixels.dtype)


def white_of(dtype: np.dtype[Any]) -> float:
    """White of a type: 255 of uint8, 65535 of uint16, or 1, also for numbers that become floats."""
    return {"u1": 255.0, "u2": 65535.0}.get(dtype.str[1:], 1.0)


def check_nominal(image: SourceImage, *, complete: bool = False) -> None:
    """Require floats in 0..1, up to `RANGE_SLACK`; other types are in their range by themselves.

    Args:
        complete: Also refuse NaN and infinity, which otherwise are no data.

    Raises:
        ImageError: Values out of range, or without data.
    """
    pixels = image.pixels
    if pixels.dtype.kind != "f":
        return
    finite = np.isfinite(pixels)
    if complete and not finite.all():
        raise ImageError(
            f"{image.name}: {np.count_nonzero(~finite)} of {pixels.size} values are NaN or "
            "infinite, expected 0..1; replace them, for example with np.nan_to_num"
        )
    values = pixels if image.valid is None else pixels[image.valid]
    if values.size == 0:
        return
    low, high = float(values.min()), float(values.max())
    if in_unit_range(low, high):
        return
    full_scale = 255 if high <= 255 else 65535 if high <= 65535 else "their full scale"
    remedy = "map them to it, for example (x + 1) / 2 for -1..1"
    remedy = remedy if low < 0 else f"divide by {full_scale}"
    advice = "" if complete else ', or leave that to contrast="auto" or "stretch"'
    raise ImageError(
        f"{image.name}: values run from {low:.6g} to {high:.6g}, expected 0..1; {remedy}{advice}"
    )


@dataclass(frozen=True)
class Spread:
    """How the values of an image are spread, with the nominal white of its type as 1.

    Attributes:
        lowest, highest: Extremes.
        low, high: `PERCENTILES`.
        step: Difference between neighbouring values; None is that of float32.
        noise: (black, white) -> `noise_of_blank` of the image, clipped to this range.
    """

    lowest: float
    highest: float
    low: float
    high: float
    step: float | None
    noise: Callable[[float, float], float]


def range_of(
    grey: NDArray[np.floating],
    valid: NDArray[np.bool_] | None,
    *,
    contrast: Contrast,
    eight_bit: bool,
    step: float | None,
) -> Range | None:
    """The range to stretch to 0..1; None keeps the nominal one.

    Args:
        grey: H W, the nominal white of whose type is 1.
        valid: H W, where it has data; None = everywhere.
        contrast: See `ProcessorConfig`.
        eight_bit: Whether the image has 8 bits, which "auto" keeps.
        step: Difference between neighbouring values in `grey`; None is that of float32.
    """
    if keeps_nominal(contrast, eight_bit=eight_bit):
        return None
    values = grey if valid is None else grey[valid]
    if values.size == 0:
        return None
    low, high = (float(v) for v in np.percentile(sample_of(values), PERCENTILES))

    def noise(black: float, white: float) -> float:
        return noise_of_blank(np.clip(grey, black, white))  # no hot pixels

    return range_by(
        Spread(float(values.min()), float(values.max()), low, high, step, noise), contrast
    )


def keeps_nominal(contrast: Contrast, *, eight_bit: bool) -> bool:
    """Whether the nominal range is kept without a look at the values; see `range_of`."""
    return contrast == "none" or (contrast == "auto" and eight_bit)


def sample_of(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """About `SAMPLE_PX` of the values, in equal steps."""
    flat = values.ravel()
    return flat[:: sample_step(flat.size)]


def sample_step(count: int) -> int:
    """Step in which `sample_of` takes values."""
    return max(1, count // SAMPLE_PX)


def range_by(spread: Spread, contrast: Contrast) -> Range | None:
    """The range to stretch to 0..1 by the spread of the values; None keeps the nominal one."""
    lowest, highest, low, high = spread.lowest, spread.highest, spread.low, spread.high
    if low == high:
        low, high = lowest, highest
    else:
        margin = MARGIN * (high - low)
        low, high = max(lowest, low - margin), min(highest, high + margin)
    if contrast == "auto" and in_unit_range(lowest, highest) and high - low >= MIN_USE:
        return None
    largest = max(abs(low), abs(high))
    least = MIN_STEPS * (spread.step or float(np.finfo(np.float32).eps) * largest)
    least = max(least, spread.noise(low, high) / NOISE_LEVELS)
    least = max(least, MIN_STEPS * float(np.finfo(np.float64).eps) * largest)  # of whole numbers
    if high - low < least or high == low:
        middle, half = (low + high) / 2, (least or 1.0) / 2
        low, high = middle - half, middle + half
    return low, high


def noise_of_blank(grey: NDArray[np.floating]) -> float:
    """Standard deviation of the noise in an image of nothing else than noise and shading; else 0.

    Args:
        grey: H W, finite.
    """
    if min(grey.shape) < LEAST_SIDE_PX:
        return 0.0
    detail = fine_detail(np.asarray(grey - grey.mean(), np.float32))  # H W
    return noise_by(float(detail.var()), float(averaged_2x2(detail).var()))


def fine_detail(level: NDArray[np.float32]) -> NDArray[np.float32]:
    """H W without shading; the mean was taken away before, for float32's sake."""
    return np.asarray(level - cv2.GaussianBlur(level, (0, 0), DETAIL_PX))


def averaged_2x2(detail: NDArray[np.float32]) -> NDArray[np.float32]:
    """H W -> H/2 W/2; an odd last row or column is left out."""
    height, width = (side // 2 for side in detail.shape)
    blocks = detail[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
    return np.asarray(blocks.mean(axis=(1, 3)))


def noise_by(variance: float, averaged: float) -> float:
    """Standard deviation of the noise by the variances of fine detail before and after averaging;
    0 if there is more than noise."""
    return float(np.sqrt(variance)) if averaged < NOISE_SHARE * variance else 0.0


def step_of(pixels: Pixels) -> float | None:
    """Difference between neighbouring values, with the nominal white as 1; None for fractions.

    Args:
        pixels: H W or H W 3, finite.
    """
    if pixels.dtype.kind != "f":
        return 1 / nominal_white(pixels)
    are_whole = all(np.array_equal(row, np.rint(row)) for row in pixels)
    return 1.0 if are_whole else None
