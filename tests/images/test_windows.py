"""Images are read in windows: arrays, and raster files by GDAL."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tiepoint.errors import ImageError, MissingExtraError
from tiepoint.images import raster
from tiepoint.images.opening import open_windows
from tiepoint.images.reading import read
from tiepoint.images.windows import ArrayWindows, Window, WindowSource, strips, tiles
from tiepoint.registration.large.georeference import georeference_of

RNG = np.random.default_rng(0)
PLACE = Window(30, 17, 40, 51)


@pytest.mark.parametrize("size_hw", [(1, 1), (64, 64), (65, 129), (300, 40)])
@pytest.mark.parametrize("cut", [strips, lambda hw: tiles(hw, 64)], ids=["strips", "tiles"])
def test_strips_and_tiles_cover_each_pixel_once(size_hw: tuple[int, int], cut: Any) -> None:
    seen = np.zeros(size_hw, int)
    for window in cut(size_hw):
        assert min(window.height, window.width) >= 1
        seen[window.slices] += 1
    assert (seen == 1).all()


def test_a_window_grows_as_far_as_the_image_goes() -> None:
    window = Window(5, 90, 10, 10)
    wide = window.grown(8, (40, 100))
    assert wide == Window(0, 82, 23, 18)
    image = np.arange(4000).reshape(40, 100)
    assert np.array_equal(image[wide.slices][window.within(wide)], image[window.slices])


def test_windows_of_an_array_are_its_parts_in_rgb() -> None:
    image = RNG.integers(0, 255, (100, 120, 3), np.uint8)
    with open_windows(image, "bgr") as opened:
        assert isinstance(opened, WindowSource) and opened.size_hw == (100, 120)
        assert not opened.has_gaps
        part = opened.read(PLACE).pixels
    assert np.array_equal(part, image[PLACE.slices][..., ::-1])


def test_photographs_are_decoded_as_a_whole(tmp_path: Path) -> None:
    Image.fromarray(RNG.integers(0, 255, (90, 130), np.uint8)).save(tmp_path / "a.png")
    with open_windows(tmp_path / "a.png") as opened:
        part = opened.read(PLACE).pixels
        assert opened.name == str(tmp_path / "a.png")
    assert np.array_equal(part, read(tmp_path / "a.png").pixels[PLACE.slices])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((0, 5)), "shape"),
        (np.zeros((2, 3, 4, 5)), "shape"),
        (object(), "type object is not an image"),
        ("no_such_file.png", "no such file"),
    ],
    ids=["empty", "batch", "object", "missing"],
)
def test_what_is_no_image_is_refused(source: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message), open_windows(source):
        pass


def test_an_array_that_fails_names_the_window() -> None:
    class Failing(np.ndarray):
        def __getitem__(self, at: Any) -> Any:
            raise OSError("disk error")

    image = ArrayWindows(np.zeros((100, 100), np.uint8).view(Failing), "scan")
    with pytest.raises(ImageError, match=r"scan: 51x40 px at x 17, y 30 .*disk error"):
        image.read(PLACE)


def write(path: Path, bands: np.ndarray, **profile: Any) -> Path:
    rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
    count, height, width = bands.shape
    defaults = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"}
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype=bands.dtype,
        **(defaults | profile),
    ) as file:  # fmt: skip
        file.write(bands)
    return path


def test_an_image_without_a_map_position_opens_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write(tmp_path / "plain.tif", np.ones((1, 40, 50), np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_windows(path) as source:
            assert source.size_hw == (40, 50)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("bands", "profile"),
    [
        (RNG.integers(0, 255, (3, 90, 130), np.uint8), {"photometric": "RGB"}),
        (RNG.integers(0, 60000, (1, 90, 130), np.uint16), {}),
        (RNG.integers(0, 9, (1, 90, 130), np.uint8), {"nodata": 3}),
        (RNG.normal(size=(5, 90, 130)).astype(np.float32), {"nodata": -9999}),
        (RNG.integers(0, 255, (2, 90, 130), np.uint8), {}),
    ],
    ids=["colours", "16 bits", "no data", "five bands of floats", "two bands"],
)
def test_a_raster_in_windows_has_the_values_of_the_whole_file(
    tmp_path: Path, bands: np.ndarray, profile: dict[str, Any]
) -> None:
    path = write(tmp_path / "a.tif", bands, **profile)
    whole = read(path)
    with open_windows(path) as opened:
        assert isinstance(opened, raster.RasterWindows)
        assert opened.size_hw == (90, 130) and opened.dtype == bands.dtype
        part = opened.read(PLACE)
    assert np.array_equal(part.pixels, whole.pixels[PLACE.slices])
    if whole.valid is None:
        assert part.seen is None
    else:
        assert opened.has_gaps and part.seen is not None
        assert np.array_equal(part.seen, whole.valid[PLACE.slices])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_overviews_are_levels(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
    ramp = np.add.outer(np.arange(128), np.arange(192))[None].astype(np.uint16)
    path = write(tmp_path / "a.tif", ramp)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.average)
    with open_windows(path) as opened:
        assert opened.levels == [(128, 192), (64, 96), (32, 48)]
        part = opened.read(Window(4, 6, 10, 8), level=2).pixels
    expected = ramp[0].reshape(32, 4, 48, 4).mean(axis=(1, 3))[4:14, 6:14]
    np.testing.assert_allclose(part, expected, atol=1)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_tile_of_a_raster_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", RNG.integers(0, 255, (1, 256, 256), np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    path.write_bytes(data)
    with open_windows(path) as opened:
        errors = []
        for tile in tiles(opened.size_hw, 32):
            try:
                opened.read(tile)
            except ImageError as error:
                errors.append(str(error))
    assert 0 < len(errors) < 60 and "cannot be read" in errors[0]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_palette_is_read_as_its_colours(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
    indices = RNG.integers(0, 4, (1, 64, 64), np.uint8)
    path = write(tmp_path / "a.tif", indices, photometric="palette")
    colours = {i: (10 * i, 255 - i, 7, 255) for i in range(4)}
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, colours)
    table = np.array([colours[i][:3] for i in range(4)], np.uint8)
    with open_windows(path) as opened:
        pixels = opened.read(Window(0, 0, 64, 64)).pixels
    assert np.array_equal(pixels, table[indices[0]])


def test_a_tiff_with_an_orientation_is_decoded_as_a_whole(tmp_path: Path) -> None:
    pytest.importorskip("rasterio", reason="needs the extra geo")
    image = Image.fromarray(RNG.integers(0, 255, (40, 60), np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    image.save(tmp_path / "turned.tif", exif=exif)
    assert not raster.is_raster(tmp_path / "turned.tif")
    with open_windows(tmp_path / "turned.tif") as opened:
        assert opened.size_hw == (60, 40)


def test_no_raster_file_is_a_clear_error(tmp_path: Path) -> None:
    pytest.importorskip("rasterio", reason="needs the extra geo")
    (tmp_path / "a.tif").write_bytes(b"II*\0" + bytes(100))
    for name in ("a.tif", "missing.tif"):
        with (
            pytest.raises(ImageError, match=f"{name}: GDAL cannot open it"),
            open_windows(tmp_path / name),
        ):
            pass


def test_without_the_extra_tiff_is_decoded_whole_and_vrt_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "a.tif")
    with open_windows(tmp_path / "a.tif") as opened:
        assert isinstance(opened, ArrayWindows) and opened.size_hw == (9, 8)
    with pytest.raises(MissingExtraError, match="geo"), open_windows(tmp_path / "a.vrt"):
        pass


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.npy", "a.svs", "a.vrt"])
def test_a_named_pipe_is_refused_and_never_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    program = f"""
from tiepoint.errors import ImageError
from tiepoint.images.opening import open_windows
try:
    with open_windows({str(tmp_path / name)!r}):
        pass
