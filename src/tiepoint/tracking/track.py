"""`track`: frames -> tracked points of each frame, as soon as the frame is there."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from tiepoint.checks import check_choice
from tiepoint.config import TrackingConfig, TrackingOptions, resolve
from tiepoint.errors import ConfigError, ImageError
from tiepoint.features import Features
from tiepoint.images.arrays import ChannelOrder
from tiepoint.images.masks import MaskSource, allowed_by
from tiepoint.images.video import VideoFrame, frames_of
from tiepoint.tracking.keyframes import KeyframeChoice
from tiepoint.tracking.result import TrackedFrame
from tiepoint.tracking.tracker import Tracker

if TYPE_CHECKING:
    from tiepoint.detector import Detector

MAX_KEYPOINTS = 1000
"""Keypoints of a frame, twice the tracks that start: a track may continue with a weak one."""


def track(
    frames: Any,
    *,
    detector: Detector | None = None,
    checkpoint: str | Path = "default",
    read_ahead: bool = False,
    mask: MaskSource = None,
    channel_order: ChannelOrder = "rgb",
    config: TrackingConfig | None = None,
    **overrides: Unpack[TrackingOptions],
) -> Iterator[TrackedFrame]:
    """Track keypoints through the frames of a video.

    Each frame is answered before the next one is taken, and no pixels are kept. With `read_ahead`
    several frames are detected at the same time, which is faster for files: on a CPU up to seven
    frames are taken beyond the one that is answered.

    Args:
        frames: A name that `images.video.frames_of` takes: a video file, a folder of images, a
            URL, "camera"; or an iterable of images, each any source that `Detector` reads, or of
            `VideoFrame`s. May be endless.
        detector: Detector of the keypoints; None takes `tracking_detector(checkpoint)`.
        read_ahead: Take further frames while one is processed; not for cameras.
        mask: Where keypoints are allowed: an array or file for all frames, or a function of the
            source of a frame.
        channel_order: "rgb", or "bgr" for arrays from OpenCV.
        config: Settings; None takes the defaults.
        overrides: Single settings of `TrackingConfig`, which replace those of `config`.

    Yields:
        A TrackedFrame for each frame. A broken frame has an error, and tracks continue after it.

    Raises:
        ImageError: The video or the mask cannot be opened, or no frame can be decoded.
        ConfigError: A setting that is unknown or out of range; a list of masks.
        MissingExtraError: A video, and the extra `video` is not installed.
    """
    settings = resolve(config or TrackingConfig(), overrides)
    check_choice("channel_order", channel_order, ("rgb", "bgr"))
    if isinstance(mask, list | tuple):
        raise ConfigError("mask is a list, expected one mask for all frames")
    if isinstance(frames, str | os.PathLike):
        frames, channel_order = frames_of(frames), "rgb"
    elif not isinstance(frames, Iterable) or isinstance(frames, bytes):
        raise ConfigError(
            f"frames is of type {type(frames).__name__}, expected the name of a video or folder, "
            "or an iterable of images"
        )
    if mask is not None and not callable(mask):
        mask = allowed_by(mask)  # once, and not for each frame
    detector = detector or tracking_detector(checkpoint)
    detect = _ahead if read_ahead else _one_by_one
    found = detect(_numbered(frames), detector, {"mask": mask, "channel_order": channel_order})
    return _tracked(found, settings)


def tracking_detector(checkpoint: str | Path = "default", **options: Any) -> Detector:
    """A `Detector` for frames of one size.

    It has no score threshold, so that tracks continue with weak keypoints, and detects
    `MAX_KEYPOINTS` unless the options have another number.
    """
    from tiepoint.detector import Detector

    defaults: dict[str, Any] = {"threshold": 0.0, "max_keypoints": MAX_KEYPOINTS, "compiled": True}
    return Detector(checkpoint, **{**defaults, **options})


def _numbered(frames: Iterable[Any]) -> Iterator[VideoFrame]:
    for index, frame in enumerate(frames):
        yield frame if isinstance(frame, VideoFrame) else VideoFrame(index, math.nan, frame)


def _one_by_one(
    frames: Iterator[VideoFrame], detector: Detector, options: dict[str, Any]
) -> Iterator[tuple[VideoFrame, Features | ImageError]]:
    for frame in frames:
        if frame.error is not None:
            yield frame, frame.error
            continue
        try:
            result: Features | ImageError = detector(frame.source, **options)
        except ImageError as error:
            result = error
        yield frame, result


def _ahead(
    frames: Iterator[VideoFrame], detector: Detector, options: dict[str, Any]
) -> Iterator[tuple[VideoFrame, Features | ImageError]]:
    waiting: deque[VideoFrame] = deque()  # in the order of the frames, broken ones among them

    def sources() -> Iterator[Any]:
        for frame in frames:
            waiting.append(frame)
            if frame.error is None:
                yield frame.source

    for detection in detector.stream(sources(), **options):
        while (frame := waiting.popleft()).error is not None:
            yield frame, frame.error
        if isinstance(detection.error, ImageError):
            yield frame, detection.error
        else:
            yield frame, detection.require()
    yield from ((frame, frame.error) for frame in waiting if frame.error is not None)


def _tracked(
    found: Iterator[tuple[VideoFrame, Features | ImageError]], config: TrackingConfig
) -> Iterator[TrackedFrame]:
    tracker, choose = Tracker(config), KeyframeChoice(config)
    for frame, features in found:
        if isinstance(features, ImageError):
            tracker.skip()
            yield TrackedFrame(frame.index, frame.time_s, frame.source, error=features)
            continue
        step = tracker.step(features)
        xy, moving = features.xy[step.keypoints], ~step.static  # M 2
        is_keyframe = choose(
            step.ids[moving], xy[moving], features.size_hw, is_cut=step.is_cut
        )  # fmt: skip
        yield TrackedFrame(
            index=frame.index,
            time_s=frame.time_s,
            source=frame.source,
            size_hw=features.size_hw,
            ids=step.ids,
            xy=xy,
            scores=features.scores[step.keypoints],
            ages=step.ages,
            static=step.static,
            motion=step.motion,
            is_keyframe=is_keyframe,
            is_cut=step.is_cut,
            ended=step.ended,
        )
