"""Parts of a large image that a mask leaves out: to registration they are without data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tiepoint.geometry import SizeHW
from tiepoint.images.arrays import Decoded
from tiepoint.images.mask_windows import MaskWindows, open_mask
from tiepoint.images.windows import Window, WindowSource


class MaskedWindows:
    """An image of any size, of which pixels that are black or transparent in a mask have no data.

    Args:
        image: The image.
        mask: Its mask.
    """

    def __init__(self, image: WindowSource, mask: MaskWindows) -> None:
        self._image, self._mask = image, mask
        self.name, self.dtype = image.name, image.dtype
        self.size_hw: SizeHW = image.size_hw
        self.levels: Sequence[SizeHW] = image.levels
        self.has_gaps = True

    def read(self, window: Window, level: int = 0) -> Decoded:
        """See `WindowSource.read`."""
        size_hw = self.levels[level]
        mask_level = max(
            (n for n, (height, _) in enumerate(self._mask.source.levels) if height >= size_hw[0]),
            default=0,
        )
        allowed = self._mask.read(window, size_hw, mask_level)
        return self._image.read(window, level).without(~allowed)


@contextmanager
def masked(image: WindowSource, mask: Any) -> Iterator[WindowSource]:
    """The image without the parts that a mask leaves out; None leaves out nothing.

    Raises:
        ImageError: The mask cannot be read, or has another size.
    """
    if mask is None:
        yield image
        return
    with open_mask(mask, image) as opened:
        yield MaskedWindows(image, opened)
