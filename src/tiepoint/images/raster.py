"""Raster files that GDAL reads in windows (extra `geo`): GeoTIFF, COG, VRT, JPEG 2000 and more."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiepoint.errors import ImageError, import_extra, is_installed, reason_of
from tiepoint.files.writing import special_kind
from tiepoint.geometry import SizeHW
from tiepoint.images.arrays import Decoded, from_array, with_alpha
from tiepoint.images.planes import Channels, chosen_channels, fused
from tiepoint.images.quiet import logger_quiet
from tiepoint.images.urls import without_credentials
from tiepoint.images.windows import Window, unreadable

if TYPE_CHECKING:
    from types import TracebackType

TIFF_ENDINGS = (".tif", ".tiff", ".gtiff")
"""Files that are also decoded as a whole, without the extra."""

RASTER_ENDINGS = (*TIFF_ENDINGS, ".vrt", ".jp2", ".img", ".ntf")

_ORIENTATION = 274


def is_raster(source: Any) -> bool:
    """Whether a source is a path that `RasterWindows` reads.

    A TIFF file with an EXIF orientation, which GDAL does not apply, is none.

    Raises:
        MissingExtraError: Only GDAL reads the file, and the extra `geo` is not installed.
    """
    if not isinstance(source, str | os.PathLike) or special_kind(source):
        return False
    ending = Path(os.fsdecode(source)).suffix.lower()
    if ending not in RASTER_ENDINGS:
        return False
    if ending == ".vrt":
        import_extra("rasterio", "VRT files", "geo")
    if not is_installed("rasterio"):
        return False
    return ending not in TIFF_ENDINGS or _orientation(source) == 1


def _orientation(path: str | os.PathLike[str]) -> int:
    import tifffile

    # GDAL reports what is wrong.
    with suppress(Exception), logger_quiet("tifffile"), tifffile.TiffFile(path) as file:
        return int(file.pages.first.tags.valueof(_ORIENTATION, 1))
    return 1


class RasterWindows:
    """Windows of a raster file; see `windows.WindowSource`. A context manager.

    Args:
        channels: Bands without that of transparency, from 0 on: one, or several whose mean is
            taken.

    Three bands or more are RGB and further ones; fewer are grey and further ones. No data have
    pixels that the file's masks exclude: by a no-data value in all bands, or in one of a mean; a
    mask band; or transparency.

    Raises:
        ImageError: No such file, not a raster, or no such channel.
    """

    def __init__(self, path: str | os.PathLike[str], channels: Channels = None) -> None:
        rasterio = import_extra("rasterio", "reading a raster in windows", "geo")
        from rasterio.enums import ColorInterp, MaskFlags

        place = os.fsdecode(path)
        self.name = without_credentials(place)
        try:
            with warnings.catch_warnings():  # most images are no maps
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                self._file = rasterio.open(place)
        except (rasterio.errors.RasterioError, OSError, ValueError) as error:
            raise ImageError(
                f"{self.name}: GDAL cannot open it ({_short(error)}), expected a raster file; "
                "check the path, or copy it again"
            ) from error
        self._lock = threading.Lock()  # a dataset is for one thread at a time
        file = self._file
        self.files: Sequence[str] = file.files  # with those of a VRT, and masks of their own
        kinds = list(file.colorinterp)
        others = [i for i, kind in enumerate(kinds, 1) if kind != ColorInterp.alpha]
        if not others:
            raise ImageError(f"{self.name}: {file.count} bands, expected at least one of colour")
        self._is_fused = channels is not None
        if self._is_fused:
            chosen = chosen_channels(channels, len(others), self.name)
            self._bands = [others[number] for number in chosen]
        else:
            self._bands = others[:3] if len(others) >= 3 else others[:1]
        self._alpha = next((i for i, k in enumerate(kinds, 1) if k == ColorInterp.alpha), None)
        self._palette = _palette(file, self._bands[0]) if ColorInterp.palette in kinds else None
        self.size_hw: SizeHW = (file.height, file.width)
        self.dtype: np.dtype[Any] = np.dtype(
            np.uint8 if self._palette is not None else file.dtypes[0]
        )
        flags = [flag for band in self._bands for flag in file.mask_flag_enums[band - 1]]
        self.has_gaps = self.dtype.kind == "f" or any(f != MaskFlags.all_valid for f in flags)
        self._factors = [1, *file.overviews(self._bands[0])]
        self.levels: Sequence[SizeHW] = [
            (-(-file.height // factor), -(-file.width // factor)) for factor in self._factors
        ]

    def __enter__(self) -> RasterWindows:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, window: Window, level: int = 0) -> Decoded:
        """See `WindowSource.read`."""
        from rasterio.errors import RasterioError

        try:
            with self._lock:
                return self._read(window, level)
        except (RasterioError, OSError, ValueError) as error:
            raise unreadable(self.name, window, error) from error

    def _read(self, window: Window, level: int) -> Decoded:
        from rasterio.windows import Window as Place

        factor = self._factors[level]
        place = Place(*(factor * side for side in (window.left, window.top, window.width,
                                                   window.height)))  # fmt: skip
        how: dict[str, Any] = {"window": place}
        if level:
            how["out_shape"] = (window.height, window.width)
        bands = self._file.read(self._bands, **how)  # C H W
        if self._palette is not None:
            bands = np.moveaxis(self._palette[bands[0]], -1, 0)
        pixels = np.ascontiguousarray(np.moveaxis(bands, 0, -1))  # H W C
        if self._is_fused and self._palette is None:
            pixels = fused(pixels, range(pixels.shape[2]))
        pixels = pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
        gaps = None
        if self.has_gaps:
            masks = self._file.read_masks(self._bands, **how)  # C H W
            # A mean needs all of its bands.
            gaps = (masks == 0).any(axis=0) if self._is_fused else (masks == 0).all(axis=0)
        if self._alpha is not None and self.dtype.str[1:] in ("u1", "u2"):
            alpha = self._file.read(self._alpha, **how)
            channels = pixels if pixels.ndim == 3 else pixels[..., None]
            return with_alpha(np.concatenate([channels, alpha[..., None]], axis=2)).without(gaps)
        return from_array(pixels, self.name, "rgb", layout="hwc", clip=False).without(gaps)


def _palette(file: Any, band: int) -> Any:
    """256 3 uint8, the colours of a palette; None without one."""
    try:
        colours = file.colormap(band)
    except ValueError:
        return None
    table = np.zeros((256, 3), np.uint8)
    for index, colour in colours.items():
        if index < 256:
            table[index] = colour[:3]
    return table


def _short(error: BaseException) -> str:
    return without_credentials(reason_of(error))
