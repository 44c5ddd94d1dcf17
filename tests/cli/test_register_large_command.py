"""`tiepoint register-large` and `tiepoint warp`, from their arguments to their files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from support import large_pairs
from tiepoint.cli import app
from tiepoint.registration.large.record import load_transform

runner = CliRunner()
SIDE = 1000
BEND_PX = 6.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.png, b.png, other.png, and the transform t.json from a to b."""
    place = tmp_path_factory.mktemp("large")
    a, b = large_pairs.pair(SIDE, BEND_PX)
    Image.fromarray(a).save(place / "a.png")
    Image.fromarray(b).save(place / "b.png")
    Image.fromarray(large_pairs.texture(SIDE, seed=9)).save(place / "other.png")
    code, printed, errors = run(
        "register-large", place / "a.png", place / "b.png", "-c", "small", "--json",
        "--transform", place / "t.json", "--points", place / "a.points",
        "-o", place / "warped.ome.tif",
    )  # fmt: skip
    assert code == 0, errors
    assert "registered:" in errors and "left out of the fit" in errors
    (place / "printed.json").write_text(printed, encoding="utf-8")
    return place


def run(*arguments: object) -> tuple[int, str, str]:
    result = runner.invoke(app, [*map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_files_of_a_registration_agree(folder: Path) -> None:
    result = load_transform(folder / "t.json")
    assert np.median(large_pairs.errors_px(result.transform, SIDE, BEND_PX)) < 0.5
    printed = json.loads((folder / "printed.json").read_text(encoding="utf-8"))
    assert printed == result.summary()
    assert result.names == (str(folder / "a.png"), str(folder / "b.png"))
    header, *rows = (folder / "a.points").read_text(encoding="utf-8").splitlines()
    assert header.startswith("mapX,mapY,sourceX,sourceY")
    values = np.array([row.split(",")[:4] for row in rows], float)
    source = values[:, 2:] * [1, -1] - 0.5
    mapped = values[:, :2] * [1, -1] - 0.5
    assert np.median(np.linalg.norm(result.transform(source) - mapped, axis=1)) < 1
    warped = tifffile.imread(folder / "warped.ome.tif").astype(float)
    b = cv2.imread(str(folder / "b.png"), cv2.IMREAD_GRAYSCALE).astype(float)
    shown = warped > 0
    assert np.corrcoef(warped[shown], b[shown])[0, 1] > 0.95


def test_an_image_is_warped_by_the_transform_file(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.ome.tif"
    code, printed, _ = run("warp", folder / "t.json", folder / "a.png", "-o", out)
    assert code == 0 and "image A written to" in printed
    assert np.array_equal(tifffile.imread(out), tifffile.imread(folder / "warped.ome.tif"))
    code, printed, _ = run(
        "warp", folder / "t.json", folder / "b.png", "-o", tmp_path / "v.ome.tif", "--back"
    )
    assert code == 0 and "image B" in printed
    assert tifffile.imread(tmp_path / "v.ome.tif").shape == (SIDE, SIDE)


@pytest.mark.skipif(os.name == "nt", reason="Windows does not count the blocks of a file")
def test_a_mapped_file_has_its_disk_space_before_it_is_filled(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a full disk would end the process with SIGBUS."""
    held, mapped = [], np.memmap

    def watched(path: Path, *arguments: object, **options: object) -> object:
        array = mapped(path, *arguments, **options)
        state = Path(path).stat()
        held.append(state.st_blocks * 512 >= state.st_size > 0)
        return array

    monkeypatch.setattr(np, "memmap", watched)
    out = tmp_path / "warped.ome.tif"
    assert run("warp", folder / "t.json", folder / "a.png", "-o", out)[0] == 0
    assert held == [True]


def test_annotations_are_carried_there_and_back(folder: Path, tmp_path: Path) -> None:
    square = [[300, 300], [600, 310], [590, 640], [300, 300]]
    polygon = {"type": "Polygon", "coordinates": [square]}
    feature = {"type": "Feature", "properties": {"name": "x"}, "geometry": polygon}
    path, there, back = (tmp_path / f"{name}.geojson" for name in ("a", "b", "again"))
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    code, printed, _ = run("warp", folder / "t.json", path, "-o", there)
    assert code == 0 and printed.startswith("1 features written")
    assert run("warp", folder / "t.json", there, "-o", back, "--back")[0] == 0
    (again,) = json.loads(back.read_text())["features"]
    ring = np.array(again["geometry"]["coordinates"][0])
    assert again["properties"] == {"name": "x"}
    for position in square:
        assert np.linalg.norm(ring - position, axis=1).min() < 1e-3


def test_a_geotiff_and_points_for_gdal_are_written(folder: Path, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
    out, gcps = tmp_path / "w.tif", tmp_path / "a.vrt"
    code, _, errors = run(
        "register-large", folder / "a.png", folder / "b.png", "-c", "small", "-o", out,
        "--gcps", gcps, "--model", "smooth", "--max-cells", "30",
    )  # fmt: skip
    assert code == 0, errors
    with rasterio.open(gcps) as file:
        points, _ = file.gcps
        assert file.shape == (SIDE, SIDE) and len(points) > 20
    result = load_transform(folder / "t.json")
    source = np.array([[point.col, point.row] for point in points]) - 0.5
    mapped = np.array([[point.x, -point.y] for point in points]) - 0.5
    assert np.median(np.linalg.norm(result.transform(source) - mapped, axis=1)) < 1
    with rasterio.open(out) as file:
        assert file.shape == (SIDE, SIDE)


def test_unrelated_images_end_with_4_and_write_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    code, printed, errors = run(
        "register-large", folder / "a.png", folder / "other.png", "-c", "small", "--json",
        "--transform", out,
    )  # fmt: skip
    assert code == 4 and "not registered" in errors and not out.exists()
    assert json.loads(printed)["success"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("register-large", "a.png", "none.png"), 3, "none.png"),
        (("register-large", "a.png", "b.png", "-o", "w.png"), 2, "the ending picks the format"),
        (("register-large", "a.png", "b.png", "--points", "x.csv"), 2, "one of .points"),
        (("register-large", "a.png", "b.png", "--transform", "t.json"), 2, "exists"),
        (("register-large", "a.png", "b.png", "--transform", "no/t.json"), 2, "no such folder"),
        (("register-large", "a.png", "b.png", "--max-cells", "0"), 2, "--max-cells is 0"),
        (("warp", "a.png", "a.png", "-o", "w.ome.tif"), 3, "not a transform"),
        (("warp", "t.json", "none.geojson", "-o", "w.geojson"), 3, "none.geojson"),
        (("warp", "t.json", "t.json", "-o", "w.json"), 3, "expected GeoJSON"),
        (("warp", "t.json", "a.png", "-o", "w.geojson"), 2, "the ending picks the format"),
        (("warp", "t.json", "x.geojson", "-o", "w.geojson", "--fill", "3"), 2, "are for images"),
        (("warp", "t.json", "printed.json", "-o", "no/w.json"), 2, "no such folder"),
    ],
)
def test_mistakes_are_named(
    arguments: Any, code: int, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    found, _, errors = run(*arguments)
    assert (found, message in errors) == (code, True), errors
