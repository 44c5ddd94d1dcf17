"""`track` on pictures: exact motion, delay, memory, broken frames."""

from __future__ import annotations

import gc
import weakref
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tiepoint
from support.videos import HEIGHT, WIDTH, motion, moving, write_video
from tiepoint.detector import Detector
from tiepoint.errors import ConfigError, ImageError
from tiepoint.features import Features
from tiepoint.geometry import apply_homography
from tiepoint.images.video import VideoFrame
from tiepoint.streaming import READ_AHEAD


def drift_px(frames: list[tiepoint.TrackedFrame]) -> NDArray[np.float64]:
    """Distance of each observation from where the first one of its track has moved to."""
    first: dict[int, NDArray[np.float64]] = {}
    off: list[float] = []
    for frame in frames:
        back = apply_homography(np.linalg.inv(motion(frame.index)), frame.xy)
        for track, place, xy in zip(frame.ids.tolist(), back, frame.xy, strict=True):
            start = first.setdefault(track, place)
            now = apply_homography(motion(frame.index), start[None])[0]
            if start is not place:
                off.append(float(np.linalg.norm(now - xy)))
    return np.array(off)


def test_points_of_a_photograph_are_tracked_with_little_drift(detector: Detector) -> None:
    frames = list(tiepoint.track(moving(25), detector=detector, max_tracks=120))
    assert [frame.index for frame in frames] == list(range(25))
    assert all(len(frame) > 80 for frame in frames)
    assert frames[-1].ages.mean() > 12
    off = drift_px(frames)
    assert np.median(off) < 0.6 and np.percentile(off, 95) < 3.5
    assert frames[0].is_keyframe and sum(frame.is_keyframe for frame in frames) < 8
    assert not any(frame.is_cut or frame.static.any() for frame in frames)
    for frame in frames[1:]:
        assert frame.motion is not None
        truth = motion(frame.index) @ np.linalg.inv(motion(frame.index - 1))
        grid = np.array([[60, 40], [180, 40], [120, 90], [60, 140], [180, 140.0]])
        off = apply_homography(frame.motion, grid) - apply_homography(truth, grid)
        assert np.abs(off).max() < 1


def test_a_logo_on_a_moving_photograph_is_static(detector: Detector) -> None:
    *_, last = tiepoint.track(moving(20, logo=True), detector=detector, max_tracks=200)
    x, y = last.xy.T
    on_logo = (x > 10) & (x < 86) & (y > 10) & (y < 46)
    assert on_logo.sum() > 10
    assert last.static[on_logo].mean() > 0.6
    around = (x > 4) & (x < 92) & (y > 4) & (y < 52)
    assert not last.static[~around].any()


class Taken:
    """Frames that record how many were taken, and how many of them are still in memory."""

    def __init__(self, frames: list[NDArray[np.uint8]], count: int) -> None:
        self.frames, self.count, self.taken = frames, count, 0
        self.held: list[Any] = []

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for index in range(self.count):
            frame = self.frames[index % len(self.frames)].copy()
            self.held.append(weakref.ref(frame))
            self.taken += 1
            yield frame
            del frame

    def in_memory(self) -> int:
        gc.collect()
        return sum(reference() is not None for reference in self.held)


def test_each_frame_is_answered_before_the_next_is_taken(detector: Detector) -> None:
    frames = Taken(moving(6), 12)
    for answered, frame in enumerate(tiepoint.track(frames, detector=detector), 1):
        assert frames.taken == answered == frame.index + 1


def test_reading_ahead_gives_the_same_tracks_and_takes_seven_frames_at_most(
    detector: Detector,
) -> None:
    ahead = READ_AHEAD + detector.in_flight - 1
    assert ahead <= 7
    frames, pixels = Taken(moving(6), 16), moving(6)
    one_by_one = list(tiepoint.track((pixels[i % 6] for i in range(16)), detector=detector))
    most = 0
    for frame in tiepoint.track(frames, detector=detector, read_ahead=True):
        most = max(most, frames.taken - frame.index - 1)
        before = one_by_one[frame.index]
        np.testing.assert_array_equal(frame.ids, before.ids)
        np.testing.assert_allclose(frame.xy, before.xy, atol=0.01)
    assert most == ahead


