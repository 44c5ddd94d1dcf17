"""Situations from the field that invite a wrong answer: right, or refused with the reason."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from support.registered import CAMERA, corners_off_px, matched, two_views
from support.situations import (
    OVERLAYS,
    blank,
    facade_pair,
    grey_levels,
    jpeg,
    shift,
    stamped,
    view,
)
from tiepoint.detector import Detector
from tiepoint.features import Features
from tiepoint.geometry import apply_homography, corners_xy
from tiepoint.registration.register import register, registration_detector

Photos = list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return registration_detector(precision="f32")


@pytest.mark.parametrize("mean", [0.5, 12, 120, 250])
@pytest.mark.parametrize("noise", [0.3, 1, 3, 12])
def test_two_frames_of_nothing_are_not_registered(
    mean: float, noise: float, detector: Detector
) -> None:
    frames = [blank(mean, noise, seed, slope=0.3) for seed in (1, 2)]
    assert not register(*frames, detector=detector).success


@pytest.mark.parametrize("model", ["translation", "similarity", "fundamental"])
def test_frames_of_nothing_are_not_registered_by_other_models(
    model: str, detector: Detector
) -> None:
    frames = [blank(12, 1, seed) for seed in (1, 2)]
    assert not register(*frames, model=model, detector=detector).success


def test_strong_noise_does_not_match_by_its_distance_from_the_border(detector: Detector) -> None:
    frames = [blank(140, 16, seed, (136, 171)) for seed in (2, 3)]
    assert not register(*frames, model="fundamental", detector=detector).success


def test_a_strip_that_the_reduction_leaves_too_thin_gets_advice(photographs: Photos) -> None:
    strip = np.ascontiguousarray(np.tile(view(photographs[2])[:24], (1, 20)))
    result = register(strip, strip, detector=registration_detector(precision="f32"))
    width = 1024
    height = round(24 * width / strip.shape[1])
    assert f"saw image A at {width}x{height} px: raise max_side" in result.reason


def test_a_faint_photograph_is_registered(photographs: Photos, detector: Detector) -> None:
    rng = np.random.default_rng(0)
    a, b = (
        grey_levels(128 + (part - 128.0) / 10 + rng.normal(0, 1, part.shape))
        for part in (view(photographs[2]), view(photographs[2], 30, 20))
    )
    result = register(a, b, detector=detector)
    assert result.success, result.reason
    assert corners_off_px(result, shift(-30, -20)) < 4 * result.corner_sd_px


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shift_px", [76, 130])
def test_a_facade_is_registered_at_the_right_window_or_not_at_all(
    shift_px: int, seed: int, detector: Detector
) -> None:
    result = register(*facade_pair(shift_px, 10, seed), detector=detector)
    if result.success:
        assert corners_off_px(result, shift(-shift_px, 0)) < 1
    else:
        assert result.reason.startswith("ambiguous: image ")


def test_most_facades_are_registered(detector: Detector) -> None:
    done = [
        register(*facade_pair(px, 10, px), detector=detector).success for px in (76, 131, 90, 58)
    ]
    assert sum(done) >= 2


def test_equal_windows_are_ambiguous(detector: Detector) -> None:
    result = register(*facade_pair(76, 0), detector=detector)
    assert not result.success
    assert "ambiguous: image" in result.reason and "because the structure repeats" in result.reason


def test_equal_windows_are_ambiguous_without_pictures_too(detector: Detector) -> None:
    a, b = (described(detector, image) for image in facade_pair(76, 4))
    result = register(a, b)
    assert not result.success and "ambiguous" in result.reason


def described(detector: Detector, image: NDArray[np.uint8]) -> Features:
    features: Features = detector(image, max_keypoints=1000)
    return features


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_unrelated_scenes_under_one_overlay_are_not_registered(
    overlay: str, photographs: Photos, detector: Detector
) -> None:
    a, b = (OVERLAYS[overlay](view(photographs[i])) for i in (0, 2))
    result = register(a, b, detector=detector)
    assert not result.success
    assert "something fixed in both pictures" in result.reason


@pytest.mark.parametrize("overlay", ["stamp", "window"])
def test_overlays_are_seen_without_pictures_too(
    overlay: str, photographs: Photos, detector: Detector
) -> None:
    a, b = (described(detector, OVERLAYS[overlay](view(photographs[i]))) for i in (0, 2))
    assert not register(a, b).success


def test_a_scene_that_moved_under_an_overlay_wins(photographs: Photos, detector: Detector) -> None:
    a, b = (stamped(view(photographs[2], x, y)) for x, y in ((0, 0), (37, 21)))
    result = register(a, b, detector=detector)
    assert result.success, result.reason
    assert corners_off_px(result, shift(-37, -21)) < 1


def test_a_scene_with_a_quarter_replaced_is_registered(
    photographs: Photos, detector: Detector
) -> None:
    a, b = view(photographs[2]), view(photographs[2], 37, 21)
    b[60:190, 120:300] = view(photographs[0], size_hw=(130, 180))
    result = register(a, b, detector=detector)
    assert result.success, result.reason
    assert corners_off_px(result, shift(-37, -21)) < 1


@pytest.mark.parametrize("quality", [3, 5, 8])
@pytest.mark.parametrize("photo", range(4))
def test_heavy_compression_is_within_three_deviations(
    photo: int, quality: int, photographs: Photos, detector: Detector
) -> None:
    a, b = (jpeg(view(photographs[photo], x, y), quality) for x, y in ((0, 0), (35, 29)))
    result = register(a, b, detector=detector)
    if result.success:
        places = np.stack(np.meshgrid(range(40, 360, 40), range(35, 260, 40)), axis=-1)
        apart = result.transform(places.reshape(-1, 2)) - places.reshape(-1, 2) + (35, 29)
        assert np.sqrt((apart**2).sum(axis=1).mean()) < 3 * result.overlap_sd_px


@pytest.mark.parametrize("zoom", [1.0, 2.0, 3.5])
def test_both_orders_give_one_verdict_and_inverse_matrices(
    zoom: float, photographs: Photos, detector: Detector
) -> None:
    for photo in photographs:
        grey = view(photo)
        small = cv2.resize(grey, None, fx=1 / zoom, fy=1 / zoom, interpolation=cv2.INTER_AREA)
        small = grey_levels(small + np.random.default_rng(1).normal(0, 2, small.shape))
        there = register(grey, small, detector=detector)
        back = register(small, grey, detector=detector)
        assert there.success == back.success
        assert there.inliers.sum() == back.inliers.sum()
        if there.success:
            corners = corners_xy(grey.shape)
            returned = back.transform(there.transform(corners))
            np.testing.assert_allclose(returned, corners, atol=1e-6)
            assert back.overlap_sd_px == pytest.approx(zoom * there.overlap_sd_px, rel=0.2)
        else:
            assert there.reason.replace("A", "*").replace("B", "A").replace("*", "B") == back.reason


def test_two_refused_orders_give_one_sentence(photographs: Photos, detector: Detector) -> None:
    a, b = view(photographs[0]), view(photographs[2])
    there, back = (register(*pair, detector=detector) for pair in ((a, b), (b, a)))
    assert not there.success and there.reason == back.reason


def test_both_orders_of_two_views_give_inverse_poses() -> None:
    a, b = two_views(200, noise_px=0.2, wrong=40)
    features_a, features_b, matches = matched(a, b)
    there = register(features_a, features_b, matches=matches, model="essential", intrinsics=CAMERA)
    back = register(
        features_b, features_a, matches=matches.reversed(), model="essential", intrinsics=CAMERA
    )
    assert there.success and back.success
    assert there.rotation is not None and back.rotation is not None
    np.testing.assert_allclose(there.rotation @ back.rotation, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(back.translation, -there.rotation.T @ there.translation, atol=1e-9)


def test_the_truth_is_within_two_stated_deviations(photographs: Photos, detector: Detector) -> None:
    """Views of photographs under other light, blurred, with noise."""
    within = []
    for seed in range(24):
        photo = view(photographs[seed % 4])
        rng = np.random.default_rng(seed)
        corners = corners_xy(photo.shape).astype(np.float32)
        moved = corners + rng.uniform(-0.15, 0.15, (4, 2)).astype(np.float32) * 400
        truth = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
        seen = cv2.warpPerspective(photo, truth, photo.shape[::-1])
        seen = grey_levels(
            0.5 * cv2.GaussianBlur(seen, (0, 0), 2) + 40 + rng.normal(0, 8, seen.shape)
        )
        result = register(photo, seen, detector=detector)
        if result.success:
            off = result.transform(corners) - apply_homography(truth, corners)
            within.append(np.hypot(*off.T).mean() <= 2 * result.corner_sd_px)
    assert len(within) >= 20
    assert np.mean(within) >= 0.9
