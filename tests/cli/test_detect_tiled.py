"""`tiepoint detect --tile`: the keypoints of the whole image, in bounded memory."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

import tiepoint
from support.detect_runs import start
from support.tiled import assert_identical, assert_same
from tiepoint.cli import app
from tiepoint.formats import read_h5, read_matches_h5
from tiepoint.formats.features_store import StoreFeatures
from tiepoint.images.samples import sample_views

PHOTO = str(sample_views()[0])
SMALL = ("-c", "small", "--precision", "f32")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["detect", *arguments])


def test_a_photo_in_tiles_has_the_keypoints_of_the_whole(tmp_path: Path) -> None:
    for name, more in (
        ("whole", ["--max-side", "none"]),
        ("tiled", ["--tile", "--tile-px", "256"]),
    ):
        result = run(PHOTO, *SMALL, *more, "-o", str(tmp_path / f"{name}.npz"))
        assert result.exit_code == 0, result.output
    whole, tiled = (tiepoint.load(tmp_path / f"{name}.npz") for name in ("whole", "tiled"))
    np.testing.assert_allclose(tiled.xy, whole.xy, atol=2e-3)
    assert tiled.meta["tile_px"] == 256
    assert tiled.provenance is not None and tiled.provenance.settings["max_side"] is None


def test_a_store_takes_tiled_images_and_resumes(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    store = str(tmp_path / "features.store")
    for expected in ("1 done", "1 skipped"):
        result = run(PHOTO, *SMALL, "--tile", "-o", store)
        assert result.exit_code == 0 and expected in result.output


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs a.png and b.png, and of the first a mask whose right half is transparent."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    pixels = Image.open(PHOTO).convert("L").resize((320, 240))
    for name in ("a.png", "b.png"):
        pixels.save(tmp_path / "photos" / name)
    mask = np.full((240, 320, 4), 255, np.uint8)
    mask[:, 160:, 3] = 0
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png.png")
    return tmp_path / "photos"


def stored_in(out: Path) -> dict[str, tiepoint.Features]:
    """The features of a run by the name of the image."""
    if out.suffix == ".store":
        return dict(StoreFeatures(out))
    if out.suffix == ".h5":
        return dict(read_h5(out))
    return {path.stem: tiepoint.load(path) for path in sorted(out.iterdir())}


@pytest.mark.parametrize("name", ["out", "a.h5", "a.store"])
def test_masked_photos_have_the_keypoints_of_the_whole_and_are_skipped_the_next_time(
    photos: Path, tmp_path: Path, name: str
) -> None:
    pytest.importorskip("h5py")
    given = [str(photos), *SMALL, "--masks", str(tmp_path / "masks")]
    results = []
    for way in (["--max-side", "none"], ["--tile", "--tile-px", "128"]):
        out = tmp_path / way[0] / name
        out.parent.mkdir()
        for expected in ("2 done", "2 skipped"):
            result = run(*given, *way, "-o", str(out))
            assert result.exit_code == 0 and expected in result.output
        results.append(stored_in(out))
    whole, tiled = results
    assert list(tiled) == list(whole) == ["a.png", "b.png"]
    assert whole["a.png"].xy[:, 0].max() < 162 < tiled["b.png"].xy[:, 0].max()
    for image, features in tiled.items():
        assert_same(features, whole[image], apart=["image_file"])
    without = run(str(photos), *SMALL, "--tile", "--tile-px", "128", "-o", str(out))
    assert without.exit_code == 1 and "mask" in without.output


def test_a_turned_photo_has_the_camera_and_the_keypoints_of_its_file_in_colmap(
    tmp_path: Path,
) -> None:
    pytest.importorskip("h5py")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.open(PHOTO).convert("L").resize((320, 240))
    folder = tmp_path / "photos"
    folder.mkdir()
    photo.save(folder / "turned.jpg", exif=exif)
    tables = []
    for way in (["--max-side", "none"], ["--tile", "--tile-px", "128"]):
        h5, database = (str(tmp_path / f"{way[0]}{ending}") for ending in (".h5", ".db"))
        assert run(str(folder), *SMALL, *way, "-o", h5).exit_code == 0
        made = CliRunner().invoke(app, ["colmap", str(folder), "--features", h5, "-o", database])
        assert made.exit_code == 0, made.output
        with closing(sqlite3.connect(database)) as opened:
            (camera,) = opened.execute("SELECT width, height FROM cameras").fetchall()
            ((rows, columns, data),) = opened.execute("SELECT rows, cols, data FROM keypoints")
        tables.append((camera, np.frombuffer(data, np.float32).reshape(rows, columns)[:, :2]))
    (camera, whole), (camera_tiled, tiled) = tables
    assert camera == camera_tiled == (320, 240)
    assert whole[:, 0].max() > 240
    np.testing.assert_allclose(tiled, whole, atol=2e-3)


def test_another_channel_is_another_setting(tmp_path: Path) -> None:
    bands = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    image = tmp_path / "bands.png"
    Image.fromarray(bands.repeat(8, 0).repeat(8, 1)).save(image)
    out = str(tmp_path / "a.npz")
    found = []
    for channels in ("0", "0,2", "1"):
        options = [str(image), *SMALL, "--tile", "--channels", channels, "-o", out]
        if found:
            refused = run(*options)
            assert refused.exit_code == 1 and "settings.channels" in refused.output
        result = run(*options, "--overwrite")
        assert result.exit_code == 0 and "1 done" in result.output
        found.append(tiepoint.load(out))
    assert found[1].provenance is not None
    assert found[1].provenance.settings["channels"] == [0, 2]
    assert not np.array_equal(found[0].xy, found[2].xy)
    again = run(str(image), *SMALL, "--tile", "--channels", "1", "-o", out)
    assert "1 skipped" in again.output
    assert run(str(image), "--tile", "--channels", "3", "-o", out, "--overwrite").exit_code == 3


@pytest.mark.parametrize(
    "option", [["--tile-px", "512"], ["--on-damage", "skip"], ["--channels", "0"]]
)
def test_options_of_tiles_need_tiles(tmp_path: Path, option: list[str]) -> None:
    result = run(PHOTO, *option, "-o", str(tmp_path / "a.npz"))
    assert result.exit_code == 2 and f"{option[0]} needs --tile" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-side", "800"], "--max-side is 800, but tiles show an image at its native size"),
        (["--spread"], "--spread needs --max-keypoints"),
        (["--tile-px", "100"], "--tile-px is 100, expected a multiple of 8"),
        (["--channels", "red"], "--channels is 'red', expected numbers from 0 on"),
    ],
    ids=str,
)
def test_what_tiles_cannot_do_is_wrong_usage(
    tmp_path: Path, options: list[str], message: str
) -> None:
    result = run(PHOTO, "--tile", *options, "-o", str(tmp_path / "a.npz"))
    assert result.exit_code == 2 and message in result.output


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan of 900x1200 px: 70 tiles of 128 px."""
    pixels = np.asarray(Image.open(PHOTO).convert("L").resize((1200, 900)))
    path = tmp_path_factory.mktemp("scan") / "scan.npy"
    np.save(path, pixels)
    return path


