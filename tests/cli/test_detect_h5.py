"""`tiepoint detect -o features.h5`: all images in one file, resumable."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from support.detect_runs import start
from support.features_files import assert_equal, make, names_in
from tiepoint.cli import app
from tiepoint.formats import H5Writer, load, read_h5

h5py = pytest.importorskip("h5py")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["a.png", "b.png", "사진/c.png"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (48, 64), dtype=np.uint8)
        path.write_bytes(cv2.imencode(".png", noise)[1].tobytes())
    return tmp_path


def detect(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["detect", *arguments])


def test_all_images_go_to_one_file_under_their_relative_paths(photos: Path) -> None:
    result = detect("photos", "-o", "out/features.h5")
    assert result.exit_code == 0, result.output
    found = read_h5(photos / "out" / "features.h5")
    assert set(found) == {"a.png", "b.png", "사진/c.png"}
    assert names_in(photos / "out") == ["features.h5"]
    assert detect("photos", "-o", "folder").exit_code == 0
    for name, features in found.items():
        assert_equal(features, load(photos / "folder" / f"{name}.npz"))


def test_what_is_in_the_file_is_skipped_and_new_images_join(photos: Path) -> None:
    assert detect("photos/a.png", "photos/b.png", "-o", "x.h5").exit_code == 0
    stamp = (photos / "x.h5").stat().st_mtime_ns
    again = detect("photos/a.png", "photos/b.png", "-o", "x.h5")
    assert again.exit_code == 0 and "2 skipped" in again.stderr
    assert (photos / "x.h5").stat().st_mtime_ns == stamp
    more = detect("photos/a.png", "photos", "-o", "x.h5")
    assert "1 done, 2 skipped" in more.stderr
    assert {"photos/a.png", "photos/b.png", "photos/사진/c.png"} == set(read_h5("x.h5"))


def test_other_settings_are_refused_until_overwritten(photos: Path) -> None:
    assert detect("photos", "-o", "x.h5").exit_code == 0
    other = detect("photos", "-o", "x.h5", "--threshold", "0.25")
    assert other.exit_code == 1
    assert "x.h5: a.png: was made with other settings: settings.threshold" in other.stderr
    assert "3 refused" in other.stderr and "--overwrite" in other.stderr
    assert detect("photos", "-o", "x.h5", "--threshold", "0.25", "--overwrite").exit_code == 0
    found = read_h5("x.h5")
    assert {item.provenance.settings["threshold"] for item in found.values()} == {0.25}


def test_an_interrupted_run_resumes_from_its_journal(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = H5Writer.add

    def interrupt(self: H5Writer, name: str, features: Any) -> None:
        add(self, name, features)
        if len(self) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(H5Writer, "add", interrupt)
    stopped = detect("photos", "-o", "x.h5")
    assert stopped.exit_code == 130 and "repeat the same command to resume" in stopped.stderr
    assert not (photos / "x.h5").exists() and (photos / "x.h5.partial").exists()
    monkeypatch.setattr(H5Writer, "add", add)
    rest = detect("photos", "-o", "x.h5")
    assert rest.exit_code == 0 and "1 done, 2 skipped" in rest.stderr
    assert {"a.png", "b.png", "사진/c.png"} == set(read_h5("x.h5"))
    assert not (photos / "x.h5.partial").exists()


def test_what_an_interrupted_run_left_is_refused_under_other_settings(photos: Path) -> None:
    assert detect("photos", "-o", "x.h5").exit_code == 0
    writer = H5Writer(photos / "y.h5")
    for name, features in read_h5("x.h5").items():
        writer.add(name, features)
    writer.suspend()
    other = detect("photos", "-o", "y.h5", "--threshold", "0.25")
    assert other.exit_code == 1 and "3 refused" in other.stderr
    assert "3 skipped" in detect("photos", "-o", "y.h5").stderr


def test_runs_started_together_lose_no_image(photos: Path) -> None:
    runs = [start("photos", "-o", "x.h5") for _ in range(2)]
    errors = [run.communicate(timeout=120)[1] for run in runs]
    codes = [run.returncode for run in runs]
    assert 0 in codes and set(codes) <= {0, 1}, errors
    for code, error in zip(codes, errors, strict=True):
        assert code == 0 or "x.h5: another run is writing it; wait" in error
    found = read_h5(photos / "x.h5")
    assert set(found) == {"a.png", "b.png", "사진/c.png"}
    assert all(len(features) > 0 for features in found.values())
    assert names_in(photos) == ["photos", "x.h5"]


def test_a_damaged_file_is_made_again(photos: Path) -> None:
    assert detect("photos", "-o", "x.h5").exit_code == 0
    data = (photos / "x.h5").read_bytes()
    (photos / "x.h5").write_bytes(data[: len(data) // 2])
    again = detect("photos", "-o", "x.h5")
    assert again.exit_code == 0 and "3 done" in again.stderr and len(read_h5("x.h5")) == 3
    assert (photos / "x.h5.damaged1").read_bytes() == data[: len(data) // 2]


def test_a_replaced_image_and_a_damaged_group_are_done_again(photos: Path) -> None:
    assert detect("photos", "-o", "x.h5").exit_code == 0
    shutil.copy(photos / "photos" / "b.png", photos / "photos" / "a.png")
    with h5py.File("x.h5", "a") as file:
        file["사진/c.png"].attrs["meta"] = np.bytes_("{")
    again = detect("photos", "-o", "x.h5")
    assert again.exit_code == 0
    assert "2 done (1 again because the image changed, 1 again because the output" in again.stderr
    found = read_h5("x.h5")
    np.testing.assert_array_equal(found["a.png"].xy, found["b.png"].xy)
    assert "3 skipped" in detect("photos", "-o", "x.h5").stderr


def test_a_bad_image_fails_alone(photos: Path) -> None:
    (photos / "photos" / "bad.png").write_bytes(b"")
    result = detect("photos", "-o", "x.h5")
    assert result.exit_code == 1 and "3 done, 1 failed" in result.stderr
    assert len(read_h5("x.h5")) == 3


def test_half_and_plot_are_taken_only_where_they_fit(photos: Path) -> None:
    assert detect("photos", "-o", "x.h5", "--half").exit_code == 0
    with h5py.File("x.h5", "r") as file:
        assert file["a.png"]["descriptors"].dtype == np.float16
        assert file["a.png"]["keypoints"].dtype == np.float32
    for arguments, option in [(["-o", "y.h5", "--plot"], "--plot"), (["--half"], "--half")]:
        result = detect("photos", *arguments)
        assert result.exit_code == 2 and option in result.stderr
    assert not (photos / "y.h5").exists() and not (photos / "tiepoint-out").exists()


def test_places_are_names(photos: Path) -> None:
    from tiepoint.batch import H5Store

    with H5Writer(photos / "x.h5") as writer:
        store, name = H5Store(writer), PurePosixPath("a/b.png")
        assert not store.exists(name)
        store.save(name, make(4))
        assert store.exists(name)
        assert len(store.load(name)) == store.summarise(name).keypoints == 4
        assert store.label(name).endswith("x.h5: a/b.png") and store.overlay(name) is None
