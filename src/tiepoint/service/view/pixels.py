"""Tiles of an image at levels of detail, cut on demand from a bounded cache."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ImageError
from tiepoint.geometry import SizeHW
from tiepoint.images.windows import Window

TILE_PX = 512
PATCH_PX = 33
"""Side of the patch around a point, px."""
FASTEST_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]

Picture = NDArray[np.uint8]
"""H W 3 RGB, or H W 4 RGBA."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class TileSource(Protocol):
    """An image of any size that is read in windows.

    Level 0 has full resolution. Each further level has half of it, rounded up: its pixel (x, y)
    covers the pixels 2x, 2x + 1 and 2y, 2y + 1 of the level before.
    """

    @property
    def size_hw(self) -> SizeHW:
        """(height, width) at level 0, px."""

    def read(self, window: Window, level: int) -> Picture:
        """The pixels of a window, which is inside the level."""


def level_hw(size_hw: SizeHW, level: int) -> SizeHW:
    """(height, width) of a level, px."""
    height, width = (max(1, -(-side >> level)) for side in size_hw)
    return height, width


def level_count(size_hw: SizeHW) -> int:
    """Levels down to a single tile."""
    return 1 + max(0, math.ceil(math.log2(max(size_hw) / TILE_PX)))


@dataclass(frozen=True, eq=False)
class ArraySource:
    """An image in memory with all its levels."""

    levels: tuple[Picture, ...]

    @classmethod
    def of(cls, pixels: Picture) -> ArraySource:
        """The levels of a picture."""
        levels = [pixels]
        height, width = pixels.shape[:2]
        for _ in range(level_count((height, width)) - 1):
            levels.append(halved(levels[-1]))
        return cls(tuple(levels))

    @property
    def size_hw(self) -> SizeHW:
        """(height, width) at level 0, px."""
        height, width = self.levels[0].shape[:2]
        return height, width

    @property
    def nbytes(self) -> int:
        """Memory of all levels."""
        return sum(level.nbytes for level in self.levels)

    def read(self, window: Window, level: int) -> Picture:
        """The pixels of a window."""
        return self.levels[level][window.slices]


def halved(pixels: Picture) -> Picture:
    """Half the size, rounded up: the mean of 2x2 pixels, with the last row and column repeated."""
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        below, right = height % 2, width % 2
        pixels = cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_REPLICATE)
    half_wh = (width + 1) // 2, (height + 1) // 2
    return np.asarray(cv2.resize(pixels, half_wh, interpolation=cv2.INTER_AREA), np.uint8)


def tile(source: TileSource, level: int, column: int, row: int) -> bytes:
    """A tile as PNG.

    Args:
        level: Level as `TileSource` counts them.
        column, row: Place of the tile, in tiles of `TILE_PX`; those at the right and bottom edge
            are smaller.

    Raises:
        ImageError: No such tile.
    """
    if not 0 <= level < level_count(source.size_hw):
        raise ImageError(f"level {level}: expected 0 to {level_count(source.size_hw) - 1}")
    height, width = level_hw(source.size_hw, level)
    top, left = row * TILE_PX, column * TILE_PX
    if not (0 <= top < height and 0 <= left < width):
        raise ImageError(f"tile {column}, {row} is outside of level {level}")
    window = Window(top, left, min(TILE_PX, height - top), min(TILE_PX, width - left))
    return png(source.read(window, level))


def patch(source: TileSource, x: float, y: float) -> bytes:
    """The pixels around a point as PNG; transparent outside of the image.

    The middle pixel is the one that contains the point.
    """
    height, width = source.size_hw
    half = PATCH_PX // 2
    left, top = math.floor(x + 0.5) - half, math.floor(y + 0.5) - half
    canvas = np.zeros((PATCH_PX, PATCH_PX, 4), np.uint8)
    low_x, low_y = max(0, left), max(0, top)
    high_x, high_y = min(width, left + PATCH_PX), min(height, top + PATCH_PX)
    if low_x < high_x and low_y < high_y:
        pixels = source.read(Window(low_y, low_x, high_y - low_y, high_x - low_x), 0)
        target = canvas[low_y - top : high_y - top, low_x - left : high_x - left]
        target[..., : pixels.shape[2]] = pixels
        if pixels.shape[2] == 3:
            target[..., 3] = 255
    return png(canvas)


def png(pixels: Picture) -> bytes:
    """RGB or RGBA pixels as PNG."""
    order = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
    return _encoded(".png", cv2.cvtColor(pixels, order), FASTEST_PNG)


def thumbnail(pixels: Picture, side_px: int = 256) -> bytes:
    """A small JPEG of a picture."""
    height, width = pixels.shape[:2]
    factor = min(1.0, side_px / max(height, width))
    size_wh = max(1, round(width * factor)), max(1, round(height * factor))
    small = cv2.resize(pixels, size_wh, interpolation=cv2.INTER_AREA)
    return jpeg(np.asarray(small, np.uint8), 85)


def jpeg(pixels: Picture, quality: int) -> bytes:
    """RGB pixels as JPEG."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return _encoded(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), settings)


def _encoded(ending: str, pixels: Any, settings: list[int]) -> bytes:
    done, data = cv2.imencode(ending, pixels, settings)
    assert done
    return bytes(data.tobytes())


class BoundedCache(Generic[Key, Value]):
    """Values by key, the least recently used dropped first. Thread-safe; each is made once.

    Args:
        most_bytes: Memory of all values together. A single larger value is kept alone.
        size_of: Memory of a value, bytes.
    """

    def __init__(self, most_bytes: int, size_of: Callable[[Value], int]) -> None:
        self.most_bytes, self._size_of = most_bytes, size_of
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._making: dict[Key, threading.Lock] = {}
        self._lock = threading.Lock()
        self.nbytes = 0

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of a key, made if it is missing; an error of `make` is raised, not kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._values:
                    return self._values[key]
            try:
                value = make()
                self._keep(key, value)
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return value

    def values(self) -> dict[Key, Value]:
        """The values that are kept now."""
        with self._lock:
            return dict(self._values)

    def _keep(self, key: Key, value: Value) -> None:
        with self._lock:
            if key in self._values:  # after an error, two threads may make it
                self.nbytes -= self._size_of(self._values.pop(key))
            self._values[key] = value
            self.nbytes += self._size_of(value)
            while self.nbytes > self.most_bytes and len(self._values) > 1:
                _, dropped = self._values.popitem(last=False)
                self.nbytes -= self._size_of(dropped)
