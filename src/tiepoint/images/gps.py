"""Header of an image file -> where it was taken, without decoding pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from os import PathLike
from typing import Any, NamedTuple

from PIL import ExifTags

from tiepoint.images.header import image_header
from tiepoint.images.openers import pillow_warnings_silenced


class Place(NamedTuple):
    """A place on the Earth.

    Attributes:
        latitude: Degrees, north positive.
        longitude: Degrees, east positive.
    """

    latitude: float
    longitude: float


def read_place(path: str | PathLike[str]) -> Place | None:
    """Read the GPS position of an EXIF block; None if there is none, or a nonsensical one.

    Raises:
        ImageError: No such file, or not an image.
    """
    with (
        image_header(path) as image,
        pillow_warnings_silenced(),
        suppress(Exception),  # a damaged EXIF block
    ):
        return place_of(image.getexif().get_ifd(ExifTags.IFD.GPSInfo))
    return None


def place_of(gps: Mapping[int, Any]) -> Place | None:
    """The position of EXIF's GPS block; None if it is missing or nonsensical.

    Latitude and longitude 0 are missing too: devices write them before they have a position.

    Args:
        gps: Tag -> value.
    """
    tags = ExifTags.GPS
    latitude = _degrees(gps.get(tags.GPSLatitude), gps.get(tags.GPSLatitudeRef), "N", "S", 90)
    longitude = _degrees(gps.get(tags.GPSLongitude), gps.get(tags.GPSLongitudeRef), "E", "W", 180)
    if latitude is None or longitude is None or latitude == longitude == 0:
        return None
    return Place(latitude, longitude)


def _degrees(value: Any, ref: Any, positive: str, negative: str, most: float) -> float | None:
    """Degrees, minutes and seconds as one signed number."""
    letter = ref.decode("ascii", "replace") if isinstance(ref, bytes) else ref
    letter = letter.strip("\0 ").upper() if isinstance(letter, str) else ""
    if letter not in (positive, negative):
        return None
    try:
        degrees, minutes, seconds = (float(part) for part in value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    total = degrees + minutes / 60 + seconds / 3600
    is_sound = min(degrees, minutes, seconds) >= 0 and max(minutes, seconds) <= 60 and total <= most
    if not is_sound or not math.isfinite(total):
        return None
    return total if letter == positive else -total
