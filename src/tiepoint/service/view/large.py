"""Tiles of an image that is read in windows, at all levels of detail, in bounded memory."""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial

import cv2
import numpy as np

from tiepoint.files.writing import allocate
from tiepoint.geometry import SizeHW
from tiepoint.images.ranges import Range
from tiepoint.images.windows import BLOCK_PX, Window, WindowSource
from tiepoint.network.inputs import luma
from tiepoint.network.windowed_range import measured_range, without_nan
from tiepoint.service.view.pixels import Picture, halved, level_count, level_hw

STEPS = 3
"""Kept levels begin this many above the coarsest one of the file, so that a tile of the levels
between is made of at most 16 finer ones."""


class LargeSource:
    """A `TileSource` of an image that is read in windows.

    Levels that the file has are read from it. Up to two levels above them are averaged at each
    request. All coarser ones are made in one pass over the image, at the first request of one, and
    kept in temporary files without names: 1/16 byte for each pixel of the image.

    Args:
        source: The image. Values other than 8 bits are stretched as `to_rgb8` does, by the range
            of the whole image, for which it is read once.
    """

    def __init__(self, source: WindowSource) -> None:
        self.source = source
        self._in_file = _levels_of(source)
        self._lock = threading.RLock()
        self._measured: tuple[Range, bool] | None = None
        self._kept: list[Picture] | None = None

    @property
    def size_hw(self) -> SizeHW:
        """(height, width) at level 0, px."""
        return self.source.size_hw

    def read(self, window: Window, level: int) -> Picture:
        """The pixels of a window, which is inside the level."""
        finest = max(known for known in self._in_file if known <= level)
        if level - finest >= STEPS:
            return self._coarse[level - finest - STEPS][window.slices]
        return self._averaged(window, level, finest)

    def overview(self, longer_side: int) -> Picture:
        """The image at the coarsest level that has this side or more."""
        level = 0
        while level + 1 < level_count(self.size_hw):
            if max(level_hw(self.size_hw, level + 1)) < longer_side:
                break
            level += 1
        return self.read(Window(0, 0, *level_hw(self.size_hw, level)), level)

    def _averaged(self, window: Window, level: int, finest: int) -> Picture:
        """A window of a level, from the pixels of a finer one that the file has."""
        steps, (height, width) = level - finest, level_hw(self.size_hw, finest)
        top, left = window.top << steps, window.left << steps
        bottom = min(height, (window.top + window.height) << steps)
        right = min(width, (window.left + window.width) << steps)
        return _halved(self._rgb8(Window(top, left, bottom - top, right - left), finest), steps)

    def _rgb8(self, window: Window, level: int) -> Picture:
        image = self.source.read(window, self._in_file[level])
        if image.pixels.dtype == np.uint8:
            return _colours(image.pixels)
        (black, white), clips = self._range
        grey = luma(without_nan(image, clip=clips))
        levels = np.clip(np.round((grey - black) * (255.0 / (white - black))), 0, 255)
        levels = levels.astype(np.uint8)
        if image.seen is not None:
            levels[~image.seen] = 255
        return _colours(levels)

    @property
    def _range(self) -> tuple[Range, bool]:
        """Values of black and white, the nominal white as 1; whether floats are clipped first."""
        with self._lock:
            if self._measured is None:
                stretch, clips = measured_range(self.source, "auto")
                self._measured = stretch or (0.0, 1.0), clips
            return self._measured

    @property
    def _coarse(self) -> list[Picture]:
        """The levels that are kept, the finest first."""
        with self._lock:
            if self._kept is None:
                self._kept = list(self._made())
            return self._kept

    def _made(self) -> Iterator[Picture]:
        finest = max(self._in_file)
        read: Callable[[Window], Picture] = partial(self._rgb8, level=finest)
        size_hw, steps = level_hw(self.size_hw, finest), STEPS
        for _ in range(finest + STEPS, level_count(self.size_hw)):
            coarser = _reduced(read, size_hw, steps)
            yield coarser
            read, size_hw, steps = partial(_part, coarser), level_hw(size_hw, steps), 1


def _levels_of(source: WindowSource) -> dict[int, int]:
    """Levels that a file has, as `TileSource` counts them -> index in `source.levels`.

    One with more than `STEPS` levels missing before it ends the list.
    """
    levels = {0: 0}
    for index, size_hw in enumerate(source.levels):
        level = round(math.log2(source.size_hw[0] / size_hw[0]))
        is_half = tuple(size_hw) == level_hw(source.size_hw, level)
        if is_half and max(levels) < level <= max(levels) + STEPS:
            levels[level] = index
    return levels


def _reduced(read: Callable[[Window], Picture], size_hw: SizeHW, steps: int) -> Picture:
    """An image `steps` levels coarser, made strip by strip, in a temporary file."""
    height, width = size_hw
    with tempfile.TemporaryFile() as file:  # the map keeps it
        shape = (*level_hw(size_hw, steps), 3)
        allocate(file.fileno(), 0, math.prod(shape))  # a hole in a mapped file ends the process
        made: Picture = np.memmap(file, np.uint8, "r+", shape=shape)
    rows = max(1, (BLOCK_PX // width) >> steps) << steps
    for top in range(0, height, rows):
        pixels = _halved(read(Window(top, 0, min(rows, height - top), width)), steps)
        made[top >> steps : (top >> steps) + len(pixels)] = pixels
    return made


def _part(pixels: Picture, window: Window) -> Picture:
    return pixels[window.slices]


def _halved(pixels: Picture, steps: int) -> Picture:
    for _ in range(steps):
        pixels = halved(pixels)
    return pixels


def _colours(levels: Picture) -> Picture:
    """H W or H W 3 -> H W 3."""
    if levels.ndim == 3:
        return levels
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(levels), cv2.COLOR_GRAY2RGB), np.uint8)
