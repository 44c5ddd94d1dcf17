"""tracks.h5: complete, interrupted, killed and damaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.tracked_world import World, camera
from tiepoint import load_tracks
from tiepoint.config import TrackingConfig
from tiepoint.errors import FormatError, ImageError, OutputError
from tiepoint.tracking.result import TrackedFrame
from tiepoint.tracking.tracker import Tracker
from tiepoint.tracking.tracks_file import Tracks, TracksWriter

h5py = pytest.importorskip("h5py", reason="tracks.h5 needs the extra hdf5")


def tracked(count: int) -> list[TrackedFrame]:
    """Frames of a world with a logo; every tenth is broken."""
    world, tracker, frames = World(logo=20), Tracker(TrackingConfig(max_gap=2)), []
    for t in range(count):
        if t % 10 == 7:
            tracker.skip()
            frames.append(TrackedFrame(t, np.nan, None, error=ImageError("damaged")))
            continue
        features, _ = world.seen(camera(t))
        step = tracker.step(features)
        xy, scores = features.xy[step.keypoints], features.scores[step.keypoints]
        frames.append(
            TrackedFrame(
                t, t / 25, None, features.size_hw, step.ids, xy, scores, step.ages, step.static,
                step.motion, t == 0, step.is_cut, step.ended,
            )
        )  # fmt: skip
    return frames


def assert_holds(tracks: Tracks, frames: list[TrackedFrame]) -> None:
    """Compare with plain loops over the frames."""
    assert len(tracks.time_s) == len(frames)
    ids = [track for frame in frames for track in frame.ids.tolist()]
    assert tracks.id.tolist() == ids
    for frame in frames:
        part = tracks.of_frame(frame.index)
        np.testing.assert_array_equal(tracks.id[part], frame.ids)
        np.testing.assert_array_equal(tracks.xy[part], frame.xy)
        np.testing.assert_array_equal(tracks.score[part], frame.scores)
        assert (tracks.frame[part] == frame.index).all()
        assert tracks.is_broken[frame.index] == (frame.error is not None)
        assert tuple(tracks.size_hw[frame.index]) == (frame.size_hw or (0, 0))
        motion = tracks.motion[frame.index]
        np.testing.assert_array_equal(
            motion, np.full((3, 3), np.nan) if frame.motion is None else frame.motion
        )
    for track in range(len(tracks)):
        where = [frame.index for frame in frames if track in frame.ids]
        assert (tracks.first[track], tracks.last[track]) == (where[0], where[-1])
        assert tracks.length[track] == len(where) == ids.count(track)


def test_a_complete_file_has_what_was_added(tmp_path: Path) -> None:
    frames, path = tracked(30), tmp_path / "tracks.h5"
    with TracksWriter(path, "video.mp4", TrackingConfig()) as writer:
        for frame in frames:
            writer.add(frame)
    tracks = load_tracks(path)
    assert tracks.is_complete and tracks.meta["source"] == "video.mp4"
    assert tracks.meta["settings"]["max_gap"] == 5
    assert_holds(tracks, frames)
    last = {track: frame for frame in frames for track in frame.ids.tolist()}
    static = [bool(last[t].static[last[t].ids == t][0]) for t in range(len(tracks))]
    assert tracks.static.tolist() == static and 12 < sum(static) <= 20
    with h5py.File(path) as file:
        table = {name: file[f"tracks/{name}"][()] for name in file["tracks"]}
    order = np.argsort(table["id"])
    for name in ("first", "last", "length", "static"):
        np.testing.assert_array_equal(table[name][order], getattr(tracks, name))
    assert "30 frames" in repr(tracks)


def test_an_interrupted_run_leaves_its_frames(tmp_path: Path) -> None:
    frames, path = tracked(12), tmp_path / "tracks.h5"
    with pytest.raises(KeyboardInterrupt), TracksWriter(path, "v", TrackingConfig()) as writer:
        for frame in frames:
            writer.add(frame)
        raise KeyboardInterrupt
    tracks = load_tracks(path)
    assert not tracks.is_complete
    assert_holds(tracks, frames)


def test_a_killed_run_leaves_the_frames_that_were_flushed(tmp_path: Path) -> None:
    code = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from tracking.test_tracks_file import tracked
from tiepoint.config import TrackingConfig
from tiepoint.tracking import tracks_file
writer = tracks_file.TracksWriter(sys.argv[1], "v", TrackingConfig())
for frame in tracked(20):
    tracks_file.FLUSH_S = 0 if frame.index == 14 else 1e9
    writer.add(frame)
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "tracks.h5"
    folder = str(Path(__file__).resolve().parents[1])
    subprocess.run([sys.executable, "-c", code, str(path), folder], check=False, timeout=120)
    tracks = load_tracks(path)
    assert not tracks.is_complete
    assert_holds(tracks, tracked(15))


def test_no_frames_are_a_file_too(tmp_path: Path) -> None:
    TracksWriter(tmp_path / "tracks.h5", "v", TrackingConfig()).close()
    tracks = load_tracks(tmp_path / "tracks.h5")
    assert len(tracks) == 0 and tracks.is_complete and len(tracks.time_s) == 0


def test_other_and_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tracks.h5"
    for content in (b"", b"no hdf5"):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"tracks\.h5"):
            load_tracks(path)
    with h5py.File(path, "w") as file:
        file.attrs["format"] = np.bytes_(b"other")
    with pytest.raises(FormatError, match="tiepoint tracks"):
        load_tracks(path)
    with pytest.raises(FormatError, match="none.h5"):
        load_tracks(tmp_path / "none.h5")
    for name, value in (("id", 2**40), ("id", -1), ("frame", 10_000), ("frame", -1)):
        with TracksWriter(path, "v", TrackingConfig()) as writer:
            for frame in tracked(3):
                writer.add(frame)
        with h5py.File(path, "r+") as file:
            file[f"observations/{name}"][0 if value < 0 else -1] = value
        with pytest.raises(FormatError, match=name):
            load_tracks(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="none"):
        TracksWriter(tmp_path / "none" / "tracks.h5", "v", TrackingConfig())
