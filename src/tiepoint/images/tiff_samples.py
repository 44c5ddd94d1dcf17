"""Samples of TIFF files that Pillow refuses or would truncate: 16 bits, floats, signed, bands.

Rows are read, decompressed and converted in blocks, so that the picture itself is the only large
array.
"""

from __future__ import annotations

import io
import lzma
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import TiffImagePlugin
from tifffile import TiffPage

from tiepoint.errors import ImageError
from tiepoint.images import tiff_pages
from tiepoint.images.arrays import (
    MAX_EXACT,
    Array,
    Decoded,
    blend_on_white,
    in_unit_range,
    not_finite,
    stored_view,
    upright_size,
)
from tiepoint.images.gaps import NO_DATA, equal_to
from tiepoint.images.quiet import libtiff_quiet
from tiepoint.images.tiff_pages import Segments, damaged

_BLOCK_BYTES = 4 * 2**20
_ORIENTATION = 274
_PREMULTIPLIED, _STRAIGHT = 1, 2  # ExtraSamples; TIFF 6.0, section 18
_FULL = {"u1": 255, "u2": 65535}

MAX_PIXEL_BYTES, SPARE_BYTES = 12, 64 * 2**20
"""Memory to decompress one strip or tile: per pixel of the picture, and in addition."""


class Block(NamedTuple):
    """Some rows of a strip or tile: `H W C`; None where the file stores no data."""

    plane: int
    top: int
    left: int
    samples: Array | None
    size_hw: tuple[int, int]


class Bands(NamedTuple):
    """Which samples of a pixel are its colours and its alpha."""

    colours: int
    alpha: int | None
    premultiplied: bool


