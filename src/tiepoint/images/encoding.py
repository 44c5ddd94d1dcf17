"""Pixels and metadata -> the bytes of an image file: PNG, TIFF, JPEG, WebP."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

from tiepoint.checks import check_whole
from tiepoint.errors import ConfigError, FormatError
from tiepoint.files.writing import write_bytes
from tiepoint.images.metadata import GEO_KEYS, NO_DATA, ExifBlocks, Metadata, exif_bytes

Pixels = NDArray[Any]

LOSSY = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Formats with a quality, which hold 8 bits only."""
ENDINGS = (".png", ".tif", ".tiff", *LOSSY)

DEFAULT_QUALITY = 95
FULL_COLOUR_QUALITY = 90
"""From this quality on JPEG keeps the colours of every pixel (4:4:4)."""

_PNG_HEAD_BYTES = 33
"""Signature and IHDR; the other chunks that are added precede the pixels."""
_METRES_PER_INCH = 0.0254
_MOST_JPEG_DPI = 65535
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _INCH = 282, 283, 296, 2
_EXIF_SIZE = (40962, 40963)
_ASCII, _SHORT, _LONG, _UNDEFINED, _DOUBLE = 2, 3, 4, 7, 12
_CLASSIC_BYTES = 2**31
"""Pictures below this are in a classic TIFF file, whose directories hold 32-bit places."""
_COLOURS = {b"GRAY": 2, b"RGB ": 3}
"""Colour space in a profile's header -> number of dimensions of the array."""