except ImageError as error:
    print(error)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert f"{name}: a named pipe" in done.stdout


def test_an_archive_of_numpy_is_no_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.zeros((5, 5)))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with (
        pytest.raises(ImageError, match="a.npy: cannot be mapped"),
        open_windows(tmp_path / "a.npy"),
    ):
        pass


def test_a_damaged_tiff_file_prints_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("rasterio", reason="needs the extra geo")
    (tmp_path / "a.tif").write_bytes(b"II*\0" + b"\x7f" * 100)
    with pytest.raises(ImageError), open_windows(tmp_path / "a.tif"):
        pass
    assert not [record for record in caplog.records if record.name == "tifffile"]


@pytest.mark.parametrize("name", ["x.tif", "x.npy", "x.svs", "x.ome.tif", "x.vrt"])
def test_no_message_shows_the_password_of_a_url(name: str) -> None:
    pytest.importorskip("rasterio", reason="needs the extra geo")
    url = f"http://me:secret@127.0.0.1:9/{name}"
    for call in (lambda: open_windows(url).__enter__(), lambda: georeference_of(url)):
        try:
            call()
        except (ImageError, MissingExtraError) as error:
            assert "secret" not in str(error)
        else:
            assert not raster.is_raster(url)


def test_a_mean_of_channels_has_no_data_where_one_of_them_has_none(tmp_path: Path) -> None:
    pytest.importorskip("rasterio", reason="needs the extra geo")
    bands = RNG.integers(100, 200, (2, 20, 30)).astype(np.int16)
    bands[0, 3, 4] = bands[1, 5, 6] = bands[:, 7, 8] = -9999
    path = write(tmp_path / "a.tif", bands, nodata=-9999)
    gaps = {(0, 1): [(3, 4), (5, 6), (7, 8)], (1,): [(5, 6), (7, 8)]}
    for channels, expected in gaps.items():
        with open_windows(path, channels=channels) as opened:
            seen = opened.read(Window(0, 0, 20, 30)).seen
        assert seen is not None
        assert [tuple(at) for at in np.argwhere(~seen).tolist()] == expected
