"""`Registration`: points there and back, figures for JSON, and errors that name the reason."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest

import tiepoint
from support.registered import CAMERA, MATRICES, carried, matched, two_views
from tiepoint.errors import RegistrationError
from tiepoint.geometry import apply_homography
from tiepoint.registration.models import PLANE_MODELS
from tiepoint.registration.result import NO_RESIDUALS, Registration, Residuals


def known(matrix: Any, model: str = "homography", count: int = 10, **fields: Any) -> Registration:
    """A successful registration of 10 matches that all fit."""
    features_a, features_b, matches = matched(*carried(np.eye(3), count))
    return Registration(
        True, "ok", model, np.asarray(matrix, np.float64),  # type: ignore[arg-type]
        features_a, features_b, matches, np.ones(count, bool), **fields,
    )  # fmt: skip


def refused() -> Registration:
    return dataclasses.replace(known(np.eye(3)), success=False, reason="too dark", matrix=None)


@pytest.mark.parametrize("shape", [(0, 2), (1, 2), (5, 2), (2,)])
def test_transformed_points_have_the_shape_of_those_given(shape: tuple[int, ...]) -> None:
    result = known(MATRICES["homography"])
    xy = np.random.default_rng(0).uniform(0, 400, shape)
    there = result.transform(xy)
    assert there.shape == shape and there.dtype == np.float64
    np.testing.assert_allclose(there.reshape(-1, 2), apply_homography(result.matrix, xy))
    assert result.transform(xy.tolist() or np.zeros((0, 2))).shape == shape


@pytest.mark.parametrize("model", PLANE_MODELS)
def test_the_inverse_undoes_the_transform(model: str) -> None:
    result = known(MATRICES[model], model)
    xy = np.random.default_rng(0).uniform(0, 400, (20, 2))
    np.testing.assert_allclose(result.inverse(result.transform(xy)), xy, atol=1e-9)
    np.testing.assert_allclose(result.transform(result.inverse(xy)), xy, atol=1e-9)


def test_points_behind_the_camera_are_nan_and_the_others_are_not() -> None:
    result = known([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1]])  # w = 0 at x = 100
    there = result.transform([[50, 10], [100, 10], [150, 10]])
    np.testing.assert_allclose(there[0], [100, 20])
    assert np.isnan(there[1:]).all()


@pytest.mark.parametrize("xy", [np.zeros((2, 3)), np.zeros(3), np.zeros((1, 2, 2)), 5.0, []])
def test_what_are_no_points_is_refused_with_its_shape(xy: Any) -> None:
    with pytest.raises(RegistrationError, match="expected \\(N, 2\\), or \\(2,\\) for one point"):
        known(np.eye(3)).transform(xy)


@pytest.mark.parametrize("method", ["transform", "inverse"])
def test_a_failed_registration_transforms_nothing_and_gives_its_reason(method: str) -> None:
    with pytest.raises(RegistrationError, match="not registered: too dark"):
        getattr(refused(), method)([[0, 0]])


@pytest.mark.parametrize("model", ["fundamental", "essential"])
@pytest.mark.parametrize("method", ["transform", "inverse"])
def test_a_two_view_model_maps_points_to_lines_only(model: str, method: str) -> None:
    with pytest.raises(RegistrationError, match=f"a {model} matrix .* {method} needs one of homog"):
        getattr(known(np.eye(3), model), method)([[0, 0]])


def test_the_matched_positions_are_those_of_the_pairs() -> None:
    result = known(np.eye(3))
    order = np.array([4, 1])
    fewer = dataclasses.replace(
        result, matches=result.matches.take(order), inliers=np.ones(2, bool)
    )
    np.testing.assert_array_equal(fewer.xy_a, result.features_a.xy[order])
    np.testing.assert_array_equal(fewer.xy_b, result.features_b.xy[order])


def test_the_inlier_ratio_is_zero_without_matches() -> None:
    assert known(np.eye(3), count=0).inlier_ratio == 0
    half = dataclasses.replace(known(np.eye(3)), inliers=np.arange(10) % 2 == 0)
    assert half.inlier_ratio == 0.5


def test_a_result_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        known(np.eye(3)).success = False  # type: ignore[misc]


def test_the_summary_is_json_and_keeps_every_figure() -> None:
    result = known(
        MATRICES["affine"], "affine", coverage=0.25, reprojection_px=Residuals(0.5, 0.75),
        overlap_sd_px=0.125, corner_sd_px=2.0,
    )  # fmt: skip
    summary = json.loads(json.dumps(result.summary()))
    assert summary == {
        "success": True, "reason": "ok", "model": "affine",
        "matrix": MATRICES["affine"].tolist(), "rotation": None, "translation": None,
        "keypoints": [10, 10], "matches": 10, "inliers": 10, "inlier_ratio": 1.0,
        "coverage": 0.25, "agreement": None, "reprojection_px": {"median": 0.5, "rms": 0.75},
        "overlap_sd_px": 0.125, "corner_sd_px": 2.0, "size_hw": [[480, 640], [480, 640]],
    }  # fmt: skip


@pytest.mark.parametrize("unknown", [math.nan, math.inf])
def test_unknown_figures_are_none_in_the_summary(unknown: float) -> None:
    result = dataclasses.replace(
        refused(), overlap_sd_px=unknown, corner_sd_px=unknown, reprojection_px=NO_RESIDUALS
    )
    summary = json.loads(json.dumps(result.summary(), allow_nan=False))
    assert summary["overlap_sd_px"] is None and summary["corner_sd_px"] is None
    assert summary["reprojection_px"] == {"median": None, "rms": None}
    assert summary["matrix"] is None and summary["reason"] == "too dark"


def test_the_summary_of_a_pose_has_rotation_and_translation() -> None:
    features_a, features_b, matches = matched(*two_views(200, noise_px=0.2))
    result = tiepoint.register(
        features_a, features_b, matches=matches, model="essential", intrinsics=CAMERA
    )
    summary = json.loads(json.dumps(result.summary()))
    np.testing.assert_array_equal(summary["rotation"], result.rotation)
    np.testing.assert_array_equal(summary["translation"], result.translation)
    assert summary["overlap_sd_px"] is None


def test_the_text_of_a_result_is_short_and_names_what_matters() -> None:
    result = known(np.eye(3), overlap_sd_px=0.256)
    text = "Registration(homography, 10 of 10 matches, known to 0.26 px)"
    assert repr(result) == text
    assert repr(known(np.eye(3), "fundamental")) == "Registration(fundamental, 10 of 10 matches)"
    assert repr(refused()) == "Registration(not registered: too dark)"


def test_a_pickled_result_comes_back_with_the_same_bits() -> None:
    result = known(MATRICES["homography"], coverage=0.5)
    again = pickle.loads(pickle.dumps(result))
    for field in dataclasses.fields(result):
        one, other = getattr(result, field.name), getattr(again, field.name)
        if isinstance(one, np.ndarray):
            assert one.tobytes() == other.tobytes()
        elif isinstance(one, str | bool | float):
            assert one == other or math.isnan(one)
    np.testing.assert_array_equal(again.matches.pairs, result.matches.pairs)
