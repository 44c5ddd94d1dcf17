"""Frames of a video file, a stream, a camera or a folder of images, one in memory at a time.

Videos are decoded by PyAV (extra `video`), cameras are read by OpenCV. A frame that cannot be
decoded is passed on with its error, and the next ones follow.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ImageError, import_extra
from tiepoint.files.paths import is_folder
from tiepoint.files.reading import open_regular
from tiepoint.images.photographs import is_image_name
from tiepoint.images.reading import DEFAULT_MAX_PIXELS
from tiepoint.images.urls import without_credentials

CAMERA = re.compile(r"camera(?::(\d+))?")
"""Names of cameras: "camera" is the first, "camera:1" the second."""

STREAM = re.compile(r"(?:https?|rtsps?|rtmps?|srt|udp|tcp)://", re.IGNORECASE)

_TIMEOUT_S = 10.0
_NO_PROTOCOLS = {"protocol_whitelist": "none"}
"""A file of a playlist's format opens no other file and no address."""

_DIGITS = re.compile(r"(\d+)")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One frame.

    Attributes:
        index: Number of the frame from 0 on; broken frames count.
        time_s: Time since the start of the video, s, by the time stamps of a file, whose rate may
            vary, or by the clock of a camera. NaN for images of a folder and for broken frames.
        source: H W 3 uint8, RGB, upright; the path of an image of a folder; None if broken.
        error: Why the frame cannot be decoded; None if it was.
    """

    index: int
    time_s: float
    source: NDArray[np.uint8] | str | None
    error: ImageError | None = None


def frames_of(name: str | os.PathLike[str]) -> Iterator[VideoFrame]:
    """The frames that a name names, in order.

    Rotation flags of phones are applied. Pixels that are not square stay as they are.

    Args:
        name: A video file; a folder of images, in the order of the numbers in their names; a URL
            of http, rtsp, rtmp, srt, udp or tcp; or "camera", "camera:1", ...

    Raises:
        ImageError: No such file, no video, no images in the folder, or no such camera.
        MissingExtraError: A video, and PyAV is not installed.
    """
    name = os.fsdecode(name)
    if is_folder(name):
        return _of_folder(Path(name))
    if camera := CAMERA.fullmatch(name):
        return _of_camera(int(camera[1] or 0))
    av = import_extra("av", "reading a video", "video")
    return _of_video(av, name)


def _of_folder(folder: Path) -> Iterator[VideoFrame]:
    names = [p.name for p in folder.iterdir() if is_image_name(p.name) and p.name[0] != "."]
    if not names:
        raise ImageError(f"{folder}: no images in this folder, expected the frames of a video")
    return (
        VideoFrame(index, math.nan, str(folder / name))
        for index, name in enumerate(sorted(names, key=natural_key))
    )


def natural_key(name: str) -> tuple[list[int | str], str]:
    """A sort key by which frame9 precedes frame10."""
    parts = _DIGITS.split(name.lower())  # text and digits alternate
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _of_camera(number: int) -> Iterator[VideoFrame]:
    camera = cv2.VideoCapture(number)
    if not camera.isOpened():
        camera.release()
        raise ImageError(f"camera:{number} cannot be opened; check that it is connected and free")
    camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame rather than a queue

    def frames() -> Iterator[VideoFrame]:
        start, index = time.monotonic(), 0
        try:
            while True:
                is_read, bgr = camera.read()
                if not is_read:
                    return
                rgb = np.ascontiguousarray(bgr[..., ::-1])
                yield VideoFrame(index, time.monotonic() - start, np.asarray(rgb, np.uint8))
                index += 1
        finally:
            camera.release()

    return frames()


def _of_video(av: Any, name: str) -> Iterator[VideoFrame]:
    shown = without_credentials(name)
    with ExitStack() as opened:
        try:
            if STREAM.match(name):
                container = av.open(name, timeout=_TIMEOUT_S)
            else:
                file = opened.enter_context(open_regular(name))
                container = av.open(file, options=_NO_PROTOCOLS)
            opened.enter_context(container)
        except (OSError, ValueError, av.error.FFmpegError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ImageError(f"{shown}: the video cannot be opened ({reason}); check it") from error
        if not container.streams.video:
            raise ImageError(f"{shown}: a file without pictures, expected a video")
        video = container.streams.video[0]
        width, height = video.codec_context.width, video.codec_context.height
        if width * height > DEFAULT_MAX_PIXELS:
            raise ImageError(
                f"{shown}: frames of {width}x{height} px, the limit is {DEFAULT_MAX_PIXELS} px"
            )
        if not STREAM.match(name):
            video.thread_type = "AUTO"  # of a stream it would delay each frame by several
        return _decoded(av, container, video, shown, opened.pop_all())


def _decoded(
    av: Any, container: Any, video: Any, shown: str, opened: ExitStack
) -> Iterator[VideoFrame]:
    index, readable, start = 0, 0, None
    with opened:
        for decoded in _attempts(av, container, video):
            if isinstance(decoded, Exception) or decoded.is_corrupt:
                reason = str(decoded) if isinstance(decoded, Exception) else "damaged"
                error = ImageError(f"{shown}: frame {index} cannot be decoded ({reason})")
                yield VideoFrame(index, math.nan, None, error)
            else:
                seconds = math.nan if decoded.time is None else float(decoded.time)
                start = seconds if start is None else start
                yield VideoFrame(index, seconds - start, _upright(decoded))
                readable += 1
            index += 1
    if readable == 0:
        raise ImageError(f"{shown}: none of its {index} frames can be decoded")


def _attempts(av: Any, container: Any, video: Any) -> Iterator[Any]:
    """Decoded frames, and the errors of packets in between."""
    packets = container.demux(video)
    while True:
        try:
            packet = next(packets, None)
        except (OSError, ValueError, av.error.FFmpegError) as error:  # the rest of the file
            yield error
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except (ValueError, av.error.FFmpegError) as error:
            logger.debug("packet at %s: %s", packet.pts, error)
            yield error
            continue
        yield from frames


def _upright(frame: Any) -> NDArray[np.uint8]:
    """H W 3 RGB, turned by the rotation flag."""
    pixels = frame.to_ndarray(format="rgb24")
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels
