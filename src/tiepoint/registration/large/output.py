"""A warped large image as a file, written tile by tile: COG (extra `geo`) or OME-TIFF."""

from __future__ import annotations

import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError, import_extra
from tiepoint.files.writing import allocate, replacing, unwritable
from tiepoint.geometry import SizeHW
from tiepoint.images.metadata import Metadata, metadata_of
from tiepoint.images.opening import open_windows
from tiepoint.images.urls import without_credentials
from tiepoint.images.windows import Window, WindowSource
from tiepoint.images.windows import tiles as tiles_of
from tiepoint.registration.aligned import fill_value
from tiepoint.registration.large.georeference import Georeference
from tiepoint.registration.large.result import LargeRegistration
from tiepoint.registration.large.warping import WarpedWindows
from tiepoint.streaming import read_ahead

Pixels = NDArray[Any]
Progress = Callable[[int, int], None]

ENDINGS = (".tif", ".tiff")
OME_ENDINGS = (".ome.tif", ".ome.tiff")
TILE_PX, READ_PX = 512, 1024
"""Sides of the tiles of files, and of the windows that are warped at a time."""
LEAST_LEVEL_PX = 512
"""Longer side up to which an OME-TIFF file gets smaller copies."""
CACHE_BYTES = 128_000_000
WORKERS = 2

_RESOLUTION = "TIFFTAG_XRESOLUTION", "TIFFTAG_YRESOLUTION", "TIFFTAG_RESOLUTIONUNIT"
_UM_PER_INCH = 25_400

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Form:
    """The file to write: size, number of channels, type, and the value of pixels outside."""

    size_hw: SizeHW
    channels: int
    dtype: np.dtype[Any]
    fill: float
    has_no_data: bool


def write_warped(
    path: str | PathLike[str],
    image_a: Any,
    image_b: Any,
    registration: LargeRegistration,
    *,
    back: bool = False,
    fill: float | None = None,
    progress: Progress | None = None,
) -> None:
    """Write image A as image B would show it, in bounded memory.

    A `.tif` file is a cloud optimised GeoTIFF with B's map position and A's tags. An `.ome.tif`
    file is an OME-TIFF with smaller copies, B's resolution and A's colour profile. Grey and RGB
    images of 8 or 16 bits or of float32 keep their type, other numbers become float32; further
    bands are left out.

    Args:
        path: The file.
        image_a, image_b: The registered images; of the other one only metadata are read.
        registration: A successful registration.
        back: Write image B as A would show it instead.
        fill: Value of pixels outside; None is the image's value without data, or 0.
        progress: Called with the number of windows written, and of all.

    Raises:
        RegistrationError: Not registered.
        ConfigError: Another image than the registered one; a fill outside its range; an ending
            without a format.
        MissingExtraError: A GeoTIFF file needs the extra `geo`.
        ImageError: An image cannot be read.
        OutputError: The file cannot be written.
    """
    target, transform = Path(path), registration.require()
    is_ome = check_ending(target)
    shown, other = (image_b, image_a) if back else (image_a, image_b)
    index = 1 if back else 0
    with open_windows(shown) as source:
        expected = registration.sizes_hw[index]
        if source.size_hw != expected:
            raise ConfigError(
                f"image {'AB'[index]} is {source.size_hw[1]}x{source.size_hw[0]} px, expected the "
                f"{expected[1]}x{expected[0]} px of the registration: pass the image that was "
                "registered"
            )
        warped = WarpedWindows(source, transform, registration.sizes_hw[1 - index], back=back)
        metadata = metadata_of(shown)
        form = _form(source, warped.size_hw, metadata, fill)
        parts = _parts(warped, form, progress)
        if is_ome:
            _write_ome(target, parts, form, (metadata, metadata_of(other)))
        else:
            place = registration.georeferences[1 - index]
            _write_cog(target, parts, form, place, (shown, other))


def check_ending(path: Path) -> bool:
    """Whether a path is that of an OME-TIFF file; ConfigError for an ending without a format."""
    name = path.name.lower()
    if name.endswith(OME_ENDINGS):
        return True
    if not name.endswith(ENDINGS):
        raise ConfigError(
            f"{path}: the ending picks the format, one of .tif (COG), .ome.tif (OME-TIFF)"
        )
    import_extra("rasterio", "writing a GeoTIFF file", "geo")
    return False


