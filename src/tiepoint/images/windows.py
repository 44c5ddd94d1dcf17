"""Images of any size, read in windows: the protocol, and arrays and memory maps by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import check_whole
from tiepoint.errors import ImageError, reason_of
from tiepoint.geometry import SizeHW
from tiepoint.images.arrays import ChannelOrder, Decoded, from_array
from tiepoint.images.urls import without_credentials

BLOCK_PX = 1 << 22
"""Approximate number of pixels of the strips in which a whole image is read once."""


class Window(NamedTuple):
    """A rectangle of an image, px."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        rows = slice(self.top, self.top + self.height)
        return rows, slice(self.left, self.left + self.width)

    def grown(self, margin: int, size_hw: SizeHW) -> Window:
        """The window with a margin on all sides, as far as the image goes."""
        (top, bottom), (left, right) = (
            (max(0, one.start - margin), min(length, one.stop + margin))
            for one, length in zip(self.slices, size_hw, strict=True)
        )
        return Window(top, left, bottom - top, right - left)

    def within(self, other: Window) -> tuple[slice, slice]:
        """Rows and columns of the window in an array that holds another one around it."""
        top, left = self.top - other.top, self.left - other.left
        return slice(top, top + self.height), slice(left, left + self.width)


@runtime_checkable
class WindowSource(Protocol):
    """An image that is read in windows. Any object of this form will do.

    It may have an `exif_orientation` too, 2 to 8 if its file's rows are turned.

    Attributes:
        name: Name in messages and results.
        size_hw: (height, width) of the image, px.
        dtype: Type of the stored values.
        has_gaps: Whether some pixels may have no data.
        levels: (height, width) of the image and of its smaller copies, the image first.
    """

    name: str
    size_hw: SizeHW
    dtype: np.dtype[Any]
    has_gaps: bool
    levels: Sequence[SizeHW]

    def read(self, window: Window, level: int = 0) -> Decoded:
        """The pixels of a window, in the image's own values; thread-safe.

        Args:
            window: Inside the level.
            level: Index of `levels`.

        Raises:
            ImageError: The window cannot be read.
        """


class ArrayWindows:
    """Windows of an array, or of an object that is sliced like one (memory map, zarr, dask, h5py).

    Args:
        array: `H W`, or `H W C` with 1, 3 or 4 channels.
        valid: H W bool, False without data; None = all with finite values.
        exif_orientation: The orientation that is applied, 1 to 8.
    """

    def __init__(
        self,
        array: Any,
        name: str = "array",
        channel_order: ChannelOrder = "rgb",
        valid: NDArray[np.bool_] | None = None,
        exif_orientation: int = 1,
    ) -> None:
        shape = tuple(int(length) for length in array.shape)
        if len(shape) not in (2, 3) or 0 in shape:
            raise ImageError(f"{name}: shape {shape}, expected H W, or H W C, of at least 1x1")
        self._array, self._order, self._valid = array, channel_order, valid
        self.name, self.dtype = name, np.dtype(array.dtype)
        self.exif_orientation = exif_orientation
        self.size_hw: SizeHW = (shape[0], shape[1])
        self.levels: Sequence[SizeHW] = [self.size_hw]
        masked = isinstance(array, np.ma.MaskedArray)
        self.has_gaps = valid is not None or masked or self.dtype.kind == "f" or shape[2:] == (4,)

    @property
    def arrays(self) -> list[NDArray[Any]]:
        """All arrays that decide the pixels; none if they are no arrays of NumPy."""
        if not isinstance(self._array, np.ndarray):
            return []
        masked = isinstance(self._array, np.ma.MaskedArray)
        gaps = [np.ma.getmaskarray(self._array)] if masked else []
        return [np.asarray(self._array), *gaps, *([] if self._valid is None else [self._valid])]

    def read(self, window: Window, level: int = 0) -> Decoded:
        """See `WindowSource.read`."""
        try:
            part = self._array[window.slices]
            part = part if isinstance(part, np.ma.MaskedArray) else np.asarray(part)
        except (OSError, RuntimeError, ValueError) as error:
            raise unreadable(self.name, window, error) from error
        image = from_array(part, self.name, self._order, layout="hwc", clip=False)
        return image if self._valid is None else image.without(~self._valid[window.slices])


def strips(size_hw: SizeHW) -> Iterator[Window]:
    """The image in strips of about `BLOCK_PX` and an even number of rows, top to bottom."""
    height, width = size_hw
    rows = max(2, BLOCK_PX // width // 2 * 2)
    for top in range(0, height, rows):
        yield Window(top, 0, min(rows, height - top), width)


def tiles(size_hw: SizeHW, tile_px: int) -> list[Window]:
    """The image in tiles in reading order; those at the right and bottom may be smaller."""
    check_whole("tile_px", tile_px, minimum=1, unit="px")
    height, width = size_hw
    return [
        Window(top, left, min(tile_px, height - top), min(tile_px, width - left))
        for top in range(0, height, tile_px)
        for left in range(0, width, tile_px)
    ]


def unreadable(name: str, window: Window, error: BaseException) -> ImageError:
    """The error of a window that cannot be read."""
    reason = without_credentials(reason_of(error))
    top, left, height, width = window
    return ImageError(
        f"{name}: {width}x{height} px at x {left}, y {top} cannot be read ({reason}); the file is "
        "damaged there: copy it again, or go past such tiles"
    )
