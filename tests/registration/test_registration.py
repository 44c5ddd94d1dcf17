"""register: right answers with honest figures, and a reason instead of a wrong answer."""

from __future__ import annotations

import dataclasses
import logging
import math
import pickle

import numpy as np
import pytest
from numpy.typing import NDArray

import tiepoint
from support.registered import (
    CAMERA,
    DIRECTION,
    MATRICES,
    ROTATION,
    SIZE_HW,
    carried,
    corners_off_px,
    matched,
    two_views,
)
from tiepoint.config import RegistrationConfig
from tiepoint.errors import ConfigError, ImageError, RegistrationError
from tiepoint.features import Features, Matches
from tiepoint.geometry import apply_homography, corners_xy
from tiepoint.registration.fit import LEAST_SD, SHARED_ERRORS
from tiepoint.registration.models import PLANE_MODELS
from tiepoint.registration.register import register


def of_points(a: np.ndarray, b: np.ndarray, model: str, **options: object) -> tiepoint.Registration:
    features_a, features_b, matches = matched(a, b)
    return register(features_a, features_b, model=model, matches=matches, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", PLANE_MODELS)
def test_every_plane_model_is_found_to_a_fraction_of_a_pixel(model: str) -> None:
    truth = MATRICES[model]
    result = of_points(*carried(truth, 300, noise_px=0.5, wrong=120), model)
    assert result.success and result.reason == "ok" and result.model == model
    assert corners_off_px(result, truth) < min(0.7, 4 * result.corner_sd_px)
    assert 0.58 < result.inlier_ratio < 0.65
    assert result.coverage > 0.6
    # Two coordinates of 0.5 px each: rms 0.71, the median of their Rayleigh distribution 0.59.
    assert result.reprojection_px.rms == pytest.approx(0.71, abs=0.1)
    assert result.reprojection_px.median == pytest.approx(0.59, abs=0.1)
    assert result.overlap_sd_px < 0.2
    assert result.corner_sd_px < 0.4
    assert result.matrix is not None and result.matrix[2, 2] == 1


@pytest.mark.parametrize("model", PLANE_MODELS)
def test_there_and_back_is_where_one_started(model: str) -> None:
    result = of_points(*carried(MATRICES[model]), model)
    points = corners_xy(SIZE_HW)
    np.testing.assert_allclose(result.inverse(result.transform(points)), points, atol=1e-8)
    assert result.transform(points[1]).shape == (2,)
    np.testing.assert_array_equal(result.transform(points[1]), result.transform(points)[1])


def test_two_views_of_a_scene_give_the_pose() -> None:
    a, b = two_views(300, noise_px=0.3, wrong=100)
    result = of_points(a, b, "essential", intrinsics=CAMERA)
    assert result.success
    assert result.rotation is not None and result.translation is not None
    np.testing.assert_allclose(result.rotation, ROTATION, atol=2e-3)
    np.testing.assert_allclose(result.translation, DIRECTION, atol=1e-2)
    assert np.isnan(result.overlap_sd_px)
    rays = [np.column_stack([xy, np.ones(300)]) @ np.linalg.inv(CAMERA).T for xy in (a, b)]
    lines = np.abs((rays[1] * (rays[0] @ result.matrix.T)).sum(axis=1))  # type: ignore[union-attr]
    assert np.median(lines[100:]) < 1e-3


def test_two_views_of_a_scene_give_the_fundamental_matrix() -> None:
    a, b = two_views(300, noise_px=0.3, wrong=100)
    result = of_points(a, b, "fundamental")
    assert result.success and result.rotation is None
    assert result.inliers[100:].mean() > 0.98
    assert result.reprojection_px.median < 0.4


def test_a_plane_leaves_the_fundamental_matrix_open_and_a_turn_the_pose() -> None:
    plane = of_points(*carried(MATRICES["homography"], noise_px=0.3), "fundamental")
    assert not plane.success and plane.matrix is None
    assert "one plane" in plane.reason
    turned = two_views(noise_px=0.3, direction=np.zeros(3))
    result = of_points(*turned, "essential", intrinsics=CAMERA)
    assert not result.success and result.rotation is None
    assert "a rotation of the camera" in result.reason


@pytest.mark.parametrize("model", [*PLANE_MODELS, "fundamental", "essential"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 14])
def test_a_handful_of_matches_is_refused_with_their_number(model: str, count: int) -> None:
    intrinsics = CAMERA if model == "essential" else None
    result = of_points(*carried(np.eye(3), count), model, intrinsics=intrinsics)
    assert not result.success and result.matrix is None
    assert "15 matches are asked for" in result.reason
    assert ("no keypoints in images A and B" if count == 0 else f"{count} matches") in result.reason


@pytest.mark.parametrize("model", [*PLANE_MODELS, "fundamental", "essential"])
def test_matches_that_are_all_wrong_are_refused(model: str) -> None:
    intrinsics = CAMERA if model == "essential" else None
    for seed in range(5):
        points = carried(np.eye(3), 300, wrong=300, seed=seed * 10)
        result = of_points(*points, model, intrinsics=intrinsics)
        assert not result.success
        assert "show different things" in result.reason


@pytest.mark.parametrize("model", ["affine", "homography"])
def test_points_on_one_line_are_refused(model: str) -> None:
    a, b = carried(MATRICES["affine"], noise_px=0.3)
    a[:, 1] = 100 + 0.2 * a[:, 0]
    b = apply_homography(MATRICES["affine"], a) + np.random.default_rng(0).normal(0, 0.3, b.shape)
    result = of_points(a, b, model)
    assert not result.success
    assert "line" in result.reason


def test_points_in_one_corner_are_refused_because_the_rest_is_not_known() -> None:
    a, _ = carried(np.eye(3), 40)
    a *= 0.08
    b = a + np.random.default_rng(0).normal(0, 0.7, a.shape)
    result = of_points(a, b, "homography")
    assert not result.success
    assert "open by" in result.reason
    assert of_points(a, b, "homography", max_overlap_sd_px=1e3).success


def test_a_mirrored_image_is_refused() -> None:
    points = carried(np.array([[-1.0, 0, 639], [0, 1, 0], [0, 0, 1]]))
    assert "mirror image" in of_points(*points, "affine").reason
    for model in PLANE_MODELS:
        assert not of_points(*points, model).success


@pytest.mark.parametrize(
    ("asked", "true"),
    [("translation", "similarity"), ("similarity", "affine"), ("affine", "homography")],
)
def test_a_model_that_is_too_simple_is_refused(asked: str, true: str) -> None:
    result = of_points(*carried(MATRICES[true], 600, noise_px=0.3), asked, min_inliers=4)
    assert not result.success
    assert 'register with "homography"' in result.reason or "fit a" in result.reason


def test_points_that_are_not_finite_are_left_out() -> None:
    a, b = carried(MATRICES["homography"], noise_px=0.3)
    a[:30], b[40:60] = np.nan, np.inf
    result = of_points(a, b, "homography")
    assert result.success
    assert not result.inliers[:30].any() and not result.inliers[40:60].any()
    assert not of_points(np.full((50, 2), np.nan), np.zeros((50, 2)), "homography").success


def test_the_order_of_matches_changes_nothing_and_a_seed_repeats() -> None:
    a, b = carried(MATRICES["homography"], 300, noise_px=0.8, wrong=180)
    order = np.random.default_rng(1).permutation(300)
    first, second = of_points(a, b, "homography"), of_points(a[order], b[order], "homography")
    np.testing.assert_array_equal(first.matrix, second.matrix)
    np.testing.assert_array_equal(first.inliers[order], second.inliers)
    again = of_points(a, b, "homography", seed=0)
    np.testing.assert_array_equal(first.matrix, again.matrix)
    assert of_points(a, b, "homography", seed=7).success


def test_distances_grow_with_the_image_the_detector_reduced() -> None:
    a, b = carried(MATRICES["homography"], 200, noise_px=0.5)
    features_a, features_b, matches = matched(a * 4, b * 4)
    large = [
        dataclasses.replace(f, size_hw=(1920, 2560), px_per_input_px=4.0)
        for f in (features_a, features_b)
    ]
    scale = np.diag([4.0, 4.0, 1.0])
    result = register(*large, matches=matches)
    assert result.success and result.inlier_ratio > 0.98
    assert corners_off_px(result, scale @ MATRICES["homography"] @ np.linalg.inv(scale)) < 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "perspective"}, "'perspective', expected one of homography"),
        ({"min_inliers": 0}, "min_inliers"),
        ({"threshold_px": float("nan")}, "threshold_px"),
        ({"threshold_px": -1.0}, "threshold_px"),
        ({"max_false_alarms": 0.0}, "max_false_alarms"),
        ({"seed": -1}, "seed"),
        ({"pose_search": "colmap"}, "pose_search"),
        ({"treshold_px": 3.0}, "unknown option treshold_px"),
        ({"model": "essential"}, "needs intrinsics"),
        ({"intrinsics": CAMERA}, "intrinsics are for"),
        ({"model": "essential", "intrinsics": np.eye(2)}, "shape"),
        ({"model": "essential", "intrinsics": -CAMERA}, "not those of a camera"),
        ({"model": "essential", "intrinsics": "wide"}, "no numbers"),
        ({"matches": Matches(np.array([[0, 99]]), np.ones(1, np.float32))}, "beyond"),
    ],
)
def test_nonsense_is_refused_before_any_work(options: dict[str, object], message: str) -> None:
    features = Features(np.zeros((3, 2), np.float32), np.ones(3, np.float32), None, SIZE_HW)
    with pytest.raises(ConfigError, match=message):
        register(features, features, **options)  # type: ignore[arg-type]


