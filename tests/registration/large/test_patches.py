"""Overviews and windows in frames of their own, against the whole image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tiepoint.geometry import apply_homography
from tiepoint.images import windows
from tiepoint.images.windows import ArrayWindows
from tiepoint.registration.large import patches
from tiepoint.registration.large.patches import averaged_part, overview, resampled

RNG = np.random.default_rng(0)


def smooth(size_hw: tuple[int, int], channels: int = 0) -> NDArray[Any]:
    shape = size_hw if not channels else (*size_hw, channels)
    noise = RNG.uniform(0, 255, shape).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 3) * 4 - 380


@pytest.mark.parametrize("channels", [0, 3])
@pytest.mark.parametrize("size_hw", [(600, 800), (601, 799)])
def test_an_overview_is_the_area_average_in_strips(
    size_hw: tuple[int, int], channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = smooth(size_hw, channels)
    whole = overview(ArrayWindows(image), 200)
    monkeypatch.setattr(patches, "BLOCK_PX", 10_000)
    strips = overview(ArrayWindows(image), 200)
    np.testing.assert_array_equal(strips.image.pixels, whole.image.pixels)
    assert whole.image.size_hw == (-(-size_hw[0] // 4), -(-size_hw[1] // 4))
    exact = image[:600, :796].reshape(150, 4, 199, 4, -1).mean(axis=(1, 3)).squeeze()
    np.testing.assert_allclose(whole.image.pixels[:150, :199], exact, atol=1e-2)
    corner = apply_homography(whole.to_full, np.array([[0.0, 0.0], [10, 20]]))
    np.testing.assert_allclose(corner, [[1.5, 1.5], [41.5, 81.5]])


def test_an_image_that_is_small_enough_is_its_own_overview() -> None:
    image = RNG.integers(0, 255, (90, 120), np.uint8)
    view = overview(ArrayWindows(image), 200)
    assert np.array_equal(view.image.pixels, image)
    assert np.array_equal(view.to_full, np.eye(3))


def test_gaps_remain_gaps() -> None:
    image = smooth((400, 400))
    image[:, :101] = np.nan
    view = overview(ArrayWindows(image), 100)
    assert view.image.valid is not None and np.isfinite(view.image.pixels).all()
    assert not view.image.valid[:, :26].any() and view.image.valid[:, 26:].all()


def test_whole_pixels_are_taken_as_they_are() -> None:
    image = RNG.integers(0, 255, (200, 300), np.uint8)
    to_full = np.array([[1, 0, 37], [0, 1, 51], [0, 0, 1.0]])
    part = resampled(ArrayWindows(image), to_full, (64, 80))
    assert np.array_equal(part.pixels, image[51:115, 37:117]) and part.valid is None


@pytest.mark.parametrize("zoom", [0.7, 1.0, 1.6])
def test_a_turned_window_is_that_of_the_whole_image(zoom: float) -> None:
    image = smooth((300, 400))
    c, s = zoom * np.cos(0.6), zoom * np.sin(0.6)
    to_full = np.array([[c, -s, 150], [s, c, 60], [0, 0, 1]])
    part = resampled(ArrayWindows(image), to_full, (90, 110))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    whole = cv2.warpAffine(image, to_full[:2], (110, 90), flags=flags)
    np.testing.assert_allclose(part.pixels, whole, atol=0.5)


def test_a_coarser_window_is_averaged_first() -> None:
    noise = RNG.uniform(0, 255, (800, 800)).astype(np.float32)
    to_full = np.array([[8.0, 0, 3.5], [0, 8, 3.5], [0, 0, 1]])
    part = resampled(ArrayWindows(noise), to_full, (100, 100))
    exact = noise.reshape(100, 8, 100, 8).mean(axis=(1, 3))
    np.testing.assert_allclose(part.pixels, exact, atol=0.01)


def test_outside_the_image_is_no_data() -> None:
    image = np.full((100, 100), 50, np.uint8)
    source = ArrayWindows(image)
    shifted = resampled(source, np.array([[1, 0, -20], [0, 1, 0], [0, 0, 1.0]]), (50, 50))
    assert shifted.valid is not None
    assert not shifted.valid[:, :20].any() and shifted.valid[:, 20:].all()
    away = resampled(source, np.array([[1, 0, 500], [0, 1, 0], [0, 0, 1.0]]), (50, 50))
    assert away.valid is not None and not away.valid.any()
    assert averaged_part(source, 1.0, np.array([500.0, 0]), np.array([520.0, 20])) is None


def test_smaller_copies_of_a_file_are_used(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
    from tiepoint.images.raster import RasterWindows

    image = np.clip(smooth((1024, 1024)), 0, 255).astype(np.uint8)
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "width": 1024, "height": 1024, "count": 1, "dtype": "uint8",
               "tiled": True, "blockxsize": 256, "blockysize": 256}  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(image, 1)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.average)
    read_levels = []

    class Watched(RasterWindows):
        def read(self, window: windows.Window, level: int = 0) -> Any:
            read_levels.append(level)
            return super().read(window, level)

    with Watched(path) as source:
        view = overview(source, 256)
    assert set(read_levels) == {2}
    exact = overview(ArrayWindows(image), 256)
    np.testing.assert_allclose(view.to_full, exact.to_full)
    assert np.abs(view.image.pixels.astype(int) - exact.image.pixels).max() <= 2
