"""Pictures -> a video file, one in memory at a time (extra `video`)."""

from __future__ import annotations

import math
from contextlib import closing
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import import_extra
from tiepoint.files.writing import unwritable

VIDEO_ENDINGS = (".mp4", ".mkv", ".mov")

CODECS = ("libx264", "mpeg4")
"""Encoders, the best first; builds of FFmpeg without GPL lack the first."""

TICKS_S = 1000
"""Time stamps in a second."""

DEFAULT_STEP_S = 0.04
"""Duration of a frame without a time stamp, s."""

BITS_PER_PX_S = 3
"""Rate of the encoder, bits per pixel and second: thin lines stay clear."""


class VideoWriter:
    """Writes a video; its frame rate follows the time stamps. A context closes it at any end.

    Args:
        path: The file; the ending is one of `VIDEO_ENDINGS`, and picks the container.

    Raises:
        MissingExtraError: PyAV is not installed.
        OutputError: The file cannot be written.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._av = import_extra("av", "writing a video", "video")
        self._path = Path(path)
        self._ticks = -1
        self._stream: Any = None
        try:
            self._container = self._av.open(str(self._path.absolute()), "w")
        except OSError as error:
            raise unwritable(self._path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, picture: NDArray[np.uint8], time_s: float = math.nan) -> None:
        """Append H W 3 RGB; pictures of another size are resized to that of the first.

        Args:
            picture: Pixels.
            time_s: Time stamp; NaN follows the last one after `DEFAULT_STEP_S`.

        Raises:
            OutputError: The disk is full.
        """
        if self._stream is None:
            self._stream = self._added_stream(*picture.shape[:2])
        size_wh = self._stream.width, self._stream.height
        if (size_wh[0] - picture.shape[1], size_wh[1] - picture.shape[0]) not in _PADDINGS:
            picture = np.asarray(cv2.resize(picture, size_wh), np.uint8)
        right, bottom = size_wh[0] - picture.shape[1], size_wh[1] - picture.shape[0]
        even = cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        step = round(DEFAULT_STEP_S * TICKS_S)
        ticks = self._ticks + step if math.isnan(time_s) else round(time_s * TICKS_S)
        self._ticks = max(ticks, self._ticks + 1)
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        frame.pts, frame.time_base = self._ticks, Fraction(1, TICKS_S)
        try:
            self._container.mux(self._stream.encode(frame))
        except OSError as error:
            raise unwritable(self._path, error) from error

    def close(self) -> None:
        """Finish the file; it plays whatever was added before.

        Raises:
            OutputError: The disk is full.
        """
        try:
            with closing(self._container):
                if self._stream is not None:
                    self._container.mux(self._stream.encode(None))
        except OSError as error:
            raise unwritable(self._path, error) from error

    def _added_stream(self, height: int, width: int) -> Any:
        codec = next(name for name in CODECS if name in self._av.codecs_available)
        stream = self._container.add_stream(codec, rate=25)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"  # whose sides are even
        stream.bit_rate = max(400_000, BITS_PER_PX_S * width * height)
        stream.codec_context.time_base = Fraction(1, TICKS_S)
        return stream


_PADDINGS = ((0, 0), (0, 1), (1, 0), (1, 1))
