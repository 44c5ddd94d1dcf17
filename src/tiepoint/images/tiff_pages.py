"""Which picture of a TIFF file is read, and whether it can be.

tifffile reads the directories: classic and BigTIFF, in both byte orders, with sub-directories.
`tiff_samples` reads samples that Pillow does not, or would truncate to 8 bits.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import tifffile
from tifffile import TiffPage

from tiepoint.errors import ImageError
from tiepoint.geometry import SizeHW
from tiepoint.images.quiet import logger_quiet

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""Classic TIFF and BigTIFF, little and big endian."""

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType; TIFF 6.0, section 8
_RAW = {32803: "colour filter array", 34892: "linear raw samples"}  # DNG 1.4, chapter 3
_GREY_OR_RGB = (0, 1, 2)
_MOST_DIRECTORIES = 64
_TAG_BYTES = 8 * 2**20
"""Largest value of a tag: offsets of a million strips or tiles."""

_MARGIN_BYTES = 64 * 1024
_GROWTH = 8
"""Compression never makes a strip or tile larger than this many times, as a whole file less."""

NONE, LZW, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTD = 1, 5, 8, 32773, 32946, 34925, 50000
"""Compression schemes of which `tiff_samples` knows the decoder."""


@dataclass(frozen=True)
class Segments:
    """Strips or tiles of a page.

    Attributes:
        size_hw: Rows and columns of one, px; the last strip may have fewer rows.
        across, down: Number of them per plane.
        planes: 1, or the number of bands if each band has its own.
        samples: Samples per pixel in one.
    """

    size_hw: SizeHW
    across: int
    down: int
    planes: int
    samples: int


