"""Ground control points: half a pixel, map coordinates, and the files of QGIS and GDAL."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import large_results
from support.registered import MATRICES, carried, matched
from tiepoint.errors import ConfigError, ImageError, RegistrationError
from tiepoint.geometry import apply_homography
from tiepoint.images.arrays import upright
from tiepoint.integrations.ground_control import (
    PIXELS,
    GroundControl,
    gdal_translate_arguments,
    ground_control,
    write_gcp_vrt,
    write_qgis_points,
)
from tiepoint.registration.result import Registration

GEOTRANSFORM = (500_000.0, 2.0, 0.5, 5_000_000.0, -0.25, -2.0)


def registration(count: int = 300, wrong: int = 20) -> Registration:
    features_a, features_b, matches = matched(*carried(MATRICES["affine"], count, wrong=wrong))
    inliers = np.ones(len(matches), bool)
    inliers[:wrong] = False
    return Registration(
        True, "ok", "affine", MATRICES["affine"], features_a, features_b, matches, inliers
    )


def on_map(pixel_xy: Any) -> Any:
    """A position of the map's image, pixel centres at whole numbers -> map coordinates."""
    g, x, y = GEOTRANSFORM, pixel_xy[..., 0] + 0.5, pixel_xy[..., 1] + 0.5
    return np.stack([g[0] + x * g[1] + y * g[2], g[3] + x * g[4] + y * g[5]], axis=-1)


def test_points_are_inliers_in_the_convention_of_gdal() -> None:
    result = registration()
    points = ground_control(result, GEOTRANSFORM, max_points=1000)
    assert len(points.pixels) == len(points.map_xy) == int(result.inliers.sum())
    expected = on_map(apply_homography(MATRICES["affine"], points.pixels - 0.5))
    np.testing.assert_allclose(points.map_xy, expected, atol=1e-3)


def test_the_corner_of_the_map_is_the_origin_of_its_geotransform() -> None:
    result = registration(4, wrong=0)
    xy = result.features_b.xy.copy()
    xy[:] = -0.5
    result = dataclasses.replace(result, features_b=dataclasses.replace(result.features_b, xy=xy))
    points = ground_control(result, GEOTRANSFORM)
    assert points.map_xy.tolist() == [[500_000.0, 5_000_000.0]] * 4


@pytest.mark.parametrize("count", [1, 10, 100])
def test_points_are_spread_over_the_image(count: int) -> None:
    result = registration()
    points = ground_control(result, GEOTRANSFORM, max_points=count)
    assert 1 <= len(points.pixels) <= count
    if count == 100:
        cells = {tuple(cell) for cell in (points.pixels // [64, 48]).astype(int).tolist()}
        assert len(cells) == len(points.pixels) > 80


def test_what_makes_no_points_is_refused() -> None:
    failed = dataclasses.replace(registration(), success=False, reason="too few", matrix=None)
    with pytest.raises(RegistrationError, match="not registered: too few"):
        ground_control(failed, GEOTRANSFORM)
    for wrong in ((1.0, 2.0), (np.nan,) * 6, "north"):
        with pytest.raises(ConfigError, match="geotransform"):
            ground_control(registration(), wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_points is 0"):
        ground_control(registration(), GEOTRANSFORM, max_points=0)


def test_qgis_reads_points_with_negative_rows(tmp_path: Path) -> None:
    points = GroundControl(np.array([[10.5, 20.25]]), np.array([[500_021.125, 4_999_959.5]]))
    write_qgis_points(tmp_path / "a.points", points, "EPSG:25832")
    assert (tmp_path / "a.points").read_text().splitlines() == [
        "#CRS: EPSG:25832",
        "mapX,mapY,sourceX,sourceY,enable,dX,dY,residual",
        "500021.125,4999959.5,10.5,-20.25,1,0,0,0",
    ]
    write_qgis_points(tmp_path / "a.points", points)
    assert (tmp_path / "a.points").read_text().startswith("mapX,")
    with pytest.raises(ConfigError, match="one line"):
        write_qgis_points(tmp_path / "a.points", points, "EPSG:1\n2")


def test_gdal_gets_a_point_after_each_option() -> None:
    points = GroundControl(np.array([[10.5, 20.25]]), np.array([[500_021.125, 4_999_959.5]]))
    arguments = gdal_translate_arguments(points, "a.tif", "a.vrt", "EPSG:25832")
    assert arguments == [
        "gdal_translate", "-a_srs", "EPSG:25832", "-of", "VRT",
        "-gcp", "10.5", "20.25", "500021.125", "4999959.5", "a.tif", "a.vrt",
    ]  # fmt: skip
    assert "-of" not in gdal_translate_arguments(points, "a.tif", "b.tif", "EPSG:25832")


def test_a_large_registration_brings_the_map_position_of_b() -> None:
    result = large_results.result(georeferences=(None, large_results.PLACE_B))
    points = ground_control(result, max_points=1000)
    assert len(points.pixels) == int(result.inliers.sum())
    np.testing.assert_allclose(points.map_xy, result.to_map(points.pixels - 0.5))
    few = ground_control(result, max_points=9)
    assert 5 <= len(few.pixels) <= 9


def test_a_large_image_without_map_position_has_px_with_y_up() -> None:
    result = large_results.result()
    points = ground_control(result, max_points=1000)
    expected = (result.transform(points.pixels - 0.5) + 0.5) * [1, -1]
    np.testing.assert_allclose(points.map_xy, expected)
    assert PIXELS == (0, 1, 0, 0, 0, -1)


@pytest.mark.parametrize("crs", ["EPSG:25832", ""])
def test_gdal_reads_the_points_of_a_virtual_file(crs: str, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, large_results.SIZES[0], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    points = ground_control(large_results.result(), GEOTRANSFORM)
    write_gcp_vrt(tmp_path / "a.vrt", tmp_path / "a.png", points, crs)
    with rasterio.open(tmp_path / "a.vrt") as file:
        assert np.array_equal(file.read(1), pixels)
        control, system = file.gcps
    assert (system is not None and system.to_epsg() == 25832) == bool(crs)
    found = np.array([[one.col, one.row, one.x, one.y] for one in control])
    np.testing.assert_allclose(
        found, np.column_stack([points.pixels, points.map_xy]), rtol=1e-6, atol=1e-3
    )
    with pytest.raises(ImageError, match="GDAL cannot open it"):
        write_gcp_vrt(tmp_path / "b.vrt", tmp_path / "none.png", points)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_columns_and_rows_are_those_of_the_stored_image(orientation: int) -> None:
    stored = np.arange(480 * 640).reshape(480, 640)
    upright_px = upright(stored.astype(np.float32), orientation)
    xy = np.array([[10, 20], [300, 40], [7, 470], [100, 100]], np.float32)
    features = dataclasses.replace(
        registration(4, wrong=0).features_a, xy=xy, size_hw=upright_px.shape,
        meta={"exif_orientation": orientation},
    )  # fmt: skip
    small = dataclasses.replace(registration(4, wrong=0), features_a=features)
    places = [features.xy[a].astype(int).tolist() for a in small.matches.pairs[:, 0]]
    large = large_results.result(
        xy_a=small.xy_a.astype(float), xy_b=small.xy_b.astype(float), inliers=np.ones(4, bool),
        sizes_hw=(upright_px.shape, (420, 520)), exif_orientation=orientation,
    )  # fmt: skip
    for result in (small, large):
        points = ground_control(result, GEOTRANSFORM)
        columns, rows = (points.pixels - 0.5).round().astype(int).T
        assert stored[rows, columns].tolist() == [int(upright_px[y, x]) for x, y in places]