def test_what_is_no_image_is_refused(photographs: list[NDArray[np.uint8]]) -> None:
    with pytest.raises(ConfigError, match="one image at a time"):
        register([photographs[0]], photographs[0])
    with pytest.raises(ImageError, match="no such file"):
        register("gone.png", photographs[0])
    matches = Matches(np.zeros((0, 2), np.int64), np.zeros(0, np.float32))
    with pytest.raises(ConfigError, match="Features that they index"):
        register(photographs[0], photographs[0], matches=matches)
    features = Features(np.zeros((3, 2), np.float32), np.ones(3, np.float32), None, SIZE_HW)
    for masks in ({"mask_a": np.ones(SIZE_HW)}, {"mask_b": np.ones(SIZE_HW)}):
        with pytest.raises(ConfigError, match="a mask is given with matches"):
            register(features, features, matches=matches, **masks)  # type: ignore[arg-type]


def test_a_line_is_not_a_place_and_points_have_two_coordinates() -> None:
    result = of_points(*two_views(200, noise_px=0.3), "fundamental")
    with pytest.raises(RegistrationError, match="a line for each point"):
        result.transform([[0, 0]])
    with pytest.raises(RegistrationError, match="a line for each point"):
        result.inverse([[0, 0]])
    plane = of_points(*carried(MATRICES["affine"]), "affine")
    with pytest.raises(RegistrationError, match=r"\(2, 3\)"):
        plane.transform(np.zeros((2, 3)))


