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

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import TiffPage

from tiepoint.errors import ImageError
from tiepoint.geometry import SizeHW
from tiepoint.images.quiet import logger_quiet

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType; TIFF 6.0, section 8
_RAW = {32803: "colour filter array", 34892: "linear raw samples"}  # DNG 1.4, chapter 3
_GREY_OR_RGB = (0, 1, 2)
_MOST_DIRECTORIES, _MOST_TAGS = 64, 4096
_SINGLE = (254, 256, 257, 259, 262, 266, 277, 284, 317, 322, 323, 32997)
"""Tags that are one whole number: sizes, and numbers that name a choice."""

_WHOLE_TYPES = (3, 4, 6, 8, 9, 13, 16, 17, 18)
"""Types of such tags; TIFF 6.0, section 2, and the BigTIFF specification."""

_TAG_BYTES = 8 * 2**20
"""Largest value of a tag: offsets of a million strips or tiles."""

MOST_SEGMENTS = 2**19
"""Most strips or tiles of a page: three planes of 170,000 rows."""

_MARGIN_BYTES = 64 * 1024
_GROWTH = 8
"""Compression never makes a strip or tile larger than this many times, as a whole file less."""

NONE, LZW, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTD = 1, 5, 8, 32773, 32946, 34925, 50000
"""Compression schemes of which `tiff_codecs` knows the decoder."""

_PREDICTED = (LZW, DEFLATE, OLD_DEFLATE, LZMA, ZSTD)
"""Compression schemes for which the tag Predictor counts, as in libtiff."""


@dataclass(frozen=True, eq=False)
class Segments:
    """Strips or tiles of a page.

    Attributes:
        size_hw: Rows and columns of one, px; the last strip may have fewer rows.
        across, down: Number of them per plane.
        planes: 1, or the number of bands if each band has its own.
        samples: Samples per pixel in one.
        starts, counts: Place and size of each in the file, bytes; int64. A count of 0 stores no
            data. None passes the end of the file.
        is_clipped: Whether the file declares more bytes at its end than it has.
    """

    size_hw: SizeHW
    across: int
    down: int
    planes: int
    samples: int
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    is_clipped: bool


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
            pages = []
            for page in _directories(stream):
                if not page.subfiletype & (_REDUCED | _MASK):
                    return page, errors
                pages.append(page)
            pictures = [page for page in pages if not page.subfiletype & _MASK] or pages
            return max(pictures, key=lambda page: page.imagewidth * page.imagelength), errors
    except Exception as error:  # tifffile raises nearly anything for damaged bytes
        raise damaged(
            name, f"its directory cannot be read, {str(error) or type(error).__name__}"
        ) from error


def _directories(stream: BinaryIO) -> Iterator[TiffPage]:
    """The directories in their order, each followed by its sub-directories."""
    stream.seek(0)
    header = stream.read(16)
    order, is_big = ("<" if header[:2] == b"II" else ">"), b"+" in header[2:4]
    offset = struct.unpack(order + ("8xQ" if is_big else "4xI8x"), header)[0]
    following = _checked_directory(stream, offset, order, is_big)
    stream.seek(0)
    bounded: Any = _Bounded(stream)
    file = tifffile.TiffFile(bounded, name="", is_ndpi=False)
    for index in range(_MOST_DIRECTORIES):
        try:
            page = file.pages[index]
        except IndexError:
            return
        assert isinstance(page, TiffPage)
        yield page
        for below in (page.subifds or ())[:_MOST_DIRECTORIES]:
            _checked_directory(stream, below, order, is_big)
            file.filehandle.seek(below)
            yield TiffPage(file, index=(index, 0))
        if following:  # else tifffile finds the end itself
            following = _checked_directory(stream, following, order, is_big)


def _checked_directory(stream: BinaryIO, offset: int, order: str, is_big: bool) -> int:
    """The offset of the directory after one whose sizes are single whole numbers.

    tifffile multiplies sizes as it reads them, and a size of two values takes gigabytes.
    """
    number, entry, place = ("Q", "HHQQ", "Q") if is_big else ("H", "HHII", "I")
    stream.seek(offset)
    (count,) = struct.unpack(order + number, stream.read(struct.calcsize(order + number)))
    if count > _MOST_TAGS:
        raise ValueError(f"{count} tags")
    entries = stream.read(count * struct.calcsize(order + entry))
    for tag, kind, values, _ in struct.iter_unpack(order + entry, entries):
        if tag in _SINGLE and (values != 1 or kind not in _WHOLE_TYPES):
            raise ValueError(f"tag {tag} has {values} values of type {kind}, not 1 whole number")
    following = stream.read(struct.calcsize(order + place))
    return int.from_bytes(following, "little" if order == "<" else "big")


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
    """The layout of a page, whose strips or tiles all start inside the file.

    Some writers round the last size up beyond the end of the file. Decoders that notice missing
    data may read such a file.

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
    expected = planes * down * across
    starts, counts = _whole(page.dataoffsets, name), _whole(page.databytecounts, name)
    if not len(starts) == len(counts) == expected:
        raise damaged(name, f"{len(starts)} strips or tiles, expected {expected}")
    if expected > MOST_SEGMENTS:
        raise ImageError(
            f"{name}: {expected} strips or tiles are more than the limit of {MOST_SEGMENTS}; "
            "save it with larger ones"
        )
    end = stream.seek(0, os.SEEK_END)
    beyond = np.flatnonzero((counts > 0) & (counts > end - starts))
    may_clip = page.compression == NONE or reason_against(page) is None
    if beyond.size and (not may_clip or (starts[beyond] >= end).any()):
        last = int(starts[beyond[0]]) + int(counts[beyond[0]])
        raise damaged(name, f"it ends at byte {end}, its pixels at byte {last}")
    counts[beyond] = end - starts[beyond]
    if page.compression != NONE:
        bits = max(_as_tuple(page.bitspersample))
        one = -(-size_hw[1] * (samples // planes) * bits // 8) * min(size_hw[0], height)
        if (counts > _GROWTH * one + _MARGIN_BYTES).any():
            raise damaged(name, f"{int(counts.max())} bytes for a strip or tile of {one}")
        if int(counts.sum()) > end + _GROWTH * one * expected:  # they share bytes
            raise damaged(name, f"{int(counts.sum())} bytes for {expected} strips or tiles")
    shape = (size_hw, across, down, planes, samples // planes)
    return Segments(*shape, starts, counts, is_clipped=beyond.size > 0)


def _whole(values: Any, name: str) -> NDArray[np.int64]:
    """A copy of the offsets or sizes in a tag."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise damaged(name, "the places of its strips or tiles are not whole numbers")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < 2**62:
        raise damaged(name, f"a strip or tile at byte {int(array.max())}")
    return array.astype(np.int64)


def predictor_of(page: TiffPage) -> int:
    """The predictor; 1 (none) for compression schemes without one."""
    return int(page.predictor) if page.compression in _PREDICTED else 1


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
    predictor = predictor_of(page)
    if predictor not in (1, 2, 3) or (predictor == 3 and page.dtype.kind != "f"):
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
