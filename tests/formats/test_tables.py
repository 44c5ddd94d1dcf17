"""Tables of keypoints and matches: what pandas, pyarrow and programs for maps read."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support import matches_files
from support.features_files import assert_equal, make
from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Features, Matches
from tiepoint.formats import load, save, save_geojson, save_matches_table

pd = pytest.importorskip("pandas")
pq = pytest.importorskip("pyarrow.parquet")

NAMES = ["x", "y", "score", "scale_px", "cov_xx", "cov_xy", "cov_yy"]
GEOTRANSFORM = (500_000.0, 0.5, 0.1, 4_000_000.0, 0.2, -0.5)


@pytest.mark.parametrize("count", [1, 30])
def test_pandas_reads_the_csv_as_it_is(tmp_path: Path, count: int) -> None:
    features = make(count)
    save(features, tmp_path / "x.csv")
    table = pd.read_csv(tmp_path / "x.csv")
    assert list(table.columns) == [*NAMES, "tiepoint"] and len(table) == count
    numbers = table[NAMES].to_numpy(np.float32)
    np.testing.assert_array_equal(numbers[:, :2], features.xy)
    np.testing.assert_array_equal(numbers[:, 3], features.scales_px)
    np.testing.assert_array_equal(numbers[:, 5], features.covariance[:, 0, 1])
    assert json.loads(table.tiepoint[0])["meta"]["source"] == "fake.png"
    assert table.tiepoint[1:].isna().all()


def test_csv_of_no_keypoints_has_the_record_alone(tmp_path: Path) -> None:
    save(make(0), tmp_path / "x.csv")
    table = pd.read_csv(tmp_path / "x.csv")
    assert len(table) == 1 and len(table.dropna(subset=["x"])) == 0
    assert len(load(tmp_path / "x.csv")) == 0


@pytest.mark.parametrize("ending", [".csv", ".geojson", ".parquet"])
@pytest.mark.parametrize("count", [1, 7])
def test_descriptors_are_stored_when_asked_for(tmp_path: Path, ending: str, count: int) -> None:
    path, features = tmp_path / f"x{ending}", make(count, 12)
    save(features, path, descriptors=True)
    assert_equal(load(path), features)
    save(features, path, descriptors=False)
    assert_equal(load(path), replace(features, descriptors=None))
    save(features, path)
    assert (load(path).descriptors is None) == (ending != ".parquet")


def test_parquet_has_typed_columns_and_descriptors_as_lists(tmp_path: Path) -> None:
    features = make(9, 5)
    save(features, tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.column_names == [*NAMES, "descriptor"]
    assert {str(table.schema.field(name).type) for name in NAMES} == {"float"}
    frame = pd.read_parquet(tmp_path / "x.parquet")
    np.testing.assert_array_equal(np.stack(frame.descriptor), features.descriptors)


def test_parquet_of_another_program_and_changed_ones_are_refused(tmp_path: Path) -> None:
    pd.DataFrame({"x": [1.0]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(FormatError, match="no metadata 'tiepoint'"):
        load(tmp_path / "x.parquet")
    save(make(3), tmp_path / "y.parquet")
    pq.write_table(pq.read_table(tmp_path / "y.parquet").slice(0, 2), tmp_path / "y.parquet")
    with pytest.raises(FormatError, match="2 rows, its record states 3"):
        load(tmp_path / "y.parquet")


def test_parquet_that_another_program_sorted_and_wrote_again_is_read(tmp_path: Path) -> None:
    save(make(50), tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    pq.write_table(table, tmp_path / "y.parquet", row_group_size=7, compression="gzip")
    assert_equal(load(tmp_path / "y.parquet"), make(50))


def test_geojson_holds_points_in_px(tmp_path: Path) -> None:
    xy, scores = np.array([[0.5, 2.25]], "f4"), np.array([0.1], "f4")
    save(Features(xy, scores, None, (4, 6)), tmp_path / "x.geojson")
    held = json.loads((tmp_path / "x.geojson").read_text())
    assert held["type"] == "FeatureCollection" and held["tiepoint"]["size_hw"] == [4, 6]
    assert held["features"] == [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [0.5, 2.25]},
            "properties": {"score": 0.1},
        }
    ]


def test_geojson_in_map_coordinates_follows_gdal_and_is_read_back_in_px(tmp_path: Path) -> None:
    """GDAL's (0, 0) is the outer corner of the top-left pixel."""
    features = replace(make(20), xy=np.vstack([[[0, 0]], make(19).xy]).astype(np.float32))
    path = tmp_path / "x.geojson"
    save_geojson(features, path, geotransform=GEOTRANSFORM, epsg=32633)
    held = json.loads(path.read_text())
    x0, dx, rx, y0, ry, dy = GEOTRANSFORM
    first = held["features"][0]["geometry"]["coordinates"]
    assert first == pytest.approx([x0 + (dx + rx) / 2, y0 + (ry + dy) / 2], abs=1e-6)
    assert held["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    back = load(path)
    np.testing.assert_allclose(back.xy, features.xy, atol=1e-4)
    np.testing.assert_array_equal(back.scores, features.scores)
    assert back.provenance == features.provenance


@pytest.mark.parametrize(
    "bad", [(1, 2, 3), (0, 1, 0, 0, 0, float("nan")), (0, 1, 1, 0, 1, 1), "123456", 5]
)
def test_a_geotransform_that_is_none_is_refused(tmp_path: Path, bad: object) -> None:
    with pytest.raises(ConfigError, match="geotransform"):
        save_geojson(make(), tmp_path / "x.geojson", geotransform=bad)
    with pytest.raises(FormatError, match=r"expected the ending \.geojson"):
        save_geojson(make(), tmp_path / "x.json")


@pytest.mark.parametrize("bad", ["EPSG:32633", '1"', 0, -1, 32633.5, True])
def test_a_reference_system_that_is_no_code_is_refused(tmp_path: Path, bad: object) -> None:
    with pytest.raises(ConfigError, match="epsg"):
        save_geojson(make(), tmp_path / "x.geojson", epsg=bad)
    assert not (tmp_path / "x.geojson").exists()


def test_a_dataframe_has_a_row_for_each_keypoint() -> None:
    features = make(6, 3)
    table = features.to_dataframe()
    assert list(table.columns) == NAMES and (table.dtypes == np.float32).all()
    assert table.attrs == {"size_hw": (480, 640), "source": "fake.png"}
    table.loc[0, "x"] = -1  # a copy
    assert features.xy[0, 0] != -1
    described = features.to_dataframe(descriptors=True)
    np.testing.assert_array_equal(np.stack(described.descriptor), features.descriptors)
    bare = Features(features.xy, features.scores, None, (480, 640))
    assert list(bare.to_dataframe(descriptors=True).columns) == ["x", "y", "score"]


def test_a_dict_of_columns_is_plain_json() -> None:
    features = make(4, 2)
    columns = json.loads(json.dumps(features.to_dict(descriptors=True)))
    assert list(columns) == [*NAMES, "descriptor"]
    np.testing.assert_array_equal(np.float32(columns["score"]), features.scores)
    assert np.shape(columns["descriptor"]) == (4, 2)


def test_tables_of_matches_hold_the_positions_of_both_images(tmp_path: Path) -> None:
    a, b = make(8), make(5)
    pairs = np.array([[7, 0], [2, 4]], np.int64)
    matches = Matches(pairs, np.array([0.9, 0.1], np.float32))
    names = ["index_a", "index_b", "x_a", "y_a", "x_b", "y_b", "score"]
    save_matches_table(matches, a, b, tmp_path / "m.csv")
    save_matches_table(matches, a, b, tmp_path / "m.parquet")
    for table in (
        matches.to_dataframe(a, b),
        pd.read_csv(tmp_path / "m.csv"),
        pd.read_parquet(tmp_path / "m.parquet"),
    ):
        assert list(table.columns) == names
        np.testing.assert_array_equal(table[["index_a", "index_b"]], pairs)
        np.testing.assert_array_equal(table[["x_b", "y_b"]].to_numpy(np.float32), b.xy[[0, 4]])
    assert list(matches.to_dict()) == ["index_a", "index_b", "score"]
    assert json.dumps(matches.to_dict(a, b))
    with pytest.raises(ConfigError, match="keypoint 7 of image A, which has 5"):
        matches.to_dataframe(b, a)
    with pytest.raises(FormatError, match="the ending picks the format"):
        save_matches_table(matches, a, b, tmp_path / "m.npz")


def test_matches_without_rows_make_a_table(tmp_path: Path) -> None:
    save_matches_table(matches_files.make(0), make(1), make(1), tmp_path / "m.csv")
    assert len(pd.read_csv(tmp_path / "m.csv")) == 0


@pytest.mark.parametrize(
    ("module", "call", "extra"),
    [("pandas", "features.to_dataframe()", "pandas"),
     ("pyarrow", "tiepoint.save(features, 'x.parquet')", "parquet")],
)  # fmt: skip
def test_a_missing_package_is_named_by_its_extra(module: str, call: str, extra: str) -> None:
    code = f"""
import sys
sys.modules[{module!r}] = None
import numpy as np, tiepoint
features = tiepoint.Features(np.zeros((1, 2), "f4"), np.ones(1, "f4"), None, (4, 4))
try:
    {call}
except tiepoint.MissingExtraError as error:
    print(error.extra)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == extra
