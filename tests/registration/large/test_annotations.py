"""GeoJSON annotations are carried over both ways, with edges that follow the map."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from support.large_results import BENT, MATRIX, PLACE_A, PLACE_B, result
from tiepoint.errors import FormatError, RegistrationError
from tiepoint.registration.large.annotations import TOLERANCE_PX, carry_annotations
from tiepoint.registration.large.transform import LargeTransform

SQUARE = [[100, 100], [300, 110], [310, 290], [90, 300], [100, 100]]
HOLE = [[150, 150], [200, 150], [200, 200], [150, 150]]
GEOMETRIES: dict[str, Any] = {
    "Point": [120.5, 80.25],
    "MultiPoint": [[10, 20], [30, 40]],
    "LineString": SQUARE[:3],
    "MultiLineString": [SQUARE[:2], HOLE[:2]],
    "Polygon": [SQUARE, HOLE],
    "MultiPolygon": [[SQUARE, HOLE], [HOLE]],
}


def feature(kind: str) -> dict[str, Any]:
    geometry = {"type": kind, "coordinates": GEOMETRIES[kind]}
    return {"type": "Feature", "id": 7, "properties": {"name": "a"}, "geometry": geometry}


def flat(values: Any) -> list[list[float]]:
    """All positions of nested lists."""
    if isinstance(values[0], list):
        return [one for part in values for one in flat(part)]
    return [values]


@pytest.mark.parametrize("kind", sorted(GEOMETRIES))
@pytest.mark.parametrize("origin", ["centre", "corner"])
def test_a_round_trip_leads_back(kind: str, origin: Any) -> None:
    there = carry_annotations(feature(kind), result(), origin=origin)
    back = carry_annotations(there, result(), back=True, origin=origin)
    assert back["geometry"]["type"] == kind
    assert (back["id"], back["properties"]) == (7, {"name": "a"})
    found = np.array(flat(back["geometry"]["coordinates"]))
    for position in flat(GEOMETRIES[kind]):
        assert np.linalg.norm(found - position, axis=1).min() < 1e-4


@pytest.mark.parametrize(("origin", "half"), [("centre", 0.0), ("corner", 0.5)])
def test_positions_follow_the_map(origin: Any, half: float) -> None:
    there = carry_annotations(feature("Point"), result(), origin=origin)
    expected = BENT.forward(np.array([[120.5 - half, 80.25 - half]]))[0] + half
    np.testing.assert_allclose(there["geometry"]["coordinates"], expected)


def test_edges_follow_the_map() -> None:
    line = {"type": "LineString", "coordinates": [[50, 60], [450, 330]]}
    carried = np.array(carry_annotations(line, result())["coordinates"])
    assert len(carried) > 4
    share = np.linspace(0, 1, 400)[:, None]
    exact = BENT.forward(np.array([[50, 60.0]]) * (1 - share) + share * np.array([[450, 330.0]]))
    start, along = carried[:-1], np.diff(carried, axis=0)
    for place in exact:
        t = np.clip(((place - start) * along).sum(1) / np.square(along).sum(1), 0, 1)
        assert np.linalg.norm(start + t[:, None] * along - place, axis=1).min() < 2 * TOLERANCE_PX


def test_an_affine_map_adds_no_positions() -> None:
    there = carry_annotations(feature("Polygon"), result(LargeTransform(MATRIX)))
    assert [len(ring) for ring in there["geometry"]["coordinates"]] == [5, 4]


def test_a_collection_keeps_its_members_but_not_its_box() -> None:
    collection = {
        "type": "FeatureCollection",
        "name": "cells",
        "bbox": [0, 0, 1, 1],
        "features": [
            feature("Point"),
            {"type": "Feature", "properties": None, "geometry": None},
            {
                "type": "Feature",
                "properties": {},
                "geometry": {
                    "type": "GeometryCollection",
                    "geometries": [{"type": "Point", "coordinates": [1, 2, 30.5]}],
                },
            },
        ],
    }
    before = json.dumps(collection)
    carried = carry_annotations(collection, result())
    assert json.dumps(collection) == before
    assert carried["name"] == "cells" and "bbox" not in carried and "crs" not in carried
    assert carried["features"][1]["geometry"] is None
    (point,) = carried["features"][2]["geometry"]["geometries"]
    assert point["coordinates"][2] == 30.5


def test_empty_geometries_stay_empty() -> None:
    for kind in ("MultiPoint", "LineString", "Polygon"):
        empty = {"type": kind, "coordinates": []}
        assert carry_annotations(empty, result()) == empty


def test_images_with_a_map_position_have_map_coordinates() -> None:
    placed = result(georeferences=(PLACE_A, PLACE_B))
    xy = np.array([120.5, 80.25])
    on_map = {"type": "Point", "coordinates": PLACE_A.to_map(xy).tolist()}
    carried = carry_annotations(on_map, placed)
    np.testing.assert_allclose(carried["coordinates"], placed.to_map(xy), atol=1e-6)
    assert carried["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::25832"
    again = carry_annotations(carried, placed, back=True)
    np.testing.assert_allclose(again["coordinates"], on_map["coordinates"], atol=1e-4)


def test_another_reference_system_is_converted() -> None:
    warp = pytest.importorskip("rasterio.warp", reason="needs the extra geo")
    placed = result(georeferences=(PLACE_A, PLACE_B))
    x, y = PLACE_A.to_map(np.array([120.5, 80.25]))
    (longitude,), (latitude,) = warp.transform("EPSG:25832", "OGC:CRS84", [x], [y])
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
    point = {"type": "Point", "coordinates": [longitude, latitude], "crs": crs}
    carried = carry_annotations(point, placed)
    np.testing.assert_allclose(carried["coordinates"], placed.to_map([120.5, 80.25]), atol=1e-2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "type None"),
        ({"type": "Circle", "coordinates": [1, 2]}, "type 'Circle'"),
        ({"type": "Point"}, "type 'Point'"),
        ({"type": ["Point"], "coordinates": [1, 2]}, "type \\['Point'\\]"),
        ({"type": "Point", "coordinates": [1]}, "positions of two numbers"),
        ({"type": "Point", "coordinates": ["a", "b"]}, "positions of two numbers"),
        ({"type": "LineString", "coordinates": [[1, 2], [3]]}, "positions of two numbers"),
        ({"type": "Polygon", "coordinates": [5]}, "positions of two numbers|list of positions"),
        ({"type": "FeatureCollection", "features": [{"type": "Feature"}]}, "feature 0: type"),
        ({"type": "Point", "coordinates": [1, 2], "crs": {"type": "link"}}, "crs is"),
    ],
)
def test_what_is_no_geojson_is_refused(value: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        carry_annotations(value, result())


def test_a_position_behind_the_camera_is_refused() -> None:
    tilted = LargeTransform(np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1.0]]))
    point = {"type": "Point", "coordinates": [200, 5]}
    with pytest.raises(RegistrationError, match="no place for the position x 200, y 5 px"):
        carry_annotations(point, result(tilted))


def test_a_failed_registration_carries_nothing() -> None:
    with pytest.raises(RegistrationError, match="not registered"):
        carry_annotations(feature("Point"), result(None))


@pytest.mark.parametrize(
    ("name", "xy"),
    [("EPSG:999999", [9, 45]), ("nonsense", [9, 45]), ("", [9, 45]), ("EPSG:4326", [9, 100])],
)
def test_coordinates_that_cannot_be_converted_are_refused(name: str, xy: list[float]) -> None:
    pytest.importorskip("rasterio", reason="needs the extra geo")
    crs = {"type": "name", "properties": {"name": name}}
    placed = result(georeferences=(PLACE_A, PLACE_B))
    with pytest.raises(FormatError, match=r"crs is .*cannot be converted"):
        carry_annotations({"type": "Point", "coordinates": xy, "crs": crs}, placed)
