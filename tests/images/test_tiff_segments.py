"""TIFF strips and tiles: many short ones, few long ones, missing and clipped ones, planes."""

from __future__ import annotations

import io
import time
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from support.image_files import on_white_slowly, tiff
from tiepoint.errors import ImageError
from tiepoint.images import tiff_codecs, tiff_pages, tiff_samples
from tiepoint.images.reading import read

Array = NDArray[Any]
RANDOM = np.random.default_rng(13)
DEEP = RANDOM.integers(0, 65536, (45, 70, 3), dtype=np.uint16)
BYTES = RANDOM.integers(0, 256, (45, 70, 5), dtype=np.uint8)


def written(pixels: Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, metadata=None, **options)
    return buffer.getvalue()


def packed_as_literals(data: bytes) -> bytes:
    """PackBits without runs; TIFF 6.0, section 9."""
    return b"".join(
        bytes([len(data[at : at + 128]) - 1]) + data[at : at + 128]
        for at in range(0, len(data), 128)
    )


def packed_by_libtiff(data: bytes, name: str) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("L", (len(data), 1), data).save(buffer, "TIFF", compression=name)
    tags = Image.open(io.BytesIO(buffer.getvalue())).tag_v2  # type: ignore[attr-defined]
    return buffer.getvalue()[tags[273][0] :][: tags[279][0]]


PACKERS: dict[int, Callable[[bytes], bytes]] = {
    tiff_pages.NONE: bytes,
    tiff_pages.LZW: lambda data: packed_by_libtiff(data, "tiff_lzw"),
    tiff_pages.DEFLATE: zlib.compress,
    tiff_pages.PACKBITS: packed_as_literals,
    tiff_pages.ZSTD: lambda data: packed_by_libtiff(data, "zstd"),
}


