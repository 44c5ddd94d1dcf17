"""`tiepoint colmap`: from a folder of images to a database and a model."""

from __future__ import annotations

import inspect
import json
import sqlite3
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from tiepoint.batch.colmap import CameraConfig, CameraSharing
from tiepoint.cli import app, exit_codes
from tiepoint.cli import colmap as command
from tiepoint.formats.colmap_tables import MODELS

QUICK = ("--max-side", "200", "--max-keypoints", "200")


def colmap(*arguments: object) -> Any:
    result = CliRunner().invoke(app, ["colmap", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def photographs(folder: Path, count: int = 3) -> Path:
    """Views of one textured plane, each moved a little."""
    rng = np.random.default_rng(0)
    texture = cv2.resize(rng.integers(0, 256, (40, 60), dtype=np.uint8), (480, 320))
    folder.mkdir(exist_ok=True)
    for number in range(count):
        x, y = 20 * number, 8 * number
        cv2.imwrite(str(folder / f"{number}.png"), texture[y : y + 200, x : x + 300])
    return folder


def tables(path: Path) -> dict[str, int]:
    connection = sqlite3.connect(path)
    names = ("cameras", "images", "keypoints", "matches", "two_view_geometries")
    counts = {
        name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names
    }
    connection.close()
    return counts


def test_a_folder_becomes_a_database_and_the_same_command_skips_it(tmp_path: Path) -> None:
    folder, path = photographs(tmp_path / "images"), tmp_path / "out" / "d.db"
    result = colmap(folder, "-o", path, *QUICK)
    assert result.exit_code == exit_codes.DONE
    assert "planar or panoramic" in result.stdout
    assert "3 done" in result.stderr
    assert tables(path) == {
        "cameras": 1, "images": 3, "keypoints": 3, "matches": 3, "two_view_geometries": 3,
    }  # fmt: skip
    again = colmap(folder, "-o", path, *QUICK)
    assert again.exit_code == exit_codes.DONE and again.stderr.count("3 skipped") == 2


def test_pairs_are_chosen_by_what_the_database_and_the_files_hold(tmp_path: Path) -> None:
    folder, path = photographs(tmp_path / "images"), tmp_path / "d.db"
    result = colmap(folder, "-o", path, *QUICK, "--pairs", "similar,gps", "--k", 1)
    assert result.exit_code == exit_codes.DONE
    assert "left out: gps: 3 images" in result.stderr and "similar: " not in result.stderr
    assert tables(path)["matches"] == 2


def test_json_has_a_line_for_each_image_and_pair(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "images", 2)
    result = colmap(folder, "-o", tmp_path / "d.db", "--json", *QUICK)
    first, _, pair = map(json.loads, result.stdout.splitlines())
    assert first["status"] == "done" and first["keypoints"] == 200
    assert pair["geometry"] == "planar or panoramic" and pair["inliers"] > 20


def test_a_bad_image_is_reported_and_the_others_are_written(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "images")
    (folder / "bad.jpg").write_text("no image")
    result = colmap(folder, "-o", tmp_path / "d.db", *QUICK)
    assert result.exit_code == exit_codes.FAILED
    assert "bad.jpg" in result.stderr and tables(tmp_path / "d.db")["images"] == 3


def test_masks_keep_keypoints_out(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "images", 1)
    (tmp_path / "masks").mkdir()
    mask = np.zeros((200, 300), np.uint8)
    mask[:, :150] = 255
    cv2.imwrite(str(tmp_path / "masks" / "0.png.png"), mask)
    result = colmap(folder, "-o", tmp_path / "d.db", "--masks", tmp_path / "masks", *QUICK)
    assert result.exit_code == exit_codes.DONE and "no pair to match in 1 images" in result.stderr
    connection = sqlite3.connect(tmp_path / "d.db")
    ((data,),) = connection.execute("SELECT data FROM keypoints").fetchall()
    connection.close()
    x = np.frombuffer(data, "<f4")[::2]
    assert len(x) and x.max() <= 150.5


def test_cameras_follow_the_options(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "images", 2)
    params = "500,150,100,0.01"
    result = colmap(
        folder, "-o", tmp_path / "d.db", "--cameras", "image", "--camera-params", params, *QUICK
    )
    assert result.exit_code == exit_codes.DONE
    connection = sqlite3.connect(tmp_path / "d.db")
    stored = connection.execute("SELECT model, params, prior_focal_length FROM cameras").fetchall()
    connection.close()
    assert len(stored) == 2
    for model, data, prior in stored:
        assert (model, prior) == (2, 1)
        np.testing.assert_array_equal(np.frombuffer(data), [500, 150, 100, 0.01])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "d.h5"), "the ending picks the format"),
        (("-o", "d.db", "--camera-params", "1,2"), "--camera-params"),
        (("-o", "d.db", "--camera-params", "x"), "expected numbers"),
        (("-o", "d.db", "--masks", "none"), "no such folder"),
        (("-o", "d.db", "--reconstruct", "images"), "expected a new or an empty folder"),
        (("-o", "text.db"), "not SQLite"),
        (("-o", "d.db", "--pairs", "some"), "pairs"),
    ],
)
def test_wrong_arguments_are_refused_with_a_reason(
    here: Path, arguments: tuple[str, ...], message: str
) -> None:
    photographs(here / "images", 1)
    (here / "text.db").write_text("no database")
    result = colmap("images", *arguments, *QUICK)
    assert result.exit_code == exit_codes.USAGE and message in result.stderr
    assert not (here / "d.db").exists()


def test_images_that_are_no_folder_or_an_empty_one_are_refused(here: Path) -> None:
    (here / "empty").mkdir()
    assert colmap("none", "-o", "d.db").exit_code == exit_codes.USAGE
    result = colmap("empty", "-o", "d.db")
    assert result.exit_code == exit_codes.NOTHING_READABLE
    assert [p.name for p in here.iterdir()] == ["empty"]


def test_a_folder_without_a_model_fails_with_the_reason(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(2):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, (120, 160), np.uint8))
    out = tmp_path / "sparse"
    result = colmap(folder, "-o", tmp_path / "d.db", "--reconstruct", out, *QUICK)
    assert result.exit_code == exit_codes.FAILED
    assert "no two images could start a model" in result.stderr


def test_the_options_of_cameras_are_those_of_the_config() -> None:
    parameters = inspect.signature(command.colmap).parameters
    assert parameters["camera_model"].default == CameraConfig.model
    assert parameters["cameras"].default == CameraConfig.sharing
    assert get_args(get_args(command.CameraModel)[0]) == tuple(MODELS)
    assert get_args(command.Cameras)[0] == CameraSharing


def test_matches_pass_a_ratio_test_unless_it_is_omitted() -> None:
    assert command._matching_config({}).ratio == 0.9
    assert command._matching_config({"ratio": 0.7}).ratio == 0.7
    assert command._matching_config({"ratio": None}).ratio is None
    assert command._matching_config({"scores": "dual-softmax"}).ratio is None
