"""tracks.h5: complete, interrupted, killed and damaged."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.tracked_world import World, camera
from tiepoint import load_tracks
from tiepoint.config import TrackingConfig
from tiepoint.errors import FormatError, ImageError, OutputError
from tiepoint.tracking import tracks_file
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


FULL_DISK = """
import os, resource, signal, sys
sys.path.insert(0, sys.argv[2])
from tracking.test_tracks_file import tracked
from tiepoint.config import TrackingConfig
from tiepoint.errors import OutputError
from tiepoint.tracking import tracks_file
if sys.argv[4] == "zeros":
    vars(os).pop("posix_fallocate", None)
tracks_file.FLUSH_S, done = 0, 0
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    with tracks_file.TracksWriter(sys.argv[1], "v", TrackingConfig()) as writer:
        for frame in tracked(100):
            writer.add(frame)
            done += 1
except OutputError as error:
    print(done, error)
"""


@pytest.mark.parametrize("way", ["allocated", "zeros"])
@pytest.mark.parametrize("room", [1_000, 400_000, 1_200_000, 1_320_000])
def test_a_full_disk_costs_no_frame_that_was_written(tmp_path: Path, room: int, way: str) -> None:
    pytest.importorskip("resource", reason="this system has no limits of file sizes")
    path, folder = tmp_path / "tracks.h5", str(Path(__file__).resolve().parents[1])
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), folder, str(room), way],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    done, _, message = ended.stdout.partition(" ")
    assert "tracks.h5: cannot be written (File too large)" in message
    if room < 1_000_000:  # not even the space for the first rows
        assert done == "0"
        return
    assert 0 < int(done) < 100
    tracks = load_tracks(path)
    assert not tracks.is_complete
    assert_holds(tracks, tracked(100)[: int(done)])


def test_rows_that_were_not_written_are_written_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, path, writes = tracked(20), tmp_path / "tracks.h5", []

    def full_twice(values: h5py.Dataset, *item: object) -> None:
        writes.append(values.name)
        if len(writes) in (5, 20):
            raise OSError(errno.ENOSPC, "No space left on device")
        set_item(values, *item)

    set_item = h5py.Dataset.__setitem__
    monkeypatch.setattr(tracks_file, "FLUSH_S", 0)
    monkeypatch.setattr(h5py.Dataset, "__setitem__", full_twice)
    failures = 0
    with TracksWriter(path, "v", TrackingConfig()) as writer:
        for frame in frames:
            try:
                writer.add(frame)
            except OutputError:
                failures += 1
    tracks = load_tracks(path)
    assert failures == 2 and tracks.is_complete
    assert_holds(tracks, frames)
    assert path.stat().st_size < 400_000  # and nothing of the space that was reserved


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
