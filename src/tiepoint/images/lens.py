"""Header of an image file -> its size and focal length, without decoding pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from typing import Any

from PIL import ExifTags

from tiepoint.images.header import image_header
from tiepoint.images.openers import pillow_warnings_silenced

FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)
"""Diagonal of 35 mm film, which defines the equivalent focal length (CIPA DCG-001), as COLMAP."""

_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""EXIF's units of the focal plane's resolution: inch, cm, mm, um."""


@dataclass(frozen=True)
class Lens:
    """What a header states about the camera.

    Attributes:
        size_wh: (width, height) as stored, before the EXIF orientation, px. Pillow may have
            exchanged them for a TIFF file.
        focal_px: Focal length, px; None if the header does not give it.
    """

    size_wh: tuple[int, int]
    focal_px: float | None


def read_lens(path: str | PathLike[str]) -> Lens:
    """Read size and focal length from the header of an image file.

    The focal length comes from the equivalent for 35 mm film, or else from the focal length in mm
    and the resolution of the focal plane.

    Raises:
        ImageError: No such file, or not an image.
    """
    with image_header(path) as image:
        size_wh: tuple[int, int] = image.size
        focal_px = None
        with pillow_warnings_silenced(), suppress(Exception):  # a damaged EXIF block
            focal_px = focal_length_px(image.getexif().get_ifd(ExifTags.IFD.Exif), size_wh)
    return Lens(size_wh, focal_px)


def focal_length_px(exif: Mapping[int, Any], size_wh: tuple[int, int]) -> float | None:
    """The focal length of an EXIF block, px; None if it is missing or absurd.

    Args:
        exif: Tag -> value, of the block named Exif.
        size_wh: (width, height) of the image, px.
    """
    film_mm = _number(exif.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if film_mm is not None:
        return film_mm / FILM_DIAGONAL_MM * math.hypot(*size_wh)
    focal_mm = _number(exif.get(ExifTags.Base.FocalLength))
    per_unit = _number(exif.get(ExifTags.Base.FocalPlaneXResolution))
    unit_mm = _UNIT_MM.get(exif.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))
    if focal_mm is None or per_unit is None or unit_mm is None:
        return None
    # The resolution is that of the photograph as taken, which may have been reduced since.
    taken = [
        _number(exif.get(tag))
        for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
    ]
    reduction = 1.0 if None in taken else max(size_wh) / max(filter(None, taken))
    return focal_mm * per_unit / unit_mm * reduction


def _number(value: Any) -> float | None:
    """A positive number of EXIF; None for all else, 0 being EXIF's "unknown"."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if 0 < number < math.inf else None
