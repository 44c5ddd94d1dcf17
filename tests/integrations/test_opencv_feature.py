"""A detector that programs for `cv2.Feature2D` can use."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tiepoint
from tiepoint.errors import ConfigError, ImageError


@pytest.fixture(scope="module")
def bgr() -> NDArray[np.uint8]:
    from skimage import data

    return np.ascontiguousarray(data.coffee()[:300, :400, ::-1])


@pytest.fixture(scope="module")
def feature() -> tiepoint.OpenCVFeature:
    options = {"scales": (1.0, 0.6), "max_keypoints": 300, "threshold": 0.0, "precision": "f32"}
    return tiepoint.OpenCVFeature(tiepoint.Detector("small", device="cpu", **options))


def positions(keypoints: tuple[cv2.KeyPoint, ...]) -> NDArray[np.float32]:
    return np.array([point.pt for point in keypoints], np.float32)


def test_it_has_the_methods_and_types_of_a_feature2d(feature, bgr) -> None:
    sift = cv2.SIFT.create(50)
    for name in ("detect", "compute", "detectAndCompute", "descriptorSize", "descriptorType",
                 "defaultNorm", "empty", "getDefaultName"):  # fmt: skip
        assert callable(getattr(sift, name)) and callable(getattr(feature, name))
    for ours, theirs in zip(
        feature.detectAndCompute(bgr, None), sift.detectAndCompute(bgr, None), strict=True
    ):
        assert type(ours) is type(theirs)
    keypoints, descriptors = feature.detectAndCompute(bgr, mask=None)
    assert descriptors.shape == (len(keypoints), feature.descriptorSize())
    assert descriptors.dtype == np.float32 and feature.descriptorType() == sift.descriptorType()
    assert feature.defaultNorm() == sift.defaultNorm() and feature.empty() is False
    assert feature.getDefaultName() == "Feature2D.tiepoint"


def test_it_finds_what_the_detector_finds_in_the_rgb_image(feature, bgr) -> None:
    expected = feature.detector(bgr[:, :, ::-1])
    keypoints, descriptors = feature.detectAndCompute(bgr)
    np.testing.assert_array_equal(positions(keypoints), expected.xy)
    np.testing.assert_array_equal(descriptors, expected.descriptors)
    np.testing.assert_array_equal(positions(feature.detect(bgr)), expected.xy)
    assert {point.octave for point in keypoints} == {0, 1}


def test_computing_at_its_own_keypoints_gives_their_descriptors(feature, bgr) -> None:
    keypoints, descriptors = feature.detectAndCompute(bgr)
    order = np.random.default_rng(0).permutation(len(keypoints))
    shuffled = [keypoints[index] for index in order]
    same, computed = feature.compute(bgr, shuffled)
    np.testing.assert_array_equal(positions(same), positions(shuffled))
    np.testing.assert_allclose(computed, descriptors[order], atol=1e-5)


def test_foreign_keypoints_get_a_descriptor_each(feature, bgr) -> None:
    corners = cv2.FastFeatureDetector.create(40).detect(bgr)[:50]
    same, computed = feature.compute(bgr, corners)
    assert len(same) == 50 and computed.shape == (50, feature.descriptorSize())
    np.testing.assert_allclose(np.linalg.norm(computed, axis=1), 1, rtol=1e-5)
    assert feature.compute(bgr, []) == ((), None)


def test_a_mask_limits_the_keypoints_and_none_left_give_no_descriptors(feature, bgr) -> None:
    mask = np.zeros(bgr.shape[:2], np.uint8)
    assert feature.detectAndCompute(bgr, mask) == ((), None)
    mask[:, :100] = 255
    keypoints = feature.detect(bgr, mask)
    assert len(keypoints) > 20 and positions(keypoints)[:, 0].max() < 100


def test_what_is_no_image_is_refused(feature) -> None:
    with pytest.raises(ConfigError, match=r"cv2\.imread"):
        feature.detectAndCompute(cv2.imread("no such file.png"), None)
    with pytest.raises(ImageError, match="shape"):
        feature.detect(np.zeros((5, 5, 7), np.uint8))
    with pytest.raises(ImageError, match="mask"):
        feature.detect(np.zeros((50, 50), np.uint8), np.ones((4, 4), np.uint8))


def test_a_program_of_opencv_finds_the_homography(feature, bgr) -> None:
    matrix = np.array([[0.9, 0.1, 20], [-0.08, 0.95, 30], [1e-4, 5e-5, 1]])
    warped = cv2.warpPerspective(bgr, matrix, (420, 340))
    (points_a, a), (points_b, b) = (feature.detectAndCompute(i, None) for i in (bgr, warped))
    matches = cv2.BFMatcher(feature.defaultNorm(), crossCheck=True).match(a, b)
    source = np.float32([points_a[m.queryIdx].pt for m in matches])
    target = np.float32([points_b[m.trainIdx].pt for m in matches])
    found, inliers = cv2.findHomography(source, target, cv2.USAC_MAGSAC, 2.0)
    corners = np.float32([[[0, 0]], [[399, 0]], [[399, 299]], [[0, 299]]])
    error = cv2.perspectiveTransform(corners, found) - cv2.perspectiveTransform(corners, matrix)
    assert inliers.sum() > 60 and np.abs(error).max() < 4
