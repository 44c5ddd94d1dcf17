"""Tiny videos of a moving photograph, with exact motion, written by PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tiepoint

WIDTH, HEIGHT = 240, 176


def motion(step: float) -> NDArray[np.float64]:
    """3x3, photograph -> frame."""
    matrix = np.vstack(
        [cv2.getRotationMatrix2D((270, 200), 3 * np.sin(step / 6), 1 + 0.01 * step), [0, 0, 1]]
    )
    matrix[:2, 2] += -140 + 2.5 * step, -110 + 8 * np.sin(step / 5)
    return matrix


def moving(count: int, *, logo: bool = False) -> list[NDArray[np.uint8]]:
    """RGB frames of a photograph under `motion`, with a still logo in a corner."""
    photograph = cv2.imread(str(tiepoint.sample_views()[0]))[..., ::-1]
    frames = []
    for step in range(count):
        view = cv2.warpPerspective(
            np.ascontiguousarray(photograph), motion(step), (WIDTH, HEIGHT),
            flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip
        if logo:
            view[8:48, 8:88] = np.ascontiguousarray(photograph)[200:240, 300:380]
        frames.append(np.asarray(view, np.uint8))
    return frames


def write_video(
    path: Path,
    frames: Sequence[NDArray[np.uint8]],
    *,
    times_ms: Sequence[int] | None = None,
    codec: str = "mpeg4",
    group: int = 12,
) -> None:
    """Write frames; `times_ms` are their time stamps, 40 ms apart if not given."""
    av = pytest.importorskip("av", reason="videos need PyAV")
    times_ms = times_ms or [40 * index for index in range(len(frames))]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = group
        stream.bit_rate = 3_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
        for pixels, time_ms in zip(frames, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def set_rotation(path: Path, degrees: int) -> None:
    """Set the display matrix of an .mp4 that players turn clockwise by 90, 180 or 270 degrees."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 4 * 5 + 8 + 8  # version 0: the matrix follows
    c, s = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    rows = (c, s, 0, -s, c, 0, 0, 0)
    for place, value in enumerate(rows):
        data[at + 4 * place : at + 4 * place + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
