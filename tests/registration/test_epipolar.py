"""Two-view models: exact on exact points, robust, not fooled by a scene that leaves them open."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from support.registered import CAMERA, DIRECTION, ROTATION, scattered, turn, two_views
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


def test_random_matches_fit_as_often_as_points_are_near_the_lines() -> None:
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


def test_a_rotation_of_the_camera_is_distinguished_from_a_movement() -> None:
    only_turned = two_views(100, direction=np.zeros(3))
    assert epipolar.rotation_share(*only_turned, CAMERAS, 3.0) == 1.0
    assert epipolar.rotation_share(*two_views(100), CAMERAS, 3.0) < 0.5


def test_the_rate_of_random_inliers_equals_the_slow_twin() -> None:
    """B's points shifted by 1, 2, ... places along the list, and counted one by one."""
    a, b = two_views(25, noise_px=1.0)
    fits = []
    for shift in range(1, 25):
        for i in range(25):
            j = (i - shift) % 25
            fits.append(epipolar.sampson_px(TRUE_F, a[i : i + 1], b[j : j + 1])[0] <= 20.0)
    assert epipolar.random_inlier_rate(TRUE_F, a, b, 20.0) == pytest.approx(np.mean(fits))
    assert epipolar.random_inlier_rate(TRUE_F, a[:0], b[:0], 20.0) == 0


def test_many_points_are_paired_forty_times() -> None:
    a, b = two_views(300)
    fits = [
        epipolar.sampson_px(TRUE_F, a, np.roll(b, shift, axis=0)) <= 5.0 for shift in range(1, 41)
    ]
    assert epipolar.random_inlier_rate(TRUE_F, a, b, 5.0) == pytest.approx(np.mean(fits))


def test_sampson_distances_do_not_depend_on_sign_or_scale_of_the_matrix() -> None:
    a, b = two_views(20, noise_px=1.0)
    expected = epipolar.sampson_px(TRUE_F, a, b)
    for factor in (-1, 1e-6, 1e6):
        np.testing.assert_allclose(epipolar.sampson_px(factor * TRUE_F, a, b), expected, rtol=1e-6)


def test_sampson_distances_are_the_same_from_either_image() -> None:
    a, b = two_views(20, noise_px=1.0)
    there, back = epipolar.sampson_px(TRUE_F, a, b), epipolar.sampson_px(TRUE_F.T, b, a)
    np.testing.assert_allclose(there, back)


def test_sampson_distances_approximate_the_distance_to_the_nearest_exact_match() -> None:
    """Slow twin: the least movement of both points onto the epipolar geometry, by Newton."""
    a, b = two_views(15, noise_px=0.5)
    distances = epipolar.sampson_px(TRUE_F, a, b)
    for p, q, distance in zip(a, b, distances, strict=True):
        x = np.concatenate([p, q])
        for _ in range(10):
            u, v = np.array([*x[:2], 1.0]), np.array([*x[2:], 1.0])
            gradient = np.concatenate([(TRUE_F.T @ v)[:2], (TRUE_F @ u)[:2]])
            offset = np.concatenate([p, q]) - x
            value = v @ TRUE_F @ u
            x = x + offset - gradient * (value + gradient @ offset) / (gradient @ gradient)
        assert distance == pytest.approx(float(np.linalg.norm(x - [*p, *q])), rel=2e-3)


def test_a_point_on_both_epipoles_is_infinitely_far() -> None:
    along_x = np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0.0]])
    lines = np.linalg.inv(turn(0, 0, 0)) @ along_x
    assert np.isfinite(epipolar.sampson_px(lines, np.zeros((1, 2)), np.zeros((1, 2)))).all()
    nowhere = epipolar.sampson_px(np.zeros((3, 3)), np.ones((2, 2)), np.ones((2, 2)))
    assert np.isinf(nowhere).all()


def test_the_cross_matrix_is_the_cross_product() -> None:
    rng = np.random.default_rng(0)
    for v, u in rng.normal(size=(5, 2, 3)):
        np.testing.assert_allclose(epipolar.cross(v) @ u, np.cross(v, u))


def test_rays_are_what_the_camera_projects_back() -> None:
    skewed = np.array([[600.0, 12.0, 320], [0, 610, 240], [0, 0, 1]])
    xy = scattered(10)
    rays = epipolar.rays(xy, skewed)
    points = np.column_stack([rays, np.ones(10)]) * np.linspace(1, 9, 10)[:, None]
    seen = points @ skewed.T
    np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], xy)
    assert epipolar.rays(xy[:0], skewed).shape == (0, 2)