def write_picture(
    path: str | PathLike[str],
    picture: Pixels,
    metadata: Metadata | None = None,
    *,
    quality: int = DEFAULT_QUALITY,
) -> None:
    """Write `H W` or `H W 3` RGB atomically, in the format that the ending names.

    Args:
        path: PNG for uint8 and uint16, TIFF for float32 too, JPEG and WebP for uint8.
        picture: Pixels.
        metadata: What the file carries besides them; None carries nothing.
        quality: Quality of JPEG and WebP, 1 to 100.

    Raises:
        FormatError: Another ending, or a type or size that the format does not support.
        ConfigError: A quality outside its range.
        OutputError: The file cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise FormatError(f"{path}: the ending picks the format, one of {', '.join(ENDINGS)}")
    check_depth(path, picture.dtype)
    write_bytes(path, encoded_picture(picture, ending, metadata, quality=quality))


def check_depth(path: str | PathLike[str], dtype: np.dtype[Any]) -> None:
    """Raise FormatError if the format of a path does not hold such pixels."""
    ending = Path(path).suffix.lower()
    if ending == ".png" and dtype.kind == "f":
        raise FormatError(f"{path}: PNG holds no floats, and the image is one; write a .tif")
    if ending in LOSSY and dtype != np.uint8:
        raise FormatError(
            f"{path}: {LOSSY[ending]} holds 8 bits, and the image is {dtype}; write a .tif"
        )


def encoded_picture(
    picture: Pixels,
    ending: str | None = None,
    metadata: Metadata | None = None,
    *,
    quality: int = DEFAULT_QUALITY,
) -> bytes:
    """The file of `H W` or `H W 3` RGB; without `ending` PNG, or TIFF for floats."""
    check_whole("quality", quality, minimum=1, unit="of 100")
    if quality > 100:
        raise ConfigError(f"quality is {quality}, expected 1 to 100")
    ending = ending or (".tif" if picture.dtype.kind == "f" else ".png")
    carried = _fitting(metadata or Metadata(), picture)
    if ending in LOSSY:
        return _lossy(picture, LOSSY[ending], carried, quality)
    return _png(picture, carried) if ending == ".png" else _tiff(picture, carried)


def _fitting(metadata: Metadata, picture: Pixels) -> Metadata:
    """Without a profile of other colours than the picture has, such as that of a CMYK file."""
    profile, exif = metadata.icc_profile, metadata.exif
    if profile is not None and _COLOURS.get(profile[16:20]) != picture.ndim:
        profile = None
    block = int(ExifTags.IFD.Exif)
    if block in exif:
        size_wh = dict(zip(_EXIF_SIZE, picture.shape[1::-1], strict=True))
        exif = {**exif, block: {**exif[block], **size_wh}}
    return Metadata(metadata.dpi, profile, exif, metadata.geo, metadata.no_data)


def _resolution_tags(dpi: tuple[float, float] | None) -> Mapping[int, Any]:
    if dpi is None:
        return {}
    return {_X_RESOLUTION: dpi[0], _Y_RESOLUTION: dpi[1], _RESOLUTION_UNIT: _INCH}


def _lossy(picture: Pixels, name: str, carried: Metadata, quality: int) -> bytes:
    """JPEG or WebP. WebP has no place for the resolution but EXIF, and JPEG 16 bits for it."""
    options: dict[str, Any] = {"quality": quality}
    dpi = [round(one) for one in carried.dpi or ()]
    in_exif = bool(dpi) and (name == "WEBP" or not 1 <= min(dpi) <= max(dpi) <= _MOST_JPEG_DPI)
    if name == "JPEG":
        options["subsampling"] = 0 if quality >= FULL_COLOUR_QUALITY else 2
        if dpi and not in_exif:
            options["dpi"] = tuple(dpi)
    if carried.icc_profile is not None:
        options["icc_profile"] = carried.icc_profile
    if carried.exif or in_exif:
        options["exif"] = b"Exif\0\0" + exif_bytes(carried.exif, _resolution_tags(carried.dpi))
    buffer = io.BytesIO()
    try:
        Image.fromarray(np.ascontiguousarray(picture)).save(buffer, name, **options)
    except (OSError, ValueError) as error:  # most often a side beyond the format's limit
        height, width = picture.shape[:2]
        raise FormatError(
            f"{name} does not hold this image of {width}x{height} px ({error}); write a .png"
        ) from error
    return buffer.getvalue()


def _png(picture: Pixels, carried: Metadata) -> bytes:
    """OpenCV's PNG, which may have 16 bits of colour, with chunks of metadata."""
    bgr = picture if picture.ndim == 2 else np.ascontiguousarray(picture[:, :, ::-1])
    done, encoded = cv2.imencode(".png", bgr)
    if not done:
        raise FormatError(f"OpenCV could not encode {picture.shape} {picture.dtype} as .png")
    chunks = b""
    if carried.icc_profile is not None:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(carried.icc_profile))
    if carried.dpi is not None:
        x, y = (min(round(one / _METRES_PER_INCH), 2**31 - 1) for one in carried.dpi)
        chunks += _chunk(b"pHYs", struct.pack(">IIB", x, y, 1))
    if carried.exif:
        chunks += _chunk(b"eXIf", exif_bytes(carried.exif, _resolution_tags(carried.dpi)))
    data = encoded.tobytes()
    return bytes(data[:_PNG_HEAD_BYTES] + chunks + data[_PNG_HEAD_BYTES:])


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def _tiff(picture: Pixels, carried: Metadata) -> bytes:
    """A TIFF file compressed by deflate, with GeoTIFF's tags; EXIF directories are at its end."""
    import tifffile  # on first use: it takes 50 ms

    tags: list[tuple[int, int, int, Any, bool]] = []
    for code, value in carried.geo.items():
        tags.append(_geo_tag(code, value))
    if carried.no_data is not None:
        tags.append(_text_tag(NO_DATA, carried.no_data))
    if carried.icc_profile is not None:
        profile = carried.icc_profile
        tags.append((34675, _UNDEFINED, len(profile), profile, True))
    for code, value in carried.exif.get(0, {}).items():
        if isinstance(value, str):
            tags.append(_text_tag(code, value))
    # Directories of a file above 4 GB have another form.
    directories = [each for each in carried.exif if each] if picture.nbytes < _CLASSIC_BYTES else []
    # tifffile refuses these tags themselves; their numbers are corrected below.
    tags += [(directory - 1, _LONG, 1, 0, True) for directory in directories]
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer, np.ascontiguousarray(picture), photometric="rgb" if picture.ndim == 3 else
        "minisblack", compression="zlib", metadata=None, software=False, extratags=tags,
        resolution=carried.dpi, resolutionunit=None if carried.dpi is None else "inch",
    )  # fmt: skip
    return _with_directories(buffer.getvalue(), carried.exif, directories)


def _geo_tag(code: int, value: tuple[float, ...] | str) -> tuple[int, int, int, Any, bool]:
    if isinstance(value, str):
        return _text_tag(code, value)
    return (code, _SHORT if code == GEO_KEYS else _DOUBLE, len(value), value, True)


def _text_tag(code: int, text: str) -> tuple[int, int, int, Any, bool]:
    data = text.rstrip("\0").encode() + b"\0"
    return (code, _ASCII, len(data), data, True)


def _with_directories(data: bytes, exif: ExifBlocks, directories: list[int]) -> bytes:
    """Append EXIF directories to a TIFF file, and enter their places in the main directory."""
    import tifffile

    if not directories:
        return data
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        order = file.byteorder
        entries = {code: file.pages.first.tags[code - 1] for code in directories}
        places = {code: (entry.offset, entry.valueoffset) for code, entry in entries.items()}
    patched = bytearray(data)
    prefix = b"II*\0" if order == "<" else b"MM\0*"
    for directory in directories:
        patched += b"\0" * (len(patched) % 2)
        offset = len(patched)
        held = TiffImagePlugin.ImageFileDirectory_v2(prefix + b"\0" * 4, group=directory)
        for code, value in exif[directory].items():
            held[code] = value
        patched += held.tobytes(offset)
        at, value_at = places[directory]
        struct.pack_into(f"{order}H", patched, at, directory)
        struct.pack_into(f"{order}I", patched, value_at, offset)
    return bytes(patched)
