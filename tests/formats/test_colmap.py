"""COLMAP's database: what arrives, which files are refused, and what an interruption leaves."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.scene_views import CAMERA, SIZE_HW, true_matches, views
from tiepoint.errors import ConfigError, FormatError, OutputError
from tiepoint.features import Features
from tiepoint.formats import DamagedError, colmap_sqlite
from tiepoint.formats.colmap import ColmapDatabase, TwoViewRow
from tiepoint.formats.colmap_tables import camera_of, check_params, pair_id_of, quaternion_of

PINHOLE = camera_of("PINHOLE", SIZE_HW[::-1], 600.0)
VIEWS = [view.features for view in views(3)]


def written(path: Path, names: tuple[str, ...] = ("a.jpg", "b.jpg"), **options: Any) -> Path:
    """A database with one view for each name, in this order."""
    database = ColmapDatabase(path, **options)
    for name, features in zip(names, VIEWS, strict=False):
        database.add(name, features, PINHOLE)
    database.close()
    return path


def rows(path: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_positions_are_half_a_pixel_further_in_colmaps_px(tmp_path: Path) -> None:
    path = written(tmp_path / "d.db")
    ((count, columns, data),) = rows(
        path, "SELECT rows, cols, data FROM keypoints WHERE image_id = 1"
    )
    assert (count, columns) == (300, 2)
    xy = np.frombuffer(data, "<f4").reshape(-1, 2)
    np.testing.assert_allclose(xy, VIEWS[0].xy + 0.5, atol=1e-4)


def test_features_come_back_with_score_covariance_and_descriptor(tmp_path: Path) -> None:
    database = ColmapDatabase(written(tmp_path / "d.db"))
    read = database.read("b.jpg")
    np.testing.assert_allclose(read.xy, VIEWS[1].xy, atol=1e-4)
    for name in ("scores", "descriptors", "covariance"):
        np.testing.assert_array_equal(getattr(read, name), getattr(VIEWS[1], name))
    assert read.provenance == VIEWS[1].provenance and read.size_hw == SIZE_HW
    assert database.read("b.jpg", descriptors=False).descriptors is None
    assert database.summarise("b.jpg").keypoints == 300
    database.close()


def test_a_turned_photograph_is_stored_as_its_file_has_it(tmp_path: Path) -> None:
    # Orientation 6: the upright image is the stored one turned clockwise.
    upright = replace(
        VIEWS[0].take(slice(0, 1)),
        xy=np.array([[10.0, 20.0]], np.float32),
        size_hw=(640, 480),
        meta={"exif_orientation": 6},
    )
    database = ColmapDatabase(tmp_path / "d.db")
    database.add("a.jpg", upright, PINHOLE)
    read = database.read("a.jpg")
    np.testing.assert_allclose(read.xy, [[20, 469]], atol=1e-4)
    assert read.size_hw == SIZE_HW
    assert upright.covariance is not None and read.covariance is not None
    (xx, xy), (_, yy) = upright.covariance[0]
    np.testing.assert_allclose(read.covariance[0], [[yy, -xy], [-xy, xx]])
    assert database.summarise("a.jpg").size_hw == (640, 480)
    database.close()


@pytest.mark.parametrize("names", [("a.jpg", "b.jpg"), ("b.jpg", "a.jpg")])
def test_pairs_are_stored_from_the_image_with_the_lower_number(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    path = written(tmp_path / "d.db", names)
    fundamental = np.arange(9.0).reshape(3, 3)
    geometry = TwoViewRow(3, np.array([[1, 2], [3, 4]]), fundamental)
    database = ColmapDatabase(path)
    database.add_pair("a.jpg", "b.jpg", np.array([[1, 2], [3, 4], [5, 6]]), geometry, {"k": 1})
    assert database.geometry("b.jpg", "a.jpg") == (3, 2)
    assert database.pair_meta("a.jpg", "b.jpg") == {"k": 1}
    database.close()
    ((pair, data),) = rows(path, "SELECT pair_id, data FROM matches")
    assert pair == pair_id_of(1, 2) == 2147483647 + 2
    forward = names[0] == "a.jpg"
    matches = np.frombuffer(data, "<u4").reshape(-1, 2)
    assert matches[0].tolist() == ([1, 2] if forward else [2, 1])


def test_matrices_fit_the_positions_that_are_stored(tmp_path: Path) -> None:
    a, b = views(2, noise_px=0)
    rotation = b.rotation @ a.rotation.T
    translation = b.translation - rotation @ a.translation
    x, y, z = translation
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation
    back = np.linalg.inv(CAMERA)
    homography = np.array([[1.1, 0.02, 3], [0.01, 0.9, -4], [1e-4, 2e-4, 1]])
    geometry = TwoViewRow(
        2, true_matches().pairs, back.T @ essential @ back, essential, homography,
        (rotation, translation),
    )  # fmt: skip
    path = written(tmp_path / "d.db")
    database = ColmapDatabase(path)
    database.add_pair("b.jpg", "a.jpg", true_matches().pairs, geometry.reversed(), {})
    database.close()
    ((f, e, h, q, t),) = rows(path, "SELECT F, E, H, qvec, tvec FROM two_view_geometries")
    f, h = (np.frombuffer(one).reshape(3, 3) for one in (f, h))
    points = [np.column_stack([v.features.xy + 0.5, np.ones(300)]) for v in (a, b)]
    np.testing.assert_allclose((points[1] * (points[0] @ f.T)).sum(axis=1), 0, atol=1e-3)
    np.testing.assert_allclose(np.frombuffer(e).reshape(3, 3), essential)
    mapped = h @ [10.5, 20.5, 1]
    expected = homography @ [10, 20, 1]
    np.testing.assert_allclose(mapped[:2] / mapped[2], expected[:2] / expected[2] + 0.5)
    np.testing.assert_allclose(np.frombuffer(t), translation)
    w, qx, qy, qz = np.frombuffer(q)
    assert w > 0 and np.allclose([qx, qz], 0, atol=1e-12)
    np.testing.assert_allclose(2 * np.arctan2(qy, w), 0.08)


def test_quaternions_of_half_turns_are_unit_and_right() -> None:
    for axis in range(3):
        turn = -np.eye(3)
        turn[axis, axis] = 1
        quaternion = quaternion_of(turn)
        assert abs(quaternion[1 + axis]) == pytest.approx(1)


def test_folders_share_cameras_and_images_need_not(tmp_path: Path) -> None:
    names = ("left/a.jpg", "left/b.jpg", "right/c.jpg")
    query = "SELECT name, camera_id FROM images ORDER BY name"
    shared = dict(rows(written(tmp_path / "folders.db", names), query))
    assert shared["left/a.jpg"] == shared["left/b.jpg"] != shared["right/c.jpg"]
    apart = rows(written(tmp_path / "images.db", names, share_cameras=False), query)
    assert len({camera for _, camera in apart}) == 3


def test_cameras_are_shared_with_those_of_an_earlier_run(tmp_path: Path) -> None:
    path = written(tmp_path / "d.db", ("a.jpg",))
    written(path, ("b.jpg",))
    assert rows(path, "SELECT count(*) FROM cameras") == [(1,)]


def test_a_guessed_focal_length_is_marked_as_such() -> None:
    guessed = camera_of("SIMPLE_RADIAL", (640, 480), None)
    assert guessed.params == (768.0, 320.0, 240.0, 0.0) and not guessed.has_prior_focal
    assert camera_of("OPENCV", (640, 480), 500.0).params == (500, 500, 320, 240, 0, 0, 0, 0)
    assert PINHOLE.intrinsics is not None
    np.testing.assert_allclose(PINHOLE.intrinsics, CAMERA)


@pytest.mark.parametrize("params", [(1.0,), (0, 1, 1, 1), (np.nan, 1, 1, 1), (1, 1, 1, 1, 1)])
def test_parameters_that_a_model_does_not_have_are_refused(params: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="4 finite numbers of PINHOLE"):
        check_params("PINHOLE", params)


def test_new_keypoints_replace_the_matches_of_the_old_ones(tmp_path: Path) -> None:
    database = ColmapDatabase(written(tmp_path / "d.db", ("a.jpg", "b.jpg", "c.jpg")))
    none = TwoViewRow(1, np.empty((0, 2), np.int64))
    for pair in (("a.jpg", "b.jpg"), ("b.jpg", "c.jpg")):
        database.add_pair(*pair, true_matches().pairs, none, {})
    database.add("a.jpg", VIEWS[2], PINHOLE)
    assert not database.has_matches("a.jpg", "b.jpg")
    assert database.has_matches("b.jpg", "c.jpg")
    database.close()


def test_a_new_file_appears_when_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    database = ColmapDatabase(path)
    database.add("a.jpg", VIEWS[0], PINHOLE)
    assert not path.exists()
    database.suspend()
    assert [p.name for p in tmp_path.iterdir()] == ["d.db.partial"]
    database = ColmapDatabase(path)
    assert database.names() == ["a.jpg"]
    database.close()
    assert [p.name for p in tmp_path.iterdir()] == ["d.db"]


def test_a_new_file_that_a_full_disk_left_empty_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "d.db.partial").touch()
    assert rows(written(tmp_path / "d.db"), "SELECT count(*) FROM images") == [(2,)]
    (tmp_path / "e.db").touch()  # under its own name it may be another program's
    with pytest.raises(FormatError, match="an empty file"):
        ColmapDatabase(tmp_path / "e.db")


def test_a_new_file_without_images_leaves_nothing(tmp_path: Path) -> None:
    ColmapDatabase(tmp_path / "a.db").close()
    ColmapDatabase(tmp_path / "b.db").suspend()
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_a_transaction_leaves_the_earlier_state(tmp_path: Path) -> None:
    database = ColmapDatabase(written(tmp_path / "d.db"))
    database._connection.execute("DROP TABLE tiepoint_keypoints")  # the last step of `add` fails
    with pytest.raises(FormatError):
        database.add("c.jpg", VIEWS[2], PINHOLE)
    assert database.names() == ["a.jpg", "b.jpg"]
    database.close()
    assert rows(tmp_path / "d.db", "SELECT count(*) FROM keypoints") == [(2,)]


def other_program(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE cameras (id INTEGER)")
    connection.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("no database"), "not SQLite"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.mkdir(), "a folder"),
        (os.mkfifo, "a named pipe"),
        (other_program, "table 'cameras' lacks"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"x" * 4096), "not SQLite"),
    ],
)
def test_files_that_are_no_database_of_colmaps_are_refused_untouched(
    tmp_path: Path, make: Any, message: str
) -> None:
    path = tmp_path / "d.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(FormatError, match=message):
        ColmapDatabase(path)
    assert [p.name for p in tmp_path.iterdir()] == ["d.db"]
    assert before is None or path.read_bytes() == before


def test_a_database_that_another_program_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(colmap_sqlite, "BUSY_S", 0.05)
    path = written(tmp_path / "d.db")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OutputError, match="another program holds this database"):
        ColmapDatabase(path)
    holder.execute("ROLLBACK")
    holder.close()
    ColmapDatabase(path).close()


def test_two_runs_cannot_write_one_database(tmp_path: Path) -> None:
    database = ColmapDatabase(tmp_path / "d.db")
    with pytest.raises(OutputError, match="another run is writing it"):
        ColmapDatabase(tmp_path / "d.db")
    database.suspend()


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    database = ColmapDatabase(written(tmp_path / "d.db"))
    with pytest.raises(FormatError, match="640x480 px there, the image file 100x50 px"):
        database.add("a.jpg", replace(VIEWS[0], size_hw=(50, 100)), PINHOLE)
    database.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE keypoints SET data = x'00'",
        "UPDATE keypoints SET data = 'text'",
        "UPDATE keypoints SET rows = 7",
        "UPDATE keypoints SET cols = 3",
        "UPDATE tiepoint_keypoints SET scores = x'00'",
        "UPDATE tiepoint_keypoints SET cols = -1",
        "UPDATE tiepoint_keypoints SET meta = '{'",
        "UPDATE tiepoint_keypoints SET meta = x'00'",
        "UPDATE tiepoint_keypoints SET covariance = zeroblob(3)",
        "UPDATE cameras SET width = -1",
    ],
)
def test_damaged_cells_are_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = written(tmp_path / "d.db")
    connection = sqlite3.connect(path)
    connection.execute(damage)
    connection.commit()
    connection.close()
    database = ColmapDatabase(path)
    with pytest.raises(DamagedError, match=r"a\.jpg"):
        database.read("a.jpg")
    database.close()


@pytest.mark.parametrize("damage", ["params = x'00'", "params = zeroblob(8)", "model = 'PINHOLE'"])
def test_a_damaged_camera_is_refused(tmp_path: Path, damage: str) -> None:
    path = written(tmp_path / "d.db")
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE cameras SET {damage}")
    connection.commit()
    connection.close()
    with pytest.raises(DamagedError, match="camera"):
        ColmapDatabase(path)


def test_values_that_are_not_finite_and_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    database = ColmapDatabase(tmp_path / "d.db")
    wrong: Features = replace(VIEWS[0], xy=np.full((300, 2), np.nan, np.float32))
    with pytest.raises(FormatError, match="NaN"):
        database.add("a.jpg", wrong, PINHOLE)
    with pytest.raises(FormatError, match="cannot hold"):
        database.add("\udcff.jpg", VIEWS[0], PINHOLE)
    assert database.names() == []
    database.close()
