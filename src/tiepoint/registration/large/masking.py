"""Parts of a large image that a mask leaves out: to registration they are without data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError
from tiepoint.geometry import SizeHW
from tiepoint.images.arrays import Decoded, is_black
from tiepoint.images.opening import open_windows
from tiepoint.images.windows import BLOCK_PX, Window, WindowSource


class MaskedWindows:
    """An image of any size, of which pixels that are black or transparent in a mask have no data.

    Args:
        image: The image.
        mask: Its mask, of the same size.

    Raises:
        ConfigError: The mask has another size.
    """

    def __init__(self, image: WindowSource, mask: WindowSource) -> None:
        if tuple(mask.size_hw) != tuple(image.size_hw):
            raise ConfigError(
                f"{image.name}: its mask {mask.name} has (height, width) {tuple(mask.size_hw)}, "
                f"expected {tuple(image.size_hw)}"
            )
        self._image, self._mask = image, mask
        self.name, self.dtype = image.name, image.dtype
        self.size_hw: SizeHW = image.size_hw
        self.levels: Sequence[SizeHW] = image.levels
        self.has_gaps = True

    def read(self, window: Window, level: int = 0) -> Decoded:
        """See `WindowSource.read`."""
        return self._image.read(window, level).without(~self._allowed(window, self.levels[level]))

    def _allowed(self, window: Window, size_hw: SizeHW) -> NDArray[np.bool_]:
        """H W of a window of the image at one of its sizes: the nearest value of the mask."""
        level = max(
            (n for n, (height, _) in enumerate(self._mask.levels) if height >= size_hw[0]),
            default=0,
        )
        rows, columns = (
            ((np.arange(at.start, at.stop) + 0.5) * (old / new)).astype(np.intp)
            for at, old, new in zip(window.slices, self._mask.levels[level], size_hw, strict=True)
        )
        width = int(columns[-1]) + 1 - int(columns[0])
        step = max(1, int(BLOCK_PX / width * len(rows) / (int(rows[-1]) + 1 - int(rows[0]))))
        parts = [
            self._nearest(level, rows[start : start + step], columns)
            for start in range(0, len(rows), step)
        ]
        return np.concatenate(parts)

    def _nearest(
        self, level: int, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> NDArray[np.bool_]:
        top, left = int(rows[0]), int(columns[0])
        part = Window(top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left)
        read = self._mask.read(part, level)
        allowed = ~is_black(read)
        if read.seen is not None:
            allowed &= read.seen
        return np.asarray(allowed[np.ix_(rows - top, columns - left)])


@contextmanager
def masked(image: WindowSource, mask: Any) -> Iterator[WindowSource]:
    """The image without the parts that a mask leaves out; None leaves out nothing.

    Raises:
        ConfigError: The mask has another size.
        ImageError: It cannot be read.
    """
    if mask is None:
        yield image
        return
    with open_windows(mask) as opened:
        yield MaskedWindows(image, opened)
