"""What the file of an aligned image carries: from A its colours and EXIF, from B its grid."""

from __future__ import annotations

import logging
import math
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import Matrix
from tiepoint.images.encoding import DEFAULT_QUALITY, write_picture
from tiepoint.images.metadata import (
    GEO_DOUBLES,
    GEO_KEYS,
    GEO_TEXT,
    PIXEL_SCALE,
    TIEPOINT,
    TRANSFORMATION,
    Geo,
    Metadata,
    metadata_of,
)
from tiepoint.images.reading import SourceImage, read
from tiepoint.registration.result import Registration
from tiepoint.registration.warping import (
    Canvas,
    alike,
    blend,
    canvas_of,
    check_fill,
    holds,
    warp,
)

AFFINE_MODELS = ("affine", "similarity", "translation")
"""Models that keep a map position affine."""

_RASTER_TYPE, _IS_POINT = 1025, 2  # GeoTIFF 1.1, section 7.1.2
_DEFINITION = (GEO_KEYS, GEO_DOUBLES, GEO_TEXT)

logger = logging.getLogger(__name__)


def save_aligned(
    path: str | PathLike[str],
    image_a: Any,
    image_b: Any,
    registration: Registration,
    *,
    blended: bool = False,
    fill: float | None = None,
    quality: int = DEFAULT_QUALITY,
) -> None:
    """Write image A as image B would show it, with what a file carries besides pixels.

    Args:
        path: PNG, TIFF, JPEG or WebP file, by its ending; JPEG and WebP hold 8 bits only.
        image_a, image_b: The registered images. Metadata are read from paths and bytes.
        registration: A successful registration with a plane model.
        blended: Write both images, whole and blended, instead.
        fill: Value of pixels outside A; None is A's value without data, or 0.
        quality: Quality of JPEG and WebP, 1 to 100.

    Raises:
        RegistrationError: Not registered, or a two-view model.
        ConfigError: Another image than the registered one; a fill or quality outside its range.
        FormatError: The format does not hold the image.
        ImageError: An image cannot be read.
        OutputError: The file cannot be written.
    """
    picture, metadata = picture_of(image_a, image_b, registration, blended=blended, fill=fill)
    write_picture(path, picture, metadata, quality=quality)


def picture_of(
    image_a: Any,
    image_b: Any,
    registration: Registration,
    *,
    blended: bool = False,
    fill: float | None = None,
    images: tuple[SourceImage, SourceImage] | None = None,
) -> tuple[NDArray[Any], Metadata]:
    """The pixels that `save_aligned` writes, and what their file carries.

    Args:
        images: A and B, if they are already read.
    """
    area = canvas_of(registration, "both" if blended else "b")
    a, b = images or (read(image_a), read(image_b))
    of_a, of_b = metadata_of(image_a), metadata_of(image_b)
    metadata = metadata_of_aligned(of_a, of_b, registration, area, blended=blended)
    if blended:
        pixels = alike(a.pixels, b.pixels)
        filled = fill_value(metadata, pixels[0].dtype, fill)
        return blend(*pixels, registration, fill=filled), metadata
    filled = fill_value(metadata, a.pixels.dtype, fill)
    return warp(a.pixels, registration, fill=filled), metadata


def metadata_of_aligned(
    a: Metadata, b: Metadata, registration: Registration, canvas: Canvas, *, blended: bool = False
) -> Metadata:
    """What an image on a canvas in the grid of B carries.

    The map position is B's. If B has none it is A's, moved by the transform, unless the model is a
    homography, after which it is not affine. The resolution is B's, or A's times the scale of the
    transform.

    Args:
        a, b: What the files of A and B carry.
        registration: A successful registration with a plane model.
        canvas: Area of the image, from `warping.canvas_of`.
        blended: Both images are on it: what describes pixels is kept only if both agree.
    """
    geo = _shifted(b.geo, canvas.offset_xy) if _has_position(b.geo) else {}
    if not geo and _has_position(a.geo):
        geo = _moved(a.geo, registration, canvas)
    dpi = b.dpi
    if dpi is None and a.dpi is not None:
        scale = _scale(registration)
        dpi = a.dpi[0] * scale, a.dpi[1] * scale
    profile = a.icc_profile if not blended or a.icc_profile == b.icc_profile else None
    no_data = a.no_data if not blended or a.no_data == b.no_data else None
    return Metadata(dpi, profile, {} if blended else a.exif, geo, no_data)


