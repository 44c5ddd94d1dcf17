"""GeoJSON annotations of one large image, carried over to the other one.

Edges become bent where the map is not affine: places are added to an edge until it follows the map.

Source: RFC 7946 for the geometries; GeoJSON 2008 for the member `crs`, which QGIS and GDAL write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import check_choice
from tiepoint.errors import FormatError, RegistrationError, import_extra
from tiepoint.registration.large.georeference import Georeference
from tiepoint.registration.large.result import LargeRegistration

Array = NDArray[np.float64]
Origin = Literal["centre", "corner"]

TOLERANCE_PX = 0.25
"""Distance up to which a carried edge may be off its exact place, px of the other image."""
MOST_HALVINGS = 10
MOST_DEPTH = 32
_SHARES = (0.25, 0.5, 0.75)

_LEVELS = {
    "Point": 0, "MultiPoint": 1, "LineString": 1, "MultiLineString": 2, "Polygon": 2,
    "MultiPolygon": 3,
}  # fmt: skip
"""Geometry -> depth of its list of positions."""
_EDGES = ("LineString", "MultiLineString", "Polygon", "MultiPolygon")


class _Sides(NamedTuple):
    """The steps of a position, from the coordinates of one image to those of the other."""

    to_px: Callable[[Array], Array]
    across: Callable[[Array], Array]
    from_px: Callable[[Array], Array]
    bends: bool


def carry_annotations(
    geojson: Any,
    registration: LargeRegistration,
    *,
    back: bool = False,
    origin: Origin = "centre",
) -> dict[str, Any]:
    """GeoJSON of image A -> GeoJSON of image B; all kinds of geometries, properties as they are.

    Coordinates are map coordinates for an image with a map position, and px otherwise, y down. Map
    coordinates are those of the image, or of the reference system that the member `crs` names.

    Args:
        geojson: A FeatureCollection, a Feature or a geometry, as `json.load` returns it.
        registration: A successful registration.
        back: From B to A instead.
        origin: Place of px (0, 0): "centre" of the first pixel, or its outer "corner", as in QuPath
            and most annotation programs.

    Returns:
        An object of the same kind. `bbox` members are left out; `crs` is that of the other image.

    Raises:
        RegistrationError: Not registered; or the model has no place for a position.
        FormatError: Not GeoJSON.
        MissingExtraError: Coordinates of another reference system need the extra `geo`.
    """
    check_choice("origin", origin, get_args(Origin))
    mapping = registration.require()
    places = registration.georeferences[::-1] if back else registration.georeferences
    sides = _Sides(
        _to_px(places[0], _crs_of(geojson), origin),
        mapping.inverse if back else mapping.forward,
        _from_px(places[1], origin),
        bends=not mapping.is_affine,
    )
    carried: dict[str, Any] = _carried(geojson, sides, "the file", 0)
    carried.pop("crs", None)
    if places[1] is not None and places[1].crs:
        carried["crs"] = {"type": "name", "properties": {"name": _urn(places[1].crs)}}
    return carried


def _carried(value: Any, sides: _Sides, where: str, depth: int) -> dict[str, Any]:
    """An object of GeoJSON."""
    kind = value.get("type") if isinstance(value, dict) else None
    if depth > MOST_DEPTH:
        raise FormatError(f"{where}: nested more than {MOST_DEPTH} deep")
    result = {} if kind is None else {k: v for k, v in value.items() if k != "bbox"}
    if kind == "FeatureCollection" and isinstance(value.get("features"), list):
        result["features"] = [
            _carried(one, sides, f"feature {number}", depth + 1)
            for number, one in enumerate(value["features"])
        ]
    elif kind == "Feature" and "geometry" in value:
        if value["geometry"] is not None:
            result["geometry"] = _carried(value["geometry"], sides, where, depth + 1)
    elif kind == "GeometryCollection" and isinstance(value.get("geometries"), list):
        result["geometries"] = [
            _carried(one, sides, where, depth + 1) for one in value["geometries"]
        ]
    elif isinstance(kind, str) and kind in _LEVELS and isinstance(value.get("coordinates"), list):
        bends = sides.bends and kind in _EDGES
        level = _LEVELS[kind]
        result["coordinates"] = _positions(value["coordinates"], level, sides, bends, where)
    else:
        raise FormatError(
            f"{where}: type {kind!r} with these members, expected GeoJSON: a FeatureCollection, a "
            "Feature or a geometry"
        )
    return result


def _positions(values: Any, level: int, sides: _Sides, bends: bool, where: str) -> list[Any]:
    """Positions at a depth of lists; a list of depth 1 is a line or a ring, where they `bend`."""
    if level > 1:
        if not isinstance(values, list):
            raise FormatError(f"{where}: {values!r:.60}, expected a list of positions")
        return [_positions(one, level - 1, sides, bends, where) for one in values]
    rows = [values] if level == 0 else values
    table = _table(rows, where)
    if len(table) == 0:
        return []
    pixels = sides.to_px(table[:, :2])
    rest = table[:, 2:]
    if bends and len(table) > 1:
        pixels, rest = _bent(pixels, rest, sides.across)
    moved = sides.across(pixels)
    if not np.isfinite(moved).all():
        x, y = pixels[~np.isfinite(moved).all(axis=1)][0].tolist()
        raise RegistrationError(
            f"{where}: the model has no place for the position x {x:g}, y {y:g} px; leave it out"
        )
    carried: list[Any] = np.column_stack([sides.from_px(moved), rest]).tolist()
    return carried[0] if level == 0 else carried


def _table(rows: Any, where: str) -> Array:
    """N D float64: positions, of two numbers or more each."""
    if rows == []:
        return np.empty((0, 2))
    try:
        table = np.array(rows, np.float64)
    except (TypeError, ValueError, OverflowError):
        table = np.empty(0)
    if table.ndim != 2 or table.shape[1] < 2 or not np.isfinite(table).all():
        raise FormatError(f"{where}: {rows!r:.60}, expected positions of two numbers or more")
    return table


def _bent(pixels: Array, rest: Array, across: Callable[[Array], Array]) -> tuple[Array, Array]:
    """The places of a line, and more on its edges, so that edges between them stay straight."""
    table = np.column_stack([pixels, rest])
    for _ in range(MOST_HALVINGS):
        start, stop = table[:-1, :2], table[1:, :2]
        a, b = across(start), across(stop)
        off = np.zeros(len(start))
        for share in _SHARES:
            exact = across(start + share * (stop - start))
            off = np.fmax(off, np.linalg.norm(exact - (a + share * (b - a)), axis=1))
        split = np.flatnonzero(off > TOLERANCE_PX)
        if len(split) == 0:
            break
        table = np.insert(table, split + 1, (table[split] + table[split + 1]) / 2, axis=0)
    return table[:, :2], table[:, 2:]


def _to_px(place: Georeference | None, crs: str | None, origin: Origin) -> Callable[[Array], Array]:
    half = 0.5 if origin == "corner" else 0.0
    if place is None:
        return lambda xy: xy - half
    if crs is None or crs == place.crs or not place.crs:
        return place.from_map
    warp = import_extra("rasterio.warp", "coordinates of another reference system", "geo")

    def transformed(xy: Array) -> Array:
        try:
            x, y = warp.transform(crs, place.crs, xy[:, 0].tolist(), xy[:, 1].tolist())
        except Exception as error:  # GDAL and PROJ have errors of their own
            raise FormatError(
                f"crs is {crs!r:.80}: coordinates cannot be converted from it ({error})"
            ) from error
        return place.from_map(np.stack([x, y], axis=1))

    return transformed


def _from_px(place: Georeference | None, origin: Origin) -> Callable[[Array], Array]:
    half = 0.5 if origin == "corner" else 0.0
    if place is None:
        return lambda xy: xy + half
    return place.to_map


def _crs_of(geojson: Any) -> str | None:
    """The reference system that a file names; None without one."""
    if not isinstance(geojson, dict) or geojson.get("crs") is None:
        return None
    try:
        name = geojson["crs"]["properties"]["name"]
        authority, _, code = name.removeprefix("urn:ogc:def:crs:").partition(":")
    except (LookupError, TypeError, AttributeError) as error:
        raise FormatError(
            f"crs is {geojson['crs']!r:.80}, expected the name of a reference system"
        ) from error
    if authority == "OGC" and code.endswith("CRS84"):
        return "OGC:CRS84"
    return f"{authority}:{code.rpartition(':')[2]}" if code else name


def _urn(crs: str) -> str:
    authority, _, code = crs.partition(":")
    return f"urn:ogc:def:crs:{authority}::{code}" if code.isdigit() else crs
