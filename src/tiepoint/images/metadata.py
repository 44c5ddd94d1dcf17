"""What an image file carries besides its pixels: resolution, colour profile, EXIF, map position."""

from __future__ import annotations

import io
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from PIL import ExifTags, Image

from tiepoint.errors import ImageError
from tiepoint.files.reading import open_regular
from tiepoint.images.openers import open_image, pillow_warnings_silenced
from tiepoint.images.urls import is_url

PIXEL_SCALE, TIEPOINT, TRANSFORMATION = 33550, 33922, 34264
"""GeoTIFF 1.1, annex B: tags that map raster coordinates to the map."""
GEO_KEYS, GEO_DOUBLES, GEO_TEXT = 34735, 34736, 34737
NO_DATA = 42113
"""GDAL's tag: the value of pixels without data, as text."""

_ICC, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 34675, 282, 283, 296
_CM_PER_INCH = 2.54
_LEAST_DPI, _MOST_DPI = 1e-3, 1e6
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_GEO_VALUES, _MOST_PROFILE_BYTES, _MOST_EXIF_BYTES = 30_000, 16_000_000, 60_000

_MAIN_TAGS = (270, 271, 272, 305, 306, 315, 316, 33432)
"""Description, make, model, software, time, artist, host computer and copyright."""
_DROPPED_TAGS = (37500, 40962, 40963, 40965)
"""Maker notes, which hold offsets into the old file; sizes in px; and interoperability."""

