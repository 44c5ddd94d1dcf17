"""Frames and tracks -> an .rrd file for the viewer of Rerun (extra `rerun`)."""

from __future__ import annotations

from collections import deque
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import OutputError, import_extra
from tiepoint.images.reading import read
from tiepoint.plotting import to_rgb8
from tiepoint.tracking.drawing import TRAIL_FRAMES
from tiepoint.tracking.result import TrackedFrame

JPEG_QUALITY = 85

POINT_RADIUS_PX, TRAIL_RADIUS_PX = 2.0, 0.6


class RerunLog:
    """Logs each frame as an image with its points by id, on the timelines `frame` and `time`.

    Args:
        path: The .rrd file; an existing one is replaced.

    Raises:
        MissingExtraError: rerun-sdk is not installed.
        OutputError: The file cannot be written.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._rr: Any = import_extra("rerun", "an .rrd file", "rerun")
        self._recording = self._rr.RecordingStream("tiepoint")
        self._trails: dict[int, deque[NDArray[np.float32]]] = {}
        try:
            self._recording.save(Path(path))
        except (OSError, RuntimeError) as error:
            raise OutputError(f"{path}: cannot be written ({error}); check the folder") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._recording.flush()
        self._recording.disconnect()

    def add(self, frame: TrackedFrame) -> None:
        """Log a frame; of a broken one only its error."""
        rr, recording = self._rr, self._recording
        recording.set_time("frame", sequence=frame.index)
        if frame.time_s == frame.time_s:
            recording.set_time("time", duration=frame.time_s)
        if frame.error is not None:
            recording.log("video/errors", rr.TextLog(str(frame.error)))
            return
        image = rr.Image(to_rgb8(read(frame.source))).compress(jpeg_quality=JPEG_QUALITY)
        recording.log("video", image)
        for track in frame.ended.tolist():
            self._trails.pop(track, None)
        for track, xy in zip(frame.ids.tolist(), frame.xy, strict=True):
            self._trails.setdefault(track, deque(maxlen=TRAIL_FRAMES)).append(xy)
        for name, chosen in (("scene", ~frame.static), ("overlays", frame.static)):
            ids = frame.ids[chosen]
            # Rerun has pixel corners at whole numbers, tiepoint pixel centres.
            xy = frame.xy[chosen] + np.float32(0.5)
            points = rr.Points2D(
                xy, radii=POINT_RADIUS_PX, class_ids=ids % 2**16, keypoint_ids=ids % 2**16
            )
            recording.log(f"video/{name}", points)
        trails = [np.array(self._trails[track]) + 0.5 for track in frame.ids.tolist()]
        recording.log(
            "video/trails",
            rr.LineStrips2D(trails, radii=TRAIL_RADIUS_PX, class_ids=frame.ids % 2**16),
        )
