"""Reconstruction by pycolmap: cameras of a known scene, and the traps around it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.scene_views import CAMERA, views
from tiepoint.batch import reconstruction
from tiepoint.batch.colmap import CameraConfig, DatabaseFeatures, match_images
from tiepoint.batch.pair_choice import choose_pairs
from tiepoint.batch.reconstruction import load_pycolmap, reconstruct
from tiepoint.config import PairConfig
from tiepoint.errors import ConfigError, FormatError, MissingExtraError
from tiepoint.formats.colmap import ColmapDatabase
from tiepoint.formats.colmap_tables import Camera

PARAMS = (600.0, 600.0, 320.0, 240.0)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six views of a scene, matched and verified."""
    path = tmp_path_factory.mktemp("scene") / "d.db"
    opened = ColmapDatabase(path)
    for number, view in enumerate(views(6, depth=2, step=0.5)):
        opened.add(f"{number}.jpg", view.features, Camera(1, (640, 480), PARAMS, True))
    pairs = choose_pairs(DatabaseFeatures(opened), PairConfig())
    assert {record.geometry for record in match_images(opened, pairs)} == {"calibrated"}
    opened.close()
    return path


def test_a_known_scene_is_reconstructed_with_its_cameras(database: Path, tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    (model,) = reconstruct(database, tmp_path, tmp_path / "out", refine_intrinsics=False)
    assert model.images == 6 and model.points > 280
    assert 0.1 < model.reprojection_px < 0.35  # of 0.2 px of noise in x and in y
    assert model.folder == tmp_path / "out" / "0"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0"]
    read = load_pycolmap().Reconstruction(model.folder)
    truth = views(6, depth=2, step=0.5)
    poses = {image.name: image.cam_from_world().matrix() for image in read.images.values()}
    rotation = poses["5.jpg"][:, :3] @ poses["0.jpg"][:, :3].T
    np.testing.assert_allclose(rotation, truth[5].rotation @ truth[0].rotation.T, atol=2e-3)
    camera = next(iter(read.cameras.values()))
    np.testing.assert_allclose(camera.params, PARAMS)
    assert CameraConfig("PINHOLE", params=PARAMS).camera(Path(), (480, 640)).intrinsics is not None
    np.testing.assert_allclose(Camera(1, (640, 480), PARAMS, True).intrinsics, CAMERA)


def test_nothing_in_common_gives_no_model(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    opened = ColmapDatabase(tmp_path / "d.db")
    for number in range(2):
        camera = Camera(1, (640, 480), PARAMS, True)
        opened.add(f"{number}.jpg", views(1, seed=number)[0].features, camera)
    list(match_images(opened, [("0.jpg", "1.jpg")]))
    opened.close()
    assert reconstruct(tmp_path / "d.db", tmp_path, tmp_path / "out") == []


def test_a_folder_with_files_is_refused_before_any_work(database: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(ConfigError, match="expected a new or an empty folder"):
        reconstruct(database, tmp_path, tmp_path / "out")
    with pytest.raises(ConfigError, match="is a file"):
        reconstruct(database, tmp_path, tmp_path / "out" / "mine.txt")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_missing_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such database"):
        reconstruct(tmp_path / "none.db", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_database_is_an_error_of_ours(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    (tmp_path / "d.db").write_text("no database")
    with pytest.raises(FormatError, match=r"d\.db"):
        reconstruct(tmp_path / "d.db", tmp_path, tmp_path / "out")


def test_without_pycolmap_the_extra_is_named(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent: Any = lambda library: False  # noqa: E731
    monkeypatch.setattr(reconstruction, "is_installed", absent)
    with pytest.raises(MissingExtraError, match=r"tiepoint\[colmap\]"):
        reconstruct(database, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_png_can_be_written_after_pycolmap_is_loaded(tmp_path: Path) -> None:
    """pycolmap 4.2.1 aborts the process if it loads before Python's zlib."""
    pytest.importorskip("pycolmap")
    code = f"""
from tiepoint.batch.reconstruction import load_pycolmap
load_pycolmap()
import numpy as np
from PIL import Image
noise = np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8)
Image.fromarray(noise).save({str(tmp_path / "a.png")!r})
np.savez_compressed({str(tmp_path / "a.npz")!r}, noise=noise)
print("written")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout == "written\n", done.stderr


def test_sigterm_keeps_its_handler_after_pycolmap_is_loaded() -> None:
    pytest.importorskip("pycolmap")
    code = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
from tiepoint.batch.reconstruction import load_pycolmap
load_pycolmap()
try:
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        pass
finally:
    print("cleaned up")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (143, "cleaned up\n"), done.stderr
