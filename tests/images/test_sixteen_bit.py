"""16-bit colour and floats: the files that Pillow cuts to 8 bits or refuses."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from support.image_files import as_seen, exif_block, on_white_slowly, png16, png_chunk, tiff
from tiepoint.errors import ImageError
from tiepoint.images.reading import read

RANDOM = np.random.default_rng(5)
DEEP = RANDOM.integers(0, 65536, (6, 9, 4), dtype=np.uint16)
FLOATS = RANDOM.random((6, 9, 4)).astype(np.float32)


def test_sixteen_bit_png_keeps_its_values() -> None:
    for channels, expected in (
        (1, DEEP[..., 0]),
        (2, on_white_slowly(DEEP[..., :2], 65535)[..., 0]),
        (3, DEEP[..., :3]),
        (4, on_white_slowly(DEEP, 65535)),
    ):
        data = png16(DEEP[..., :channels])
        for source in (data, Image.open(io.BytesIO(data))):
            pixels = read(source).pixels
            assert pixels.dtype == np.uint16
            assert pixels.flags.c_contiguous
            np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_tiff_keeps_its_values(order: str) -> None:
    grey, colour = DEEP[..., :1], DEEP[..., :3]
    np.testing.assert_array_equal(read(tiff(grey, order=order)).pixels, grey[..., 0])
    np.testing.assert_array_equal(read(tiff(colour, order=order)).pixels, colour)
    straight = on_white_slowly(DEEP, 65535)
    np.testing.assert_array_equal(read(tiff(DEEP, order=order, extra=2)).pixels, straight)
    np.testing.assert_array_equal(read(tiff(DEEP, order=order, extra=0)).pixels, colour)
    alpha = DEEP[..., 3:].astype(int)
    premultiplied = np.minimum(colour.astype(int) + 65535 - alpha, 65535)
    np.testing.assert_array_equal(read(tiff(DEEP, order=order, extra=1)).pixels, premultiplied)


@pytest.mark.parametrize("ending", [".png", ".tiff", ".ppm"])
def test_sixteen_bit_files_of_opencv_are_read(ending: str) -> None:
    _, data = cv2.imencode(ending, DEEP[..., 2::-1])
    np.testing.assert_array_equal(read(data.tobytes()).pixels, DEEP[..., :3])


def test_the_callers_lazy_image_stays_unread_and_its_file_in_place() -> None:
    file = io.BytesIO(png16(DEEP[..., :3]))
    image = Image.open(file)
    position = file.tell()
    np.testing.assert_array_equal(read(image).pixels, DEEP[..., :3])
    assert file.tell() == position
    assert np.asarray(image).dtype == np.uint8  # still loads


@pytest.mark.parametrize("order", ["<", ">"])
def test_white_as_zero_is_inverted(order: str) -> None:
    data = tiff(DEEP[..., :1], order=order, photometric=0)
    np.testing.assert_array_equal(read(data).pixels, 65535 - DEEP[..., 0])
    data = tiff((DEEP[..., :1] >> 8).astype(np.uint8), order=order, photometric=0)
    np.testing.assert_array_equal(read(data).pixels, 255 - (DEEP[..., 0] >> 8))


def test_a_transparent_colour_of_sixteen_bits_becomes_white() -> None:
    clear = [int(v) for v in DEEP[2, 3, :3]]
    data = png16(DEEP[..., :3], png_chunk(b"tRNS", struct.pack(">HHH", *clear)))
    expected = DEEP[..., :3].copy()
    expected[2, 3] = 65535
    np.testing.assert_array_equal(read(data).pixels, expected)
    data = png16(DEEP[..., :1], png_chunk(b"tRNS", struct.pack(">H", clear[0])))
    np.testing.assert_array_equal(
        read(data).pixels, np.where(DEEP[..., 0] == clear[0], 65535, DEEP[..., 0])
    )


def test_chunks_around_the_pixels_do_no_harm() -> None:
    gamma = png_chunk(b"gAMA", struct.pack(">I", 100000))
    significant = png_chunk(b"sBIT", bytes([12, 12, 12]))
    animation = png_chunk(b"acTL", struct.pack(">II", 1, 0))
    control = png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 9, 6, 0, 0, 1, 1, 0, 0))
    data = png16(DEEP[..., :3], gamma, significant, animation, control)
    endless = struct.pack(">I", 2**32 - 1) + b"\xff" * 4  # a length that the file does not have
    for file in (data, data[:-12] + endless, data[:-12] + endless + data[-12:]):
        np.testing.assert_array_equal(read(file).pixels, DEEP[..., :3])


def test_twelve_bit_tiff_is_scaled_to_the_full_range() -> None:
    a, b = DEEP[:, :4, 0] >> 4, DEEP[:, 4:8, 0] >> 4  # two values in three bytes
    packed = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], axis=-1).reshape(6, 12, 1)
    data = tiff(packed.astype(np.uint8), more_tags={256: [8], 258: [12]})
    expected = np.stack([a, b], axis=-1).reshape(6, 8).astype(int) * 65535 // 4095
    np.testing.assert_array_equal(read(data).pixels, expected)


def test_twelve_bit_ppm_is_scaled_to_the_full_range() -> None:
    twelve = DEEP[..., :3] >> 4
    data = b"P6 9 6 4095\n" + twelve.astype(">u2").tobytes()
    expected = np.floor(twelve * (65535 / 4095) + 0.5)
    np.testing.assert_array_equal(read(data).pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_deep_files_is_applied_once(orientation: int) -> None:
    chunk = png_chunk(b"eXIf", exif_block(orientation).tobytes()[6:])
    for data, pixels in (
        (png16(DEEP[..., :3], chunk), DEEP[..., :3]),
        (tiff(DEEP[..., :3], orientation=orientation), DEEP[..., :3]),
        (tiff(DEEP[..., :1], orientation=orientation), DEEP[..., 0]),
        (tiff(FLOATS[..., :1], orientation=orientation), FLOATS[..., 0]),
        (tiff(FLOATS[..., :3], orientation=orientation), FLOATS[..., :3]),
        (tiff(FLOATS[..., :1].astype(float), orientation=orientation), FLOATS[..., 0]),
    ):
        result = read(data)
        assert result.exif_orientation == orientation
        np.testing.assert_array_equal(result.pixels, as_seen(pixels, orientation))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_float_tiff_is_read(order: str, dtype: type, channels: int) -> None:
    pixels = FLOATS[..., :channels].astype(dtype)
    result = read(tiff(pixels, order=order, extra=2 if channels == 4 else None)).pixels
    assert result.dtype == np.float32
    if channels == 4:
        alpha = FLOATS[..., 3:]
        np.testing.assert_allclose(result, FLOATS[..., :3] * alpha + 1 - alpha, atol=1e-6)
    else:
        np.testing.assert_array_equal(result, FLOATS[..., 0] if channels == 1 else FLOATS[..., :3])


@pytest.mark.parametrize("channels", [1, 3])
def test_float_tiff_of_any_range_keeps_its_values(channels: int) -> None:
    pixels = FLOATS[..., :channels] * 300 - 40
    np.testing.assert_array_equal(read(tiff(pixels)).pixels, pixels.squeeze())


@pytest.mark.parametrize("order", ["<", ">"])
def test_signed_and_long_whole_numbers_keep_their_values(order: str) -> None:
    pixels = (DEEP[..., :1] >> 1).astype(np.int16)
    wide = DEEP[..., :1].astype(np.uint32) * 65_000
    kinds = [pixels, -pixels, (pixels >> 8).astype(np.int8), wide.astype(np.int32)]
    kinds += [wide] if order == "<" else []  # Pillow reads no big-endian ones
    for values in kinds:
        np.testing.assert_array_equal(read(tiff(values, order=order)).pixels, values[..., 0])
    assert read(tiff(pixels, order=order)).pixels.dtype == np.uint16


def test_eight_bit_planes_are_read() -> None:
    pixels = (DEEP[..., :3] >> 8).astype(np.uint8)
    np.testing.assert_array_equal(read(tiff(pixels, planar=2)).pixels, pixels)


def test_the_limit_holds_for_files_that_opencv_reads() -> None:
    for data in (tiff(FLOATS[..., :3]), png16(DEEP[..., :3])):
        with pytest.raises(ImageError, match="limit of 53"):
            read(data, max_pixels=53)
        assert read(data, max_pixels=54).pixels.shape == (6, 9, 3)


def test_a_tiff_with_broken_exif_is_read() -> None:
    pixels = (DEEP[..., :3] >> 8).astype(np.uint8)
    for offset in (1, 8, 10**9):
        result = read(tiff(pixels, orientation=6, more_tags={34665: [offset]}))
        np.testing.assert_array_equal(result.pixels, as_seen(pixels, 6))


def test_truncated_deep_files_are_refused_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    for data in (png16(DEEP[..., :3]), png16(DEEP), tiff(DEEP[..., :3]), tiff(FLOATS[..., :3])):
        for share in (0.2, 0.6, 0.9):
            with pytest.raises(ImageError):
                read(data[: int(len(data) * share)])
    assert capfd.readouterr().err == ""