def _form(source: WindowSource, size_hw: SizeHW, metadata: Metadata, fill: float | None) -> _Form:
    one = source.read(Window(0, 0, 1, 1)).pixels
    filled = fill_value(metadata, one.dtype, fill)
    has_no_data = metadata.no_data is not None or fill is not None or one.dtype.kind == "f"
    if one.dtype.kind == "f" and fill is None and metadata.no_data is None:
        filled = math.nan
    return _Form(size_hw, 1 if one.ndim == 2 else 3, one.dtype, filled, has_no_data)


def _parts(
    warped: WarpedWindows, form: _Form, progress: Progress | None
) -> Iterator[tuple[Window, Pixels, NDArray[np.bool_]]]:
    """Windows in reading order, pixels H W C filled outside the image, and where they have data."""
    windows = tiles_of(form.size_hw, READ_PX)
    for number, (window, read) in enumerate(read_ahead(windows, warped.read, WORKERS), 1):
        pixels = read.pixels if read.pixels.ndim == 3 else read.pixels[:, :, None]
        if pixels.shape[2] < form.channels:
            pixels = np.repeat(pixels, form.channels, axis=2)
        pixels = pixels.astype(form.dtype)
        valid = np.ones(pixels.shape[:2], bool) if read.valid is None else read.valid
        pixels[~valid] = form.fill
        yield window, pixels, valid
        if progress is not None:
            progress(number, len(windows))


def _write_cog(
    path: Path,
    parts: Iterator[tuple[Window, Pixels, NDArray[np.bool_]]],
    form: _Form,
    place: Georeference | None,
    images: tuple[Any, Any],
) -> None:
    """A tiled file first, from which GDAL makes the COG with its overviews."""
    import rasterio
    from rasterio._err import CPLE_BaseError
    from rasterio.shutil import copy
    from rasterio.windows import Window as Place

    height, width = form.size_hw
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": height, "width": width, "count": form.channels,
        "dtype": form.dtype.name, "tiled": True, "blockxsize": TILE_PX, "blockysize": TILE_PX,
        "BIGTIFF": "IF_SAFER", "SPARSE_OK": True,
    }  # fmt: skip
    if form.channels == 3:
        profile["photometric"] = "RGB"
    if form.has_no_data:
        profile["nodata"] = form.fill
    if place is not None:
        profile["transform"] = rasterio.Affine.from_gdal(*place.geotransform)
        profile["crs"] = place.crs or None
    options = {"GDAL_CACHEMAX": CACHE_BYTES, "GDAL_TIFF_INTERNAL_MASK": True}
    predictor = "FLOATING_POINT" if form.dtype.kind == "f" else "STANDARD"
    try:
        with (
            replacing(path) as partial,
            tempfile.TemporaryDirectory(dir=partial.parent, prefix=".tiepoint-") as folder,
            rasterio.Env(**options),
            _without_place_allowed(),
        ):
            raw = Path(folder, "warped.tif")
            with rasterio.open(raw, "w", **profile) as file:
                file.update_tags(**_tags(*images))
                for window, pixels, valid in parts:
                    part = Place(window.left, window.top, window.width, window.height)
                    file.write(np.moveaxis(pixels, 2, 0), window=part)
                    if not form.has_no_data:
                        file.write_mask(valid, window=part)
            copy(
                raw, partial, driver="COG", compress="DEFLATE", predictor=predictor,
                blocksize=TILE_PX, bigtiff="IF_SAFER", num_threads=WORKERS,
                overview_resampling="average",
            )  # fmt: skip
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        raise unwritable(path, error) from error


@contextmanager
def _without_place_allowed() -> Iterator[None]:
    """Files without a map position bring no warning."""
    import rasterio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


def _tags(shown: Any, other: Any) -> dict[str, str]:
    """Tags of the warped image, with the resolution of the image whose frame it has."""
    tags = {name: value for name, value in _own_tags(shown).items() if name not in _RESOLUTION}
    of_other = _own_tags(other)
    tags |= {name: of_other[name] for name in _RESOLUTION if name in of_other}
    if "AREA_OR_POINT" in of_other:
        tags["AREA_OR_POINT"] = of_other["AREA_OR_POINT"]
    return tags


