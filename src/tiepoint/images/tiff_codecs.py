"""Decompression of TIFF strips and tiles: short ones many at once, long ones some rows at a time.

LZW, PackBits and ZSTD are decompressed by libtiff, inside Pillow, as the pixels of a grey picture.
"""

from __future__ import annotations

import io
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin
from tifffile import TiffPage

from tiepoint.errors import ImageError
from tiepoint.images import tiff_pages
from tiepoint.images.arrays import Array
from tiepoint.images.quiet import libtiff_quiet
from tiepoint.images.tiff_pages import Segments

BLOCK_BYTES = 4 * 2**20
"""Bytes to decompress at a time."""

MAX_PIXEL_BYTES, SPARE_BYTES = 12, 64 * 2**20
"""Memory to decompress one strip or tile: per pixel of the picture, and in addition."""

_LIBTIFF = (tiff_pages.LZW, tiff_pages.PACKBITS, tiff_pages.ZSTD)


class Source(NamedTuple):
    """A file, its page, its name, and the rows of each strip or tile."""

    stream: BinaryIO
    page: TiffPage
    name: str
    rows: int
    row_bytes: int


def joined(
    stream: BinaryIO, page: TiffPage, layout: Segments, indices: NDArray[np.int64], size: int
) -> Array:
    """Decompress strips or tiles of the same size.

    Args:
        stream, page, layout: The file, its page, the strips or tiles of the page.
        indices: Which ones.
        size: Size of one, bytes.

    Returns:
        uint8, one after the other; zeros for those that are not stored.

    Raises:
        EOFError, OSError, zlib.error, lzma.LZMAError: Damaged.
    """
    compression = int(page.compression)
    stored = indices[layout.counts[indices] > 0]
    starts, counts = layout.starts[stored], layout.counts[stored]
    if compression == tiff_pages.NONE:
        if counts.size and int(counts.min()) < size:
            raise _missing(size - int(counts.min()))
        counts = np.full_like(counts, size)
    parts, first = [np.empty(0, np.uint8)], 0
    total = np.cumsum(counts)
    while first < len(stored):  # some at a time, because they may be larger than decompressed
        limit = int(total[first]) - int(counts[first]) + BLOCK_BYTES
        last = max(first + 1, int(np.searchsorted(total, limit, side="right")))
        data = _gathered(stream, starts[first:last], counts[first:last])
        parts.append(_decompressed_all(data, counts[first:last], size, compression))
        first = last
    found = parts[1] if len(parts) == 2 else np.concatenate(parts)
    if len(stored) == len(indices):
        return found
    whole = np.zeros((len(indices), size), np.uint8)
    whole[layout.counts[indices] > 0] = found.reshape(-1, size)
    return whole.ravel()


def _gathered(stream: BinaryIO, starts: NDArray[np.int64], counts: NDArray[np.int64]) -> bytes:
    """The bytes of several strips or tiles; those that follow one another are read at once."""
    cuts = np.flatnonzero(starts[1:] != starts[:-1] + counts[:-1]) + 1
    firsts = np.concatenate([[0], cuts])
    sizes = np.add.reduceat(counts, firsts)
    pieces = []
    for start, size in zip(starts[firsts].tolist(), sizes.tolist(), strict=True):
        stream.seek(start)
        pieces.append(stream.read(size))
    data = b"".join(pieces)
    if len(data) < int(counts.sum()):
        raise _missing(int(counts.sum()) - len(data))
    return data


def _decompressed_all(data: bytes, counts: NDArray[np.int64], size: int, compression: int) -> Array:
    if compression == tiff_pages.NONE:
        return np.frombuffer(data, np.uint8)
    if compression in _LIBTIFF:
        return np.asarray(_by_libtiff(data, counts, compression, 1, size)).ravel()
    create: Callable[[], Any] = _codec_of(compression)
    parts, start = [], 0
    for count in counts.tolist():
        # One byte more than it has, so that the checksum at its end is reached.
        part = create().decompress(data[start : start + count], size + 1)
        if len(part) < size:
            raise _missing(size - len(part))
        parts.append(part[:size])
        start += count
    return np.frombuffer(b"".join(parts), np.uint8)


def _codec_of(compression: int) -> Callable[[], Any]:
    return lzma.LZMADecompressor if compression == tiff_pages.LZMA else zlib.decompressobj


def _missing(count: int) -> EOFError:
    return EOFError(f"{count} bytes of a strip or tile are missing")


def rows_of(source: Source, start: int, count: int) -> Iterator[bytes]:
    """The decompressed bytes of a long strip or tile, some whole rows at a time."""
    stream, page, name, rows, row_bytes = source
    compression = int(page.compression)
    at_once = max(1, BLOCK_BYTES // row_bytes) * row_bytes
    total = rows * row_bytes
    if compression in _LIBTIFF:
        _check_memory(page, total, count, name)
        stream.seek(start)
        sizes = np.array([count], np.int64)
        image = _by_libtiff(stream.read(count), sizes, compression, rows, row_bytes)
        for top in range(0, rows, at_once // row_bytes):
            bottom = min(top + at_once // row_bytes, rows)
            yield image._new(image.im.crop((0, top, row_bytes, bottom))).tobytes()
        return
    if compression == tiff_pages.NONE:
        pieces = _pieces(stream, start, min(count, total))
    else:
        pieces = _decompressed(_codec_of(compression)(), _pieces(stream, start, count))
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
    raise _missing(total - len(buffer))


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


def _by_libtiff(
    data: bytes, counts: NDArray[np.int64], compression: int, rows: int, row_bytes: int
) -> TiffImagePlugin.TiffImageFile:
    """Decompress strips as the pixels of a grey picture, with Pillow's libtiff.

    Args:
        data: The strips, one after the other.
        counts: Size of each, bytes.
        compression: The compression scheme.
        rows, row_bytes: Size of each as pixels.
    """
    tags = {256: row_bytes, 257: rows * len(counts), 258: 8, 259: compression, 262: 1, 273: 0,
            277: 1, 278: rows, 279: int(counts[0])}  # fmt: skip
    lists_at = 8 + 2 + 12 * len(tags) + 4
    places = lists_at + np.cumsum(counts) - counts
    lists = b""
    if len(counts) == 1:  # the tag itself holds the value
        tags[273] = lists_at
    else:
        tags[273], tags[279] = lists_at, lists_at + 4 * len(counts)
        lists = (places + 8 * len(counts)).astype("<u4").tobytes() + counts.astype("<u4").tobytes()
    short, long = 3, 4
    entries = b"".join(
        struct.pack("<HHII", tag, short if tag in (258, 259, 262, 277) else long,
                    len(counts) if tag in (273, 279) else 1, value)
        for tag, value in tags.items()
    )  # fmt: skip
    header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + lists
    with libtiff_quiet():
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(header + data))
        del data
        # Given memory, Pillow does not apply its limit of pixels, which is global and also warns.
        image.im = Image.core.new("L", image.size)  # type: ignore[attr-defined]
        image.load()
    return image
