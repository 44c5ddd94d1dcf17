"""Images of microscopes are read in windows: OME-TIFF, OME-Zarr and slides, one channel or some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import tiepoint
from tiepoint.errors import ConfigError, ImageError, MissingExtraError
from tiepoint.images import slides
from tiepoint.images.opening import open_windows
from tiepoint.images.planes import PlaneWindows
from tiepoint.images.windows import Window, WindowSource

RNG = np.random.default_rng(0)
PLACE = Window(30, 17, 40, 51)


def halved(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::2, ::2])


@pytest.fixture
def channels() -> np.ndarray:
    return RNG.integers(0, 4000, (3, 200, 300), np.uint16)


@pytest.fixture
def ome_tiff(tmp_path: Path, channels: np.ndarray) -> Path:
    """Three channels of 16 bits with one smaller copy."""
    pytest.importorskip("zarr")
    path = tmp_path / "cells.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        options: Any = {"tile": (64, 64), "photometric": "minisblack"}
        file.write(channels, subifds=1, metadata={"axes": "CYX"}, **options)
        file.write(halved(channels), subfiletype=1, **options)
    return path


def ome_zarr(folder: Path, image: np.ndarray, axes: str) -> Path:
    """A folder of OME-Zarr 0.4 with one smaller copy."""
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    for name, level in (("0", image), ("1", halved(image))):
        chunks = (*[1] * (image.ndim - 2), 64, 64)
        stored = group.create_array(name, shape=level.shape, chunks=chunks, dtype=level.dtype)
        stored[...] = level
    datasets = [{"path": "0"}, {"path": "1"}]
    named = [{"name": axis} for axis in axes]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": named, "datasets": datasets}]
    return folder


@pytest.fixture
def slide(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A tiled TIFF, which OpenSlide reads as a slide, with a smaller copy."""
    pytest.importorskip("openslide")
    image = RNG.integers(0, 255, (256, 384, 3), np.uint8)
    path = tmp_path / "tissue.svs"
    with tifffile.TiffWriter(path) as file:
        options: Any = {"tile": (64, 64), "photometric": "rgb", "compression": "deflate"}
        file.write(image, **options)
        file.write(np.ascontiguousarray(image[::2, ::2]), subfiletype=1, **options)
    return path, image


def test_a_channel_of_an_ome_tiff_and_its_smaller_copy(
    ome_tiff: Path, channels: np.ndarray
) -> None:
    with open_windows(ome_tiff) as opened:
        assert isinstance(opened, WindowSource) and opened.dtype == np.uint16
        assert opened.size_hw == (200, 300) and list(opened.levels) == [(200, 300), (100, 150)]
        assert np.array_equal(opened.read(PLACE).pixels, channels[0][PLACE.slices])
        assert np.array_equal(opened.read(PLACE, 1).pixels, halved(channels)[0][PLACE.slices])
    with open_windows(ome_tiff, channels=2) as opened:
        assert np.array_equal(opened.read(PLACE).pixels, channels[2][PLACE.slices])


def test_several_channels_are_averaged(ome_tiff: Path, channels: np.ndarray) -> None:
    mean = np.rint((channels[0].astype(float) + channels[2]) / 2).astype(np.uint16)
    with open_windows(ome_tiff, channels=(0, 2)) as opened:
        assert np.array_equal(opened.read(PLACE).pixels, mean[PLACE.slices])


@pytest.mark.parametrize("axes", ["YX", "CYX", "TCZYX"])
def test_ome_zarr_of_any_axes_is_read(tmp_path: Path, axes: str, channels: np.ndarray) -> None:
    shape = {"T": 2, "C": 3, "Z": 2, "Y": 200, "X": 300}
    image = RNG.integers(0, 4000, [shape[axis] for axis in axes], np.uint16)
    folder = ome_zarr(tmp_path / "cells.zarr", image, axes.lower())
    expected = image
    for axis in axes[:-2]:
        expected = expected[1] if axis == "C" else expected[0]
    with open_windows(folder, channels=1 if "C" in axes else None) as opened:
        assert np.array_equal(opened.read(PLACE).pixels, expected[PLACE.slices])
        assert np.array_equal(opened.read(PLACE, 1).pixels, halved(expected)[PLACE.slices])


