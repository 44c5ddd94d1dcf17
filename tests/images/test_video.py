"""Frames of videos and folders: time stamps, rotation flags, damage, order."""

from __future__ import annotations

import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from support.videos import HEIGHT, WIDTH, moving, set_rotation, write_video
from tiepoint.errors import ImageError, MissingExtraError
from tiepoint.images import video
from tiepoint.images.video import frames_of, natural_key


def pixels_of(frame: video.VideoFrame) -> NDArray[np.float64]:
    assert isinstance(frame.source, np.ndarray)
    return frame.source.astype(np.float64)


def test_frames_have_the_pixels_and_the_times_of_the_file(tmp_path: Path) -> None:
    originals, times_ms = moving(8), [0, 40, 100, 110, 500, 520, 900, 1000]
    write_video(tmp_path / "a.mp4", originals, times_ms=times_ms)
    frames = list(frames_of(tmp_path / "a.mp4"))
    assert [frame.index for frame in frames] == list(range(8))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.array(times_ms) / 1000)
    for frame, original in zip(frames, originals, strict=True):
        assert frame.error is None and pixels_of(frame).shape == (HEIGHT, WIDTH, 3)
        assert np.abs(pixels_of(frame) - original).mean() < 6


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_rotation_flag_is_applied(tmp_path: Path, degrees: int) -> None:
    originals = moving(3)
    write_video(tmp_path / "a.mp4", originals)
    set_rotation(tmp_path / "a.mp4", degrees)
    frames = list(frames_of(tmp_path / "a.mp4"))
    assert len(frames) == 3
    for frame, original in zip(frames, originals, strict=True):
        upright = np.rot90(original, -degrees // 90)  # clockwise
        assert np.abs(pixels_of(frame) - upright).mean() < 6


def damaged(path: Path, start: float, end: float) -> None:
    data = bytearray(path.read_bytes())
    place = data.index(b"mdat") + 4
    rest = len(data) - place
    first, last = place + int(start * rest), place + int(end * rest)
    data[first:last] = np.random.default_rng(1).bytes(last - first)
    path.write_bytes(data)


def test_frames_after_damage_are_read_and_broken_ones_are_named(tmp_path: Path) -> None:
    originals = moving(60)
    path = tmp_path / "a.mp4"
    write_video(path, originals, codec="libx264", group=10)
    damaged(path, 0.3, 0.4)
    frames = list(frames_of(path))
    broken = [frame for frame in frames if frame.error is not None]
    assert broken and all("cannot be decoded" in str(frame.error) for frame in broken)
    assert all(frame.source is None and math.isnan(frame.time_s) for frame in broken)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert frames[-1].error is None
    assert np.abs(pixels_of(frames[-1]) - originals[-1]).mean() < 8


def test_a_truncated_video_gives_the_frames_that_are_left(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"  # its index is at the end, but frames are readable without it
    write_video(path, moving(40))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    readable = [frame for frame in frames_of(path) if frame.error is None]
    assert 10 < len(readable) < 30


@pytest.mark.parametrize("content", [b"", b"no video" * 100, b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"])
def test_a_file_that_is_no_video_is_named(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.mp4"):
        list(frames_of(path))


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    write_video(tmp_path / "other.ts", moving(5))
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\nother.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(playlist)
    (tmp_path / "list.txt").write_text("ffconcat version 1.0\nfile other.ts\n")
    for name in ("list.m3u8", "list.txt"):
        with pytest.raises(ImageError, match=name):
            list(frames_of(tmp_path / name))


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(ImageError, match="without pictures"):
        list(frames_of(path))


def test_a_missing_file_a_fifo_and_a_missing_camera_are_named(tmp_path: Path) -> None:
    pytest.importorskip("av")
    with pytest.raises(ImageError, match="none.mp4: the video cannot be opened"):
        list(frames_of(tmp_path / "none.mp4"))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.mp4")
        with pytest.raises(ImageError, match="not a regular file"):
            list(frames_of(tmp_path / "pipe.mp4"))
    with pytest.raises(ImageError, match="camera:63 cannot be opened"):
        frames_of("camera:63")


def test_a_camera_is_read_in_order_and_released(monkeypatch: pytest.MonkeyPatch) -> None:
    released = []

    class Camera:
        def __init__(self, number: int) -> None:
            assert number == 1
            self.bgr = [np.full((4, 6, 3), (10 * t, 0, 200), np.uint8) for t in range(3)]

        def isOpened(self) -> bool:
            return True

        def set(self, *_: object) -> None: ...

        def read(self) -> tuple[bool, object]:
            return (True, self.bgr.pop(0)) if self.bgr else (False, None)

        def release(self) -> None:
            released.append(True)

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    frames = list(frames_of("camera:1"))
    assert [pixels_of(frame)[0, 0].tolist() for frame in frames] == [
        [200, 0, 0], [200, 0, 10], [200, 0, 20],
    ]  # fmt: skip
    assert released == [True] and frames[0].time_s <= frames[1].time_s


def test_a_folder_is_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for name in ("f10.png", "f9.png", "f1.PNG", ".f2.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    names = [Path(str(frame.source)).name for frame in frames_of(tmp_path)]
    assert names == ["f1.PNG", "f9.png", "f10.png"]
    assert sorted(["a10b2", "a9", "a10b1", "9", "A1"], key=natural_key) == [
        "9", "A1", "a9", "a10b1", "a10b2",
    ]  # fmt: skip
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no images in this folder"):
        frames_of(tmp_path / "empty")


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"tiepoint\[video\]"):
        frames_of(tmp_path / "a.mp4")