def read_samples(stream: BinaryIO, page: TiffPage, layout: Segments, name: str) -> Decoded:
    """Read a page for which `reason_against` returned None.

    If bands have no colour interpretation, the first three are the colours; if there are fewer, the
    first one is grey.

    Raises:
        ImageError: Damaged.
    """
    try:
        return _read(stream, page, layout, name)
    except (zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        raise damaged(name, str(error) or type(error).__name__) from error


def _read(stream: BinaryIO, page: TiffPage, layout: Segments, name: str) -> Decoded:
    assert page.dtype is not None
    bands = bands_of(page)
    height, width = page.imagelength, page.imagewidth
    turn = page.tags.valueof(_ORIENTATION, 1)
    turn = turn if isinstance(turn, int) and 1 <= turn <= 8 else 1
    size_hw = upright_size((height, width), turn)
    shape = (*size_hw, bands.colours) if bands.colours > 1 else size_hw
    pixels: Array = np.empty(shape, _type_of(stream, page, layout, bands, name))
    alpha = None if bands.alpha is None else np.empty(size_hw, pixels.dtype)
    no_data = page.tags.valueof(NO_DATA)
    gaps = None if no_data is None else np.ones(size_hw, bool)
    holes = None if all(page.databytecounts) else np.zeros(size_hw, bool)
    colours_as_stored = stored_view(pixels.reshape(*size_hw, bands.colours), turn)
    for block in _blocks(stream, page, layout, name):
        rows = slice(block.top, block.top + block.size_hw[0])
        place = (rows, slice(block.left, block.left + block.size_hw[1]))
        first, last = block.plane, block.plane + layout.samples
        kept = slice(first, min(last, bands.colours))
        if block.samples is None:
            assert holes is not None
            colours_as_stored[*place, kept] = 0
            stored_view(holes, turn)[place] = True
            continue
        with np.errstate(over="ignore"):  # beyond float32 they are infinite, so no data
            colours_as_stored[*place, kept] = block.samples[..., : bands.colours - first]
            if alpha is not None and bands.alpha is not None and first <= bands.alpha < last:
                stored_view(alpha, turn)[place] = block.samples[..., bands.alpha - first]
        if gaps is not None and first < bands.colours:
            equal = equal_to(block.samples[..., : bands.colours - first], no_data)
            stored_view(gaps, turn)[place] &= False if equal is None else equal
    _finish_values(pixels, page)
    image = _blended(pixels, alpha, bands.premultiplied)
    image = image.without(gaps).without(holes).without(not_finite(pixels))
    return image.upright(turn, applied=True)


def bands_of(page: TiffPage) -> Bands:
    """Colours and alpha among the samples of a pixel."""
    count, extras = page.samplesperpixel, tuple(int(extra) for extra in page.extrasamples)
    if page.photometric == 2 and count == 4 and not extras:
        extras = (_STRAIGHT,)
    alphas = [
        (count - len(extras) + index, extra == _PREMULTIPLIED)
        for index, extra in enumerate(extras)
        if extra in (_PREMULTIPLIED, _STRAIGHT) and count - len(extras) + index > 0
    ]
    others = count - len(alphas)
    colours = 3 if others >= 3 and (not alphas or alphas[0][0] >= 3) else 1
    assert page.dtype is not None
    has_scale = page.dtype.kind == "f" or page.dtype.str[1:] in _FULL
    alpha, premultiplied = alphas[0] if alphas and has_scale else (None, False)
    return Bands(colours, alpha, premultiplied)


def _type_of(
    stream: BinaryIO, page: TiffPage, layout: Segments, bands: Bands, name: str
) -> np.dtype[Any]:
    """Type of the pixels that holds all values of the file."""
    dtype = page.dtype
    assert dtype is not None
    if dtype.kind == "f":
        return np.dtype(np.float32)
    if dtype.str[1:] in _FULL:
        return np.dtype(dtype.str[1:])
    low, high = 0, 0
    for block in _blocks(stream, page, layout, name):
        if block.samples is not None and block.plane < bands.colours:
            colours = block.samples[..., : bands.colours - block.plane]
            low, high = min(low, int(colours.min())), max(high, int(colours.max()))
    if low >= 0 and high <= 65535 and dtype.itemsize > 1:
        return np.dtype(np.uint16)
    return np.dtype(np.float32 if max(-low, high) <= MAX_EXACT else np.float64)


def _finish_values(pixels: Array, page: TiffPage) -> None:
    """Clip floats to 0..1 like `arrays.as_float32`, and make white the largest value; in place."""
    if pixels.dtype == np.float32:
        low, high = float(pixels.min()), float(pixels.max())
        if (low < 0 or high > 1) and in_unit_range(low, high):
            np.clip(pixels, 0, 1, out=pixels)
    if page.photometric == 0:
        full = pixels.dtype.type(_FULL.get(pixels.dtype.str[1:], 1))
        np.subtract(full, pixels, out=pixels)


def _blended(pixels: Array, alpha: Array | None, premultiplied: bool) -> Decoded:
    if alpha is None:
        return Decoded(pixels)
    return Decoded(pixels, blend_on_white(pixels, alpha, premultiplied=premultiplied))


def _blocks(stream: BinaryIO, page: TiffPage, layout: Segments, name: str) -> Iterator[Block]:
    height, width = page.imagelength, page.imagewidth
    rows, columns = layout.size_hw
    assert page.dtype is not None
    row_bytes = columns * layout.samples * page.dtype.itemsize
    for index, (start, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        plane, place = divmod(index, layout.down * layout.across)
        top, left = (place // layout.across) * rows, (place % layout.across) * columns
        visible_wh = min(columns, width - left), min(rows, height - top)
        if count == 0:  # GDAL's sparse files
            yield Block(plane, top, left, None, visible_wh[::-1])
            continue
        stored_rows = rows if page.is_tiled else visible_wh[1]
        done = 0
        for data in _rows(stream, page, start, count, stored_rows, row_bytes, name):
            block = _unpacked(data, page, columns, layout.samples)[: visible_wh[1] - done]
            if len(block):
                block = block[:, : visible_wh[0]]
                yield Block(plane, top + done, left, block, block.shape[:2])
            done += len(data) // row_bytes


def _unpacked(data: Any, page: TiffPage, columns: int, samples: int) -> Array:
    """Rows of bytes -> `H W C` of the file's type in this machine's byte order."""
    dtype = page.dtype
    assert dtype is not None
    if page.predictor == 3:  # Adobe's technical note 3 on TIFF
        size = dtype.itemsize
        shares = np.frombuffer(data, np.uint8).reshape(-1, columns * size, samples)
        shares = np.cumsum(shares, axis=1, dtype=np.uint8).reshape(-1, size, columns * samples)
        values: Array = np.ascontiguousarray(shares.transpose(0, 2, 1)).view(f">f{size}")
        return values.astype(f"=f{size}").reshape(-1, columns, samples)
    stored = np.frombuffer(data, dtype.newbyteorder(page.parent.byteorder))
    values = stored.astype(dtype.newbyteorder("="), copy=False).reshape(-1, columns, samples)
    if page.predictor == 2:  # TIFF 6.0, section 14
        whole = np.dtype(f"u{dtype.itemsize}")
        return np.cumsum(values.view(whole), axis=1, dtype=whole).view(values.dtype)
    return values


def _rows(
    stream: BinaryIO, page: TiffPage, start: int, count: int, rows: int, row_bytes: int, name: str
) -> Iterator[Any]:
    """The decompressed bytes of a strip or tile, some whole rows at a time."""
    compression = int(page.compression)
    at_once = max(1, _BLOCK_BYTES // row_bytes) * row_bytes
    total = rows * row_bytes
    if compression in (tiff_pages.LZW, tiff_pages.PACKBITS, tiff_pages.ZSTD):
        _check_memory(page, total, count, name)
        stream.seek(start)
        yield from _by_libtiff(stream.read(count), compression, rows, row_bytes)
        return
    if compression == tiff_pages.NONE:
        pieces = _pieces(stream, start, min(count, total))
    else:
        is_lzma = compression == tiff_pages.LZMA
        codec: Any = lzma.LZMADecompressor() if is_lzma else zlib.decompressobj()
        pieces = _decompressed(codec, _pieces(stream, start, count))
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while total and len(buffer) >= min(at_once, total):
            size = min(at_once, total)
            yield bytes(memoryview(buffer)[:size])
            del buffer[:size]
            total -= size
        if not total:
            next(pieces, None)  # which checks the checksum at the end
            return
    raise EOFError(f"{total - len(buffer)} bytes of a strip or tile are missing")


def _pieces(stream: BinaryIO, start: int, count: int) -> Iterator[bytes]:
    while count > 0:
        stream.seek(start)
        piece = stream.read(min(count, 2**20))
        if not piece:
            return
        yield piece
        start, count = start + len(piece), count - len(piece)


def _decompressed(codec: Any, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress in pieces of bounded size, whatever the data declare."""
    for piece in pieces:
        data = piece
        while True:
            result = codec.decompress(data, 2**20)
            yield result
            if codec.eof:
                return
            data = getattr(codec, "unconsumed_tail", b"")  # of zlib; lzma keeps it itself
            if not data and getattr(codec, "needs_input", len(result) < 2**20):
                break


def _check_memory(page: TiffPage, total: int, count: int, name: str) -> None:
    """libtiff and Pillow each hold a whole strip or tile."""
    limit = MAX_PIXEL_BYTES * page.imagewidth * page.imagelength + SPARE_BYTES
    if 2 * total + count > limit:
        raise ImageError(
            f"{name}: one strip or tile of {total} bytes with compression "
            f"{int(page.compression)} needs more than the limit of {limit} bytes of memory; "
            "save it with smaller strips or uncompressed"
        )


def _by_libtiff(data: bytes, compression: int, rows: int, row_bytes: int) -> Iterator[bytes]:
    """Decompress a strip or tile as the pixels of a grey picture, with Pillow's libtiff."""
    tags = {256: row_bytes, 257: rows, 258: 8, 259: compression, 262: 1, 273: 0, 277: 1,
            278: rows, 279: len(data)}  # fmt: skip
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    short, long = 3, 4
    entries = b"".join(
        struct.pack("<HHII", tag, short if tag in (258, 259, 262, 277) else long, 1, value)
        for tag, value in tags.items()
    )
    header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0"
    with libtiff_quiet():
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(header + data))
        del data
        image.load()
    at_once = max(1, _BLOCK_BYTES // row_bytes)
    for top in range(0, rows, at_once):
        bottom = min(top + at_once, rows)
        yield image._new(image.im.crop((0, top, row_bytes, bottom))).tobytes()