def state_bytes(folder: Path) -> int:
    """Size of the tiles that are done."""
    for path in folder.glob("*.tiles"):
        with suppress(FileNotFoundError):  # the run has just ended
            return path.stat().st_size
    return 0


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.h5", []),
        ("a.h5", ["--spread", "--max-keypoints", "400"]),
        ("a.npz", ["--max-keypoints", "300"]),
        ("folder", ["--max-keypoints", "300", "--format", "json"]),
    ],
    ids=["all", "spread", "best", "folder"],
)
def test_a_run_that_is_killed_at_random_gives_the_same_file(
    scan: Path, tmp_path: Path, name: str, options: list[str]
) -> None:
    pytest.importorskip("h5py")
    given = [str(scan), *SMALL, "--tile", "--tile-px", "128", *options]
    end = "scan.npy.json" if name == "folder" else ""
    (tmp_path / "whole").mkdir()
    assert run(*given, "-o", str(tmp_path / "whole" / name)).exit_code == 0
    out, rng, kills = tmp_path / "out", np.random.default_rng(len(name) + len(options)), 0
    out.mkdir()
    states = out / name if name == "folder" else out
    while kills < 40:
        size = state_bytes(states)
        process = start(*given, "-o", out / name)
        deadline = time.monotonic() + 60
        while kills < 3 and process.poll() is None and time.monotonic() < deadline:
            if state_bytes(states) > size:
                time.sleep(float(rng.uniform(0, 0.6)))
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        _, errors = process.communicate()
        code = process.returncode
        if code == 0:
            break
        assert code == -signal.SIGKILL, errors
        kills += 1
    assert kills >= 2
    assert_identical(
        tiepoint.load(out / name / end), tiepoint.load(tmp_path / "whole" / name / end)
    )
    assert [path for path in out.rglob("*") if path.suffix in (".tiles", ".partial")] == []


