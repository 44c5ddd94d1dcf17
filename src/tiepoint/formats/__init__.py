"""Files of features and of matches; reading gives the same float32 bits that were written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Protocol

from tiepoint.errors import FormatError
from tiepoint.features import Features
from tiepoint.files.writing import write_bytes
from tiepoint.formats import (
    features_csv,
    features_geojson,
    features_json,
    features_npz,
    features_parquet,
    hdf5,
    hloc_features,
)
from tiepoint.formats.fields import DamagedError as DamagedError
from tiepoint.formats.fields import Summary as Summary
from tiepoint.formats.fields import as_json as as_json
from tiepoint.formats.hloc_features import H5Features as H5Features
from tiepoint.formats.hloc_features import read_h5 as read_h5
from tiepoint.formats.hloc_features_writer import H5Writer as H5Writer
from tiepoint.formats.hloc_matches import H5Matches as H5Matches
from tiepoint.formats.hloc_matches import H5MatchesWriter as H5MatchesWriter
from tiepoint.formats.hloc_matches import read_matches_h5 as read_matches_h5
from tiepoint.formats.matches_npz import load_matches as load_matches
from tiepoint.formats.matches_npz import save_matches as save_matches
from tiepoint.formats.matches_table import save_matches_table as save_matches_table


class Format(Protocol):
    """A module that writes and reads the features of one image."""

    def encode(self, features: Features, /) -> bytes: ...
    def read(self, path: Path, /) -> Features: ...
    def summarise(self, path: Path, /) -> Summary: ...


class FileOfOne(Format, Protocol):
    """A format that is recognised by the start of its files."""

    def is_begun(self, start: bytes, /) -> bool: ...


FORMATS: dict[str, FileOfOne] = {
    ".npz": features_npz,
    ".json": features_json,
    ".csv": features_csv,
    ".parquet": features_parquet,
    ".geojson": features_geojson,
}
"""Formats of one file per image, by ending."""
_START_BYTES = 64
ALL_FORMATS: dict[str, Format] = {**FORMATS, hdf5.ENDING: hloc_features}
"""`FORMATS` and .h5, whose files hold one image or many: `H5Writer` and `read_h5`."""


WITHOUT_DESCRIPTORS = (".csv", ".geojson")
"""Endings of the formats that store descriptors only if asked to."""


def save(features: Features, path: str | PathLike[str], *, descriptors: bool | None = None) -> None:
    """Write the features of one image to a file, whole or not at all.

    Args:
        features: Features of one image.
        path: Path with the ending .npz, .json, .csv, .parquet, .geojson or .h5; an existing file
            is replaced.
        descriptors: Whether to store descriptors; None stores them in all formats but CSV and
            GeoJSON.

    Raises:
        FormatError: An unknown ending, or values that the format cannot hold.
        OutputError: The file cannot be written.
        MissingExtraError: .h5 needs the extra `hdf5`, and .parquet the extra `parquet`.
    """
    form = format_of(path)
    if descriptors is False:
        features = replace(features, descriptors=None)
    if form is hloc_features:
        hloc_features.write(Path(path), features)
        return
    if descriptors and form is features_csv:
        data = features_csv.encode(features, descriptors=True)
    elif descriptors and form is features_geojson:
        data = features_geojson.encode(features, descriptors=True)
    else:
        data = form.encode(features)
    write_bytes(path, data)


def save_geojson(
    features: Features,
    path: str | PathLike[str],
    *,
    geotransform: Sequence[float] | None = None,
    epsg: int | None = None,
    descriptors: bool = False,
) -> None:
    """Write keypoints as GeoJSON, in map coordinates of an image with a geotransform.

    Args:
        features: Features of one image.
        path: Path with the ending .geojson; an existing file is replaced.
        geotransform: Six numbers as in GDAL and rasterio's `transform.to_gdal()`; None keeps px.
        epsg: Code of the map's reference system, or None.
        descriptors: Store descriptors too.

    Raises:
        FormatError: Another ending, or values that the format cannot hold.
        ConfigError: A geotransform that is not six finite numbers, or is not invertible.
        OutputError: The file cannot be written.
    """
    if format_of(path) is not features_geojson:
        raise FormatError(f"{path}: expected the ending .geojson")
    data = features_geojson.encode(
        features, descriptors=descriptors, geotransform=geotransform, epsg=epsg
    )
    write_bytes(path, data)


def load(path: str | PathLike[str]) -> Features:
    """Read features that `save` wrote; executes nothing from the file.

    Returns:
        Features; tuples in `meta` come back as lists.

    Raises:
        FormatError: An unknown ending, no such file, a damaged or foreign one, or an .h5 file of
            several images.
        MissingExtraError: .h5 needs the extra `hdf5`, and .parquet the extra `parquet`.
    """
    return format_of(path).read(Path(path))


def summarise(path: str | PathLike[str]) -> Summary:
    """Count, image size and `meta` of a features file, without reading its descriptors.

    Raises:
        FormatError: As for `load`.
    """
    return format_of(path).summarise(Path(path))


def is_remnant(path: str | PathLike[str]) -> bool:
    """Whether a damaged file is the rest of one that `save` wrote, as a full disk leaves it.

    That is an empty file, one of zeros, and one that starts like a file of its format.
    """
    with Path(path).open("rb") as file:
        start = file.read(_START_BYTES)
    form = FORMATS.get(Path(path).suffix.lower())
    return not start.strip(b"\0") or (form is not None and form.is_begun(start))


def format_of(path: str | PathLike[str]) -> Format:
    """The format of a path, by its ending.

    Raises:
        FormatError: An unknown ending.
    """
    ending = Path(path).suffix.lower()
    if ending not in ALL_FORMATS:
        raise FormatError(f"{path}: the ending picks the format, one of {', '.join(ALL_FORMATS)}")
    return ALL_FORMATS[ending]
