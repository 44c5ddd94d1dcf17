"""Tracks drawn on their frames: trails, coloured by age; overlays in grey."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.images.reading import read
from tiepoint.plotting import SUBPIXEL_BITS, to_rgb8
from tiepoint.tracking.result import TrackedFrame

TRAIL_FRAMES = 15
"""Frames of a trail: half a second of most videos."""

FULL_AGE = 60
"""Age, in observations, that has the last colour."""

STATIC_RGB = (150, 150, 150)

Picture = NDArray[np.uint8]


class TrailPainter:
    """Draws one frame after another. Memory is that of the trails of one frame."""

    def __init__(self) -> None:
        self._trails: dict[int, deque[tuple[int, NDArray[np.float32]]]] = {}
        levels = np.arange(256, dtype=np.uint8)[::-1, None]  # yellow for new tracks
        self._colours = cv2.applyColorMap(levels, cv2.COLORMAP_PLASMA)[:, 0, ::-1].tolist()

    def __call__(self, frame: TrackedFrame) -> Picture | None:
        """H W 3 uint8, RGB: the frame with its tracks; None for a broken frame."""
        if frame.error is not None:
            return None
        canvas = to_rgb8(read(frame.source)).copy()
        scale = max(1, round(max(canvas.shape) / 640))
        for track, xy in zip(frame.ids.tolist(), frame.xy, strict=True):
            trail = self._trails.setdefault(track, deque(maxlen=TRAIL_FRAMES))
            trail.append((frame.index, xy))
        for track in frame.ended.tolist():
            self._trails.pop(track, None)
        for track, age, static in zip(
            frame.ids.tolist(), frame.ages.tolist(), frame.static.tolist(), strict=True
        ):
            level = min(255, 255 * (age - 1) // FULL_AGE)
            colour = STATIC_RGB if static else self._colours[level]
            recent = [xy for index, xy in self._trails[track] if index > frame.index - TRAIL_FRAMES]
            line = np.round(np.array(recent) * 2**SUBPIXEL_BITS).astype(np.int32)  # T 2
            cv2.polylines(canvas, [line], False, colour, scale, cv2.LINE_AA, SUBPIXEL_BITS)
            x, y = line[-1].tolist()
            radius = 2 * scale * 2**SUBPIXEL_BITS
            cv2.circle(canvas, (x, y), radius, colour, -1, cv2.LINE_AA, SUBPIXEL_BITS)
        return canvas
