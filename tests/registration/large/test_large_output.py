"""Warped images as files: the pixels of the windows, with what a file carries."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from support.large_results import BENT, PLACE_B, SIZES, result
from tiepoint.errors import ConfigError, OutputError, RegistrationError
from tiepoint.images.windows import ArrayWindows, Window
from tiepoint.registration.large import output
from tiepoint.registration.large.output import write_warped
from tiepoint.registration.large.warping import WarpedWindows

RNG = np.random.default_rng(0)


def pixels(channels: int = 0, dtype: Any = np.uint8) -> NDArray[Any]:
    shape = (*SIZES[0], channels) if channels else SIZES[0]
    values = RNG.uniform(1, 255, shape)
    return (values if np.dtype(dtype).kind == "f" else np.rint(values)).astype(dtype)


def expected(image: NDArray[Any], *, back: bool = False) -> Any:
    size = SIZES[0] if back else SIZES[1]
    warped = WarpedWindows(ArrayWindows(image), BENT, size, back=back)
    return warped.read(Window(0, 0, *size))


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles and windows in small images."""
    monkeypatch.setattr(output, "TILE_PX", 128)
    monkeypatch.setattr(output, "READ_PX", 256)
    monkeypatch.setattr(output, "LEAST_LEVEL_PX", 100)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [0, 3])
def test_a_cog_holds_the_warped_image(channels: int, dtype: Any, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
    image, seen = pixels(channels, dtype), []
    registration = result(georeferences=(None, PLACE_B))
    path = tmp_path / "w.tif"
    write_warped(path, image, None, registration, progress=lambda *state: seen.append(state))
    wanted = expected(image)
    with rasterio.open(path) as file:
        found = np.moveaxis(file.read(), 0, -1).squeeze()
        mask = file.dataset_mask() > 0
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1) and file.block_shapes[0] == (128, 128)
        assert file.transform.to_gdal() == PLACE_B.geotransform
        assert file.crs.to_epsg() == 25832
    assert np.array_equal(mask, wanted.valid)
    assert np.array_equal(found[mask], wanted.pixels[mask])
    assert seen[-1] == (6, 6)
    assert [one.name for one in tmp_path.iterdir()] == ["w.tif"]


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("channels", [0, 3])
def test_an_ome_tiff_holds_the_warped_image_and_smaller_copies(
    channels: int, tmp_path: Path
) -> None:
    image = pixels(channels)
    Image.fromarray(np.zeros(SIZES[1], np.uint8)).save(tmp_path / "b.png", dpi=(254, 508))
    Image.fromarray(image).save(tmp_path / "a.png", icc_profile=b"x" * 200)
    path = tmp_path / "w.ome.tif"
    write_warped(path, tmp_path / "a.png", tmp_path / "b.png", result())
    wanted = expected(image)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        levels = file.series[0].levels
        assert [level.shape[:2] for level in levels] == [
            (420, 520),
            (210, 260),
            (105, 130),
            (53, 65),
        ]
        assert np.array_equal(levels[0].asarray(), wanted.pixels)
        half = wanted.pixels.reshape(210, 2, 260, 2, -1).mean(axis=(1, 3)).squeeze()
        assert np.abs(levels[1].asarray() - half).max() <= 1
        assert file.pages.first.iccprofile == b"x" * 200
        about = file.ome_metadata or ""
    assert 'PhysicalSizeX="100.' in about and 'PhysicalSizeY="50.0' in about


def test_b_is_warped_to_a_too(tmp_path: Path) -> None:
    image = RNG.integers(1, 255, SIZES[1], np.uint8)
    write_warped(tmp_path / "w.ome.tif", None, image, result(), back=True)
    assert np.array_equal(
        tifffile.imread(tmp_path / "w.ome.tif"), expected(image, back=True).pixels
    )


def in_dpi(dpi: str) -> dict[str, str]:
    """GDAL's tags of a resolution."""
    unit = "2 (pixels/inch)"
    return {
        "TIFFTAG_XRESOLUTION": dpi, "TIFFTAG_YRESOLUTION": dpi, "TIFFTAG_RESOLUTIONUNIT": unit,
    }  # fmt: skip


def test_tags_are_those_of_the_image_and_resolution_that_of_the_other(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
    for name, size, tags in (
        ("a", SIZES[0], {"CAMERA": "x", **in_dpi("72")}),
        ("b", SIZES[1], {"OTHER": "y", **in_dpi("300")}),
    ):
        profile = {"driver": "GTiff", "width": size[1], "height": size[0], "count": 1,
                   "dtype": "uint8", "nodata": 7 if name == "a" else None}  # fmt: skip
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile) as file:
            file.update_tags(**tags)  # the resolution must be known before the pixels
            file.write(np.full(size, 100, np.uint8), 1)
    write_warped(tmp_path / "w.tif", tmp_path / "a.tif", tmp_path / "b.tif", result())
    with rasterio.open(tmp_path / "w.tif") as file:
        assert file.tags()["CAMERA"] == "x" and "OTHER" not in file.tags()
        assert file.tags()["TIFFTAG_XRESOLUTION"] == "300"
        assert file.nodata == 7
        found = file.read(1)
    wanted = expected(np.full(SIZES[0], 100, np.uint8))
    assert (found[~wanted.valid] == 7).all() and (found[wanted.valid] == 100).all()


def test_a_fill_is_the_value_outside(tmp_path: Path) -> None:
    image = pixels()
    write_warped(tmp_path / "w.ome.tif", image, None, result(), fill=9)
    wanted = expected(image)
    found = tifffile.imread(tmp_path / "w.ome.tif")
    assert (found[~wanted.valid] == 9).all()
    with pytest.raises(ConfigError, match="fill is 999"):
        write_warped(tmp_path / "v.ome.tif", image, None, result(), fill=999)
    assert not (tmp_path / "v.ome.tif").exists()


@pytest.mark.parametrize(
    ("name", "image", "changes", "error", "message"),
    [
        ("w.png", pixels(), {}, ConfigError, "the ending picks the format"),
        ("w.ome.tif", np.zeros((5, 5), np.uint8), {}, ConfigError, "image A is 5x5 px"),
        ("w.ome.tif", pixels(), {"mapping": None}, RegistrationError, "not registered"),
    ],
)
def test_what_cannot_be_written_is_refused(
    name: str, image: Any, changes: Any, error: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        write_warped(tmp_path / name, image, None, result(**changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"w.ome.tif: cannot be written \(No space left"):
        write_warped(tmp_path / "w.ome.tif", pixels(), None, result())
    assert not list(tmp_path.iterdir())
