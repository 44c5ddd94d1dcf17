"""PIL images of every mode, and the EXIF orientation."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from support.image_files import as_seen, encode, exif_block, png_chunk
from tiepoint.errors import ImageError
from tiepoint.images.reading import read

RANDOM = np.random.default_rng(11)
COLOUR = RANDOM.integers(0, 256, (9, 13, 3), dtype=np.uint8)
ALPHA = RANDOM.integers(0, 256, (9, 13, 4), dtype=np.uint8)
PICTURE = Image.fromarray(COLOUR)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX",
                                  "CMYK", "YCbCr", "LAB", "HSV"])  # fmt: skip
def test_every_eight_bit_mode_of_pil_is_read(mode: str) -> None:
    if mode in ("RGBa", "La"):
        image = Image.fromarray(ALPHA).convert({"La": "LA", "RGBa": "RGBA"}[mode]).convert(mode)
    elif mode == "LAB":
        image = Image.frombytes("LAB", (13, 9), COLOUR.tobytes())
    else:
        image = PICTURE.convert("P").convert("PA") if mode == "PA" else PICTURE.convert(mode)
    before = image.tobytes()
    result = read(image)
    assert result.name == "PIL image"
    assert result.pixels.dtype == np.uint8
    assert result.pixels.shape == ((9, 13) if mode in ("1", "L", "LA", "La") else (9, 13, 3))
    assert (image.mode, image.tobytes()) == (mode, before)
    if mode in ("RGB", "RGBX"):
        np.testing.assert_array_equal(result.pixels, COLOUR)
    if mode in ("YCbCr", "HSV", "CMYK", "P", "LAB"):
        np.testing.assert_array_equal(result.pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N", "I"])
def test_sixteen_bit_modes_of_pil_keep_their_values(mode: str) -> None:
    values = [[0, 1, 256, 40000, 65535]]
    image = Image.new(mode, (5, 1))
    for x, value in enumerate(values[0]):
        image.putpixel((x, 0), value)
    pixels = read(image).pixels
    assert pixels.dtype == np.dtype("=u2")
    assert pixels.tolist() == values


def test_pil_floats_of_any_range_keep_their_values() -> None:
    unit = np.array([[0, 0.25, 1]], np.float32)
    for values in (unit, unit * 200, unit * 50 - 12):
        np.testing.assert_array_equal(read(Image.fromarray(values)).pixels, values)


def test_whole_numbers_beyond_sixteen_bits_become_floats() -> None:
    for low, high in ((-1, 3), (0, 65536)):
        pixels = read(Image.fromarray(np.array([[low, high]], np.int32))).pixels
        assert pixels.dtype == np.float32
        assert pixels.tolist() == [[low, high]]


def test_a_pil_image_without_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match="no pixels"):
        read(Image.new("RGB", (0, 4)))


def test_a_closed_pil_image_is_refused(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    image.close()
    with pytest.raises(ImageError, match=r"a\.png"):
        read(image)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied_and_recorded(orientation: int, format_name: str) -> None:
    options = {"lossless": True} if format_name == "WEBP" else {}
    data = encode(PICTURE, format_name, exif=exif_block(orientation), **options)
    plain = read(encode(PICTURE, format_name, **options)).pixels
    for source in (data, Image.open(io.BytesIO(data))):
        result = read(source)
        assert result.exif_orientation == orientation
        np.testing.assert_array_equal(result.pixels, as_seen(plain, orientation))
    seen_by_pillow = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(read(data).pixels, np.asarray(seen_by_pillow))
    np.testing.assert_array_equal(read(seen_by_pillow).pixels, np.asarray(seen_by_pillow))


def test_a_turned_copy_of_an_oriented_image_is_turned_once() -> None:
    data = encode(PICTURE, "PNG", exif=exif_block(6))
    with Image.open(io.BytesIO(data)) as image:
        copy = image.convert("RGB").copy()
    np.testing.assert_array_equal(read(copy).pixels, as_seen(COLOUR, 6))
    assert copy.size == (13, 9)


@pytest.mark.parametrize("block", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"", b"x"])
def test_a_broken_exif_block_does_not_stop_reading(block: bytes) -> None:
    expected = read(encode(PICTURE, "JPEG")).pixels
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = read(encode(PICTURE, "JPEG", exif=block))
    assert not caught
    assert result.exif_orientation == 1
    np.testing.assert_array_equal(result.pixels, expected)


@pytest.mark.parametrize("orientation", [0, 9, 700])
def test_an_orientation_outside_the_standard_counts_as_none(orientation: int) -> None:
    result = read(encode(PICTURE, "PNG", exif=exif_block(orientation)))
    assert result.exif_orientation == 1
    np.testing.assert_array_equal(result.pixels, COLOUR)


def test_an_exif_chunk_after_the_pixels_counts() -> None:
    data = encode(PICTURE, "PNG")
    chunk = png_chunk(b"eXIf", exif_block(8).tobytes()[6:])
    result = read(data[:-12] + chunk + data[-12:])
    assert result.exif_orientation == 8
    np.testing.assert_array_equal(result.pixels, as_seen(COLOUR, 8))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_grey_of_few_bits_becomes_white(bits: int) -> None:
    levels = np.arange(16).reshape(2, 8) % (1 << bits)
    stored = (levels[..., None] >> np.arange(bits)[::-1]) & 1  # 2 8 bits
    rows = np.packbits(stored.astype(np.uint8).reshape(2, -1), axis=1)
    header = struct.pack(">IIBBBBB", 8, 2, bits, 0, 0, 0, 0)
    parts = [
        png_chunk(b"IHDR", header),
        png_chunk(b"tRNS", struct.pack(">H", 1)),
        png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
        png_chunk(b"IEND", b""),
    ]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    grey = levels * 255 // ((1 << bits) - 1)
    for source in (data, Image.open(io.BytesIO(data))):
        image = read(source)
        np.testing.assert_array_equal(image.pixels, np.where(levels == 1, 255, grey))
        np.testing.assert_array_equal(image.valid, levels != 1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_dds_file_with_masks_has_the_pixels_that_pillow_gives(mode: str) -> None:
    pixels = RANDOM.integers(0, 256, (9, 13, len(mode)), dtype=np.uint8)
    pixels[..., 3:] = 255
    image = read(encode(Image.fromarray(pixels), "DDS"))
    np.testing.assert_array_equal(image.pixels, pixels[..., :3])
