"""Images to pixels: grey and range right, aspect kept, nothing lost at the edges."""

from __future__ import annotations

import numpy as np
import pytest

from tiepoint.config import ProcessorConfig
from tiepoint.errors import ConfigError
from tiepoint.network import inputs

NATIVE = ProcessorConfig(max_side=None)


def test_every_type_of_the_same_picture_gives_the_same_pixels() -> None:
    eight = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    kinds = [eight, eight.astype(np.uint16) * 257, eight.astype(np.float32) / 255]
    first, *others = (inputs.prepare([image], NATIVE)[0] for image in kinds)
    assert first.shape == (1, 1, 16, 24) and first.dtype == np.float32
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-6)


def test_grey_weighs_red_green_and_blue_by_their_luma() -> None:
    colours = np.eye(3, dtype=np.uint8)[None] * 255  # 1 3 3: red, green, blue
    np.testing.assert_allclose(inputs.to_grey(colours), [[0.299, 0.587, 0.114]], atol=1e-6)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("size_hw", [(70, 7), (33, 1), (1, 5), (64, 3)])
def test_grey_of_any_height_and_type_is_the_sum_of_its_colours(
    size_hw: tuple[int, int], kind: type[np.generic]
) -> None:
    top = 1 if kind is np.float32 else np.iinfo(kind).max
    colours = (np.random.default_rng(0).random((*size_hw, 3)) * top).astype(kind)
    expected = (colours.astype(np.float64) / top) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(inputs.to_grey(colours), expected, atol=1e-6)


def test_white_is_one_and_black_is_zero() -> None:
    white = np.full((2, 2, 3), 255, dtype=np.uint8)
    assert inputs.to_grey(white).max() <= 1
    np.testing.assert_allclose(inputs.to_grey(white), 1, atol=1e-6)
    assert (inputs.to_grey(np.zeros((2, 2), np.uint16)) == 0).all()


def test_grey_input_is_not_mixed_with_anything() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_allclose(inputs.to_grey(grey), grey / 255, atol=1e-7)


def test_the_callers_array_is_left_alone() -> None:
    image = np.random.default_rng(0).random((16, 16), dtype=np.float32)
    kept = image.copy()
    inputs.prepare([image], NATIVE)[0][:] = 7
    np.testing.assert_array_equal(image, kept)


def test_padding_repeats_the_edge_so_that_it_draws_no_line() -> None:
    image = np.random.default_rng(0).integers(0, 256, (13, 9), dtype=np.uint8)
    pixels, (placement,) = inputs.prepare([image], NATIVE)
    assert pixels.shape == (1, 1, 16, 16) and placement.resized_hw == (13, 9)
    np.testing.assert_array_equal(pixels[0, 0, 13:, :9], np.tile(pixels[0, 0, 12, :9], (3, 1)))
    np.testing.assert_array_equal(pixels[0, 0, :, 9:], np.tile(pixels[0, 0, :, 8:9], (1, 7)))


def test_images_of_a_batch_lie_in_the_top_left_corner_with_their_own_sizes() -> None:
    images = [np.full(size, 255, np.uint8) for size in [(8, 40), (30, 10), (1, 1)]]
    pixels, placements = inputs.prepare(images, NATIVE)
    assert pixels.shape == (3, 1, 32, 40)
    for field, placement in zip(pixels[:, 0], placements, strict=True):
        height, width = placement.padded_hw
        assert (field[:height, :width] == 1).all()
        assert field.sum() == height * width


def test_each_image_is_the_same_whatever_its_batch_mates() -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, size, dtype=np.uint8) for size in [(50, 70, 3), (33, 90)]]
    config = ProcessorConfig(max_side=64)
    together, placements = inputs.prepare(images, config)
    for index, image in enumerate(images):
        alone, _ = inputs.prepare([image], config)
        height, width = placements[index].padded_hw
        np.testing.assert_array_equal(together[index, :, :height, :width], alone[0])


def test_the_longer_side_is_brought_down_and_small_images_stay() -> None:
    big, small = np.zeros((300, 400), np.uint8), np.zeros((30, 40), np.uint8)
    _, placements = inputs.prepare([big, small], ProcessorConfig(max_side=100))
    assert [p.resized_hw for p in placements] == [(75, 100), (30, 40)]
    assert [p.image_hw for p in placements] == [(300, 400), (30, 40)]


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_resizing_averages_the_area_under_each_pixel(factor: int) -> None:
    image = np.random.default_rng(0).random((12 * factor, 16 * factor), dtype=np.float32)
    expected = image.reshape(12, factor, 16, factor).mean(axis=(1, 3))
    np.testing.assert_allclose(inputs.resize(image, 16), expected, atol=1e-5)


def test_a_blob_is_found_half_pixel_exactly_after_resizing() -> None:
    y, x = np.mgrid[:600, :800]
    blob = np.exp(-((x - 333.0) ** 2 + (y - 217.0) ** 2) / 200).astype(np.float32)
    pixels, (placement,) = inputs.prepare([blob], ProcessorConfig(max_side=320))
    rows, columns = np.mgrid[: pixels.shape[2], : pixels.shape[3]]
    weights = pixels[0, 0] / pixels.sum()
    centre = np.array([[(columns * weights).sum(), (rows * weights).sum()]])
    np.testing.assert_allclose(placement.to_image(centre), [[333, 217]], atol=0.01)


@pytest.mark.parametrize("side", [0, -5, 2.5, True])
def test_a_longest_side_that_is_no_whole_number_of_pixels_is_refused(side: object) -> None:
    with pytest.raises(ConfigError, match="max_side"):
        ProcessorConfig(max_side=side)
