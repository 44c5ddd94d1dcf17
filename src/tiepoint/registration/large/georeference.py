"""Map positions of raster files: reference system and affine map of pixels (extra `geo`)."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiepoint.errors import ImageError, import_extra
from tiepoint.images.raster import is_raster
from tiepoint.images.urls import without_credentials

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Georeference:
    """The map position of an image.

    Attributes:
        geotransform: Six numbers in GDAL's order, from columns and rows with the outer corner of
            the first pixel at (0, 0).
        crs: Reference system, "EPSG:25832" or WKT in one line; empty for an unknown one.
    """

    geotransform: tuple[float, float, float, float, float, float]
    crs: str = ""

    @property
    def unit_per_px(self) -> float:
        """Map units per pixel: root of the area of a pixel."""
        _, a, b, _, c, d = self.geotransform
        return float(abs(a * d - b * c) ** 0.5)

    def to_map(self, xy: ArrayLike) -> Array:
        """Points of the image, N 2 or 2 px -> map coordinates."""
        g = self.geotransform
        points = np.asarray(xy, np.float64) + 0.5
        return np.asarray(points @ np.array([[g[1], g[4]], [g[2], g[5]]]) + [g[0], g[3]])

    def from_map(self, xy: ArrayLike) -> Array:
        """Map coordinates, N 2 or 2 -> px of the image."""
        g = self.geotransform
        matrix = np.array([[g[1], g[4]], [g[2], g[5]]])
        points = (np.asarray(xy, np.float64) - np.array([g[0], g[3]])) @ np.linalg.inv(matrix)
        return np.asarray(points - 0.5)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"geotransform": list(self.geotransform), "crs": self.crs}


def georeference_of(source: Any) -> Georeference | None:
    """The map position of a raster file; None for other sources and files without one.

    Raises:
        ImageError: The file cannot be opened.
    """
    if not is_raster(source):
        return None
    rasterio = import_extra("rasterio", "reading a map position", "geo")
    try:
        with warnings.catch_warnings(), _opened(rasterio, source) as file:
            transform, crs = file.transform, file.crs
    except (rasterio.errors.RasterioError, OSError, ValueError) as error:
        message = without_credentials(f"{source}: GDAL cannot open it ({error})")
        raise ImageError(message) from error
    if transform.is_identity or transform.determinant == 0:
        return None
    return Georeference(tuple(transform.to_gdal()), "" if crs is None else _text(crs))


def _opened(rasterio: Any, source: Any) -> Any:
    """The open file, without a warning if it has no map position."""
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    return rasterio.open(os.fsdecode(source))


def _text(crs: Any) -> str:
    """The shortest text that defines a reference system, in one line."""
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else " ".join(str(crs.to_wkt()).split())
