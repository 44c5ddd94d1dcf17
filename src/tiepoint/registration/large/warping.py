"""An image in the frame of the other one, read in windows.

The map is exact at every 16th pixel and bilinear between. Positions are rounded to 1/32 px, as
OpenCV's bilinear interpolation does, so that any windows give the pixels of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import SizeHW, apply_homography, inside
from tiepoint.images.arrays import Decoded
from tiepoint.images.windows import Window, WindowSource
from tiepoint.registration.large.cells import common_samples
from tiepoint.registration.large.patches import FULLY_SEEN, Part, averaged_part
from tiepoint.registration.large.transform import LargeTransform

Array = NDArray[np.float64]

NODE_PX = 16
"""Distance of the places at which the map is exact."""
FRACTIONS = 32
"""Steps per pixel of positions."""
MOST_PART_PX = 1 << 26
"""Pixels of a part of the image above which its window is split."""
_LONGEST_PX = 32_000  # a side that OpenCV remaps


class WarpedWindows:
    """Windows of an image as the other image would show it; a `WindowSource`.

    Args:
        source: Image A, or image B with `back`.
        transform: The map from A to B.
        size_hw: (height, width) of the other image, whose frame the result has.
        back: Show B in the frame of A instead.
    """

    def __init__(
        self,
        source: WindowSource,
        transform: LargeTransform,
        size_hw: SizeHW,
        *,
        back: bool = False,
    ) -> None:
        self._source, self._transform, self._back = source, transform, back
        self.name, self.size_hw, self.has_gaps = source.name, size_hw, True
        self.dtype: np.dtype[Any] = source.dtype
        self.levels: Sequence[SizeHW] = [size_hw]
        sizes = (size_hw, source.size_hw) if back else (source.size_hw, size_hw)
        samples, _ = common_samples(transform, *sizes)
        zooms = np.sqrt(np.abs(np.linalg.det(transform.slopes(samples))))
        zoom = float(np.median(zooms)) if len(zooms) else 1.0
        self._shrinks = zoom if back else 1 / max(zoom, 1e-9)

    def read(self, window: Window, level: int = 0) -> Decoded:
        """See `WindowSource.read`; pixels outside the image are 0 and without data."""
        places = self._places(window)  # H W 2, px of the image
        flat = places.reshape(-1, 2)
        seen = inside(flat, self._source.size_hw).reshape(window.height, window.width)
        if not seen.any():
            return self._nothing(window)
        shown = places[seen]
        low, high = shown.min(axis=0) - 1, shown.max(axis=0) + 1
        sides = (high - low) / max(1.0, self._shrinks)
        if (sides.prod() > MOST_PART_PX or sides.max() > _LONGEST_PX) and max(window[2:]) > 1:
            return self._in_halves(window)
        part = averaged_part(self._source, self._shrinks, low, high)
        if part is None:
            return self._nothing(window)
        return _remapped(part, places, seen)

    def _places(self, window: Window) -> Array:
        """H W 2: the place in the image of each pixel of a window; NaN where there is none."""
        (top, rows), (left, columns) = (_nodes(at.start, at.stop) for at in window.slices)
        nodes = np.stack(np.meshgrid(left, top), axis=2).reshape(-1, 2).astype(np.float64)
        mapped = self._transform.forward(nodes) if self._back else self._transform.inverse(nodes)
        grid = mapped.reshape(len(top), len(left), 2)
        (i, v), (j, u) = rows, columns
        u, v = u[None, :, None], v[:, None, None]
        upper = grid[i][:, j] * (1 - u) + grid[i][:, j + 1] * u
        lower = grid[i + 1][:, j] * (1 - u) + grid[i + 1][:, j + 1] * u
        return np.asarray(upper * (1 - v) + lower * v)

    def _in_halves(self, window: Window) -> Decoded:
        """A window in two parts along its longer side."""
        top, left, height, width = window
        if height >= width:
            half = height // 2
            both = Window(top, left, half, width), Window(top + half, left, height - half, width)
        else:
            half = width // 2
            both = Window(top, left, height, half), Window(top, left + half, height, width - half)
        axis = 0 if height >= width else 1
        one, two = (self.read(part) for part in both)
        valid = [np.ones(part.pixels.shape[:2], bool) if part.valid is None else part.valid
                 for part in (one, two)]  # fmt: skip
        channels = max(one.pixels.ndim, two.pixels.ndim)
        pixels = [
            np.repeat(part.pixels[:, :, None], 3, axis=2) if part.pixels.ndim < channels else
            part.pixels for part in (one, two)
        ]  # fmt: skip
        return Decoded(np.concatenate(pixels, axis=axis), valid=np.concatenate(valid, axis=axis))

    def _nothing(self, window: Window) -> Decoded:
        size = (window.height, window.width)
        return Decoded(np.zeros(size, self.dtype), valid=np.zeros(size, bool))


def _nodes(start: int, stop: int) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], Array]]:
    """Nodes around an interval of pixels, and for each pixel the node before it and its share."""
    first, last = start // NODE_PX, (stop - 1) // NODE_PX + 1
    pixels = np.arange(start, stop)
    return np.arange(first, last + 1) * NODE_PX, (
        pixels // NODE_PX - first,
        (pixels % NODE_PX) / NODE_PX,
    )


def _remapped(part: Part, places: Array, seen: NDArray[np.bool_]) -> Decoded:
    """The pixels at places of the image, H W 2."""
    height, width = seen.shape
    in_grid = apply_homography(np.linalg.inv(part.grid), places.reshape(-1, 2))
    rounded = np.rint(in_grid * FRACTIONS) / FRACTIONS - np.array(part.first_xy)
    maps = np.nan_to_num(rounded, nan=-1e6).astype(np.float32).reshape(height, width, 2)
    pixels = cv2.remap(
        part.read.pixels, maps, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    valid = seen
    if part.read.valid is not None:
        shares = part.read.valid.astype(np.float32)
        shares = cv2.remap(shares, maps, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        valid = seen & (shares >= FULLY_SEEN)
    pixels[~valid] = 0
    return Decoded(pixels, valid=valid)
