"""`tiepoint track` from its arguments to its files and exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from support.videos import HEIGHT, WIDTH, moving, write_video
from tiepoint import load_tracks
from tiepoint.cli import app
from tiepoint.errors import ImageError
from tiepoint.images.video import frames_of
from tiepoint.images.video_writing import VideoWriter

QUICK = ("-c", "small", "--max-keypoints", 300, "--max-tracks", 150)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["track", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    times_ms = [40 * t + (100 if t > 7 else 0) for t in range(14)]
    write_video(path, moving(14, logo=True), times_ms=times_ms)
    return path


def test_a_video_gives_tracks_a_film_with_trails_and_keyframes(video: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    out, plot, folder = tmp_path / "tracks.h5", tmp_path / "plot.mp4", tmp_path / "keyframes"
    code, output, _ = run(video, "-o", out, "--plot", plot, "--keyframes", folder, *QUICK)
    assert code == 0 and output.startswith("14 frames, ") and "frames/s" in output
    tracks = load_tracks(out)
    assert tracks.is_complete and len(tracks.time_s) == 14 and (tracks.length == 14).sum() > 30
    assert tracks.time_s[8] == pytest.approx(0.42) and tracks.static.sum() > 5
    assert tracks.meta["source"] == str(video)
    assert tracks.meta["settings"]["max_tracks"] == 150
    assert tracks.meta["provenance"]["settings"]["max_keypoints"] == 300
    drawn = list(frames_of(plot))
    assert [f.time_s for f in drawn] == pytest.approx(tracks.time_s.tolist(), abs=2e-3)
    plain = list(frames_of(video))
    for index in (0, 13):
        with_trails, without = (np.asarray(f[index].source, int) for f in (drawn, plain))
        changed = (np.abs(with_trails - without).max(axis=2) > 60).mean()
        assert with_trails.shape == (HEIGHT, WIDTH, 3) and 0.02 < changed < 0.5
    names = [f"{index:06d}.png" for index in np.flatnonzero(tracks.is_keyframe)]
    assert sorted(path.name for path in folder.iterdir()) == names and "000000.png" in names
    picture = cv2.imread(str(folder / "000000.png"))[..., ::-1]
    np.testing.assert_array_equal(picture, plain[0].source)


def test_json_has_a_line_for_each_frame(video: Path) -> None:
    code, output, errors = run(video, "--json", "--max-frames", 5, *QUICK)
    rows = [json.loads(line) for line in output.splitlines()]
    assert code == 0 and [row["frame"] for row in rows] == list(range(5))
    assert rows[0]["new"] == rows[0]["tracks"] == 150 and rows[0]["keyframe"]
    assert rows[3]["new"] < 40 and rows[3]["error"] is None
    assert rows[3]["time_s"] == pytest.approx(0.12)
    assert "5 frames" in errors


def test_a_folder_with_a_corrupt_image_is_tracked_and_named(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for index, image in enumerate(moving(4)):
        cv2.imwrite(str(frames / f"{index}.png"), image[..., ::-1])
    (frames / "2.png").write_bytes(b"no image")
    code, output, errors = run(frames, "--json", *QUICK)
    rows = [json.loads(line) for line in output.splitlines()]
    assert code == 1 and "2.png: not an image" in errors and "(1 broken)" in errors
    assert [row["error"] is None for row in rows] == [True, True, False, True]
    assert rows[0]["time_s"] is None and rows[3]["new"] < rows[3]["tracks"] / 2


def test_a_mask_excludes_keypoints(video: Path, tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, WIDTH // 2 :] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    out = tmp_path / "tracks.h5"
    code, _, _ = run(video, "-o", out, "--mask", tmp_path / "mask.png", "--max-frames", 3, *QUICK)
    assert code == 0 and load_tracks(out).xy[:, 0].min() > WIDTH // 2 - 1
    code, _, errors = run(video, "-o", tmp_path / "b.h5", "--mask", tmp_path / "none.png")
    assert code == 3 and "none.png" in errors


def test_an_interrupted_run_leaves_readable_files(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiepoint.tracking.drawing import TrailPainter

    draw = TrailPainter.__call__

    def interrupted(painter: TrailPainter, frame: object) -> object:
        if frame.index == 6:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return draw(painter, frame)  # type: ignore[arg-type]

    monkeypatch.setattr(TrailPainter, "__call__", interrupted)
    out, plot = tmp_path / "tracks.h5", tmp_path / "plot.mp4"
    code, _, errors = run(video, "-o", out, "--plot", plot, *QUICK)
    assert code == 130 and "interrupted" in errors
    tracks = load_tracks(out)
    assert not tracks.is_complete and len(tracks.time_s) == 7
    assert len(list(frames_of(plot))) == 6


def test_wrong_usage_is_named_before_any_work(video: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((video,), "nothing to write"),
        ((video, "-o", tmp_path / "tracks.npz"), ".h5"),
        ((video, "--plot", tmp_path / "plot.gif"), ".mp4"),
        ((video, "-o", tmp_path / "none" / "tracks.h5"), "no such folder"),
        ((video, "--json", "--max-gap", -1), "--max-gap"),
    ):
        code, _, errors = run(*arguments)
        assert code == 2 and message in errors
    (tmp_path / "tracks.h5").write_bytes(b"kept")
    code, _, errors = run(video, "-o", tmp_path / "tracks.h5")
    assert code == 2 and "--overwrite" in errors
    code, _, errors = run(tmp_path / "none.mp4", "--json")
    assert code == 3 and "none.mp4" in errors
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 50)
    code, _, errors = run(tmp_path / "bad.mp4", "--json")
    assert code == 3 and "bad.mp4" in errors


def test_an_output_is_never_the_input(video: Path, tmp_path: Path) -> None:
    frames, film = tmp_path / "frames", tmp_path / "film.mp4"
    frames.mkdir()
    for index, image in enumerate(moving(3), 1):
        cv2.imwrite(str(frames / f"{index:06d}.png"), image[..., ::-1])
    film.write_bytes(video.read_bytes())
    (tmp_path / "linked").symlink_to(frames)
    before = {path: path.read_bytes() for path in [film, *frames.iterdir()]}
    for arguments, message in (
        ((frames, "--keyframes", frames), "is the folder of the frames"),
        ((frames, "--keyframes", tmp_path / "linked"), "is the folder of the frames"),
        ((film, "--plot", film), "is one of the inputs"),
    ):
        code, _, errors = run(*arguments, "--overwrite", *QUICK)
        assert code == 2 and message in errors
    assert {path: path.read_bytes() for path in [film, *frames.iterdir()]} == before


def test_keyframes_do_not_mix_with_those_of_another_run(video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "keyframes"
    folder.mkdir()
    (folder / "notes.txt").write_text("no image")
    short = (video, "--keyframes", folder, "--max-frames", 2, *QUICK)
    assert run(*short)[0] == 0 and (folder / "000000.png").exists()
    (folder / "000000.png").write_bytes(b"of another run")
    code, _, errors = run(*short)
    assert code == 2 and "has images" in errors and "--overwrite" in errors
    assert (folder / "000000.png").read_bytes() == b"of another run"
    code, _, errors = run(*short, "--overwrite")
    assert code == 0 and "images of other names stay" in errors
    assert (folder / "000000.png").read_bytes() != b"of another run"


@pytest.mark.parametrize(
    ("library", "option", "extra"),
    [("av", "--plot", "video"), ("h5py", "-o", "hdf5"), ("rerun", "--rrd", "rerun")],
)
def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, option: str, extra: str
) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), moving(1)[0])
    monkeypatch.setitem(sys.modules, library, None)
    ending = {"-o": ".h5", "--plot": ".mp4", "--rrd": ".rrd"}[option]
    code, _, errors = run(tmp_path, option, tmp_path / f"out{ending}", *QUICK)
    assert code == 2 and f"tiepoint[{extra}]" in errors


def test_frames_for_the_viewer_of_rerun(video: Path, tmp_path: Path) -> None:
    rerun = pytest.importorskip("rerun", reason="needs the extra rerun")
    path = tmp_path / "out.rrd"
    code, _, _ = run(video, "--rrd", path, "--max-frames", 4, *QUICK)
    assert code == 0 and path.read_bytes()[:3] == b"RRF" and path.stat().st_size > 20_000
    assert rerun.__version__


def test_pictures_of_odd_and_of_several_sizes_are_one_film(tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    with VideoWriter(path) as writer:
        writer.add(np.full((33, 47, 3), 90, np.uint8))
        writer.add(np.full((60, 30, 3), 200, np.uint8))
        writer.add(np.full((33, 47, 3), 90, np.uint8), 0.01)  # before the second
    frames = list(frames_of(path))
    assert [np.shape(frame.source) for frame in frames] == [(34, 48, 3)] * 3
    means = [np.mean(np.asarray(frame.source)) for frame in frames]
    assert means == pytest.approx([90, 200, 90], abs=6)
    with pytest.raises(ImageError):
        list(frames_of(tmp_path / "b.mp4"))


FULL_DISK = """
import resource, signal, sys
from tiepoint.cli import app
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))
app(sys.argv[1:])
"""


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_a_full_disk_ends_the_film_with_one_line(video: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("resource", reason="this system has no limits of file sizes")
    arguments = ["track", str(video), "--plot", str(tmp_path / name), *map(str, QUICK)]
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *arguments],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.startswith("tiepoint: stopped after ") and ended.stderr.count("\n") == 1
    assert f"{name}: cannot be written (File too large)" in ended.stderr
