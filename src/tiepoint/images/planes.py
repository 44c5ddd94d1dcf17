"""Images with more axes than height and width, such as microscopes write, in windows."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import check_whole
from tiepoint.errors import ConfigError, ImageError
from tiepoint.geometry import SizeHW
from tiepoint.images.arrays import Decoded, from_array
from tiepoint.images.windows import Window, WindowSource, unreadable

Channels = int | Sequence[int] | None
"""A channel from 0 on, or several, whose mean is taken; None as each kind of source has it."""

COLOURS, CHANNEL = "S", "C"
"""Axes with samples of a colour, and with separate channels."""


class PlaneWindows:
    """Windows of an image and of its smaller copies; see `windows.WindowSource`.

    Every other axis, such as focal planes or time, is read at its first position.

    Args:
        levels: The image and its smaller copies, each sliced like an array of the same axes.
        axes: A letter per axis: Y, X, S for samples of a colour, C for channels, and others.
        name: Name in messages and results.
        channels: None takes the three samples of a colour, or else channel 0.

    Raises:
        ImageError: No Y and X, other axes than those of the arrays, or no such channel.
    """

    def __init__(
        self, levels: Sequence[Any], axes: str, name: str, channels: Channels = None
    ) -> None:
        shape = tuple(int(length) for length in levels[0].shape)
        lengths = dict(zip(axes, shape, strict=False))
        if len(axes) != len(shape) or len(lengths) != len(axes) or not {"Y", "X"} <= set(axes):
            raise ImageError(
                f"{name}: axes {axes!r} of shape {shape}, expected each axis once, with Y and X"
            )
        if 0 in shape:
            raise ImageError(f"{name}: shape {shape}, expected at least one pixel")
        self.name, self._axes = name, axes
        self._channel = next((axis for axis in (COLOURS, CHANNEL) if lengths.get(axis, 1) > 1), "")
        self._chosen = chosen_channels(channels, lengths.get(self._channel, 1), name)
        self._is_colour = channels is None and self._channel == COLOURS and lengths[COLOURS] >= 3
        self._levels, self._lock = levels, threading.Lock()
        y, x = axes.index("Y"), axes.index("X")
        self.levels: Sequence[SizeHW] = [
            (int(level.shape[y]), int(level.shape[x])) for level in levels
        ]
        self.size_hw: SizeHW = self.levels[0]
        self.dtype = np.dtype(levels[0].dtype)
        self.has_gaps = self.dtype.kind == "f"

    def read(self, window: Window, level: int = 0) -> Decoded:
        """See `WindowSource.read`."""
        rows, columns = window.slices
        place: list[Any] = [0] * len(self._axes)
        place[self._axes.index("Y")], place[self._axes.index("X")] = rows, columns
        if self._channel:
            place[self._axes.index(self._channel)] = slice(None)
        kept = [axis for axis in self._axes if axis in ("Y", "X", self._channel)]
        order = [kept.index(axis) for axis in ("Y", "X", self._channel) if axis]
        try:
            with self._lock:  # not every store is for several threads
                part = np.asarray(self._levels[level][tuple(place)]).transpose(order)  # H W (C)
        except Exception as error:  # each format has errors of its own
            raise unreadable(self.name, window, error) from error
        if self._is_colour:
            pixels = np.ascontiguousarray(part[..., :3])
        else:
            pixels = fused(part[..., None] if part.ndim == 2 else part, self._chosen)
        return from_array(pixels, self.name, "rgb", layout="hwc", clip=False)


class ChosenChannels:
    """Some channels of another source; see `windows.WindowSource`.

    Args:
        channels: A channel of the pixels, RGB or grey, or several, whose mean is taken.

    Raises:
        ImageError: No such channel.
    """

    def __init__(self, source: WindowSource, channels: Channels) -> None:
        self.name, self.size_hw, self.dtype = source.name, source.size_hw, source.dtype
        self.has_gaps, self.levels = source.has_gaps, source.levels
        self.exif_orientation = getattr(source, "exif_orientation", 1)
        self._source = source
        self.arrays = getattr(source, "arrays", [])
        first = source.read(Window(0, 0, 1, 1)).pixels
        self._chosen = chosen_channels(
            channels, first.shape[2] if first.ndim == 3 else 1, self.name
        )

    def read(self, window: Window, level: int = 0) -> Decoded:
        """See `WindowSource.read`."""
        image = self._source.read(window, level)
        pixels = image.pixels if image.pixels.ndim == 3 else image.pixels[..., None]
        return replace(image, pixels=fused(pixels, self._chosen))


def numbers_of(channels: int | Sequence[int]) -> tuple[int, ...]:
    """The numbers of channels.

    Raises:
        ConfigError: No whole numbers from 0 on, or none at all.
    """
    several = isinstance(channels, Sequence) and not isinstance(channels, str)
    numbers: Sequence[Any] = channels if several else (channels,)  # type: ignore[assignment]
    for number in numbers:
        check_whole("channels", number, minimum=0, unit="a channel, or several")
    if not numbers:
        raise ConfigError(f"channels is {channels!r}, expected at least one number")
    return tuple(map(int, numbers))


def chosen_channels(channels: Channels, count: int, name: str) -> tuple[int, ...]:
    """The numbers of channels; None is channel 0.

    Raises:
        ConfigError: See `numbers_of`.
        ImageError: No such channel.
    """
    numbers = numbers_of(0 if channels is None else channels)
    if max(numbers) >= count:
        raise ImageError(
            f"{name}: channels {', '.join(map(str, numbers))}, expected some of the {count} from "
            f"0 to {count - 1}"
        )
    return numbers


def fused(part: NDArray[Any], channels: Sequence[int]) -> NDArray[Any]:
    """H W C -> H W: a channel, or the mean of several in the same type."""
    if len(channels) == 1:
        return np.ascontiguousarray(part[..., channels[0]])
    mean = part[..., list(channels)].mean(axis=-1, dtype=np.float64)
    if part.dtype.kind in "ui":
        mean = np.rint(mean)
    result: NDArray[Any] = mean.astype(part.dtype)
    return result
