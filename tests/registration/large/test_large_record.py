"""Transform files: written, read back, and refused when damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.large_results import BENT, MATRIX, PLACE_A, PLACE_B, result
from tiepoint.errors import FormatError, ImageError, RegistrationError
from tiepoint.registration.large.record import load_transform, save_transform, transform_json
from tiepoint.registration.large.transform import LargeTransform

PLACES = np.random.default_rng(0).uniform(0, 400, (50, 2))


@pytest.mark.parametrize("transform", [BENT, LargeTransform(MATRIX)], ids=["bent", "plane"])
def test_a_file_holds_the_whole_result(transform: LargeTransform, tmp_path: Path) -> None:
    written = result(transform, georeferences=(PLACE_A, None))
    save_transform(tmp_path / "t.json", written)
    read = load_transform(tmp_path / "t.json")
    np.testing.assert_array_equal(read.transform(PLACES), written.transform(PLACES))
    np.testing.assert_array_equal(read.inverse(PLACES), written.inverse(PLACES))
    np.testing.assert_allclose(read.xy_b, written.xy_b, atol=1e-4)
    np.testing.assert_allclose(
        read.residual_map.offsets_px, written.residual_map.offsets_px, atol=1e-3
    )
    assert read.summary() == written.summary()
    assert read.georeferences == written.georeferences
    assert transform_json(read)["residual_map"] == transform_json(written)["residual_map"]


def test_a_failure_is_recorded_too(tmp_path: Path) -> None:
    save_transform(tmp_path / "t.json", result(None))
    read = load_transform(tmp_path / "t.json")
    assert not read.success and read.mapping is None
    with pytest.raises(RegistrationError, match="too little that is alike"):
        read.transform([1, 2])


def test_map_coordinates_are_those_of_b() -> None:
    found = result(georeferences=(None, PLACE_B))
    x, y = found.transform([100.0, 50.0]) + 0.5
    np.testing.assert_allclose(
        found.to_map([100.0, 50.0]), [499_000 + 1.5 * x, 5_001_000 - 1.5 * y]
    )
    np.testing.assert_allclose(PLACE_A.from_map(PLACE_A.to_map(PLACES)), PLACES, atol=1e-6)
    control = transform_json(found)["control_points"]["map"]
    np.testing.assert_allclose(control, found.to_map(found.xy_a), atol=1e-6)
    left_out = found.summary()["left_out_map"]
    assert left_out == {"median": 0.75, "rms": 1.5, "crs": "EPSG:25832"}
    with pytest.raises(RegistrationError, match=r"b.tif: image B has no map position"):
        result().to_map([1, 2])


def test_points_of_another_shape_are_refused() -> None:
    with pytest.raises(RegistrationError, match=r"shape \(3,\), expected \(N, 2\)"):
        result().transform([1, 2, 3])


def broken(**changes: Any) -> str:
    return json.dumps({**transform_json(result()), **changes})


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "nonsense",
        broken(tiepoint_transform=2),
        broken(matrix=[[1, 0], [0, 1]]),
        broken(matrix=np.zeros((3, 3)).tolist()),
        broken(deformation={"origin_xy": [0, 0], "spacing_px": 0, "coefficients": [[[0, 0]]]}),
        broken(model="spline"),
        broken(size_hw=[[0, 5], [5, 5]]),
        broken(control_points={"a": [[1, 2]], "b": [], "inlier": []}),
        broken(georeferences=[{"geotransform": [0] * 6, "crs": ""}, None]),
        broken(coverage=None),
    ],
)
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=r"t.json: not a transform by tiepoint register-large"):
        load_transform(tmp_path / "t.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none.json: cannot be read"):
        load_transform(tmp_path / "none.json")