def _own_tags(source: Any) -> dict[str, str]:
    import rasterio

    if not isinstance(source, str | os.PathLike):
        return {}
    try:
        with _without_place_allowed(), rasterio.open(os.fsdecode(source)) as file:
            return dict(file.tags())
    except (rasterio.errors.RasterioError, OSError):
        name = without_credentials(os.fsdecode(source))
        logger.warning("%s: its tags cannot be read and are left out", name)
        return {}


def _write_ome(
    path: Path,
    parts: Iterator[tuple[Window, Pixels, NDArray[np.bool_]]],
    form: _Form,
    metadata: tuple[Metadata, Metadata],
) -> None:
    """The full size from tiles, and smaller copies from a temporary memory map."""
    import tifffile

    height, width = form.size_hw
    shape = (height, width, form.channels) if form.channels > 1 else (height, width)
    of_shown, of_other = metadata
    photometric = "rgb" if form.channels == 3 else "minisblack"
    count = max(0, math.ceil(math.log2(max(height, width) / LEAST_LEVEL_PX)))
    options: dict[str, Any] = {
        "dtype": form.dtype, "photometric": photometric, "tile": (TILE_PX, TILE_PX),
        "compression": "zlib", "maxworkers": 1,
    }  # fmt: skip
    about: dict[str, Any] = {"axes": "YXS" if form.channels > 1 else "YX"}
    first: dict[str, Any] = {}
    if of_other.dpi is not None:
        sizes = [_UM_PER_INCH / dpi for dpi in of_other.dpi]
        about |= {"PhysicalSizeX": sizes[0], "PhysicalSizeXUnit": "µm"}
        about |= {"PhysicalSizeY": sizes[1], "PhysicalSizeYUnit": "µm"}
        first |= {"resolution": of_other.dpi, "resolutionunit": "INCH"}
    if of_shown.icc_profile is not None:
        first["iccprofile"] = of_shown.icc_profile
    with (
        replacing(path) as partial,
        tempfile.TemporaryDirectory(dir=partial.parent, prefix=".tiepoint-") as folder,
        tifffile.TiffWriter(
            partial, ome=True, bigtiff=height * width * form.channels > 2**30
        ) as to,
    ):
        half_shape = (-(-height // 2), -(-width // 2), form.channels)
        with Path(folder, "half").open("xb") as file:  # a hole in a mapped file ends the process
            allocate(file.fileno(), 0, math.prod(half_shape) * form.dtype.itemsize)
        half = np.memmap(Path(folder, "half"), form.dtype, "r+", shape=half_shape)
        tiles = _tiles_of_rows(parts, form, half)
        to.write(tiles, shape=shape, subifds=count, metadata=about, **options, **first)
        level: Pixels = half
        for number in range(count):
            to.write(level if form.channels > 1 else level[:, :, 0], subfiletype=1, **options)
            if number + 1 < count:
                level = _halved(level)


def _tiles_of_rows(
    parts: Iterator[tuple[Window, Pixels, NDArray[np.bool_]]], form: _Form, half: Pixels
) -> Iterator[Pixels]:
    """Tiles in the order of the file, from windows in rows; fills the copy of half the size."""
    width = form.size_hw[1]
    rows = np.zeros((READ_PX, -(-width // TILE_PX) * TILE_PX, form.channels), form.dtype)
    for window, pixels, _ in parts:
        rows[: window.height, window.left : window.left + window.width] = pixels
        small = _halved(pixels)
        top, left = window.top // 2, window.left // 2
        half[top : top + small.shape[0], left : left + small.shape[1]] = small
        if window.left + window.width < width:
            continue
        rows[window.height :] = 0
        for top in range(0, window.height, TILE_PX):
            for left in range(0, width, TILE_PX):
                tile = rows[top : top + TILE_PX, left : left + TILE_PX]
                yield np.ascontiguousarray(tile if form.channels > 1 else tile[:, :, 0])


def _halved(pixels: Pixels) -> Pixels:
    """Averages of 2x2 pixels, H W C; the last row and column repeat."""
    height, width, channels = pixels.shape
    grown = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    size_wh = (grown.shape[1] // 2, grown.shape[0] // 2)
    small = cv2.resize(np.ascontiguousarray(grown), size_wh, interpolation=cv2.INTER_AREA)
    return np.asarray(small).reshape(size_wh[1], size_wh[0], channels)
