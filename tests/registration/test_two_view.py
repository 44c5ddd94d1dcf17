"""Which model holds between two views: by scenes whose cameras are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from support.scene_views import CAMERA, POINTS, true_matches, turned, views
from tiepoint.features import Matches
from tiepoint.registration.epipolar import sampson_px
from tiepoint.registration.two_view import verify

CAMERAS = CAMERA, CAMERA


def mixed(wrong: int, seed: int = 1) -> Matches:
    """True matches, of which the last ones are exchanged at random."""
    rng = np.random.default_rng(seed)
    right, index = POINTS - wrong, np.arange(POINTS)
    other = np.concatenate([index[:right], rng.permutation(index[right:])])
    return Matches(np.stack([index, other], axis=1), np.ones(POINTS, np.float32))


def test_known_cameras_and_depth_are_calibrated_with_the_true_pose() -> None:
    a, b = views(2)
    result = verify(a.features, b.features, mixed(100), cameras=CAMERAS)
    assert result.geometry == "calibrated"
    assert result.inliers[:200].mean() > 0.98 and result.inliers[200:].mean() < 0.1
    assert result.pose is not None and result.essential is not None
    rotation = b.rotation @ a.rotation.T
    translation = b.translation - rotation @ a.translation
    np.testing.assert_allclose(result.pose.rotation, rotation, atol=0.01)
    along = result.pose.translation @ translation / np.linalg.norm(translation)
    assert along > 0.995


def test_unknown_cameras_are_uncalibrated_with_a_fundamental_matrix_that_fits() -> None:
    a, b = views(2)
    result = verify(a.features, b.features, true_matches())
    assert result.geometry == "uncalibrated" and result.pose is None and result.essential is None
    assert result.fundamental is not None
    distances = sampson_px(result.fundamental, a.features.xy, b.features.xy)
    assert np.median(distances) < 0.3 and result.inliers.mean() > 0.98


def test_wrong_focal_lengths_leave_the_fundamental_matrix() -> None:
    a, b = views(2, step=1.5, depth=4)
    wrong = np.diag([4.0, 4.0, 1.0]) @ CAMERA
    wrong[:2, 2] = CAMERA[:2, 2]
    result = verify(a.features, b.features, true_matches(), cameras=(CAMERA, wrong))
    assert result.geometry == "uncalibrated"


def test_a_plane_is_planar_with_its_homography() -> None:
    a, b = views(2, depth=0)
    result = verify(a.features, b.features, true_matches(), cameras=CAMERAS)
    assert result.geometry == "planar or panoramic" and result.homography is not None
    assert result.inliers.mean() > 0.98


def test_a_camera_that_only_rotates_is_panoramic() -> None:
    a = views(1)[0]
    rotated = CAMERA @ turned(0.1) @ np.linalg.inv(CAMERA)
    xy = np.column_stack([a.features.xy, np.ones(POINTS)]) @ rotated.T
    b = replace(a.features, xy=(xy[:, :2] / xy[:, 2:]).astype(np.float32))
    assert verify(a.features, b, true_matches(), cameras=CAMERAS).geometry == "planar or panoramic"


def test_random_matches_and_few_matches_are_degenerate() -> None:
    a, b = views(2)
    for matches in (mixed(POINTS), true_matches().top(10), true_matches().top(0)):
        result = verify(a.features, b.features, matches, cameras=CAMERAS)
        assert result.geometry == "degenerate"
        assert not result.inliers.any() and len(result.inliers) == len(matches)


def test_positions_without_distortion_decide_the_essential_matrix() -> None:
    a, b = views(2)
    rays = a.features.xy.astype(np.float64), b.features.xy.astype(np.float64)
    bent = [
        replace(
            view.features,
            xy=(xy + 1e-7 * (xy - 300) * ((xy - 300) ** 2).sum(axis=1, keepdims=True)).astype(
                np.float32
            ),
        )
        for view, xy in zip((a, b), rays, strict=True)
    ]
    result = verify(*bent, true_matches(), cameras=CAMERAS, rays_px=rays)
    assert result.geometry == "calibrated" and result.inliers.mean() > 0.98
