"""A fit and its reverse."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from support.registered import (
    CAMERA,
    DIRECTION,
    MATRICES,
    ROTATION,
    all_inliers,
    carried,
    fit_of,
    two_views,
)
from tiepoint.features import Matches
from tiepoint.geometry import apply_homography
from tiepoint.registration import epipolar
from tiepoint.registration.appearance import Picture
from tiepoint.registration.estimation import Estimate
from tiepoint.registration.fit import BLOCKS_PX, LEAST_SD, Fit


def plane(noise_px: float = 0.4, scale: float = 1.0) -> Fit:
    matrix = np.diag([scale, scale, 1.0]) @ MATRICES["affine"]
    a, b = carried(matrix, 200, noise_px=noise_px)
    return fit_of(a, b, all_inliers(matrix, 200), model="affine")


def test_the_reverse_exchanges_everything() -> None:
    fit = plane()
    back = fit.reversed()
    assert back.features_a is fit.features_b and back.features_b is fit.features_a
    assert back.names == ("B", "A")
    np.testing.assert_array_equal(back.matches.pairs, fit.matches.pairs[:, ::-1])
    np.testing.assert_allclose(back.estimate.matrix @ fit.estimate.matrix, np.eye(3), atol=1e-12)
    twice = back.reversed()
    np.testing.assert_array_equal(twice.matches.pairs, fit.matches.pairs)
    assert twice.names == fit.names


def test_the_reverse_of_a_pose_is_the_other_cameras() -> None:
    pose = epipolar.Pose(ROTATION, DIRECTION)
    a, b = two_views(100)
    estimate = Estimate(pose.essential, np.ones(100, bool), pose)
    other = np.diag([0.5, 0.5, 1.0]) @ CAMERA
    fit = fit_of(a, b, estimate, cameras=(CAMERA, other), model="essential")
    back = fit.reversed()
    assert back.cameras is not None and back.cameras[0] is other
    assert back.estimate.pose is not None
    np.testing.assert_allclose(back.estimate.pose.essential, back.estimate.matrix, atol=1e-12)
    point = np.array([0.3, -0.2, 5.0])
    moved = pose.rotation @ point + pose.translation
    returned = back.estimate.pose.rotation @ moved + back.estimate.pose.translation
    np.testing.assert_allclose(returned, point, atol=1e-12)


def test_reversed_matches_keep_their_record_in_order() -> None:
    meta = {"keypoints": [3, 5], "sources": ["a", "b"], "tiepoint_version": "1"}
    for turned_deg, back_deg in ((0, 0), (45, -45), (180, 180), (-135, 135)):
        matches = Matches(np.array([[0, 4]]), np.ones(1, np.float32), meta, turned_deg)
        back = matches.reversed()
        assert back.turned_deg == back_deg and back.meta["keypoints"] == [5, 3]
        assert back.meta["sources"] == ["b", "a"]
        assert back.reversed().turned_deg == turned_deg


def test_deviations_in_a_are_those_in_b_by_the_local_scale() -> None:
    fit = plane(scale=0.25)
    places = np.array([[10.0, 20], [300, 200], [600, 440]])
    in_b, in_a = (fit.deviations_px(places, in_a=wanted) for wanted in (False, True))
    assert (in_a > 3.5 * in_b).all() and (in_a < 6 * in_b).all()


def test_no_deviation_is_stated_below_the_least() -> None:
    fit = plane(noise_px=0)
    deviations = fit.deviations_px(np.array([[10.0, 20]]))
    assert deviations[0] == pytest.approx(LEAST_SD, rel=1e-3)


@pytest.mark.parametrize(
    ("shares", "expected"), [((0.0, 0.9), 0), ((0.1, 0.3), 0.25), ((0.5, 0.4), 1)]
)
def test_blocks_count_if_both_images_have_them(
    shares: tuple[float, float], expected: float
) -> None:
    grey = np.zeros((8, 8), np.float32)
    pictures = tuple(Picture(grey, np.eye(3), share) for share in shares)
    fit = dataclasses.replace(plane(noise_px=0), pictures=pictures)
    assert fit.blocks_px == pytest.approx(expected * BLOCKS_PX)
    places = np.array([[10.0, 20]])
    assert fit.deviations_px(places)[0] == pytest.approx(
        np.hypot(LEAST_SD, expected * BLOCKS_PX), rel=1e-3
    )


def test_places_behind_the_camera_have_no_finite_deviation() -> None:
    matrix = np.array([[1.0, 0, 0], [0, 1, 0], [-0.002, 0, 1]])
    a = np.random.default_rng(0).uniform(0, (300, 400), (60, 2))
    fit = fit_of(a, apply_homography(matrix, a), all_inliers(matrix, 60))
    for in_a in (False, True):
        places = np.array([[700.0, 100], [np.nan, 3]])
        assert np.isinf(fit.deviations_px(places, in_a=in_a)).all()