def test_ome_zarr_of_the_next_version_keeps_its_attributes_elsewhere(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    image = RNG.integers(0, 255, (80, 90), np.uint8)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    group.create_array("s0", shape=image.shape, chunks=(32, 32), dtype=image.dtype)[...] = image
    axes = [{"name": "y"}, {"name": "x"}]
    group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": [{"path": "s0"}]}]}
    with open_windows(tmp_path / "a.zarr") as opened:
        assert np.array_equal(opened.read(PLACE).pixels, image[PLACE.slices])


def test_a_slide_is_read_in_colour_with_its_smaller_copy(slide: tuple[Path, np.ndarray]) -> None:
    path, image = slide
    with open_windows(path) as opened:
        assert opened.size_hw == (256, 384) and list(opened.levels) == [(256, 384), (128, 192)]
        assert np.array_equal(opened.read(PLACE).pixels, image[PLACE.slices])
        small = opened.read(Window(20, 10, 30, 40), 1).pixels
        assert np.array_equal(small, image[::2, ::2][20:50, 10:50])
    with open_windows(path, channels=1) as opened:
        assert np.array_equal(opened.read(PLACE).pixels, image[..., 1][PLACE.slices])


def test_channels_of_arrays_rasters_and_photographs_are_chosen(tmp_path: Path) -> None:
    image = RNG.integers(0, 255, (90, 130, 3), np.uint8)
    with open_windows(image, channels=2) as opened:
        assert np.array_equal(opened.read(PLACE).pixels, image[..., 2][PLACE.slices])
    with open_windows(image, "bgr", channels=2) as opened:  # of RGB
        assert np.array_equal(opened.read(PLACE).pixels, image[..., 0][PLACE.slices])
    rasterio = pytest.importorskip("rasterio")
    bands = RNG.integers(0, 4000, (5, 90, 130), np.uint16)
    shape: Any = {"height": 90, "width": 130, "count": 5, "dtype": "uint16"}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **shape) as file:
        file.write(bands)
    with open_windows(tmp_path / "a.tif", channels=4) as opened:
        assert np.array_equal(opened.read(PLACE).pixels, bands[4][PLACE.slices])
    with open_windows(tmp_path / "a.tif", channels=(3, 4)) as opened:
        mean = np.rint(bands[3:].mean(axis=0)).astype(np.uint16)
        assert np.array_equal(opened.read(PLACE).pixels, mean[PLACE.slices])


def test_channels_that_are_not_there_are_refused(ome_tiff: Path) -> None:
    for source in (ome_tiff, np.zeros((20, 30, 3), np.uint8)):
        for channels, error, message in (
            (3, ImageError, "expected some of the 3 from 0 to 2"),
            ((0, -1), ConfigError, "channels is -1, expected a whole number >= 0"),
            ((), ConfigError, "expected at least one number"),
        ):
            with (
                pytest.raises(error, match=message),
                open_windows(source, channels=channels),  # type: ignore[arg-type]
            ):
                pass


def test_an_error_of_the_caller_is_none_of_the_file(ome_tiff: Path) -> None:
    with pytest.raises(ConfigError, match="the caller's own"), open_windows(ome_tiff):
        raise ConfigError("the caller's own")


@pytest.mark.parametrize(("axes", "shape"), [("CY", (3, 4)), ("YX", (3, 4, 5)), ("YYX", (1, 2, 3))])
def test_arrays_whose_axes_do_not_fit_are_refused(axes: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="expected each axis once, with Y and X"):
        PlaneWindows([np.zeros(shape)], axes, "a")


@pytest.mark.parametrize("name", ["a.ome.tif", "a.svs"])
def test_damaged_files_are_errors_that_name_them(tmp_path: Path, name: str) -> None:
    pytest.importorskip("zarr")
    pytest.importorskip("openslide")
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with (
        pytest.raises(ImageError, match=f"{name}: cannot be opened .* check the path"),
        open_windows(tmp_path / name),
    ):
        pass


def test_a_folder_of_zarr_without_scales_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    folder = tmp_path / "a.zarr"
    folder.mkdir()
    (folder / ".zattrs").write_text(json.dumps({"other": 1}))
    (folder / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    with (
        pytest.raises(ImageError, match="expected a folder of OME-Zarr with multiscales"),
        open_windows(folder),
    ):
        pass


def test_without_the_extra_slides_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str, what: str, extra: str) -> Any:
        raise MissingExtraError(what, extra)

    monkeypatch.setattr(slides, "import_extra", missing)
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").touch()
    for name in ("a.svs", "a.zarr"):
        with pytest.raises(MissingExtraError, match="bio"), open_windows(tmp_path / name):
            pass


def test_keypoints_of_a_channel_in_tiles_are_those_of_the_array(tmp_path: Path) -> None:
    photo = RNG.integers(0, 255, (30, 40), np.uint8).repeat(8, 0).repeat(8, 1)
    image = np.stack([np.zeros_like(photo), photo])
    folder = ome_zarr(tmp_path / "cells.zarr", image, "cyx")
    detector = tiepoint.Detector("small", device="cpu")
    expected = detector(photo, max_keypoints=100)
    found = tiepoint.detect_tiled(folder, detector, channels=1, tile_px=128, max_keypoints=100)
    np.testing.assert_allclose(found.xy, expected.xy, atol=1e-3)