def test_a_result_can_be_pickled_shown_and_summed_up() -> None:
    result = of_points(*carried(MATRICES["affine"], noise_px=0.3), "affine")
    again = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(again.matrix, result.matrix)
    assert "affine" in repr(result)
    summary = result.summary()
    assert summary["success"] and summary["inliers"] == int(result.inliers.sum())
    refused = of_points(*carried(np.eye(3), 3), "affine")
    assert refused.summary()["matrix"] is None and "not registered" in repr(refused)
    assert refused.summary()["reprojection_px"] == {"median": None, "rms": None}


def test_the_defaults_of_a_call_are_those_of_the_configuration() -> None:
    a, b = carried(MATRICES["homography"], noise_px=0.5)
    features_a, features_b, matches = matched(a, b)
    plain = register(features_a, features_b, matches=matches)
    given = register(features_a, features_b, matches=matches, config=RegistrationConfig())
    np.testing.assert_array_equal(plain.matrix, given.matrix)
    config = RegistrationConfig(model="affine", min_inliers=5)
    mixed = register(features_a, features_b, model="translation", matches=matches, config=config)
    assert mixed.model == "translation"


@pytest.mark.parametrize("model", PLANE_MODELS)
def test_the_stated_deviations_are_those_of_repeated_registrations(model: str) -> None:
    """Monte Carlo: the same points measured 40 times, with a noise of 0.6 px in B."""
    truth, noise_px = MATRICES[model], 0.6
    a, clean = carried(truth, 120)
    corners, middle = corners_xy(SIZE_HW), np.array([[320.0, 240.0]])
    there, stated = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        result = of_points(a, clean + rng.normal(0, noise_px, clean.shape), model)
        assert result.success
        there.append(result.transform(np.concatenate([corners, middle])))
        stated.append((result.corner_sd_px, result.overlap_sd_px))
    scatter = np.sqrt(np.var(there, axis=0).sum(axis=1))  # 4 corners and the middle
    corner_sd, overlap_sd = np.mean(stated, axis=0)
    of_noise = float(np.sqrt((scatter[:4] ** 2).mean()))
    assert corner_sd == pytest.approx(math.hypot(SHARED_ERRORS * of_noise, LEAST_SD), rel=0.2)
    assert overlap_sd <= corner_sd * 1.001
    assert overlap_sd > 0.5 * scatter[4]


