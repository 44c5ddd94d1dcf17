"""Two-view models: exact on exact points, robust, not fooled by a scene that leaves them open."""

from __future__ import annotations

import math

import numpy as np
import pytest

from support.registered import CAMERA, DIRECTION, ROTATION, two_views
from tiepoint.features import Features
from tiepoint.registration import epipolar
from tiepoint.registration.register import register

CAMERAS = (CAMERA, CAMERA)
TRUE_F = epipolar.pixel_matrix(epipolar.cross(DIRECTION) @ ROTATION, CAMERAS)


def angles_deg(pose: epipolar.Pose) -> tuple[float, float]:
    turned = (np.trace(pose.rotation.T @ ROTATION) - 1) / 2
    moved = pose.translation @ DIRECTION
    turned_deg, moved_deg = np.degrees(np.arccos(np.clip([turned, moved], -1, 1)))
    return turned_deg, moved_deg


def test_sampson_distances_equal_the_slow_twin() -> None:
    a, b = two_views(30, noise_px=2.0)
    for found, p, q in zip(epipolar.sampson_px(TRUE_F, a, b), a, b, strict=True):
        u, v = np.array([*p, 1.0]), np.array([*q, 1.0])
        line_b, line_a = TRUE_F @ u, TRUE_F.T @ v
        slope = math.sqrt(line_b[0] ** 2 + line_b[1] ** 2 + line_a[0] ** 2 + line_a[1] ** 2)
        assert found == pytest.approx(abs(v @ TRUE_F @ u) / slope, rel=1e-9)


def test_the_fundamental_matrix_is_found_among_wrong_matches() -> None:
    a, b = two_views(300, noise_px=0.3, wrong=120)
    start = epipolar.fundamental_consensus(a, b, 1.0)
    assert start is not None
    matrix, inliers = epipolar.refine_fundamental(start, a, b, 2.0)
    assert np.linalg.svd(matrix)[1][2] < 1e-12
    clean_a, clean_b = two_views(100, seed=50)
    assert np.median(epipolar.sampson_px(matrix, clean_a, clean_b)) < 0.15
    assert inliers[120:].mean() > 0.98


def test_refinement_brings_the_inliers_nearer() -> None:
    a, b = two_views(200, noise_px=0.5)
    start = epipolar.fundamental_consensus(a, b, 1.0)
    assert start is not None
    refined, inliers = epipolar.refine_fundamental(start, a, b, 2.0)
    before, after = (epipolar.sampson_px(m, a, b)[inliers] for m in (start, refined))
    assert (after**2).sum() <= (before**2).sum()


def test_the_pose_is_found_among_wrong_matches() -> None:
    a, b = two_views(300, noise_px=0.3, wrong=120)
    start = epipolar.pose_consensus(a, b, CAMERAS, 0.5)
    assert start is not None
    pose, inliers = epipolar.refine_pose(start, a, b, CAMERAS, 1.0)
    turned, moved = angles_deg(pose)
    assert turned < 0.1
    assert moved < 0.5
    assert np.linalg.norm(pose.translation) == pytest.approx(1)
    np.testing.assert_allclose(pose.rotation @ pose.rotation.T, np.eye(3), atol=1e-9)
    assert inliers[120:].mean() > 0.95


def test_the_pose_of_exact_points_is_exact() -> None:
    a, b = two_views(100)
    start = epipolar.pose_consensus(a, b, CAMERAS, 0.5)
    assert start is not None
    pose, _ = epipolar.refine_pose(start, a, b, CAMERAS, 1.0)
    assert max(angles_deg(pose)) < 1e-3


def test_poselib_finds_the_same_pose() -> None:
    pytest.importorskip("poselib", reason="needs the extra pose")
    a, b = two_views(300, noise_px=0.3, wrong=120)
    pose = epipolar.poselib_pose(a, b, CAMERAS, 2.0, seed=0)
    assert pose is not None
    turned, moved = angles_deg(pose)
    assert turned < 0.1
    assert moved < 0.5


@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_too_few_points_give_no_model(count: int) -> None:
    a, b = two_views(count)
    assert epipolar.fundamental_consensus(a, b, 1.0) is None
    if count < 5:
        assert epipolar.pose_consensus(a, b, CAMERAS, 0.5) is None


@pytest.mark.parametrize("estimate", ["fundamental", "pose"])
def test_points_that_are_all_one_or_on_a_line_do_no_harm(estimate: str) -> None:
    x = np.linspace(10, 600, 40)
    for points in (np.full((40, 2), 7.0), np.stack([x, 0.5 * x], axis=1)):
        if estimate == "fundamental":
            found = epipolar.fundamental_consensus(points, points, 1.0)
            if found is not None:
                refined, _ = epipolar.refine_fundamental(found, points, points, 2.0)
                assert np.isfinite(refined).all()
        else:
            pose = epipolar.pose_consensus(points, points, CAMERAS, 0.5)
            if pose is not None:
                refined_pose, _ = epipolar.refine_pose(pose, points, points, CAMERAS, 1.0)
                assert np.isfinite(refined_pose.rotation).all()


def test_wrong_matches_fit_as_often_as_points_lie_near_the_lines() -> None:
    """Lines along y: points all over the image are rarely near them, points in a strip often."""
    rng = np.random.default_rng(5)
    along_x = np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0.0]])  # y_A = y_B
    a = rng.uniform((0, 0), (640, 480), (300, 2))
    everywhere = rng.uniform((0, 0), (640, 480), (300, 2))
    a_strip, strip = a * (1, 1 / 12), rng.uniform((0, 0), (640, 40), (300, 2))
    within_px = 2.0
    near = within_px * np.sqrt(2)  # Sampson's distance shares a gap out between both images
    assert epipolar.random_inlier_rate(along_x, a, everywhere, within_px) == pytest.approx(
        2 * near / 480, rel=0.2
    )
    assert epipolar.random_inlier_rate(along_x, a_strip, strip, within_px) == pytest.approx(
        2 * near / 40, rel=0.2
    )
    assert epipolar.random_inlier_rate(along_x, a[:1], strip[:1], within_px) == 0


def test_unrelated_places_along_one_strip_are_no_two_views() -> None:
    """A third of them fit lines along the strip, by chance."""
    rng = np.random.default_rng(6)
    xy_a = rng.uniform((10, 10), (630, 470), (160, 2)).astype(np.float32)
    xy_b = np.column_stack([rng.uniform(10, 630, 160), rng.uniform(440, 470, 160)])
    unit = rng.normal(size=(160, 32)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    a, b = (
        Features(xy.astype(np.float32), np.ones(160, np.float32), unit, (480, 640), {})
        for xy in (xy_a, xy_b)
    )
    result = register(a, b, model="fundamental")
    assert not result.success and "chance alone" in result.reason


def test_a_turn_of_the_camera_is_told_from_a_movement() -> None:
    only_turned = two_views(100, direction=np.zeros(3))
    assert epipolar.rotation_share(*only_turned, CAMERAS, 3.0) == 1.0
    assert epipolar.rotation_share(*two_views(100), CAMERAS, 3.0) < 0.5