def fill_value(metadata: Metadata, dtype: np.dtype[Any], fill: float | None) -> float:
    """Value of pixels outside the image: as given, or A's value without data, or 0.

    Raises:
        ConfigError: The type does not hold the given value.
    """
    if fill is not None:
        check_fill(dtype, fill)
        return fill
    try:
        no_data = float(metadata.no_data or 0)
    except ValueError:
        return 0
    return no_data if holds(dtype, no_data) else 0


def _has_position(geo: Geo) -> bool:
    return TRANSFORMATION in geo or TIEPOINT in geo


def _shifted(geo: Geo, offset_xy: tuple[int, int]) -> Geo:
    """The tags for a canvas on which the image is at an offset, px."""
    x, y = offset_xy
    shifted = dict(geo)
    points = geo.get(TIEPOINT)
    if isinstance(points, tuple):
        rows = np.array(points, np.float64)[: len(points) // 6 * 6].reshape(-1, 6)
        shifted[TIEPOINT] = tuple((rows + np.array([x, y, 0, 0, 0, 0])).ravel().tolist())
    matrix = geo.get(TRANSFORMATION)
    if isinstance(matrix, tuple) and len(matrix) == 16:
        back = np.eye(4)
        back[:2, 3] = -x, -y
        shifted[TRANSFORMATION] = tuple((_square(matrix) @ back).ravel().tolist())
    return shifted


def _moved(geo: Geo, registration: Registration, canvas: Canvas) -> Geo:
    """A's position for the canvas; empty if it is not affine there."""
    own = _affine(geo)
    if own is None or registration.model not in AFFINE_MODELS or registration.matrix is None:
        logger.warning("the map position of A is left out: after this transform it is not affine")
        return {}
    half = 0.0 if _is_point(geo) else 0.5
    centre = np.array([[1, 0, half], [0, 1, half], [0, 0, 1.0]])
    offset = np.array([[1, 0, canvas.offset_xy[0]], [0, 1, canvas.offset_xy[1]], [0, 0, 1.0]])
    to_a = np.linalg.inv(offset @ registration.matrix)
    moved: Matrix = own @ centre @ (to_a / to_a[2, 2]) @ np.linalg.inv(centre)
    definition = {code: geo[code] for code in _DEFINITION if code in geo}
    (xx, xy, x0), (yx, yy, y0) = moved[:2].tolist()
    if xy == yx == 0 and xx > 0 > yy:  # a form that more programs read
        return {PIXEL_SCALE: (xx, -yy, 0.0), TIEPOINT: (0.0, 0.0, 0.0, x0, y0, 0.0), **definition}
    rows = (xx, xy, 0.0, x0, yx, yy, 0.0, y0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    return {TRANSFORMATION: rows, **definition}


def _affine(geo: Geo) -> Matrix | None:
    """3x3, raster coordinates -> map; None for a file with other control points."""
    matrix, scale, points = (geo.get(code) for code in (TRANSFORMATION, PIXEL_SCALE, TIEPOINT))
    if isinstance(matrix, tuple) and len(matrix) == 16:
        return _square(matrix)[np.ix_([0, 1, 3], [0, 1, 3])]
    if not isinstance(scale, tuple) or not isinstance(points, tuple):
        return None
    if len(scale) < 2 or len(points) != 6 or scale[0] == 0 or scale[1] == 0:
        return None
    column, row, _, x, y, _ = points
    x0, y0 = x - column * scale[0], y + row * scale[1]
    return np.array([[scale[0], 0, x0], [0, -scale[1], y0], [0, 0, 1.0]])


def _square(values: tuple[float, ...]) -> NDArray[np.float64]:
    return np.array(values, np.float64).reshape(4, 4)


def _is_point(geo: Geo) -> bool:
    """Whether raster coordinates are whole numbers at pixel centres, and not at outer corners."""
    keys = geo.get(GEO_KEYS)
    entries = keys[4:] if isinstance(keys, tuple) else ()
    starts = range(0, len(entries) - 3, 4)
    return any(entries[i] == _RASTER_TYPE and entries[i + 3] == _IS_POINT for i in starts)


def _scale(registration: Registration) -> float:
    """Pixels of B per pixel of A, at the centre of A."""
    height, width = registration.features_a.size_hw
    x, y = (width - 1) / 2, (height - 1) / 2
    centre, right, below = registration.transform([[x, y], [x + 1, y], [x, y + 1]])
    area = abs(float(np.linalg.det(np.stack([right - centre, below - centre]))))
    return math.sqrt(area) if math.isfinite(area) and area > 0 else 1.0
