"""Features of one image as GeoJSON: a `FeatureCollection` of points.

Coordinates are px of the image, y down, with whole numbers at pixel centres; or map coordinates,
for an image with a geotransform. Its member `tiepoint` has the record of the image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Features
from tiepoint.features.tables import COVARIANCE, SCALE, columns_of
from tiepoint.files.reading import read_json
from tiepoint.formats import fields, table_records
from tiepoint.formats.fields import Summary

MAX_BYTES = 400_000_000
_START = f'{{"type": "FeatureCollection", "{table_records.NAME}": {{"convention"'.encode()
_DESCRIPTOR = "descriptor"
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
        ConfigError: A geotransform that is not six finite numbers, or is not invertible.
    """
    fields.check_finite(features)
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
    return f"{head}\n{(',' + chr(10)).join(rows)}\n]}}\n".encode()


def read(path: Path) -> Features:
    """Features from a file; map coordinates become px again."""
    name = str(path)
    with fields.as_damaged(name, (ValueError, KeyError, TypeError, ConfigError)):
        held, summary = _held(path, name)
        rows = held["features"]
        xy = np.array([row["geometry"]["coordinates"] for row in rows], np.float64).reshape(-1, 2)
        record = held[table_records.NAME]
        geotransform = record.get(_GEOTRANSFORM)
        if geotransform is not None:
            matrix = _matrix(geotransform)
            xy = (xy - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T - 0.5
        properties = [row["properties"] for row in rows]
        names = [name for name in record.get(_COLUMNS, ["score"]) if name in _KNOWN]
        columns = {name: np.array([each[name] for each in properties]) for name in names}
        descriptors = columns.pop(_DESCRIPTOR, None)
        if descriptors is not None and not rows:
            descriptors = np.zeros((0, 0))
        columns |= {"x": xy[:, 0], "y": xy[:, 1]}
        return table_records.features_from(name, summary, columns, descriptors)


def summarise(path: Path) -> Summary:
    """The record of a file."""
    with fields.as_damaged(str(path), (ValueError,)):
        return _held(path, str(path))[1]


def is_begun(start: bytes) -> bool:
    """Whether a file that starts like this, cut off or not, is one of these."""
    return start.startswith(_START) or _START.startswith(start)


def _held(path: Path, name: str) -> tuple[dict[str, Any], Summary]:
    """The object in a file, and its record."""
    held = read_json(path, most_bytes=MAX_BYTES, finite=False)
    if not isinstance(held, dict) or table_records.NAME not in held:
        raise FormatError(
            f"{name}: not a features file that tiepoint wrote (no member {table_records.NAME!r}); "
            "read other GeoJSON with the json module or geopandas"
        )
    summary = table_records.summary_from(held[table_records.NAME], name)
    rows = held.get("features")
    if not isinstance(rows, list) or len(rows) != summary.keypoints:
        raise fields.damaged(name, f"no list of {summary.keypoints} features")
    return held, summary


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
