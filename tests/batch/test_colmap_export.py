"""A folder of images into COLMAP's database: resumable, one bad image alone, others refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from support.checkpoints import random_checkpoint
from support.fake_detector import FakeDetector, decoded
from support.learned_matchers import saved
from support.scene_views import CAMERA, SIZE_HW, views
from tiepoint.batch import ImageRecord
from tiepoint.batch.colmap import (
    CameraConfig,
    ColmapStore,
    DatabaseFeatures,
    detect_images,
    export_colmap,
)
from tiepoint.batch.colmap_pairs import without_distortion
from tiepoint.batch.records import TwoViewRecord
from tiepoint.config import MatchingConfig, PairConfig
from tiepoint.errors import ConfigError, FormatError, ImageError, OutputError
from tiepoint.features import Features
from tiepoint.formats import colmap_sqlite
from tiepoint.formats.colmap import ColmapDatabase
from tiepoint.formats.colmap_tables import Camera
from tiepoint.streaming import Detection

KNOWN = CameraConfig("PINHOLE", params=(600.0, 600.0, 320.0, 240.0))
VIEWS = [view.features for view in views(4)]


class SceneDetector(FakeDetector):
    """Finds the view that the grey level of an image names."""

    def stream(
        self,
        sources: Iterable[str],
        *,
        mask: Iterable[Path | None] | None = None,
        **options: Any,
    ) -> Iterator[Detection]:
        self.streams += 1
        for source in sources:
            self.sources.append(Path(source).name)
            pixels = decoded(source)
            if pixels is None:
                yield Detection(source, None, ImageError(f"{source}: not an image"))
                continue
            view = VIEWS[int(pixels[0, 0, 0]) // 10]
            yield Detection(source, self._features(view, source, pixels.shape[:2], options), None)

    def _features(self, view: Features, source: str, size_hw: Any, options: Any) -> Features:
        meta = {"source": source, "exif_orientation": 1}
        return Features(
            view.xy, view.scores, view.descriptors, size_hw, meta, view.covariance,
            self.provenance(**options),
        )  # fmt: skip


def photographs(folder: Path, count: int = 3) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        put(folder / f"{number}.png", number)
    return folder


def put(path: Path, number: int, size_hw: tuple[int, int] = SIZE_HW) -> None:
    cv2.imwrite(str(path), np.full(size_hw, 10 * number, np.uint8))


def export(folder: Path, path: Path, detector: Any = None, **options: Any) -> list[Any]:
    options.setdefault("cameras", KNOWN)
    return export_colmap(folder, path, detector=detector or SceneDetector(), **options)


def statuses(records: list[Any]) -> list[str]:
    return [record.status for record in records]


def test_every_pair_is_matched_and_verified(tmp_path: Path) -> None:
    records = export(photographs(tmp_path / "images"), tmp_path / "d.db")
    images = [record for record in records if isinstance(record, ImageRecord)]
    pairs = [record for record in records if isinstance(record, TwoViewRecord)]
    assert [record.keypoints for record in images] == [300] * 3
    assert [(pair.image_a, pair.image_b) for pair in pairs] == [
        ("0.png", "1.png"), ("0.png", "2.png"), ("1.png", "2.png"),
    ]  # fmt: skip
    for pair in pairs:
        assert pair.geometry == "calibrated"
        assert pair.matches == 300 and pair.inliers is not None and pair.inliers > 280


def test_a_second_run_skips_everything_and_keeps_the_geometry(tmp_path: Path) -> None:
    folder, path = photographs(tmp_path / "images"), tmp_path / "d.db"
    first = export(folder, path)
    data, detector = path.read_bytes(), SceneDetector()
    second = export(folder, path, detector)
    assert statuses(second) == ["skipped"] * 6 and detector.streams == 0
    assert [one.inliers for one in second[3:]] == [one.inliers for one in first[3:]]
    assert path.read_bytes() == data


def test_a_stopped_run_continues_where_it_was(tmp_path: Path) -> None:
    folder, path = photographs(tmp_path / "images"), tmp_path / "d.db"
    from tiepoint.batch import expand

    database = ColmapDatabase(path)
    fake: Any = SceneDetector()
    store = ColmapStore(database, folder, KNOWN)
    run = detect_images(expand([str(folder)]), fake, store)
    next(run), next(run)
    database.suspend()  # as an interrupt does
    assert not path.exists()
    detector = SceneDetector()
    assert statuses(export(folder, path, detector)) == ["skipped"] * 2 + ["done"] * 4
    assert detector.sources == ["2.png"]
    whole = tmp_path / "whole.db"
    export(folder, whole)
    for table in ("cameras", "images", "keypoints", "matches", "two_view_geometries"):
        assert rows(path, table) == rows(whole, table)


def rows(path: Path, table: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"SELECT * FROM {table}").fetchall()
    finally:
        connection.close()


def test_a_changed_image_is_detected_and_matched_again(tmp_path: Path) -> None:
    folder, path = photographs(tmp_path / "images"), tmp_path / "d.db"
    export(folder, path)
    put(folder / "1.png", 3)
    records = export(folder, path)
    assert [record.redone for record in records[:3]] == [None, "the image changed", None]
    assert statuses(records) == ["skipped", "done", "skipped", "done", "skipped", "done"]


def test_a_bad_image_harms_no_other(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "images")
    (folder / "1.png").write_text("no image")
    records = export(folder, tmp_path / "d.db")
    assert statuses(records) == ["done", "failed", "done", "done"]
    assert [name for _, name, _ in rows(tmp_path / "d.db", "images")] == ["0.png", "2.png"]


def test_only_bad_images_leave_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "1.png").write_text("no image")
    assert statuses(export(folder, tmp_path / "d.db")) == ["failed"]
    assert [p.name for p in tmp_path.iterdir()] == ["images"]


def test_other_settings_are_refused_and_replaced_on_request(tmp_path: Path) -> None:
    folder, path = photographs(tmp_path / "images"), tmp_path / "d.db"
    export(folder, path)
    other = SceneDetector(threshold=0.7)
    records = export(folder, path, other)
    assert statuses(records[:3]) == ["refused"] * 3
    assert "threshold 0.5 instead of 0.7" in records[0].error
    assert statuses(export(folder, path, other, overwrite=True)) == ["done"] * 6


def test_keypoints_of_another_program_are_refused_and_replaced_on_request(tmp_path: Path) -> None:
    folder, path = photographs(tmp_path / "images"), tmp_path / "d.db"
    export(folder, path)
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM tiepoint_keypoints")
    connection.commit()
    connection.close()
    records = export(folder, path)
    assert statuses(records) == ["refused"] * 3
    assert "does not state its weights" in records[0].error
    assert statuses(export(folder, path, overwrite=True)) == ["done"] * 6


def test_other_images_of_the_same_names_are_refused_before_any_work(tmp_path: Path) -> None:
    folder, path = photographs(tmp_path / "images"), tmp_path / "d.db"
    export(folder, path)
    before = path.read_bytes()
    put(folder / "2.png", 2, (100, 200))
    detector = SceneDetector()
    with pytest.raises(FormatError, match=r"2\.png is 640x480 px there, the image file 200x100 px"):
        export(folder, path, detector)
    assert detector.streams == 0 and path.read_bytes() == before


def test_a_database_that_becomes_held_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(colmap_sqlite, "BUSY_S", 0.05)
    folder, path = photographs(tmp_path / "images"), tmp_path / "d.db"
    export(folder, path)
    put(folder / "0.png", 3)
    put(folder / "1.png", 3)
    holder = sqlite3.connect(path, isolation_level=None)

    class Held(SceneDetector):
        def stream(self, sources: Iterable[str], **options: Any) -> Iterator[Detection]:
            holder.execute("BEGIN IMMEDIATE")
            yield from super().stream(sources, **options)

    with pytest.raises(OutputError, match="another program holds"):
        export(folder, path, Held())
    holder.close()
    assert len(rows(path, "keypoints")) == 3


def test_pairs_are_chosen_as_by_match(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "images", 4)
    path = tmp_path / "d.db"
    records = export(folder, path, pairs=PairConfig("sequential", window=1))
    assert [(one.image_a, one.image_b) for one in records[4:]] == [
        ("0.png", "1.png"), ("1.png", "2.png"), ("2.png", "3.png"),
    ]  # fmt: skip
    (tmp_path / "pairs.txt").write_text("3.png 0.png\n")  # in the reverse order
    listed = PairConfig(str(tmp_path / "pairs.txt"))
    for status in ("done", "skipped"):
        (record,) = export(folder, path, pairs=listed)[4:]
        assert (record.image_a, record.image_b, record.status) == ("0.png", "3.png", status)


def test_unknown_focal_lengths_give_uncalibrated_pairs(tmp_path: Path) -> None:
    records = export(photographs(tmp_path / "images"), tmp_path / "d.db", cameras=CameraConfig())
    assert {record.geometry for record in records[3:]} == {"uncalibrated"}


def test_the_features_of_a_database_are_a_mapping(tmp_path: Path) -> None:
    export(photographs(tmp_path / "images"), tmp_path / "d.db")
    database = ColmapDatabase(tmp_path / "d.db")
    features = DatabaseFeatures(database)
    assert list(features) == ["0.png", "1.png", "2.png"] and len(features) == 3
    assert features["1.png"].descriptors is not None
    with pytest.raises(KeyError):
        features["other.png"]
    database.close()


@pytest.mark.parametrize("kind", [list, np.array])
def test_parameters_of_cameras_may_be_a_list_or_an_array(tmp_path: Path, kind: Any) -> None:
    params = kind(KNOWN.params)
    assert CameraConfig("PINHOLE", params=params) == KNOWN
    found = export(
        photographs(tmp_path / "images"), tmp_path / "d.db",
        cameras=CameraConfig("PINHOLE", params=params),
    )  # fmt: skip
    assert set(statuses(found)) == {"done"}


def test_images_that_are_no_folder_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "a.png", 1)
    with pytest.raises(ConfigError, match="expected the folder of the images"):
        export(tmp_path / "a.png", tmp_path / "d.db")


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "FISH"},
        {"sharing": "rig"},
        {"model": "PINHOLE", "params": (1.0,)},
        {"model": "PINHOLE", "params": "1,2,3,4"},
        {"model": "PINHOLE", "params": ("1", "2", "3", "4")},
        {"model": "PINHOLE", "params": 5.0},
    ],
)
def test_cameras_that_do_not_exist_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        CameraConfig(**wrong)


@pytest.mark.parametrize(("model", "values"), [(4, (0.1, -0.05, 1e-3, 2e-3)), (5, (0.05, 0, 0, 0))])
def test_distortion_is_removed_as_it_was_made(model: int, values: tuple[float, ...]) -> None:
    params = (600.0, 600.0, 320.0, 240.0, *values)
    camera = Camera(model, (640, 480), params, True)
    ideal = VIEWS[0].xy[:50].astype(np.float64)
    local = np.column_stack([ideal, np.ones(50)]) @ np.linalg.inv(CAMERA).T
    distort: Any = cv2.fisheye.projectPoints if model == 5 else cv2.projectPoints
    order = (local[:, None], np.zeros(3), np.zeros(3), CAMERA, np.array(values))
    bent = distort(*order)[0].reshape(-1, 2)
    assert np.abs(bent - ideal).max() > 1
    straight = without_distortion(camera, bent.astype(np.float32))
    np.testing.assert_allclose(straight, ideal, atol=0.01)


class SidewaysDetector(SceneDetector):
    """Finds a view in a file whose pixels are stored sideways."""

    def _features(self, view: Features, source: str, size_hw: Any, options: Any) -> Features:
        upright = super()._features(view, source, size_hw[::-1], options)
        return replace(upright, meta={"source": source, "exif_orientation": 6})


def test_features_for_matching_are_those_of_the_upright_image(tmp_path: Path) -> None:
    """A learned matcher compares positions, and descriptors are those of the upright image."""
    folder = tmp_path / "images"
    folder.mkdir()
    put(folder / "0.png", 0, SIZE_HW[::-1])
    export(folder, tmp_path / "d.db", SidewaysDetector())
    database = ColmapDatabase(tmp_path / "d.db")
    stored, upright = database.read("0.png"), DatabaseFeatures(database)["0.png"]
    database.close()
    assert stored.size_hw == SIZE_HW[::-1] and upright.size_hw == SIZE_HW
    np.testing.assert_allclose(upright.xy, VIEWS[0].xy, atol=1e-3)
    assert not np.allclose(stored.xy, VIEWS[0].xy, atol=1)
    if VIEWS[0].covariance is not None:
        np.testing.assert_allclose(upright.covariance, VIEWS[0].covariance, atol=1e-5)


def test_pairs_of_a_database_are_matched_by_a_learned_matcher(tmp_path: Path) -> None:
    assert VIEWS[0].descriptors is not None
    length = VIEWS[0].descriptors.shape[1]
    detector = SceneDetector()
    detector.checkpoint = random_checkpoint(length=length)  # type: ignore[attr-defined]
    matcher = saved(tmp_path / "m", random_checkpoint(length=length))
    folder, path = photographs(tmp_path / "images"), tmp_path / "d.db"
    learned = MatchingConfig(method="learned")
    records = export(folder, path, detector, matching=learned, matcher=matcher)
    assert statuses(records) == ["done"] * 6
    assert all(one.matches > 50 and one.geometry == "calibrated" for one in records[3:])
    again = export(folder, path, detector, matching=learned, matcher=matcher)
    assert statuses(again) == ["skipped"] * 6
    others = export(folder, path, detector)
    assert [one.status for one in others[3:]] == ["refused"] * 3
    assert "settings.method" in others[3].error
    with pytest.raises(ConfigError, match="tiepoint train-matcher"):
        export(folder, tmp_path / "new.db", detector, matching=learned)
    assert not (tmp_path / "new.db").exists()