ExifBlocks = Mapping[int, Mapping[int, Any]]
"""Directory -> tag -> value as Pillow has it; directory 0 is the main one."""
Geo = Mapping[int, tuple[float, ...] | str]
"""Tag of GeoTIFF -> its values."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metadata:
    """What a file carries besides its pixels. All of it is optional.

    Attributes:
        dpi: Pixels per inch along x and y of the upright image.
        icc_profile: Colour profile of its pixels.
        exif: EXIF directories without orientation, thumbnail, sizes and maker notes.
        geo: Tags of GeoTIFF.
        no_data: Value of pixels without data, as GDAL stores it.
    """

    dpi: tuple[float, float] | None = None
    icc_profile: bytes | None = None
    exif: ExifBlocks = field(default_factory=dict)
    geo: Geo = field(default_factory=dict)
    no_data: str | None = None


def metadata_of(source: Any) -> Metadata:
    """What a file carries; empty for other sources than paths of files and bytes.

    Damaged metadata are left out with a warning in the log: the pixels do not depend on them.
    """
    if isinstance(source, bytes):
        return _read(io.BytesIO(source), "bytes")
    if not isinstance(source, str | os.PathLike) or is_url(os.fsdecode(source)):
        return Metadata()
    try:
        with open_regular(source) as stream:
            return _read(stream, os.fsdecode(source))
    except OSError as error:
        logger.warning("%s: its metadata cannot be read (%s)", source, error.strerror)
        return Metadata()


def _read(stream: BinaryIO, name: str) -> Metadata:
    prefix = stream.read(16)
    values: dict[str, Any] = {}
    readers = [_by_pillow, _exif, *([_by_tifffile] if prefix.startswith(_TIFF_STARTS) else [])]
    for read in readers:
        try:
            stream.seek(0)
            values |= {key: value for key, value in read(stream, prefix, name).items() if value}
        except Exception as error:  # noqa: BLE001 - damaged metadata may raise anything
            expected = isinstance(error, ImageError)  # of a depth that Pillow does not read
            level = logging.DEBUG if expected else logging.WARNING
            logger.log(level, "%s: some of its metadata cannot be read (%s)", name, error)
    if values.pop("turned", False) and values.pop("geo", None):
        logger.warning("%s: its map position is left out, because its image was turned", name)
    return Metadata(**values)


def _by_pillow(stream: BinaryIO, prefix: bytes, name: str) -> dict[str, Any]:
    """Resolution and profile of any format."""
    image = open_image(stream, prefix, name)
    with pillow_warnings_silenced():
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        dpi = _checked_dpi(image.info.get("dpi"))
        if dpi is not None and orientation in (5, 6, 7, 8):
            dpi = dpi[::-1]
        profile = image.info.get("icc_profile")
        is_profile = isinstance(profile, bytes) and len(profile) <= _MOST_PROFILE_BYTES
        return {
            "dpi": dpi,
            "icc_profile": profile if is_profile else None,
            "turned": isinstance(orientation, int) and 2 <= orientation <= 8,
        }


def _exif(stream: BinaryIO, prefix: bytes, name: str) -> dict[str, Any]:
    image = open_image(stream, prefix, name)
    with pillow_warnings_silenced():
        return {"exif": _blocks(image.getexif())}


def _blocks(exif: Image.Exif) -> dict[int, dict[int, Any]]:
    """The directories to keep: main, Exif and GPS, without tags that would be wrong."""
    blocks: dict[int, dict[int, Any]] = {0: {tag: exif[tag] for tag in _MAIN_TAGS if tag in exif}}
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        held = exif.get_ifd(directory)
        blocks[int(directory)] = {t: v for t, v in held.items() if t not in _DROPPED_TAGS}
    blocks = {directory: tags for directory, tags in blocks.items() if tags}
    if blocks and len(exif_bytes(blocks, {})) > _MOST_EXIF_BYTES:
        raise ValueError(f"more than {_MOST_EXIF_BYTES} bytes of EXIF")
    return blocks


def exif_bytes(blocks: ExifBlocks, more: Mapping[int, Any]) -> bytes:
    """The directories as the bytes of an EXIF block, without the prefix of JPEG.

    Args:
        blocks: Directories.
        more: Tags to add to the main directory.
    """
    exif = Image.Exif()
    for tag, value in (*blocks.get(0, {}).items(), *more.items()):
        exif[tag] = value
    for directory, tags in blocks.items():
        if directory:
            exif[directory] = dict(tags)
    return exif.tobytes().removeprefix(b"Exif\0\0")


def _by_tifffile(stream: BinaryIO, prefix: bytes, name: str) -> dict[str, Any]:
    """Resolution, profile, map position and value without data of a TIFF file of any depth."""
    from tiepoint.images import tiff_pages  # on first use: tifffile takes 50 ms

    page, _ = tiff_pages.full_picture(stream, name)
    tags = {int(tag.code): tag.value for tag in page.tags.values() if int(tag.code) in _WANTED}
    unit = {2: 1.0, 3: _CM_PER_INCH}.get(int(tags.get(_RESOLUTION_UNIT, 2)))
    both = [tags.get(code) for code in (_X_RESOLUTION, _Y_RESOLUTION)]
    parts = [one for one in both if isinstance(one, tuple) and len(one) == 2 and one[1]]
    dpi = None if unit is None else _checked_dpi([top / below * unit for top, below in parts])
    geo = {code: _geo_value(tags[code]) for code in _GEO if code in tags}
    profile, no_data = tags.get(_ICC), tags.get(NO_DATA)
    orientation = page.tags.get(274)
    turned = orientation is not None and orientation.value != 1
    return {
        # Turned ones are left to Pillow.
        "dpi": None if turned else dpi,
        "icc_profile": profile if isinstance(profile, bytes) else None,
        "geo": geo if all(value is not None for value in geo.values()) else None,
        "no_data": no_data.strip("\0 ") if isinstance(no_data, str) else None,
        "turned": turned,
    }


_GEO = (PIXEL_SCALE, TIEPOINT, TRANSFORMATION, GEO_KEYS, GEO_DOUBLES, GEO_TEXT)
_WANTED = (*_GEO, NO_DATA, _ICC, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT)


def _geo_value(value: Any) -> tuple[float, ...] | str | None:
    if isinstance(value, str):
        return value if len(value) <= _MOST_GEO_VALUES else None
    values = value if isinstance(value, tuple) else (value,)
    is_sound = len(values) <= _MOST_GEO_VALUES and all(
        isinstance(one, int | float) and math.isfinite(one) for one in values
    )
    return values if is_sound else None


def _checked_dpi(values: Any) -> tuple[float, float] | None:
    """Two resolutions that make sense, or None."""
    try:
        x, y = (float(value) for value in values)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return (x, y) if all(_LEAST_DPI <= one <= _MOST_DPI for one in (x, y)) else None
