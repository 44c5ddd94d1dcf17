"""Parts of a large image: its overview, and windows resampled into another frame."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import Matrix, SizeHW
from tiepoint.images.arrays import Decoded
from tiepoint.images.reading import SourceImage
from tiepoint.images.windows import BLOCK_PX, Window, WindowSource

FULLY_SEEN = 0.999
"""Share of the pixels with data from which an average counts as data."""

_OPENCV_TYPES = (np.uint8, np.uint16, np.int16, np.float32, np.float64)


class Overview(NamedTuple):
    """A small copy of an image.

    Attributes:
        image: Its pixels, and where they have data.
        to_full: 3x3, px of the overview -> px of the image.
    """

    image: SourceImage
    to_full: Matrix


def overview(source: WindowSource, longer_px: int) -> Overview:
    """The image averaged to at most `longer_px` along its longer side, read strip by strip."""
    level = _level(source, max(source.size_hw) / longer_px)
    height, width = level_hw = source.levels[level]
    factor = max(1, math.ceil(max(level_hw) / longer_px))
    rows = max(1, BLOCK_PX // width // factor) * factor
    parts = []
    for top in range(0, height, rows):
        read = source.read(Window(top, 0, min(rows, height - top), width), level)
        parts.append(_averaged(read, factor))
    pixels = np.concatenate([part.pixels for part in parts])
    valid = None
    if any(part.valid is not None for part in parts):
        valid = np.concatenate([_seen(part) for part in parts])
    image = SourceImage(pixels, source.name, valid=valid)
    return Overview(image, _to_full(source, level) @ _averages(factor))


def resampled(source: WindowSource, to_full: Matrix, size_hw: SizeHW) -> SourceImage:
    """A window of the image in a frame of its own.

    Averaged first where the frame is coarser than the image; bilinear.

    Args:
        source: The image.
        to_full: 3x3 affine, px of the frame -> px of the image.
        size_hw: (height, width) of the frame.

    Returns:
        Pixels of the frame; without data outside the image.
    """
    height, width = size_hw
    zoom = math.sqrt(abs(float(np.linalg.det(to_full[:2, :2]))))  # px of the image per px
    corners = to_full[:2] @ np.array(
        [[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1], [1, 1, 1, 1]]
    )
    part = averaged_part(source, zoom, corners.min(axis=1), corners.max(axis=1))
    if part is None:
        return _nothing(source, size_hw)
    return _warped(part.read, np.linalg.inv(part.to_full) @ to_full, size_hw, source)


class Part(NamedTuple):
    """A rectangle of an image, averaged.

    Attributes:
        read: Its pixels, and where they have data.
        grid: 3x3, px of averages over the whole image -> px of the image.
        first_xy: The first average of the part among those.
    """

    read: Decoded
    grid: Matrix
    first_xy: tuple[int, int]

    @property
    def to_full(self) -> Matrix:
        """3x3, px of the part -> px of the image."""
        x, y = self.first_xy
        return np.asarray(self.grid @ np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]]))


def averaged_part(
    source: WindowSource, zoom: float, low_xy: NDArray[Any], high_xy: NDArray[Any]
) -> Part | None:
    """The part of an image around two corners, averaged to one pixel per `zoom` px or finer.

    Averages are those of a grid over the whole image, so overlapping parts agree.

    Returns:
        None outside the image.
    """
    level = _level(source, zoom)
    factor = max(1, int(zoom * source.levels[level][1] / source.size_hw[1] + 1e-6))
    grid = _to_full(source, level) @ _averages(factor)
    scale, shift = np.diag(grid)[:2], grid[:2, 2]
    limit = np.array(source.levels[level][::-1])
    low = np.floor((low_xy - shift) / scale).astype(np.int64)
    high = np.ceil((high_xy - shift) / scale).astype(np.int64) + 1
    first = np.clip(low, 0, -(-limit // factor))
    start, stop = first * factor, np.clip(high * factor, 0, limit)
    if (stop <= start).any():
        return None
    (left, top), (right, bottom) = start.tolist(), stop.tolist()
    read = source.read(Window(top, left, bottom - top, right - left), level)
    return Part(_averaged(read, factor), grid, (int(first[0]), int(first[1])))


def _level(source: WindowSource, zoom: float) -> int:
    """The smallest copy that is at least as fine as one pixel per `zoom` pixels of the image."""
    longest = max(source.size_hw)
    usable = [i for i, size in enumerate(source.levels) if longest / max(size) <= zoom * (1 + 1e-6)]
    return max(usable, default=0, key=lambda i: longest / max(source.levels[i]))


def _to_full(source: WindowSource, level: int) -> Matrix:
    """3x3, px of a level -> px of the image."""
    sy, sx = (f / o for f, o in zip(source.size_hw, source.levels[level], strict=True))
    return np.array([[sx, 0, sx / 2 - 0.5], [0, sy, sy / 2 - 0.5], [0, 0, 1.0]])


def _averages(factor: int) -> Matrix:
    """3x3, px of averages of `factor` px -> px."""
    middle = (factor - 1) / 2
    return np.array([[factor, 0, middle], [0, factor, middle], [0, 0, 1.0]])


def _averaged(read: Decoded, factor: int) -> Decoded:
    """Averages of blocks; those at the right and bottom end may be of fewer pixels.

    Only pixels with data count; an average is without data unless nearly all of them are.
    """
    seen = read.seen
    pixels = read.pixels if read.pixels.dtype.type in _OPENCV_TYPES else _as_float(read.pixels)
    if seen is not None and pixels.dtype.kind == "f":
        pixels = np.where(np.isfinite(pixels), pixels, 0).astype(pixels.dtype)
    if factor == 1:
        return Decoded(pixels, valid=seen)
    height, width = pixels.shape[:2]
    grown = (-height % factor, -width % factor)
    small_wh = ((width + grown[1]) // factor, (height + grown[0]) // factor)
    pixels = cv2.copyMakeBorder(pixels, 0, grown[0], 0, grown[1], cv2.BORDER_REPLICATE)
    small = cv2.resize(pixels, small_wh, interpolation=cv2.INTER_AREA)
    if seen is None:
        return Decoded(small)
    shares = seen.astype(np.float32)
    shares = cv2.copyMakeBorder(shares, 0, grown[0], 0, grown[1], cv2.BORDER_REPLICATE)
    shares = cv2.resize(shares, small_wh, interpolation=cv2.INTER_AREA)
    return Decoded(small, valid=shares >= FULLY_SEEN)


def _warped(read: Decoded, matrix: Matrix, size_hw: SizeHW, source: WindowSource) -> SourceImage:
    """The frame; `matrix` is 3x3, px of the frame -> px of what was read."""
    size_wh = size_hw[::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    pixels = cv2.warpAffine(
        read.pixels, matrix[:2], size_wh, flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    seen = np.ones(read.pixels.shape[:2], np.float32)
    if read.valid is not None:
        seen = read.valid.astype(np.float32)
    shares = cv2.warpAffine(seen, matrix[:2], size_wh, flags=flags, borderMode=cv2.BORDER_CONSTANT)
    valid = shares >= FULLY_SEEN
    return SourceImage(pixels, source.name, valid=None if valid.all() else valid)


def _nothing(source: WindowSource, size_hw: SizeHW) -> SourceImage:
    return SourceImage(np.zeros(size_hw, np.uint8), source.name, valid=np.zeros(size_hw, bool))


def _seen(part: Decoded) -> NDArray[np.bool_]:
    return np.ones(part.pixels.shape[:2], bool) if part.valid is None else part.valid


def _as_float(pixels: NDArray[Any]) -> NDArray[np.float32]:
    return pixels.astype(np.float32)