class Noisy:
    """In place of a detector: the same features for each frame, at once."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        described = rng.normal(size=(80, 16)).astype(np.float32)
        described /= np.linalg.norm(described, axis=1, keepdims=True)
        xy = rng.uniform(5, 100, (80, 2)).astype(np.float32)
        self.features = Features(xy, np.ones(80, np.float32), described, (120, 160))
        self.rng = rng

    def __call__(self, source: Any, **_: Any) -> Features:
        return self.features.take(np.sort(self.rng.choice(80, 60, replace=False)))


def test_one_frame_is_in_memory_whatever_the_number_of_frames() -> None:
    frames: Any = Taken([np.zeros((120, 160, 3), np.uint8)], 600)
    noisy: Any = Noisy()
    most = 0
    for frame in tiepoint.track(frames, detector=noisy):
        if frame.index % 50 == 0:
            most = max(most, frames.in_memory())
    assert frame.index == 599 and most <= 1


def test_broken_frames_are_passed_on_and_tracks_continue(detector: Detector) -> None:
    pixels = moving(9)
    frames = [VideoFrame(i, 0.04 * i, image) for i, image in enumerate(pixels)]
    for index in (0, 4, 8):
        frames[index] = VideoFrame(index, np.nan, None, ImageError("damaged"))
    for read_ahead in (False, True):
        tracked = list(
            tiepoint.track(iter(frames), detector=detector, read_ahead=read_ahead)
        )  # fmt: skip
        assert [frame.index for frame in tracked] == list(range(9))
        assert [frame.error is not None for frame in tracked] == [
            i in (0, 4, 8) for i in range(9)
        ]  # fmt: skip
        assert len(tracked[4]) == 0 and tracked[4].size_hw is None and "broken" in repr(tracked[4])
        assert np.isin(tracked[5].ids, tracked[3].ids).mean() > 0.7
        assert tracked[5].time_s == pytest.approx(0.2)


def test_a_folder_with_a_corrupt_image_is_tracked(tmp_path: Path, detector: Detector) -> None:
    for index, image in enumerate(moving(5)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), image[..., ::-1])
    (tmp_path / "2.png").write_bytes(b"no image")
    frames = list(tiepoint.track(tmp_path, detector=detector))
    assert [frame.error is None for frame in frames] == [True, True, False, True, True]
    assert "2.png" in str(frames[2].error)
    assert np.isin(frames[3].ids, frames[1].ids).mean() > 0.7
    assert frames[4].source == str(tmp_path / "4.png") and np.isnan(frames[4].time_s)


def test_a_video_file_is_tracked_by_its_name(tmp_path: Path, detector: Detector) -> None:
    write_video(tmp_path / "a.mp4", moving(6), times_ms=[0, 40, 90, 400, 440, 480])
    frames = list(tiepoint.track(str(tmp_path / "a.mp4"), detector=detector))
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.04, 0.09, 0.4, 0.44, 0.48])
    assert frames[0].size_hw == (HEIGHT, WIDTH)
    assert (frames[-1].ages == 6).mean() > 0.4


def test_one_id_is_one_point_and_ids_follow_one_another(detector: Detector) -> None:
    seen: dict[int, list[int]] = defaultdict(list)
    ended: list[int] = []
    for frame in tiepoint.track(moving(20), detector=detector, max_gap=2):
        assert not set(frame.ids.tolist()) & set(ended)
        ended += frame.ended.tolist()
        for track, age in zip(frame.ids.tolist(), frame.ages.tolist(), strict=True):
            seen[track].append(age)
    assert all(ages == list(range(1, len(ages) + 1)) for ages in seen.values())
    assert sorted(seen) == list(range(len(seen))) and len(set(ended)) == len(ended) > 0


def test_arguments_that_cannot_be_are_refused(detector: Detector) -> None:
    with pytest.raises(ConfigError, match="frames is of type int"):
        tiepoint.track(5, detector=detector)
    with pytest.raises(ConfigError, match="mask is a list"):
        tiepoint.track([], detector=detector, mask=[None])
    with pytest.raises(ConfigError, match="unknown option gap"):
        tiepoint.track([], detector=detector, gap=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="channel_order"):
        tiepoint.track([], detector=detector, channel_order="gbr")  # type: ignore[arg-type]
    assert list(tiepoint.track([], detector=detector)) == []