def test_the_essential_matrix_of_a_pose_has_two_equal_singular_values() -> None:
    pose = epipolar.Pose(ROTATION, DIRECTION)
    np.testing.assert_allclose(np.linalg.svd(pose.essential)[1], [1, 1, 0], atol=1e-12)
    a, b = two_views(20)
    rays = [np.column_stack([epipolar.rays(xy, CAMERA), np.ones(20)]) for xy in (a, b)]
    np.testing.assert_allclose((rays[1] @ pose.essential * rays[0]).sum(axis=1), 0, atol=1e-12)


def test_the_mean_focal_length_is_that_of_both_cameras_and_both_axes() -> None:
    other = np.diag([100.0, 200.0, 1.0])
    assert epipolar.mean_focal((CAMERA, other)) == pytest.approx((600 + 610 + 100 + 200) / 4)


def test_the_refined_pose_is_a_minimum() -> None:
    """No small rotation or movement brings the same inliers nearer."""
    a, b = two_views(100, noise_px=0.5)
    start = epipolar.pose_consensus(a, b, CAMERAS, 1.0)
    assert start is not None
    pose, inliers = epipolar.refine_pose(start, a, b, CAMERAS, 5.0)

    def cost(rotation: np.ndarray, translation: np.ndarray) -> float:
        translation = translation / np.linalg.norm(translation)
        essential = epipolar.Pose(rotation, translation).essential
        lines = epipolar.pixel_matrix(essential, CAMERAS)
        return float((epipolar.sampson_px(lines, a[inliers], b[inliers]) ** 2).sum())

    least = cost(pose.rotation, pose.translation)
    rng = np.random.default_rng(0)
    for change in rng.normal(0, 1e-4, (40, 6)):
        rotation = cv2.Rodrigues(change[:3])[0] @ pose.rotation
        assert cost(rotation, pose.translation + change[3:]) >= least * (1 - 1e-6)


def test_the_refined_fundamental_matrix_is_a_minimum_among_those_of_rank_two() -> None:
    a, b = two_views(100, noise_px=0.5)
    start = epipolar.fundamental_consensus(a, b, 1.0)
    assert start is not None
    matrix, inliers = epipolar.refine_fundamental(start, a, b, 5.0)
    assert np.linalg.norm(matrix) == pytest.approx(1)
    least = (epipolar.sampson_px(matrix, a[inliers], b[inliers]) ** 2).sum()
    u, s, vt = np.linalg.svd(matrix)
    rng = np.random.default_rng(0)
    for change in rng.normal(0, 1e-6, (40, 7)):
        moved_u, moved_v = cv2.Rodrigues(change[:3])[0] @ u, cv2.Rodrigues(change[3:6])[0] @ vt.T
        other = moved_u @ np.diag([s[0], s[1] * (1 + change[6]), 0]) @ moved_v.T
        cost = (epipolar.sampson_px(other, a[inliers], b[inliers]) ** 2).sum()
        assert cost >= least * (1 - 1e-6)


def test_refinement_with_too_few_inliers_changes_nothing() -> None:
    a, b = two_views(100)
    far = b + np.array([0, 300])
    matrix, inliers = epipolar.refine_fundamental(TRUE_F, a, far, 0.1)
    assert matrix is TRUE_F and inliers.sum() < epipolar.FUNDAMENTAL_MATCHES
    pose = epipolar.Pose(ROTATION, DIRECTION)
    refined, inliers = epipolar.refine_pose(pose, a, far, CAMERAS, 0.1)
    assert refined is pose and inliers.sum() < epipolar.ESSENTIAL_MATCHES


@pytest.mark.parametrize("angle", [0.0, 0.1, 1.0, 3.1])
def test_any_rotation_alone_explains_its_matches(angle: float) -> None:
    a = scattered(50)
    rays = np.column_stack([a, np.ones(50)]) @ np.linalg.inv(CAMERA).T @ turn(0, 0, angle).T
    seen = rays @ CAMERA.T
    b = seen[:, :2] / seen[:, 2:]
    assert epipolar.rotation_share(a, b, CAMERAS, 0.01) == 1
    b[:10] += 5
    assert 0 < epipolar.rotation_share(a, b, CAMERAS, 3.0) <= 0.8


def test_one_camera_is_taken_for_both_and_a_pair_in_order() -> None:
    other = np.array([[500.0, 0, 10], [0, 500, 20], [0, 0, 1]])
    one = epipolar.read_cameras(CAMERA.tolist(), "essential")
    two = epipolar.read_cameras((CAMERA, other), "essential")
    assert one is not None and two is not None
    np.testing.assert_array_equal(one[0], one[1])
    np.testing.assert_array_equal(two[0], CAMERA)
    np.testing.assert_array_equal(two[1], other)
    assert epipolar.read_cameras(None, "homography") is None
