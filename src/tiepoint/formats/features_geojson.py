"""Features of one image as GeoJSON: a `FeatureCollection` of points.

Coordinates are px of the image, y down, with whole numbers at pixel centres; or map coordinates,
for an image with a geotransform. Its member `tiepoint` has the record of the image.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import check_whole
from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Features
from tiepoint.features.tables import COVARIANCE, SCALE, Columns, columns_of
from tiepoint.files.reading import open_regular, parse_json, read_json
from tiepoint.formats import features_json, fields, table_records
from tiepoint.formats.fields import Summary

MAX_BYTES = 400_000_000
_START = f'{{"type": "FeatureCollection", "{table_records.NAME}": {{"convention"'.encode()
_DESCRIPTOR = "descriptor"
_ROWS_FOLLOW, _END = b'"features": [\n', b"]}\n"
_LONGEST_LINE = 4_000_000
"""Bytes: one keypoint with its descriptor, or the record with `meta`."""
_KNOWN = ("score", SCALE, *COVARIANCE, _DESCRIPTOR)
_GEOTRANSFORM, _COLUMNS = "geotransform", "properties"
"""Entries of the record: how px became map coordinates, and names of the properties."""


def encode(
    features: Features,
    *,
    descriptors: bool = False,
    geotransform: Sequence[float] | None = None,
    epsg: int | None = None,
) -> bytes:
    """The file's bytes.

    Args:
        descriptors: Add the property `descriptor`, a list of D numbers, to each point.
        geotransform: Six numbers as in GDAL: x and y of the outer corner of the top-left pixel are
            the first and fourth, and the others are the steps along columns and rows. None keeps
            px.
        epsg: Code of the map's reference system, as the member `crs` of GeoJSON 2008, which QGIS
            and GDAL read; None leaves it out.

    Raises:
        FormatError: Values that are not finite, or JSON has no form for `meta`.
        ConfigError: A geotransform that is not six finite numbers, or is not invertible; or a code
            that is no number above 0.
    """
    fields.check_finite(features)
    if epsg is not None:
        check_whole("epsg", epsg, minimum=1, unit="code")
    record = table_records.record_text(features)
    places = _text(features.xy)
    if geotransform is not None:
        matrix = _matrix(geotransform)
        record = f'{record[:-1]}, "{_GEOTRANSFORM}": {json.dumps([*map(float, geotransform)])}}}'
        xy = np.column_stack([features.xy.astype(np.float64) + 0.5, np.ones(len(features))])
        places = [[repr(x), repr(y)] for x, y in (xy @ matrix.T).tolist()]
    columns = {name: _text(v) for name, v in columns_of(features).items() if name not in "xy"}
    if descriptors and features.descriptors is not None:
        columns[_DESCRIPTOR] = [f"[{', '.join(row)}]" for row in _text(features.descriptors)]
        if len(features) == 0:  # lists would state it
            length = features.descriptors.shape[1]
            record = f'{record[:-1]}, "{features_json.EMPTY_LENGTH}": {length}}}'
    record = f'{record[:-1]}, "{_COLUMNS}": {json.dumps([*columns])}}}'
    names = [f'"{name}": ' for name in columns]
    rows = []
    for (x, y), *values in zip(places, *columns.values(), strict=True):
        properties = ", ".join(map("".join, zip(names, values, strict=True)))
        point = f'{{"type": "Point", "coordinates": [{x}, {y}]}}'
        rows.append(f'{{"type": "Feature", "geometry": {point}, "properties": {{{properties}}}}}')
    urn = f'"urn:ogc:def:crs:EPSG::{epsg}"'
    crs = f'"crs": {{"type": "name", "properties": {{"name": {urn}}}}}, ' if epsg else ""
    head = f'{{"type": "FeatureCollection", "{table_records.NAME}": {record}, {crs}"features": ['
    data = f"{head}\n{(',' + chr(10)).join(rows)}\n]}}\n".encode()
    if len(data) > MAX_BYTES:
        raise FormatError(
            f"{len(features)} keypoints take {len(data)} bytes of GeoJSON, the limit is "
            f"{MAX_BYTES}; save as .csv or .npz"
        )
    return data


def read(path: Path) -> Features:
    """Features from a file; map coordinates become px again."""
    name = str(path)
    with _opened(path) as (record, summary, rows):
        names = [each for each in record.get(_COLUMNS, ["score"]) if each in _KNOWN]
        columns: dict[str, list[Any]] = {each: [] for each in names}
        places: list[Any] = []
        for row in rows:
            places.append(row["geometry"]["coordinates"])
            for each, values in columns.items():
                values.append(row["properties"][each])
        xy = np.array(places, np.float64).reshape(-1, 2)
        if (geotransform := record.get(_GEOTRANSFORM)) is not None:
            matrix = _matrix(geotransform)
            xy = (xy - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T - 0.5
        arrays: Columns = {each: np.array(values) for each, values in columns.items()}
        descriptors = arrays.pop(_DESCRIPTOR, None)
        if descriptors is not None and not places:
            descriptors = np.zeros((0, features_json.empty_length(record, name)))
        arrays |= {"x": xy[:, 0], "y": xy[:, 1]}
        return table_records.features_from(name, summary, arrays, descriptors)


def summarise(path: Path) -> Summary:
    """The record of a file."""
    with _opened(path) as (_, summary, rows):
        count = sum(1 for _ in rows)
    if count != summary.keypoints:
        raise fields.damaged(str(path), f"{count} features, its record states {summary.keypoints}")
    return summary


def is_begun(start: bytes) -> bool:
    """Whether a file that starts like this, cut off or not, is one of these."""
    return start.startswith(_START) or _START.startswith(start)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[dict[str, Any], Summary, Iterable[Any]]]:
    """The record of a file, its summary, and its features.

    A file in our own lines is parsed line by line, because the objects of all its features would
    take over ten times its size. Errors inside the `with` are those of a damaged file.
    """
    name = str(path)
    damage = (ValueError, KeyError, TypeError, ConfigError)
    with fields.as_damaged(name, damage), open_regular(path) as file:
        first = file.readline(_LONGEST_LINE)
        is_ours = first.startswith(_START) and first.endswith(_ROWS_FOLLOW)
        is_ours &= os.fstat(file.fileno()).st_size <= MAX_BYTES
        if is_ours:
            held: Any = parse_json(first.decode() + "]}", finite=False)
        else:
            held = read_json(path, most_bytes=MAX_BYTES, finite=False)
        if not isinstance(held, dict) or table_records.NAME not in held:
            raise FormatError(
                f"{name}: not a features file that tiepoint wrote (no member "
                f"{table_records.NAME!r}); read other GeoJSON with the json module or geopandas"
            )
        record = held[table_records.NAME]
        summary = table_records.summary_from(record, name)
        rows = held.get("features")
        if not isinstance(rows, list):
            raise fields.damaged(name, "no list of features")
        yield record, summary, _lines(file) if is_ours else rows


def _lines(file: BinaryIO) -> Iterator[Any]:
    """The features in the lines of a file, up to its end."""
    line = b""
    while following := file.readline(_LONGEST_LINE):
        line = following
        if line.strip() and line != _END:
            yield parse_json(line.decode().rstrip(",\n"), finite=False)
    if line != _END:
        raise ValueError("cut off")


def _matrix(geotransform: Any) -> NDArray[np.float64]:
    """2 3, (column, row, 1) of outer corners -> (x, y)."""
    values = [*geotransform] if isinstance(geotransform, Sequence | np.ndarray) else []
    numbers = [float(v) for v in values if isinstance(v, int | float | np.number)]
    if len(numbers) != 6 or len(values) != 6 or not all(map(math.isfinite, numbers)):
        raise ConfigError(f"geotransform is {geotransform!r}, expected six finite numbers, as GDAL")
    x, x_column, x_row, y, y_column, y_row = numbers
    if x_column * y_row == x_row * y_column:
        raise ConfigError(f"geotransform is {geotransform!r}, which maps all pixels to one line")
    return np.array([[x_column, x_row, x], [y_column, y_row, y]])


def _text(values: NDArray[np.float32]) -> list[Any]:
    """Numbers with the fewest digits that identify a float32."""
    texts: list[Any] = values.astype(np.float32).astype("U32").tolist()
    return texts