class _Bounded:
    """A stream that refuses to read a huge value, such as a tag of a sparse file declares."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _TAG_BYTES:
            raise ValueError(f"a tag of {size} bytes")
        return self._stream.read(size)


def full_picture(stream: BinaryIO, name: str) -> tuple[TiffPage, list[str]]:
    """The first directory that is neither a thumbnail nor a mask.

    Sub-directories of thumbnails count, as in raw photographs. Of thumbnails alone the largest is
    taken.

    Returns:
        The directory, and what is wrong with tags of the file.

    Raises:
        ImageError: A damaged file, or one without a picture.
    """
    try:
        with logger_quiet("tifffile") as errors:
            stream.seek(0)
            bounded: Any = _Bounded(stream)
            file = tifffile.TiffFile(bounded, name="", is_ndpi=False)
            pages = []
            for page in _directories(file):
                if not page.subfiletype & (_REDUCED | _MASK):
                    return page, errors
                pages.append(page)
            pictures = [page for page in pages if not page.subfiletype & _MASK] or pages
            return max(pictures, key=lambda page: page.imagewidth * page.imagelength), errors
    except Exception as error:  # tifffile raises nearly anything for damaged bytes
        raise damaged(
            name, f"its directory cannot be read, {str(error) or type(error).__name__}"
        ) from error


def _directories(file: tifffile.TiffFile) -> Iterator[TiffPage]:
    """The directories in their order, each followed by its sub-directories."""
    for index in range(_MOST_DIRECTORIES):
        try:
            page = file.pages[index]
        except IndexError:
            return
        assert isinstance(page, TiffPage)
        yield page
        for offset in (page.subifds or ())[:_MOST_DIRECTORIES]:
            file.filehandle.seek(offset)
            yield TiffPage(file, index=(index, 0))


def damaged(name: str, reason: str) -> ImageError:
    return ImageError(
        f"{name}: a damaged or truncated TIFF file ({reason}), expected a whole one; "
        "copy or save it again"
    )


def check_raw(page: TiffPage, name: str) -> None:
    """Refuse the samples of a camera's sensor, which are no picture yet.

    Raises:
        ImageError: A raw photograph.
    """
    raw = _RAW.get(int(page.photometric or 0))
    if raw:
        raise ImageError(
            f"{name}: a raw photograph ({raw}), expected a developed picture; "
            "develop it with your raw converter, for example to 16-bit TIFF"
        )


def segments_of(page: TiffPage, stream: BinaryIO, name: str) -> Segments:
    """The layout of a page, whose strips or tiles are all inside the file.

    Raises:
        ImageError: A damaged file, or more data than its pixels can need.
    """
    height, width, samples = page.imagelength, page.imagewidth, page.samplesperpixel
    if min(height, width, samples) < 1:
        raise damaged(name, f"it has {width}x{height} px with {samples} samples")
    planes = samples if page.planarconfig == 2 else 1
    size_hw = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
    if min(size_hw) < 1:
        raise damaged(name, f"its strips or tiles have {size_hw[1]}x{size_hw[0]} px")
    down, across = -(-height // size_hw[0]), -(-width // size_hw[1])
    layout = Segments(size_hw, across, down, planes, samples // planes)
    starts, counts = page.dataoffsets, page.databytecounts
    if not len(starts) == len(counts) == planes * down * across:
        reason = f"{len(starts)} strips or tiles, expected {planes * down * across}"
        raise damaged(name, reason)
    end = stream.seek(0, os.SEEK_END)
    bits = max(_as_tuple(page.bitspersample))
    largest = _GROWTH * (-(-size_hw[1] * layout.samples * bits // 8) * min(size_hw[0], height))
    for start, count in zip(starts, counts, strict=True):
        if start + count > end:
            raise damaged(name, f"it ends at byte {end}, its pixels at byte {start + count}")
        if count > largest + _MARGIN_BYTES and page.compression != NONE:
            raise damaged(name, f"{count} bytes for a strip or tile of {largest // _GROWTH}")
    return layout


def reason_against(page: TiffPage) -> str | None:
    """Why `tiff_samples` cannot read a page; None if it can."""
    decoders = (NONE, LZW, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTD)
    if page.imagedepth != 1:
        return f"volumes of {page.imagedepth} slices"
    bits_of = set(_as_tuple(page.bitspersample))
    is_whole = page.dtype is not None and bits_of == {8 * page.dtype.itemsize}
    if page.dtype is None or page.dtype.kind not in "uif" or not is_whole:
        formats = "/".join(str(bits) for bits in sorted(bits_of))
        return f"{formats}-bit samples of format {_name_of(page.sampleformat)}"
    if page.photometric not in _GREY_OR_RGB:
        interpretation = _name_of(page.photometric)
        return f"{page.dtype.name} samples of photometric interpretation {interpretation}"
    if page.photometric == 2 and page.samplesperpixel < 3:
        return f"RGB of {page.samplesperpixel} samples"
    if page.photometric == 0 and page.dtype.kind == "i":
        return "signed samples with white as the smallest value"
    if page.compression not in decoders:
        return f"{page.dtype.name} samples with compression {_name_of(page.compression)}"
    if page.predictor not in (1, 2, 3) or (page.predictor == 3 and page.dtype.kind != "f"):
        return f"predictor {_name_of(page.predictor)} for {page.dtype.name} samples"
    if page.fillorder != 1:
        return "samples of reversed bits (FillOrder 2)"
    return None


def is_truncated_by_pillow(page: TiffPage) -> bool:
    """Whether Pillow would give wrong values: more than 8 bits, or signed ones, of grey or RGB."""
    dtype = page.dtype
    if dtype is None or page.photometric not in _GREY_OR_RGB:
        return False
    return dtype.kind != "b" and (dtype.kind != "u" or page.bitspersample in (16, 32, 64))


class _StartingAt:
    """A TIFF file whose header names another first directory."""

    def __init__(self, stream: BinaryIO, at: int, offset: bytes) -> None:
        self._stream, self._at, self._offset = stream, at, offset
        self.seek, self.tell, self.flush = stream.seek, stream.tell, stream.flush
        self.fileno = stream.fileno  # libtiff reads from there, and Pillow gives it the directory

    def read(self, size: int = -1) -> bytes:
        start = self.tell()
        data = self._stream.read(size)
        first = max(self._at, start)
        last = min(self._at + len(self._offset), start + len(data))
        if first >= last:
            return data
        patch = self._offset[first - self._at : last - self._at]
        return data[: first - start] + patch + data[last - start :]


def starting_at(stream: BinaryIO, page: TiffPage) -> BinaryIO:
    """The file for Pillow, which reads the first directory: the page's."""
    if page.parent.pages.first.offset == page.offset:
        return stream
    at, letter = (8, "Q") if page.parent.is_bigtiff else (4, "I")
    offset = struct.pack(page.parent.byteorder + letter, page.offset)
    patched: Any = _StartingAt(stream, at, offset)
    return cast(BinaryIO, patched)


def refused(name: str, reason: str, errors: list[str]) -> ImageError:
    """The error for a page with a reason against it, or with unreadable tags."""
    unreadable = [error for error in errors if "TiffTag" in error]
    if unreadable:
        return damaged(name, unreadable[0])
    return ImageError(
        f"{name}: a TIFF file with {reason}, which is not supported; "
        "save it as 8- or 16-bit grey or RGB, or read it with another library and pass the array"
    )


def _name_of(value: Any) -> str:
    """Name and number of a tag's value, which tifffile gives as an enumeration or a number."""
    name = getattr(value, "name", "")
    return f"{name} ({int(value)})" if name else str(value)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
