"""Slides and other images of microscopes, in windows and with their smaller copies (extra `bio`).

OME-TIFF by tifffile, OME-Zarr by zarr, and the scanners' own formats by OpenSlide.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tiepoint.errors import ImageError, import_extra, is_installed, reason_of
from tiepoint.files.paths import is_file, is_folder
from tiepoint.files.writing import special_kind
from tiepoint.geometry import SizeHW
from tiepoint.images.arrays import Decoded, from_array
from tiepoint.images.planes import Channels, PlaneWindows, chosen_channels, fused
from tiepoint.images.urls import without_credentials
from tiepoint.images.windows import Window, WindowSource, unreadable

OME_TIFF_ENDINGS = (".ome.tif", ".ome.tiff", ".ome.tf2", ".ome.tf8", ".ome.btf")
SLIDE_ENDINGS = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu")
ZARR_ENDING = ".zarr"
ZARR_METADATA = (".zattrs", "zarr.json")
"""Files of which a folder of OME-Zarr has one, in versions 2 and 3 of zarr."""


def is_slide(source: Any) -> bool:
    """Whether a source is a path that `open_slide` reads.

    Without the extra, OME-TIFF is read as other TIFF files are.
    """
    if not isinstance(source, str | os.PathLike) or special_kind(source):
        return False
    name = os.fsdecode(source).lower()
    if name.endswith(OME_TIFF_ENDINGS):
        return is_installed("zarr")
    return name.endswith(SLIDE_ENDINGS) or is_zarr_folder(source)


def is_zarr_folder(source: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder of zarr, not one with files to be listed."""
    path = Path(os.fsdecode(source))
    named = path.name.lower().rstrip("/").endswith(ZARR_ENDING)
    return named and is_folder(path) and any(is_file(path / name) for name in ZARR_METADATA)


@contextmanager
def open_slide(path: str | os.PathLike[str], channels: Channels = None) -> Iterator[WindowSource]:
    """Open an image of a microscope to read windows of it.

    Args:
        channels: See `planes.PlaneWindows`; of slides in colour None is the colour.

    Raises:
        ImageError: No such file, not of its format, or no such channel.
        MissingExtraError: The extra `bio` is not installed.
    """
    name = os.fsdecode(path)
    if name.lower().endswith(OME_TIFF_ENDINGS):
        with _ome_tiff(name, channels) as opened:
            yield opened
    elif name.lower().endswith(SLIDE_ENDINGS):
        with _Scanned(name, channels) as scanned:
            yield scanned
    else:
        yield _ome_zarr(name, channels)


@contextmanager
def _ome_tiff(name: str, channels: Channels) -> Iterator[PlaneWindows]:
    import tifffile

    zarr = import_extra("zarr", "reading OME-TIFF in windows", "bio")
    with ExitStack() as opened:
        try:
            series = opened.enter_context(tifffile.TiffFile(name)).series[0]
            numbers = range(len(series.levels))
            arrays = [zarr.open(series.aszarr(level=number), mode="r") for number in numbers]
            planes = PlaneWindows(arrays, series.axes, name, channels)
        except (tifffile.TiffFileError, OSError, IndexError, ValueError) as error:
            raise _unknown(name, "an OME-TIFF file", error) from error
        yield planes


def _ome_zarr(name: str, channels: Channels) -> PlaneWindows:
    """The image of a multiscale group; see the specification of OME-NGFF, versions 0.4 and 0.5."""
    zarr = import_extra("zarr", "reading OME-Zarr", "bio")
    try:
        group = zarr.open(name, mode="r")
        attributes = dict(group.attrs)
        scales = attributes.get("ome", attributes)["multiscales"][0]
        axes = "".join(_letter(axis) for axis in scales["axes"])
        arrays = [group[level["path"]] for level in scales["datasets"]]
        return PlaneWindows(arrays, axes, name, channels)
    except ImageError:
        raise
    except Exception as error:  # zarr has errors of each of its stores
        raise _unknown(name, "a folder of OME-Zarr with multiscales", error) from error


def _letter(axis: Mapping[str, Any] | str) -> str:
    return (axis if isinstance(axis, str) else str(axis["name"])).upper()[:1]


class _Scanned:
    """Windows of a slide that OpenSlide reads. A context manager."""

    def __init__(self, name: str, channels: Channels) -> None:
        openslide = import_extra("openslide", "reading slides", "bio")
        self.name = name
        try:
            self._slide = openslide.OpenSlide(name)
        except (openslide.OpenSlideError, OSError) as error:
            raise _unknown(name, "a slide", error) from error
        self._chosen = None if channels is None else chosen_channels(channels, 3, name)
        self.levels: Sequence[SizeHW] = [(h, w) for w, h in self._slide.level_dimensions]
        self.size_hw: SizeHW = self.levels[0]
        self.dtype, self.has_gaps = np.dtype(np.uint8), True
        self._factors = self._slide.level_downsamples
        self._errors = (openslide.OpenSlideError, OSError, ValueError)

    def __enter__(self) -> _Scanned:
        return self

    def __exit__(self, *_: object) -> None:
        self._slide.close()

    def read(self, window: Window, level: int = 0) -> Decoded:
        """See `WindowSource.read`; places without a scan have no data."""
        corner = [round(side * self._factors[level]) for side in (window.left, window.top)]
        try:
            region = self._slide.read_region(corner, level, (window.width, window.height))
        except self._errors as error:
            raise unreadable(self.name, window, error) from error
        values = np.asarray(region)  # H W RGBA
        pixels = values[..., :3] if self._chosen is None else fused(values, self._chosen)
        image = from_array(np.ascontiguousarray(pixels), self.name, "rgb", layout="hwc", clip=False)
        return image.without(values[..., 3] == 0)


def _unknown(name: str, expected: str, error: BaseException) -> ImageError:
    reason = getattr(error, "strerror", None) or reason_of(error)  # which may name the file again
    return ImageError(
        without_credentials(
            f"{name}: cannot be opened ({reason}), expected {expected}; check the path, or copy it "
            "again"
        )
    )