def in_segments(
    pixels: Array, scheme: int, *, rows: int, columns: int = 0, empty: tuple[int, ...] = ()
) -> bytes:
    """H W C uint16 -> strips of some rows, or tiles; some of them not stored."""
    height, width, channels = pixels.shape
    parts = []
    if columns:
        padded = np.zeros((-(-height // rows) * rows, -(-width // columns) * columns, channels))
        padded = padded.astype(np.uint16)
        padded[:height, :width] = pixels
    else:
        padded = pixels
    for top in range(0, height, rows):
        for left in range(0, width, columns or width):
            part = padded[top : top + rows, left : left + (columns or width)]
            parts.append(PACKERS[scheme](part.tobytes()))
    parts = [b"" if index in empty else part for index, part in enumerate(parts)]
    counts = [len(part) for part in parts]
    places = (8 + np.cumsum(counts) - counts).tolist()
    places = [0 if index in empty else place for index, place in enumerate(places)]
    tags: dict[int, list[int]] = {259: [scheme], 273: places, 278: [rows], 279: counts}
    if columns:
        tags = {259: [scheme], 322: [columns], 323: [rows], 324: places, 325: counts}
    return tiff_of_parts(pixels, b"".join(parts), tags)


def tiff_of_parts(pixels: Array, data: bytes, tags: dict[int, list[int]]) -> bytes:
    """A TIFF file with the tags of an array, but other data and places."""
    at = np.frombuffer(data + b"\0" * (-len(data) % 2), np.uint8)
    whole = tiff(at[None, :, None], more_tags={
        256: [pixels.shape[1]], 257: [pixels.shape[0]], 258: [16] * pixels.shape[2],
        262: [2 if pixels.shape[2] == 3 else 1], 277: [pixels.shape[2]],
        339: [1] * pixels.shape[2], **tags})  # fmt: skip
    return whole


@pytest.mark.parametrize("block", [1, 2000, 4 * 2**20])
@pytest.mark.parametrize("columns", [0, 16, 32])
@pytest.mark.parametrize("scheme", PACKERS)
def test_many_short_segments_and_few_long_ones_give_the_same_pixels(
    scheme: int, columns: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_samples, "BLOCK_BYTES", block)
    monkeypatch.setattr(tiff_codecs, "BLOCK_BYTES", block)
    for rows in (16, 32) if columns else (1, 7, 44, 45):
        data = in_segments(DEEP, scheme, rows=rows, columns=columns)
        np.testing.assert_array_equal(read(data).pixels, DEEP)


@pytest.mark.parametrize("block", [1, 4 * 2**20])
@pytest.mark.parametrize("scheme", PACKERS)
def test_segments_that_are_not_stored_have_no_data(
    scheme: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_samples, "BLOCK_BYTES", block)
    image = read(in_segments(DEEP, scheme, rows=16, columns=32, empty=(1, 3, 8)))
    expected, valid = DEEP.copy(), np.ones(DEEP.shape[:2], bool)
    for index in (1, 3, 8):
        place = (
            slice(index // 3 * 16, index // 3 * 16 + 16),
            slice(index % 3 * 32, index % 3 * 32 + 32),
        )
        expected[place], valid[place] = 0, False
    np.testing.assert_array_equal(image.pixels, expected)
    np.testing.assert_array_equal(image.valid, valid)


@pytest.mark.parametrize("scheme", PACKERS)
def test_a_short_segment_that_is_cut_is_damaged(scheme: int) -> None:
    rows = [PACKERS[scheme](row.tobytes()) for row in DEEP]
    rows[3] = rows[3][: len(rows[3]) // 2]
    counts = [len(row) for row in rows]
    places = (8 + np.cumsum(counts) - counts).tolist()
    tags = {259: [scheme], 273: places, 278: [1], 279: counts}
    with pytest.raises(ImageError, match="damaged or truncated TIFF"):
        read(tiff_of_parts(DEEP, b"".join(rows), tags))


@pytest.mark.parametrize("scheme", PACKERS)
def test_strips_of_one_row_are_read_fast(scheme: int) -> None:
    smooth = cv2.resize(DEEP, (400, 300))
    data = in_segments(smooth, scheme, rows=1)
    start = time.process_time()
    np.testing.assert_array_equal(read(data).pixels, smooth)
    assert time.process_time() - start < 0.15


def test_a_picture_of_tens_of_thousands_of_strips_is_read_or_refused_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grey = RANDOM.integers(0, 65536, (60_000, 1, 1), dtype=np.uint16)
    data = in_segments(grey, tiff_pages.PACKBITS, rows=1)
    start = time.process_time()
    np.testing.assert_array_equal(read(data).pixels, grey[..., 0])
    assert time.process_time() - start < 1
    monkeypatch.setattr(tiff_pages, "MOST_SEGMENTS", 59_999)
    with pytest.raises(ImageError, match="60000 strips or tiles are more than the limit"):
        read(data)


def test_strips_that_share_many_bytes_are_refused() -> None:
    grey = np.zeros((20_000, 1, 1), np.uint16)
    strip = zlib.compress(b"\0\0") + bytes(60_000)
    tags = {259: [8], 273: [8] * 20_000, 278: [1], 279: [len(strip)] * 20_000}
    with pytest.raises(ImageError, match="bytes for 20000 strips"):
        read(tiff_of_parts(grey, strip, tags))


@pytest.mark.parametrize("scheme", [tiff_pages.NONE, tiff_pages.LZW, tiff_pages.DEFLATE])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_size_that_passes_the_end_of_the_file_is_clipped(bits: int, scheme: int) -> None:
    pixels = DEEP[..., :1] if bits == 16 else BYTES[..., :1]
    stored = PACKERS[scheme](pixels.tobytes())
    tags = {258: [bits], 259: [scheme], 278: [45], 279: [len(stored) + 100]}
    head = tiff_of_parts(pixels, b"", {**tags, 273: [0]})
    head = tiff_of_parts(pixels, b"", {**tags, 273: [len(head)]})
    np.testing.assert_array_equal(read(head + stored).pixels, pixels[..., 0])
    with pytest.raises(ImageError, match="damaged or truncated TIFF"):
        read(head + stored[: len(stored) // 2])
    with pytest.raises(ImageError, match="it ends at byte"):
        read(head)


@pytest.mark.parametrize("predictor", [2, 3])
def test_a_predictor_counts_only_for_schemes_that_have_one(predictor: int) -> None:
    np.testing.assert_array_equal(read(tiff(DEEP, more_tags={317: [predictor]})).pixels, DEEP)
    packed = packed_as_literals(DEEP.tobytes())
    tags = {259: [tiff_pages.PACKBITS], 279: [len(packed)], 278: [45], 317: [predictor]}
    np.testing.assert_array_equal(
        read(tiff_of_parts(DEEP, packed, {**tags, 273: [8]})).pixels, DEEP
    )


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_planes_of_8_bits_keep_their_bands_and_alpha(
    tile: tuple[int, int] | None, compression: str | None
) -> None:
    options: dict[str, Any] = {"planarconfig": 2, "tile": tile, "compression": compression}
    planes = np.ascontiguousarray(np.moveaxis(BYTES, -1, 0))
    for count in (3, 4, 5):
        data = written(planes[:count], photometric="minisblack", **options)
        np.testing.assert_array_equal(read(data).pixels, BYTES[..., :3])
    small = np.ascontiguousarray(planes[:4, :9, :8])
    for photometric, count in (("rgb", 4), ("minisblack", 2)):
        data = written(
            small[-count:], photometric=photometric, extrasamples=["unassalpha"], **options
        )
        expected = on_white_slowly(np.moveaxis(small[-count:], 0, -1), 255)
        np.testing.assert_array_equal(
            read(data).pixels, expected if count == 4 else expected[..., 0]
        )


def test_a_plane_that_is_neither_colour_nor_alpha_is_not_read() -> None:
    data = bytearray(
        written(
            np.moveaxis(BYTES, -1, 0), photometric="minisblack", planarconfig=2, compression="zlib"
        )
    )
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        at = file.pages[0].dataoffsets[4]  # type: ignore[union-attr]
    data[at : at + 50] = bytes(50)
    np.testing.assert_array_equal(read(bytes(data)).pixels, BYTES[..., :3])
