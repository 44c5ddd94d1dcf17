"""QGIS and GDAL: ground control points of image A from its registration with a map, image B.

Pixel coordinates are at +0.5 in both: (0, 0) is the top-left corner of the first pixel. QGIS counts
the rows of an image downwards from 0 as negative numbers.

Source: GDAL's raster data model (geotransform, ground control points); QGIS's georeferencer,
`qgsgcplist.cpp`.
"""

from __future__ import annotations

import math
import os
import tempfile
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError, ImageError, RegistrationError, import_extra
from tiepoint.files.writing import write_bytes
from tiepoint.geometry import SizeHW, apply_homography, stored_matrix
from tiepoint.registration.large.result import LargeRegistration
from tiepoint.registration.result import Registration

MAX_POINTS = 100
"""Default number of points; more add little and slow down thin plate splines."""

PIXELS = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
"""Geotransform of an image without map position, as QGIS shows one: x right, y up, in px."""

_HEADER = "mapX,mapY,sourceX,sourceY,enable,dX,dY,residual"


class GroundControl(NamedTuple):
    """Points of image A and their places on the map.

    Attributes:
        pixels: N 2 float64, column and row of A as its file stores it, with the top-left corner at
            (0, 0): QGIS and GDAL ignore the EXIF orientation.
        map_xy: N 2 float64, coordinates in the map's reference system.
    """

    pixels: NDArray[np.float64]
    map_xy: NDArray[np.float64]


def ground_control(
    registration: Registration | LargeRegistration,
    geotransform: Sequence[float] | None = None,
    max_points: int = MAX_POINTS,
) -> GroundControl:
    """Inliers of a registration as ground control points, spread over image A.

    Args:
        registration: Result for image A and the map, image B, both at the size of their files.
        geotransform: Six numbers of B in GDAL's order: x = g0 + column g1 + row g2 and
            y = g3 + column g4 + row g5. None takes the map position of a `LargeRegistration`'s B,
            or `PIXELS` if that has none.
        max_points: Number of points at most: the best inlier in each cell of a grid over A.

    Raises:
        RegistrationError: Not registered.
        ConfigError: Not six finite numbers, or no such number of points.
    """
    if not registration.success:
        raise RegistrationError(f"not registered: {registration.reason}")
    if geotransform is None and isinstance(registration, LargeRegistration):
        place = registration.georeferences[1]
        geotransform = PIXELS if place is None else place.geotransform
    try:
        numbers = np.asarray(geotransform, np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (6,) or not np.isfinite(numbers).all():
        raise ConfigError(
            f"geotransform is {geotransform!r}, expected six finite numbers in GDAL's order"
        )
    if max_points < 1:
        raise ConfigError(f"max_points is {max_points}, expected at least 1")
    chosen = _spread(registration, max_points)
    as_stored = stored_matrix(_size_of_a(registration), _orientation_of_a(registration))
    pixels = apply_homography(as_stored, registration.xy_a[chosen]) + 0.5  # N 2
    on_map = registration.xy_b[chosen].astype(np.float64) + 0.5  # N 2
    map_xy = numbers[[0, 3]] + on_map @ numbers[[1, 2, 4, 5]].reshape(2, 2).T
    return GroundControl(pixels, map_xy)


def write_qgis_points(path: str | PathLike[str], points: GroundControl, crs: str = "") -> None:
    """Write a `.points` file for QGIS's georeferencer.

    Args:
        path: The file, best named as the image with the ending `.points`.
        points: Ground control points.
        crs: Reference system of the map, such as "EPSG:25832" or its WKT; QGIS asks without one.

    Raises:
        ConfigError: A reference system of several lines.
        OutputError: The file cannot be written.
    """
    lines = [f"#CRS: {_one_line(crs)}"] if crs else []
    lines.append(_HEADER)
    for (x, y), (column, row) in zip(points.map_xy.tolist(), points.pixels.tolist(), strict=True):
        lines.append(f"{x!r},{y!r},{column!r},{-row!r},1,0,0,0")
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def gdal_translate_arguments(
    points: GroundControl, source: str, target: str, crs: str
) -> list[str]:
    """The command that copies an image with ground control points, for `subprocess.run`.

    `gdalwarp -tps TARGET map.tif` or `gdalwarp -order 1` then resamples it.

    Args:
        points: Ground control points.
        source, target: Image A and the file to write; the ending `.vrt` writes a small virtual
            file that refers to A.
        crs: Reference system of the map.
    """
    arguments = ["gdal_translate", "-a_srs", _one_line(crs)]
    if target.lower().endswith(".vrt"):
        arguments += ["-of", "VRT"]
    for pixel, place in zip(points.pixels.tolist(), points.map_xy.tolist(), strict=True):
        arguments += ["-gcp", *(repr(value) for value in (*pixel, *place))]
    return [*arguments, source, target]


def write_gcp_vrt(
    path: str | PathLike[str], image_a: str | PathLike[str], points: GroundControl, crs: str = ""
) -> None:
    """Write a small `.vrt` file that refers to image A and has its ground control points.

    GDAL and QGIS open it; `gdalwarp -tps FILE.vrt map.tif` resamples it.

    Args:
        path: The file.
        image_a: Image A.
        points: Ground control points.
        crs: Reference system of the map.

    Raises:
        MissingExtraError: The extra `geo` is not installed.
        ImageError: GDAL cannot open image A.
        OutputError: The file cannot be written.
    """
    rasterio = import_extra("rasterio", "writing a VRT file", "geo")
    from rasterio.control import GroundControlPoint
    from rasterio.shutil import copy

    control = [
        GroundControlPoint(row=row, col=column, x=x, y=y)
        for (column, row), (x, y) in zip(
            points.pixels.tolist(), points.map_xy.tolist(), strict=True
        )
    ]
    source = Path(os.fsdecode(image_a)).absolute()
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        made = Path(folder, "points.vrt")
        try:
            with rasterio.open(source) as image:
                copy(image, made, driver="VRT")
            with rasterio.open(made, "r+") as file:
                system = rasterio.CRS.from_user_input(_one_line(crs)) if crs else rasterio.CRS()
                file.gcps = (control, system)
        except (rasterio.errors.RasterioError, OSError) as error:
            raise ImageError(f"{source}: GDAL cannot open it ({error})") from error
        write_bytes(path, made.read_bytes())


def _spread(registration: Registration | LargeRegistration, max_points: int) -> NDArray[np.intp]:
    """Indices of the best inlier in each cell of a grid over A, best first."""
    inliers = np.flatnonzero(registration.inliers)
    if len(inliers) <= max_points:
        return inliers
    side = max(1, math.isqrt(max_points))
    size_wh = np.array(_size_of_a(registration))[::-1]
    cells = ((registration.xy_a[inliers] + 0.5) / size_wh * side).astype(int).clip(0, side - 1)
    _, first = np.unique(cells[:, 1] * side + cells[:, 0], return_index=True)
    return inliers[np.sort(first)]


def _size_of_a(registration: Registration | LargeRegistration) -> SizeHW:
    if isinstance(registration, LargeRegistration):
        return registration.sizes_hw[0]
    return registration.features_a.size_hw


def _orientation_of_a(registration: Registration | LargeRegistration) -> int:
    if isinstance(registration, LargeRegistration):
        return registration.exif_orientation
    return int(registration.features_a.meta.get("exif_orientation") or 1)


def _one_line(crs: str) -> str:
    if "\n" in crs or "\r" in crs:
        raise ConfigError(f"crs is {crs!r}, expected one line such as EPSG:25832")
    return crs