def test_an_interrupted_run_is_resumed_by_the_same_command(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = [0]
    original = tiepoint.Detector._window_maps

    def counted(*arguments: Any, **more: Any) -> Any:
        tiles[0] += 1
        if tiles[0] == 40:
            raise KeyboardInterrupt
        return original(*arguments, **more)

    monkeypatch.setattr(tiepoint.Detector, "_window_maps", counted)
    given = [str(scan), *SMALL, "--tile", "--tile-px", "128", "-o", str(tmp_path / "a.npz")]
    stopped = run(*given)
    assert stopped.exit_code == 130
    assert "interrupted; repeat the same command to resume" in stopped.output
    resumed = run(*given, "--verbose")
    assert resumed.exit_code == 0 and "scan.npy-" in resumed.output
    assert "resumes with" in resumed.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    whole = run(*given[:-1], str(tmp_path / "whole.npz"))
    assert whole.exit_code == 0
    assert_identical(tiepoint.load(tmp_path / "a.npz"), tiepoint.load(tmp_path / "whole.npz"))


@pytest.mark.parametrize("name", ["a.h5", "a.store"])
def test_all_keypoints_of_a_large_image_go_into_a_store(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip("h5py")
    monkeypatch.setattr("tiepoint.tiles.detection.LARGE_PX", 10_000)
    monkeypatch.setattr("tiepoint.formats.hloc_features_writer.LARGE_BYTES", 10_000)
    monkeypatch.setattr("tiepoint.formats.fields.ROWS_AT_A_TIME", 100)
    given = [str(scan), *SMALL, "--tile", "--tile-px", "128"]
    refused = run(*given, "-o", str(tmp_path / "a.npz"))
    assert refused.exit_code == 3
    assert "without max_keypoints" in refused.output and ".h5 file" in refused.output
    result = run(*given, "-o", str(tmp_path / name))
    assert result.exit_code == 0, result.output
    again = run(*given, "-o", str(tmp_path / name))
    assert again.exit_code == 0 and "1 skipped" in again.output
    stored = (read_h5 if name == "a.h5" else StoreFeatures)(tmp_path / name)
    (features,) = stored.values()
    detector = tiepoint.Detector("small", precision="f32", max_side=None)
    assert_same(features, detector(np.load(scan)), apart=["source", "image_file"])


def test_match_and_colmap_read_what_tiles_have_written(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("h5py")
    monkeypatch.setattr("tiepoint.formats.hloc_features_writer.LARGE_BYTES", 10_000)
    photos, pixels = tmp_path / "photos", np.load(scan)
    photos.mkdir()
    Image.fromarray(pixels).save(photos / "a.png")
    Image.fromarray(pixels[:, 50:]).save(photos / "b.png")
    h5, matches, database = (str(tmp_path / name) for name in ("a.h5", "m.h5", "a.db"))
    result = run(str(photos), *SMALL, "--tile", "--tile-px", "128", "-o", h5)
    assert result.exit_code == 0, result.output
    for command in (
        ["match", "--features", h5, "-o", matches],
        ["colmap", str(photos), "--features", h5, "-o", database],
    ):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    (pair,) = read_matches_h5(matches).values()
    assert len(pair) > 500
    with closing(sqlite3.connect(database)) as tables:
        counts = tables.execute("SELECT rows FROM keypoints ORDER BY image_id").fetchall()
    stored = read_h5(h5)
    assert sorted(count for (count,) in counts) == sorted(len(one) for one in stored.values())
