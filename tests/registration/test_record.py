"""A registration as JSON, and back."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest

import tiepoint
from support.registered import MATRICES, carried, matched
from tiepoint.config import RegistrationConfig
from tiepoint.errors import FormatError
from tiepoint.registration.record import is_record, read_record, record_json
from tiepoint.registration.result import Registration


@pytest.fixture(scope="module")
def result() -> Registration:
    a, b, matches = matched(*carried(MATRICES["homography"], noise_px=0.5, wrong=30))
    return tiepoint.register(a, b, matches=matches)


def values_of(result: Registration, *, points: bool = True) -> dict[str, Any]:
    values = record_json("a.jpg", "b.jpg", result, RegistrationConfig(), points=points)
    restored: dict[str, Any] = json.loads(json.dumps(values, allow_nan=False))
    return restored


def test_a_registration_is_as_it_was(result: Registration) -> None:
    assert result.success
    record = read_record(values_of(result))
    one = record.registration
    np.testing.assert_array_equal(one.matrix, result.matrix)
    np.testing.assert_allclose(one.xy_a, result.xy_a, atol=6e-4)
    np.testing.assert_allclose(one.xy_b, result.xy_b, atol=6e-4)
    np.testing.assert_array_equal(one.inliers, result.inliers)
    assert one.reprojection_px == result.reprojection_px
    assert one.overlap_sd_px == result.overlap_sd_px and one.coverage == result.coverage
    assert (record.a, record.b, record.keypoints) == ("a.jpg", "b.jpg", (200, 200))
    assert (record.matches, record.inliers) == (200, int(result.inliers.sum()))
    assert record.has_points and record.version == tiepoint.__version__
    assert record.settings is not None and record.settings["model"] == "homography"
    assert record.date is not None and record.date.endswith("+00:00")


def test_without_points_the_counts_and_the_transform_remain(result: Registration) -> None:
    record = read_record(values_of(result, points=False))
    assert not record.has_points and record.matches == 200
    np.testing.assert_allclose(
        record.registration.transform([[10, 20]]), result.transform([[10, 20]])
    )


def test_a_refused_registration_has_its_reason_and_no_matrix() -> None:
    a, b, matches = matched(*carried(MATRICES["homography"], wrong=195))
    refused = tiepoint.register(a, b, matches=matches)
    record = read_record(values_of(refused))
    assert not record.registration.success and record.registration.matrix is None
    assert record.registration.reason == refused.reason
    assert math.isnan(record.registration.agreement)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("matrix", [[1, 0], [0, 1]]), ("matrix", [[0.0] * 3] * 3), ("matrix", None),
        ("matrix", [[math.nan] * 3] * 3), ("size_hw", [[0, 1], [1, 1]]), ("size_hw", 3),
        ("size_hw", [[10**12, 1], [1, 1]]), ("model", "magic"), ("success", 1), ("a", 7),
        ("keypoints", [1]), ("matches", -1), ("inliers", True), ("coverage", "much"),
        ("points", {"a": [[1, 2]], "b": [], "inlier": []}), ("points", []),
        ("points", {"a": [[1, 2]], "b": [[1, 2]], "inlier": [1]}),
        ("points", {"a": [[1, 1e99]], "b": [[1, 2]], "inlier": [True]}),
        ("reprojection_px", {}),
    ],
)  # fmt: skip
def test_damaged_values_are_refused(result: Registration, name: str, value: Any) -> None:
    values = copy.deepcopy(values_of(result))
    values[name] = value
    assert is_record(values)
    with pytest.raises(FormatError, match="not a registration"):
        read_record(values)


@pytest.mark.parametrize("values", [None, [], {}, {"a": 1}, "text"])
def test_other_json_is_no_record(values: Any) -> None:
    assert not is_record(values)
    with pytest.raises(FormatError):
        read_record(values)
