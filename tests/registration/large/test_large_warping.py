"""A large image in the frame of the other one: any windows give the whole, as a slow twin does."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tiepoint.geometry import apply_homography
from tiepoint.images.windows import ArrayWindows, Window, WindowSource, tiles
from tiepoint.registration.large import warping
from tiepoint.registration.large.deformation import Deformation
from tiepoint.registration.large.transform import LargeTransform
from tiepoint.registration.large.warping import WarpedWindows

RNG = np.random.default_rng(0)
C, S = 1.2 * np.cos(0.5), 1.2 * np.sin(0.5)
MATRIX = np.array([[C, -S, 120], [S, C, -60], [2e-5, 1e-5, 1]])
BENT = LargeTransform(
    MATRIX, Deformation((0.0, 0.0), 100.0, np.random.default_rng(1).normal(0, 3, (7, 8, 2)))
)
SIZE_B = (333, 417)


def image(channels: int = 0, dtype: Any = np.uint8) -> NDArray[Any]:
    shape = (300, 400, channels) if channels else (300, 400)
    noise = cv2.GaussianBlur(RNG.uniform(0, 255, shape).astype(np.float32), (0, 0), 1.5)
    return (np.clip(noise * 2 - 128, 0, 255) * (257 if dtype == np.uint16 else 1)).astype(dtype)


def whole(source: Any, **options: Any) -> Any:
    warped = WarpedWindows(ArrayWindows(source), BENT, SIZE_B, **options)
    return warped.read(Window(0, 0, *SIZE_B))


@pytest.mark.parametrize("tile_px", [1, 16, 37, 100])
@pytest.mark.parametrize(
    ("channels", "dtype"), [(0, np.uint8), (3, np.uint8), (0, np.uint16)], ids=["grey", "rgb", "16"]
)
def test_any_windows_give_the_whole(tile_px: int, channels: int, dtype: Any) -> None:
    pixels = image(channels, dtype)
    warped = WarpedWindows(ArrayWindows(pixels), BENT, SIZE_B)
    assert isinstance(warped, WindowSource)
    expected = warped.read(Window(0, 0, *SIZE_B))
    for window in tiles(SIZE_B, tile_px)[:: 1 if tile_px > 1 else 977]:
        part = warped.read(window)
        wanted = expected.pixels[window.slices]
        if part.pixels.ndim < wanted.ndim:  # nothing of the image
            assert not wanted.any()
            wanted = wanted[..., 0]
        assert np.array_equal(part.pixels, wanted)
        assert np.array_equal(part.valid, expected.valid[window.slices])


def test_a_window_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = image()
    expected = whole(pixels)
    monkeypatch.setattr(warping, "MOST_PART_PX", 5000)
    parts = whole(pixels)
    assert np.array_equal(parts.pixels, expected.pixels)
    assert np.array_equal(parts.valid, expected.valid)


def slowly(pixels: NDArray[Any], places: NDArray[np.float64]) -> tuple[Any, Any]:
    """Bilinear values at N 2 places, and whether they are inside."""
    values, seen = np.zeros(len(places)), np.zeros(len(places), bool)
    height, width = pixels.shape
    for index, (x, y) in enumerate(places):
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            continue
        seen[index] = True
        column, row = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
        i, j = min(int(row), height - 2), min(int(column), width - 2)
        v, u = row - i, column - j
        upper = pixels[i, j] * (1 - u) + pixels[i, j + 1] * u
        lower = pixels[i + 1, j] * (1 - u) + pixels[i + 1, j + 1] * u
        values[index] = upper * (1 - v) + lower * v
    return values, seen


@pytest.mark.parametrize("back", [False, True])
def test_pixels_are_those_of_the_exact_places(back: bool) -> None:
    pixels = image()
    result = whole(pixels, back=back)
    rows, columns = np.mgrid[:333:7, :417:7]
    xy = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(float)
    places = BENT.forward(xy) if back else BENT.inverse(xy)
    values, seen = slowly(pixels.astype(float), places)
    got, valid = result.pixels[rows, columns].ravel(), result.valid[rows, columns].ravel()
    assert (valid != seen).mean() < 0.01  # the edge is known to 1/32 px
    both = valid & seen
    assert both.sum() > 300
    # 1/64 px of rounding and 1/100 px between nodes, on slopes of up to 60 levels per px
    assert np.abs(got[both] - values[both]).max() <= 4
    assert np.abs(got[both] - values[both]).mean() < 0.6


def test_an_image_that_shrinks_is_averaged() -> None:
    noise = RNG.uniform(0, 255, (1200, 1200)).astype(np.float32)
    quarter = LargeTransform(np.diag([0.25, 0.25, 1.0]))
    warped = WarpedWindows(ArrayWindows(noise), quarter, (300, 300))
    part = warped.read(Window(50, 50, 100, 100)).pixels
    assert part.std() < noise.std() / 3
    xy = np.array([[100.0, 100.0]])
    average = noise[398:402, 398:402].mean()
    # averages of 4x4 px are between those around the place
    assert abs(part[50, 50] - average) < 4 * noise.std() / 4
    np.testing.assert_allclose(apply_homography(quarter.matrix, xy * 4), xy)


def test_pixels_without_data_and_outside_are_marked() -> None:
    pixels = image()
    valid = np.ones(pixels.shape, bool)
    valid[100:200, 100:200] = False
    warped = WarpedWindows(ArrayWindows(pixels, valid=valid), BENT, SIZE_B)
    result = warped.read(Window(0, 0, *SIZE_B))
    x, y = BENT.forward(np.array([[150.0, 150.0]]))[0].astype(int)
    assert result.valid is not None and not result.valid[y, x]
    assert (result.pixels[~result.valid] == 0).all()


def test_a_frame_that_does_not_show_the_image_is_empty() -> None:
    away = LargeTransform(np.array([[1, 0, 10_000], [0, 1, 0], [0, 0, 1.0]]))
    part = WarpedWindows(ArrayWindows(image()), away, SIZE_B).read(Window(0, 0, 50, 60))
    assert part.pixels.shape == (50, 60) and part.valid is not None and not part.valid.any()
