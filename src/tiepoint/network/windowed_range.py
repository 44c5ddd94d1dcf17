"""The range of values of an image that is read in strips: that of `ranges.range_of`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import Contrast
from tiepoint.errors import ImageError
from tiepoint.images.arrays import Decoded, in_unit_range
from tiepoint.images.ranges import (
    DETAIL_PX,
    LEAST_SIDE_PX,
    PERCENTILES,
    Range,
    Spread,
    averaged_2x2,
    fine_detail,
    keeps_nominal,
    noise_by,
    range_by,
    sample_step,
    step_of,
)
from tiepoint.images.windows import Window, WindowSource, strips
from tiepoint.network.inputs import luma

DETAIL_MARGIN_PX = 5 * int(DETAIL_PX)
"""Reach of the blur in `ranges.fine_detail`, px, and more."""


def measured_range(
    source: WindowSource, contrast: Contrast, *, go_on: bool = False
) -> tuple[Range | None, bool]:
    """Read an image, if its type and the contrast need that, for its range of values.

    Args:
        go_on: Whether strips that cannot be read are left out.

    Returns:
        stretch: See `inputs.GreyImage`.
        clips: Whether its floats are clipped to 0..1 first, as `arrays.as_float32` does.

    Raises:
        ImageError: A strip cannot be read, and `go_on` is False.
    """
    eight_bit = source.dtype in (np.dtype(np.uint8), np.dtype(np.bool_))
    if keeps_nominal(contrast, eight_bit=eight_bit):
        return None, source.dtype.kind == "f"
    strips_of = _Strips(source, go_on)
    values = _measured(strips_of, source.size_hw[0] * source.size_hw[1])
    if values.count < values.seen:  # the sample is of pixels with data only
        values = _measured(strips_of, values.count)
    if values.count == 0:
        return None, False
    clips = source.dtype.kind == "f" and in_unit_range(values.lowest, values.highest)
    sample = np.concatenate(values.samples)
    ends = np.array([values.lowest, values.highest, *np.percentile(sample, PERCENTILES)])
    ends = np.clip(ends, 0, 1) if clips else ends
    lowest, highest, low, high = (float(end) for end in ends)

    def noise(black: float, white: float) -> float:
        return _noise(strips_of, values, (black, white))

    spread = Spread(lowest, highest, low, high, values.step, noise)
    return range_by(spread, contrast), clips


def without_nan(image: Decoded, *, clip: bool) -> NDArray[Any]:
    """The pixels of a window, 0 where floats have no data; clipped to 0..1 on request."""
    pixels, valid = image.pixels, image.seen
    if pixels.dtype.kind != "f":
        return pixels
    if valid is not None:
        pixels = np.where(valid if pixels.ndim == 2 else valid[..., None], pixels, 0)
    return np.clip(pixels, 0, 1) if clip else pixels


class _Strips:
    """The luma of an image in strips, top to bottom."""

    def __init__(self, source: WindowSource, go_on: bool) -> None:
        self.source, self._go_on = source, go_on

    def read(self, margin: int = 0) -> Iterator[tuple[Window, Window, Decoded]]:
        """(strip, strip with its margin, pixels) of each strip that can be read."""
        for strip in strips(self.source.size_hw):
            wide = strip.grown(margin, self.source.size_hw)
            try:
                yield strip, wide, self.source.read(wide)
            except ImageError:
                if not self._go_on:
                    raise


@dataclass(frozen=True)
class _Values:
    """Values of an image's luma, with the nominal white as 1.

    Attributes:
        seen, count: Number of pixels, and of those with data.
        first: The first value; it takes the place of gaps.
        samples: See `ranges.sample_of`.
        step: See `ranges.step_of`.
    """

    seen: int = 0
    count: int = 0
    lowest: float = np.inf
    highest: float = -np.inf
    first: float = 0.0
    samples: list[NDArray[np.floating]] = field(default_factory=list)
    step: float | None = None


def _measured(strips_of: _Strips, expected: int) -> _Values:
    """Read all strips; `expected` is the number of pixels with data."""
    found, step, all_whole = _Values(), sample_step(expected), True
    for _, _, image in strips_of.read():
        pixels, valid = without_nan(image, clip=False), image.seen
        grey = luma(pixels)
        values = grey.ravel() if valid is None else grey[valid]
        found = replace(found, seen=found.seen + grey.size)
        if values.size == 0:
            continue
        one = step_of(pixels)
        all_whole &= one is not None
        found.samples.append(values[-found.count % step :: step])
        found = replace(
            found,
            first=float(values[0]) if found.count == 0 else found.first,
            count=found.count + values.size,
            lowest=min(found.lowest, float(values.min())),
            highest=max(found.highest, float(values.max())),
            step=one if all_whole else None,
        )
    return found


def _noise(strips_of: _Strips, values: _Values, ends: Range) -> float:
    """`ranges.noise_of_blank` of the whole image, clipped to a range."""
    if min(strips_of.source.size_hw) < LEAST_SIDE_PX:
        return 0.0
    middle = float(np.clip(np.concatenate(values.samples), *ends).mean())
    sums = [_Moments(), _Moments()]
    for strip, wide, image in strips_of.read(DETAIL_MARGIN_PX):
        grey, valid = luma(without_nan(image, clip=False)), image.seen
        grey = grey if valid is None else np.where(valid, grey, values.first)
        level = np.asarray(np.clip(grey, *ends) - middle, np.float32)
        detail = fine_detail(level)[strip.within(wide)]
        sums[0].add(detail)
        sums[1].add(averaged_2x2(detail))
    return noise_by(sums[0].variance, sums[1].variance)


@dataclass
class _Moments:
    """Number, sum and sum of squares."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        self.count += values.size
        self.total += float(values.sum(dtype=np.float64))
        self.squares += float(np.square(values, dtype=np.float64).sum())

    @property
    def variance(self) -> float:
        if self.count == 0:
            return 0.0
        return max(0.0, self.squares / self.count - (self.total / self.count) ** 2)
