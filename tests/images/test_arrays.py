"""Arrays and tensors: types, ranges, shapes, colour order, alpha."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from support.image_files import Array, as_seen, on_white_slowly
from tiepoint.errors import ConfigError, ImageError
from tiepoint.images.arrays import upright, with_alpha
from tiepoint.images.reading import read

RANDOM = np.random.default_rng(7)
COLOUR = RANDOM.integers(0, 256, (6, 5, 3), dtype=np.uint8)


def test_a_uint8_array_is_passed_through_without_a_copy_and_stays_writeable() -> None:
    array = COLOUR.copy()
    result = read(array)
    assert np.shares_memory(result.pixels, array)
    assert array.flags.writeable
    assert not result.pixels.flags.writeable
    assert (result.name, result.exif_orientation, result.size_hw) == ("array", 1, (6, 5))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3), (1, 1), (1, 1, 3), (1, 900)])
def test_values_and_type_stay(dtype: type, shape: tuple[int, ...]) -> None:
    array = (RANDOM.random(shape) * (1 if dtype is np.float32 else 200)).astype(dtype)
    pixels = read(array).pixels
    assert pixels.dtype == dtype
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, array[..., 0] if shape[2:] == (1,) else array)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32(dtype: type) -> None:
    array = RANDOM.random((4, 3)).astype(dtype)
    pixels = read(array).pixels
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, array.astype(np.float32))


@pytest.mark.parametrize(
    "dtype", [np.int8, np.int16, np.int32, np.uint32, np.int64, np.uint64, ">i4"]
)
def test_other_whole_numbers_become_floats_of_the_same_value(dtype: Any) -> None:
    array = np.array([[0, 1, 100], [7, np.iinfo(dtype).max >> 3, np.iinfo(dtype).min >> 3]], dtype)
    pixels = read(array).pixels
    assert pixels.dtype == (np.float32 if np.iinfo(dtype).max >> 3 <= 2**24 else np.float64)
    np.testing.assert_array_equal(pixels, array.astype(np.float64))


@pytest.mark.parametrize("low_high", [(-1.0, 1.0), (0.0, 255.0), (-12.0, 38.0), (0.0, 4000.0)])
def test_floats_of_any_range_keep_their_values(low_high: tuple[float, float]) -> None:
    array = np.linspace(*low_high, 12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(read(array).pixels, array)


def test_bool_is_black_and_white() -> None:
    assert read(np.array([[True, False]])).pixels.tolist() == [[255, 0]]


def test_big_endian_uint16_keeps_its_values() -> None:
    array = np.array([[1, 256, 65535]], dtype=">u2")
    pixels = read(array).pixels
    assert pixels.dtype == np.dtype("=u2")
    assert pixels.tolist() == [[1, 256, 65535]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [3, 4])
def test_bgr_arrays_are_turned_into_rgb(dtype: type, channels: int) -> None:
    array = (RANDOM.random((4, 3, channels)) * (1 if dtype is np.float32 else 255)).astype(dtype)
    swapped = array[..., [2, 1, 0, 3][:channels]]
    before = array.copy()
    np.testing.assert_array_equal(read(array, channel_order="bgr").pixels, read(swapped).pixels)
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("view", [np.s_[::-1], np.s_[:, ::2], np.s_[1:4, 1:3]])
def test_views_of_arrays_are_read_as_they_look(view: tuple[slice, ...]) -> None:
    pixels = read(COLOUR[view]).pixels
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, COLOUR[view])


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from([2, 4])))
)
@settings(max_examples=60, deadline=None)
def test_uint8_alpha_is_laid_on_white_exactly(array: Array) -> None:
    expected = on_white_slowly(array, 255)
    np.testing.assert_array_equal(
        with_alpha(array).pixels,
        expected[..., 0] if len(expected.shape) == 3 and expected.shape[2] == 1 else expected,
    )


@given(hnp.arrays(np.uint16, (3, 2, 4)))
@settings(max_examples=60, deadline=None)
def test_uint16_alpha_is_laid_on_white_exactly(array: Array) -> None:
    np.testing.assert_array_equal(with_alpha(array).pixels, on_white_slowly(array, 65535))


def test_float_alpha_is_laid_on_white() -> None:
    array = RANDOM.random((5, 4, 4)).astype(np.float32)
    expected = array[..., :3].astype(float) * array[..., 3:] + (1 - array[..., 3:].astype(float))
    np.testing.assert_allclose(read(array).pixels, expected, atol=1e-6)


def test_alpha_of_an_image_taller_than_a_band_is_laid_on_white_everywhere() -> None:
    array = RANDOM.integers(0, 256, (700, 600, 4), dtype=np.uint8)
    colour, alpha = array[..., :3].astype(float), array[..., 3:].astype(float)
    expected = np.floor((colour * alpha + 255 * (255 - alpha)) / 255 + 0.5)
    np.testing.assert_array_equal(read(array).pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(4, 7), (4, 7, 3), (1, 5, 3), (5, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_upright_follows_the_table(orientation: int, shape: tuple[int, ...], dtype: type) -> None:
    array = (RANDOM.random(shape) * 200).astype(dtype)
    turned = upright(array, orientation)
    np.testing.assert_array_equal(turned, as_seen(array, orientation))
    assert turned.flags.c_contiguous


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 2), np.complex64), ["complex64", "expected", "float32"]),
        (np.zeros((3, 2), object), ["object", "expected"]),
        (np.array([["a", "b"]]), ["expected"]),
        (np.zeros((3, 2, 2), np.uint8), ["(3, 2, 2)", "channels"]),
        (np.zeros((3, 20, 30), np.uint8), ["(3, 20, 30)", ".transpose(1, 2, 0)"]),
        (np.zeros((2, 3, 4, 3), np.uint8), ["batch", "list"]),
        (np.zeros(7, np.uint8), ["(7,)", "H W"]),
        (np.uint8(3), ["()", "H W"]),
        (np.zeros((0, 5), np.uint8), ["(0, 5)", "no pixels"]),
        (np.zeros((5, 0, 3), np.uint8), ["(5, 0, 3)", "no pixels"]),
    ],
)
def test_wrong_arrays_are_refused_with_the_way_out(array: Array, words: list[str]) -> None:
    with pytest.raises(ImageError) as caught:
        read(array)
    for word in words:
        assert word in str(caught.value)


def test_a_rounding_error_outside_the_range_is_clipped() -> None:
    assert read(np.array([[-1e-6, 1 + 1e-6]])).pixels.tolist() == [[0, 1]]


def test_whatever_numpy_can_read_is_an_array() -> None:
    class Wrapped:
        def __array__(self, dtype: object = None, copy: object = None) -> Array:
            return COLOUR

    class Broken:
        def __array__(self, dtype: object = None, copy: object = None) -> Array:
            raise RuntimeError("no data here")

    np.testing.assert_array_equal(read(Wrapped()).pixels, COLOUR)
    with pytest.raises(ImageError, match="no data here"):
        read(Broken())


@pytest.mark.parametrize("source", [None, 3, 2.5, ["a.jpg"], {"a": 1}, object()])
def test_other_objects_are_refused_with_what_is_taken(source: object) -> None:
    with pytest.raises(ImageError, match="expected a path, an http"):
        read(source)


def test_an_unknown_channel_order_is_refused() -> None:
    with pytest.raises(ConfigError, match="grb"):
        read(COLOUR, channel_order="grb")


def test_tensors_are_read_colours_first() -> None:
    torch = pytest.importorskip("torch")
    first = torch.from_numpy(COLOUR.transpose(2, 0, 1).copy())
    result = read(first)
    assert result.name == "tensor"
    np.testing.assert_array_equal(result.pixels, COLOUR)
    np.testing.assert_array_equal(read(first[:1]).pixels, COLOUR[..., 0])
    np.testing.assert_array_equal(read(first[0]).pixels, COLOUR[..., 0])
    np.testing.assert_array_equal(read(first, channel_order="bgr").pixels, COLOUR[..., ::-1])
    floats = (first.float() / 255).requires_grad_()
    np.testing.assert_allclose(read(floats).pixels, COLOUR / 255, atol=1e-6)
    assert read(floats.bfloat16()).pixels.dtype == np.float32
    np.testing.assert_allclose(read(floats.bfloat16()).pixels, COLOUR / 255, atol=4e-3)
    np.testing.assert_array_equal(read(torch.nn.Parameter(floats)).pixels, read(floats).pixels)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("torch.zeros(6, 5, 3)", ["(6, 5, 3)", ".permute(2, 0, 1)"]),
        ("torch.zeros(1, 3, 6, 5)", ["batch"]),
        ("torch.zeros(3, 6, 5, dtype=torch.complex64)", ["complex64", "uint8"]),
        ("torch.zeros(3, 0, 5)", ["no pixels"]),
        ("torch.zeros(6, 5).to_sparse()", ["tensor", "dense"]),
        ("torch.zeros(6, 5, device='meta')", ["tensor"]),
    ],
)
def test_wrong_tensors_are_refused_with_the_way_out(expression: str, words: list[str]) -> None:
    torch = pytest.importorskip("torch")
    tensor = eval(expression, {"torch": torch})
    with pytest.raises(ImageError) as caught:
        read(tensor)
    for word in words:
        assert word in str(caught.value)
