"""Estimating a model: consensus then refinement, the same for the same matches, None for none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support.registered import (
    CAMERA,
    DIRECTION,
    MATRICES,
    ROTATION,
    carried,
    matched,
    scattered,
    two_views,
)
from tiepoint.config import Model
from tiepoint.geometry import apply_homography
from tiepoint.registration import epipolar, planar
from tiepoint.registration.estimation import (
    estimate_model,
    matched_xy,
    shuffled,
)
from tiepoint.registration.models import MODELS, PLANE_MODELS

CAMERAS = (CAMERA, CAMERA)


def points_for(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """300 matches of the model, 100 of them wrong."""
    if model in PLANE_MODELS:
        return carried(MATRICES[model], 300, noise_px=0.3, wrong=100)
    return two_views(300, noise_px=0.3, wrong=100)


def options_for(model: Model) -> dict[str, Any]:
    cameras = CAMERAS if model == "essential" else None
    return {"model": model, "within_px": MODELS[model].inlier_px, "cameras": cameras}


@pytest.mark.parametrize("model", MODELS)
def test_every_model_separates_right_from_wrong_matches(model: Model) -> None:
    a, b = points_for(model)
    estimate = estimate_model(a, b, **options_for(model))
    assert estimate is not None
    assert estimate.matrix.shape == (3, 3) and estimate.inliers.shape == (300,)
    assert estimate.inliers[100:].mean() > 0.95
    assert estimate.inliers[:100].mean() < 0.15
    assert (estimate.pose is not None) == (model == "essential")


@pytest.mark.parametrize("model", MODELS)
def test_the_inliers_are_those_within_the_threshold_of_the_matrix(model: Model) -> None:
    a, b = points_for(model)
    estimate = estimate_model(a, b, **options_for(model))
    assert estimate is not None
    if model in PLANE_MODELS:
        distances = planar.distances_px(estimate.matrix, a, b)
    else:
        lines = estimate.matrix
        if model == "essential":
            lines = epipolar.pixel_matrix(lines, CAMERAS)
        distances = epipolar.sampson_px(lines, a, b)
    np.testing.assert_array_equal(estimate.inliers, distances <= MODELS[model].inlier_px)


@pytest.mark.parametrize("model", MODELS)
def test_the_same_matches_give_the_same_bits(model: Model) -> None:
    a, b = points_for(model)
    first, second = (estimate_model(a, b, **options_for(model)) for _ in range(2))
    assert first is not None and second is not None
    assert first.matrix.tobytes() == second.matrix.tobytes()
    np.testing.assert_array_equal(first.inliers, second.inliers)


@pytest.mark.parametrize("model", MODELS)
def test_fewer_matches_than_a_sample_give_no_model(model: Model) -> None:
    a, b = points_for(model)
    for count in range(MODELS[model].sample_size):
        assert estimate_model(a[:count], b[:count], **options_for(model)) is None


@pytest.mark.parametrize("model", PLANE_MODELS)
def test_a_start_replaces_the_consensus(model: Model) -> None:
    """From near the truth, refinement ends where the consensus and refinement end."""
    a, b = points_for(model)
    whole = estimate_model(a, b, **options_for(model))
    near = MATRICES[model] @ [[1, 0, 0.4], [0, 1, -0.3], [0, 0, 1]]
    refined = estimate_model(a, b, start=near, **options_for(model))
    assert whole is not None and refined is not None
    corners = np.array([[0, 0], [639, 0], [639, 479], [0, 479.0]])
    apart = apply_homography(refined.matrix, corners) - apply_homography(whole.matrix, corners)
    assert np.abs(apart).max() < 0.2
    alone = estimate_model(a[:0], b[:0], start=near, **options_for(model))
    assert alone is not None and not alone.inliers.size
    np.testing.assert_array_equal(alone.matrix, near)


def test_the_matrix_of_a_plane_has_its_inliers_in_front_of_the_camera() -> None:
    a, b = points_for("homography")
    for sign in (1, -1):
        start = sign * MATRICES["homography"]
        estimate = estimate_model(a, b, start=start, **options_for("homography"))
        assert estimate is not None
        assert np.isfinite(apply_homography(estimate.matrix, a[estimate.inliers])).all()


def test_matches_with_small_covariances_weigh_more() -> None:
    errors = []
    for seed in range(10):
        a, b = carried(MATRICES["affine"], 80, noise_px=0.05, seed=seed)
        sd = np.where(np.arange(80) % 2, 0.05, 1.5)
        b += np.random.default_rng(seed).normal(0, sd[:, None], (80, 2))
        covariance = sd[:, None, None] ** 2 * np.eye(2)
        for given in (None, (covariance, covariance)):
            estimate = estimate_model(a, b, covariances=given, **options_for("affine"))
            assert estimate is not None
            offsets = apply_homography(estimate.matrix, a) - apply_homography(MATRICES["affine"], a)
            errors.append(float(np.abs(offsets).max()))
    alike, weighted = np.reshape(errors, (-1, 2)).T
    assert np.median(alike / weighted) > 2


def test_poselib_finds_the_pose_that_magsac_finds() -> None:
    pytest.importorskip("poselib", reason="needs the extra pose")
    a, b = points_for("essential")
    estimate = estimate_model(a, b, pose_search="poselib", **options_for("essential"))
    assert estimate is not None and estimate.pose is not None
    np.testing.assert_allclose(estimate.pose.rotation, ROTATION, atol=2e-3)
    np.testing.assert_allclose(estimate.pose.translation, DIRECTION, atol=1e-2)
    few = estimate_model(a[:4], b[:4], pose_search="poselib", **options_for("essential"))
    assert few is None


def test_matched_positions_are_those_of_the_pairs_in_their_order() -> None:
    a, b, _ = matched(*carried(MATRICES["affine"], 10))
    pairs = np.array([[3, 7], [0, 0], [9, 2]])
    xy_a, xy_b = matched_xy(a, b, pairs)
    assert xy_a.dtype == xy_b.dtype == np.float64
    np.testing.assert_array_equal(xy_a, a.xy[[3, 0, 9]])
    np.testing.assert_array_equal(xy_b, b.xy[[7, 0, 2]])
    assert matched_xy(a, b, pairs[:0])[0].shape == (0, 2)


def test_the_shuffled_order_depends_on_positions_and_seed_alone() -> None:
    a, b = scattered(50), scattered(50, seed=1)
    order = shuffled(a, b, seed=3)
    assert sorted(order) == list(range(50))
    permutation = np.random.default_rng(0).permutation(50)
    again = shuffled(a[permutation], b[permutation], seed=3)
    np.testing.assert_array_equal(a[order], a[permutation][again])
    np.testing.assert_array_equal(b[order], b[permutation][again])
    assert (shuffled(a, b, seed=4) != order).any()


def test_matches_that_are_not_finite_are_left_out_of_the_order() -> None:
    a, b = scattered(20), scattered(20, seed=1)
    a[3, 0], b[7, 1], b[9] = np.nan, np.inf, -np.inf
    assert sorted(shuffled(a, b, seed=0)) == sorted({*range(20)} - {3, 7, 9})
    assert len(shuffled(np.full((5, 2), np.nan), b[:5], seed=0)) == 0


def test_matches_from_one_keypoint_have_a_fixed_order_too() -> None:
    """Several matches of one position in A are sorted by their positions in B."""
    a, b = np.zeros((30, 2)), scattered(30)
    order, back = shuffled(a, b, seed=0), shuffled(a, b[::-1], seed=0)
    np.testing.assert_array_equal(b[order], b[::-1][back])
