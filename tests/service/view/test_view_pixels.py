"""Tiles, patches and the bounded cache."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from itertools import pairwise

import cv2
import numpy as np
import pytest

from support.view_server import scene
from tiepoint.errors import ImageError
from tiepoint.images.windows import Window
from tiepoint.service.view import pixels
from tiepoint.service.view.pixels import ArraySource, BoundedCache


def decoded(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return image[..., [2, 1, 0, *range(3, image.shape[2])]]


@pytest.mark.parametrize("size_hw", [(1, 1), (7, 1300), (513, 512), (1201, 700)])
def test_the_tiles_of_the_first_level_are_the_image(size_hw: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    source = ArraySource.of(image)
    rows, columns = (-(-side // pixels.TILE_PX) for side in size_hw)
    tiles = [[decoded(pixels.tile(source, 0, x, y)) for x in range(columns)] for y in range(rows)]
    np.testing.assert_array_equal(np.vstack([np.hstack(row) for row in tiles]), image)


def test_each_level_is_the_mean_of_2x2_pixels_of_the_one_before() -> None:
    image = scene(2, (1201, 1403))
    levels = ArraySource.of(image).levels
    assert len(levels) == 3 == pixels.level_count((1201, 1403))
    for fine, coarse in pairwise(levels):
        height, width = fine.shape[:2]
        assert coarse.shape[:2] == ((height + 1) // 2, (width + 1) // 2)
        padded = np.pad(fine, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge").astype(float)
        means = (padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]) / 4
        assert np.abs(means - coarse).max() <= 0.5


@pytest.mark.parametrize(("level", "column", "row"), [(-1, 0, 0), (2, 0, 0), (0, 2, 0), (0, 0, -1)])
def test_a_tile_outside_is_refused(level: int, column: int, row: int) -> None:
    source = ArraySource.of(np.zeros((600, 600, 3), np.uint8))
    with pytest.raises(ImageError):
        pixels.tile(source, level, column, row)


@pytest.mark.parametrize(("x", "y"), [(20.0, 30.0), (20.4, 29.6), (0.0, 0.0), (63.4, 47.2)])
def test_the_middle_of_a_patch_is_the_pixel_that_contains_the_point(x: float, y: float) -> None:
    image = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    patch = decoded(pixels.patch(ArraySource.of(image), x, y))
    middle = pixels.PATCH_PX // 2
    assert patch.shape == (pixels.PATCH_PX, pixels.PATCH_PX, 4)
    np.testing.assert_array_equal(patch[middle, middle, :3], image[round(y), round(x)])
    inside = (patch[..., 3] == 255).sum()
    columns = min(63, round(x) + middle) - max(0, round(x) - middle) + 1
    rows = min(47, round(y) + middle) - max(0, round(y) - middle) + 1
    assert inside == columns * rows


def test_a_patch_far_outside_is_empty() -> None:
    source = ArraySource.of(np.full((10, 10, 3), 255, np.uint8))
    assert decoded(pixels.patch(source, 1e6, -1e6)).max() == 0


def test_a_window_of_a_source_is_that_part_of_the_level() -> None:
    image = scene(4, (600, 1100))
    source = ArraySource.of(image)
    np.testing.assert_array_equal(
        source.read(Window(10, 20, 30, 40), 1), source.levels[1][10:40, 20:60]
    )


def test_the_cache_drops_what_was_used_least_recently() -> None:
    cache: BoundedCache[str, bytes] = BoundedCache(10, len)
    for name in "ab":
        cache.get(name, lambda: b"1234")
    cache.get("a", lambda: pytest.fail("is kept"))
    cache.get("c", lambda: b"1234")
    assert set(cache.values()) == {"a", "c"} and cache.nbytes == 8
    cache.get("large", lambda: b"x" * 50)
    assert set(cache.values()) == {"large"} and cache.nbytes == 50


def test_threads_make_a_value_once_and_an_error_is_not_kept() -> None:
    cache: BoundedCache[str, int] = BoundedCache(100, lambda _: 1)
    calls: list[int] = []
    gate = threading.Event()

    def slow() -> int:
        calls.append(1)
        gate.wait(5)
        return 7

    threads = [threading.Thread(target=cache.get, args=("a", slow)) for _ in range(4)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(10)
    assert calls == [1] and cache.nbytes == 1

    def broken() -> int:
        raise ImageError("gone")

    with pytest.raises(ImageError):
        cache.get("b", broken)
    assert cache.get("b", lambda: 3) == 3


def test_a_value_that_two_threads_make_after_an_error_counts_once() -> None:
    cache: BoundedCache[str, bytes] = BoundedCache(100, len)
    begun, gates = ([threading.Event() for _ in range(3)] for _ in range(2))
    numbers = iter(range(3))

    def make() -> bytes:
        number = next(numbers)
        begun[number].set()
        gates[number].wait(5)
        if number == 0:
            raise ImageError("gone")
        return bytes(10)

    def ask() -> None:
        with suppress(ImageError):
            cache.get("a", make)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    threads[0].start()
    assert begun[0].wait(5)
    threads[1].start()
    time.sleep(0.1)  # it waits for the first
    gates[0].set()
    assert begun[1].wait(5)
    threads[2].start()
    assert begun[2].wait(5)
    for gate in gates:
        gate.set()
    for thread in threads:
        thread.join(10)
    assert cache.nbytes == 10
