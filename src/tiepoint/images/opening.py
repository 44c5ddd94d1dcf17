"""Any source -> an image that is read in windows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tiepoint.errors import ImageError
from tiepoint.files.writing import special_kind
from tiepoint.images.arrays import ChannelOrder
from tiepoint.images.planes import Channels, ChosenChannels, numbers_of
from tiepoint.images.raster import RasterWindows, is_raster
from tiepoint.images.reading import is_source, read
from tiepoint.images.slides import is_slide, open_slide
from tiepoint.images.urls import without_credentials
from tiepoint.images.windows import ArrayWindows, WindowSource


@contextmanager
def open_windows(
    source: Any, channel_order: ChannelOrder = "rgb", channels: Channels = None
) -> Iterator[WindowSource]:
    """Open an image to read windows of it, and close its file afterwards.

    Args:
        source: A `WindowSource`; an array or an object that is sliced like one; the path of an .npy
            file, which is mapped; a file that GDAL reads in windows (extra `geo`: GeoTIFF, COG,
            VRT, JPEG 2000 and others); an image of a microscope (extra `bio`; see `slides`); or any
            other source of `images.read`, which is decoded as a whole.
        channel_order: Order of the colours in arrays.
        channels: A channel from 0 on, which is read as grey, or several, whose mean is. None takes
            the first three bands of a raster or the samples of a colour, or else the first channel.

    Raises:
        ConfigError: Channels that are no whole numbers from 0 on.
        ImageError: The image cannot be read, is too large to be decoded as a whole, or has no such
            channel.
        MissingExtraError: The extra that reads this file is not installed.
    """
    if channels is not None:
        channels = numbers_of(channels)
    if is_slide(source):
        with open_slide(source, channels) as slide:
            yield slide
    elif is_raster(source):
        with RasterWindows(source, channels) as raster:
            yield raster
    else:
        opened = _opened(source, channel_order)
        yield opened if channels is None else ChosenChannels(opened, channels)


def _opened(source: Any, channel_order: ChannelOrder) -> WindowSource:
    """A source that holds no file open."""
    if isinstance(source, WindowSource):
        return source
    if is_mapped(source):
        return ArrayWindows(_mapped(source), os.fsdecode(source), channel_order)
    if _is_sliced(source):
        return ArrayWindows(source, channel_order=channel_order)
    if not is_source(source):
        raise ImageError(
            f"an object of type {type(source).__name__} is not an image: expected an array, a "
            "path, or an object with size_hw, dtype and read(window, level)"
        )
    image = read(source, channel_order=channel_order)
    return ArrayWindows(
        image.pixels, image.name, valid=image.valid, exif_orientation=image.exif_orientation
    )


def is_windowed(source: Any) -> bool:
    """Whether `open_windows` reads a source in windows, rather than has it in memory as a whole.

    Raises:
        MissingExtraError: The extra that reads the file is not installed.
    """
    if isinstance(source, np.ndarray):
        return isinstance(source, np.memmap)
    if isinstance(source, WindowSource) or _is_sliced(source):
        return True
    return is_mapped(source) or is_slide(source) or is_raster(source)


def is_mapped(source: Any) -> bool:
    """Whether a source is the path of an .npy file."""
    if not isinstance(source, str | os.PathLike) or special_kind(source):
        return False
    return Path(os.fsdecode(source)).suffix.lower() == ".npy"


def _mapped(path: str | os.PathLike[str]) -> Any:
    try:
        return np.lib.format.open_memmap(os.fsdecode(path), "r")
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        name = without_credentials(os.fsdecode(path))
        raise ImageError(
            f"{name}: cannot be mapped ({reason}); expected an array of numbers that numpy.save "
            "has written"
        ) from error


def _is_sliced(source: Any) -> bool:
    """Whether an object has a shape, a type and slices. A tensor is C H W: it is read whole."""
    names = ("shape", "dtype", "__getitem__")
    return all(hasattr(source, name) for name in names) and not hasattr(source, "dim")
