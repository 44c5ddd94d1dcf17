"""Masks of any size, read in windows: where an image of the same size has keypoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ImageError
from tiepoint.geometry import SizeHW
from tiepoint.images.masks import Mask, allowed_by, allowed_in, name_of
from tiepoint.images.opening import is_windowed, open_windows
from tiepoint.images.windows import BLOCK_PX, Window, WindowSource, strips

Index = NDArray[np.intp]


class MaskWindows:
    """Where the mask of an image allows keypoints, in windows; `masks.allowed_by` has the rule.

    Args:
        source: The mask, of the image's size.
        image: The image.
        name: Name of the mask in results.

    Raises:
        ImageError: The mask has another size.
    """

    def __init__(self, source: WindowSource, image: WindowSource, name: str) -> None:
        if tuple(source.size_hw) != tuple(image.size_hw):
            raise ImageError(
                f"{image.name}: its mask {name} has (height, width) {tuple(source.size_hw)}, "
                f"expected {tuple(image.size_hw)}"
            )
        self.source, self.name = source, name
        self._is_shape = source.has_gaps and _is_shape(source)

    def read(self, window: Window, size_hw: SizeHW, level: int = 0) -> Mask:
        """H W of a window of the image at one of its sizes: the nearest value of the mask.

        Args:
            window: px of the image at that size.
            size_hw: (height, width) of the image there, px.
            level: Index of the mask's `levels`.

        Raises:
            ImageError: The mask cannot be read there.
        """
        rows, columns = (
            ((np.arange(at.start, at.stop) + 0.5) * (old / new)).astype(np.intp)
            for at, old, new in zip(window.slices, self.source.levels[level], size_hw, strict=True)
        )
        width = int(columns[-1]) + 1 - int(columns[0])
        step = max(1, int(BLOCK_PX / width * len(rows) / (int(rows[-1]) + 1 - int(rows[0]))))
        parts = [
            self._nearest(level, rows[start : start + step], columns)
            for start in range(0, len(rows), step)
        ]
        return np.concatenate(parts)

    def _nearest(self, level: int, rows: Index, columns: Index) -> Mask:
        top, left = int(rows[0]), int(columns[0])
        part = Window(top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left)
        read = self.source.read(part, level)
        allowed = allowed_in(read)
        if self._is_shape:
            allowed = np.ones(allowed.shape, bool) if read.seen is None else read.seen
        return np.asarray(allowed[np.ix_(rows - top, columns - left)])


def _is_shape(mask: WindowSource) -> bool:
    """Whether some pixels are transparent, and all others black; reads the mask until it knows."""
    has_unseen = False
    for strip in strips(mask.size_hw):
        with suppress(ImageError):  # reading its window raises again
            read = mask.read(strip)
            if allowed_in(read).any():
                return False
            has_unseen |= read.seen is not None and not read.seen.all()
    return has_unseen


@contextmanager
def open_mask(mask: Any, image: WindowSource, name: str | None = None) -> Iterator[MaskWindows]:
    """Open the mask of an image to read windows of it; masks of other files are decoded whole.

    Args:
        mask: An array of any type, or another source of `open_windows`.
        image: The image.
        name: Name of the mask in results; None takes its path, or "array".

    Raises:
        ImageError: It cannot be read, or has another size.
    """
    with ExitStack() as opened:
        try:
            source = mask if is_windowed(mask) else allowed_by(mask)
            windows = opened.enter_context(open_windows(source))
        except ImageError as error:
            raise ImageError(f"{image.name}: its mask cannot be read ({error})") from error
        yield MaskWindows(windows, image, name or name_of(mask))