def test_a_failed_registration_has_the_features_and_matches_it_was_given() -> None:
    features_a, features_b, matches = matched(*carried(np.eye(3), 300, wrong=300))
    result = register(features_a, features_b, matches=matches)
    assert not result.success and result.matrix is None
    assert result.features_a is features_a and result.features_b is features_b
    np.testing.assert_array_equal(result.matches.pairs, matches.pairs)
    assert len(result.inliers) == 300


def test_matches_without_consensus_are_refused_with_their_number() -> None:
    same = np.full((40, 2), 7.0)
    result = of_points(same, same, "homography")
    assert not result.success and not result.inliers.all()
    assert result.reason


@pytest.mark.parametrize("model", [*PLANE_MODELS, "fundamental", "essential"])
def test_the_result_of_every_model_does_not_depend_on_the_order_of_matches(model: str) -> None:
    plane = model in PLANE_MODELS
    a, b = (
        carried(MATRICES[model], 250, noise_px=0.5, wrong=80)
        if plane
        else two_views(250, noise_px=0.3, wrong=80)
    )
    intrinsics = CAMERA if model == "essential" else None
    order = np.random.default_rng(3).permutation(250)
    first = of_points(a, b, model, intrinsics=intrinsics)
    second = of_points(a[order], b[order], model, intrinsics=intrinsics)
    assert first.success and second.success
    np.testing.assert_array_equal(first.inliers[order], second.inliers)
    np.testing.assert_allclose(first.matrix, second.matrix, rtol=1e-9, atol=1e-12)


def test_guided_matching_that_loses_inliers_keeps_the_first_fit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Descriptors that choose each other, but are less alike than guided matching asks for."""
    a, b = carried(MATRICES["homography"], 200, noise_px=0.3)
    rng = np.random.default_rng(0)
    described_a = rng.normal(size=(200, 256))
    described_a /= np.linalg.norm(described_a, axis=1, keepdims=True)
    noise = rng.normal(size=(200, 256))
    noise -= (noise * described_a).sum(axis=1, keepdims=True) * described_a
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    described_b = 0.35 * described_a + np.sqrt(1 - 0.35**2) * noise
    features_a, features_b = (
        dataclasses.replace(features, descriptors=described.astype(np.float32))
        for features, described in zip(matched(a, b)[:2], (described_a, described_b), strict=True)
    )
    with caplog.at_level(logging.DEBUG, logger="tiepoint"):
        guided = register(features_a, features_b)
    plain = register(features_a, features_b, guided=False)
    assert guided.success and plain.inliers.sum() > 150
    np.testing.assert_array_equal(guided.matrix, plain.matrix)
    np.testing.assert_array_equal(guided.matches.pairs, plain.matches.pairs)
    assert "guided matching lost inliers" in caplog.text
