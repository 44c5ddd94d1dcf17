"""Databases of tiepoint's in pycolmap, and pycolmap's in tiepoint."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.image_files import exif_block
from support.scene_views import SIZE_HW, true_matches, views
from tiepoint.batch.reconstruction import load_pycolmap
from tiepoint.formats.colmap import ColmapDatabase, TwoViewRow
from tiepoint.formats.colmap_tables import camera_of

PINHOLE = camera_of("PINHOLE", SIZE_HW[::-1], 600.0)
VIEWS = [view.features for view in views(3)]
NAMES = ("a.jpg", "b.jpg", "c.jpg")


@pytest.fixture(scope="module")
def pycolmap() -> Any:
    pytest.importorskip("pycolmap")
    module = load_pycolmap()
    module.logging.minloglevel = 2
    return module


def photographs(folder: Path, names: tuple[str, ...], orientation: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        image = Image.new("RGB", SIZE_HW[::-1], (90, 120, 60))
        image.save(folder / name, exif=exif_block(orientation))
    return folder


def imported(pycolmap: Any, path: Path, images: Path) -> Path:
    """A database of pycolmap's `import_images`, with rigs and frames."""
    pycolmap.Database.open(path).close()
    pycolmap.import_images(path, images)
    return path


def test_pycolmap_reads_what_was_written(pycolmap: Any, tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    database = ColmapDatabase(path)
    for name, features in zip(NAMES, VIEWS, strict=True):
        database.add(name, features, PINHOLE)
    fundamental = np.arange(9.0).reshape(3, 3)
    pairs = true_matches().pairs
    geometry = TwoViewRow(2, pairs[:40], None, fundamental, None, (np.eye(3), np.arange(3.0)))
    database.add_pair("a.jpg", "b.jpg", pairs, geometry, {})
    database.add_pair("a.jpg", "c.jpg", pairs, TwoViewRow(1, pairs[:0]), {})
    database.close()
    with pycolmap.Database.open(path) as opened:
        first, second = (opened.read_image_with_name(name) for name in NAMES[:2])
        camera = opened.read_camera(first.camera_id)
        assert camera.model.name == "PINHOLE" and camera.has_prior_focal_length
        assert camera.params.tolist() == [600, 600, 320, 240]
        keypoints = opened.read_keypoints(first.image_id)
        np.testing.assert_allclose(np.asarray(keypoints)[:, :2], VIEWS[0].xy + 0.5, atol=1e-4)
        ids = first.image_id, second.image_id
        assert len(opened.read_matches(*ids)) == 300
        stored = opened.read_two_view_geometry(*ids)
        assert stored.config == pycolmap.TwoViewGeometryConfiguration.CALIBRATED
        np.testing.assert_array_equal(np.asarray(stored.inlier_matches), pairs[:40])
        np.testing.assert_allclose(stored.E, fundamental)
        np.testing.assert_allclose(stored.cam2_from_cam1.translation, np.arange(3.0))


def test_images_that_pycolmap_imported_keep_cameras_rigs_and_frames(
    pycolmap: Any, tmp_path: Path
) -> None:
    images = photographs(tmp_path / "images", NAMES[:2])
    path = imported(pycolmap, tmp_path / "d.db", images)

    def tables() -> dict[str, list[Any]]:
        connection = sqlite3.connect(path)
        names = ("cameras", "images", "rigs", "frames", "frame_data")
        found = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}
        connection.close()
        return found

    before = tables()
    database = ColmapDatabase(path)
    for name, features in zip(NAMES, VIEWS, strict=True):  # the third is new
        database.add(name, features, PINHOLE)
    database.close()
    after = tables()
    for name, rows in before.items():
        assert after[name][: len(rows)] == rows
        assert len(after[name]) == len(rows) + 1, name
    with pycolmap.Database.open(path) as opened:
        third = opened.read_image_with_name("c.jpg")
        assert opened.read_camera(third.camera_id).model.name == "PINHOLE"
        assert third.has_frame_id()


def test_colmap_and_tiepoint_agree_on_the_size_of_a_turned_photograph(
    pycolmap: Any, tmp_path: Path
) -> None:
    images = photographs(tmp_path / "images", NAMES[:1], orientation=6)
    database = ColmapDatabase(imported(pycolmap, tmp_path / "d.db", images))
    camera = database.camera("a.jpg")
    assert camera is not None and camera.size_wh == SIZE_HW[::-1]
    database.close()
