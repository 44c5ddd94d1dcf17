"""Features and matches as OpenCV's objects, and back."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from support.features_files import make
from support.provenance import made
from tiepoint.architecture import NetworkConfig
from tiepoint.errors import ConfigError
from tiepoint.features import Features, Matches
from tiepoint.features.opencv import REGION_PX, octaves


def sorted_features(count: int = 20, length: int | None = 8) -> Features:
    features = make(count, length)
    order = np.argsort(-features.scores, kind="stable")
    descriptors = features.descriptors
    if descriptors is not None:
        descriptors = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
    return replace(features, descriptors=descriptors).take(order)


def test_the_region_is_the_receptive_field_of_a_descriptor() -> None:
    field_px, step_px = 1, 1
    for layer in NetworkConfig().layers():
        if layer.name.startswith(("keypoint_decoder", "convP", "conv_score")):
            continue
        field_px += (layer.kernel_px - 1) * step_px
        if layer.pool:
            field_px, step_px = field_px + step_px, 2 * step_px
    assert step_px == 8 and field_px == REGION_PX


@pytest.mark.parametrize("length", [None, 8])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_features_come_back_from_opencv_bit_for_bit(count: int, length: int | None) -> None:
    features = sorted_features(count, length)
    keypoints, descriptors = features.to_opencv()
    back = Features.from_opencv(keypoints, descriptors, features.size_hw)
    np.testing.assert_array_equal(back.xy, features.xy)
    np.testing.assert_array_equal(back.scores, features.scores)
    if length is None:
        assert back.descriptors is None
    else:
        np.testing.assert_array_equal(back.descriptors, features.descriptors)
        np.testing.assert_allclose(back.scales_px, features.scales_px, rtol=1e-6)


def test_a_keypoint_of_opencv_has_position_score_size_and_scale() -> None:
    xy = np.array([[3.25, 4.5], [7, 8], [9, 9]], np.float32)
    scores = np.array([0.9, 0.5, 0.25], np.float32)
    scales_px = np.array([4.0, 2.0, 4.0], np.float32)
    provenance = made(settings={"scales": [0.5, 1.0, 2.0]})
    features = Features(
        xy, scores, None, (20, 20), provenance=provenance, px_per_input_px=1.0, scales_px=scales_px
    )
    first, second, _ = features.to_opencv()[0]
    assert first.pt == (3.25, 4.5) and first.response == np.float32(0.9) and first.angle == -1
    assert (first.size, second.size) == (4 * REGION_PX, 2 * REGION_PX)
    assert octaves(features).tolist() == [2, 1, 2]  # of the scales 2, 1 and 0.5
    assert octaves(replace(features, provenance=None)).tolist() == [1, 0, 1]
    assert octaves(replace(features, scales_px=None)).tolist() == [0, 0, 0]


def test_keypoints_of_sift_are_sorted_and_brought_to_unit_length() -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 160), np.uint8)
    image = cv2.GaussianBlur(image, None, 2)
    keypoints, descriptors = cv2.SIFT.create(50).detectAndCompute(image, None)
    features = Features.from_opencv(keypoints, descriptors, image.shape)
    assert len(features) == len(keypoints) > 20
    assert (np.diff(features.scores) <= 0).all()
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, rtol=1e-5)
    best = max(range(len(keypoints)), key=lambda i: keypoints[i].response)
    np.testing.assert_allclose(features.xy[0], keypoints[best].pt)
    own = descriptors[best] / np.linalg.norm(descriptors[best])
    assert np.abs(features.descriptors - own).max(axis=1).min() < 1e-6


def test_what_is_no_keypoint_or_no_float_descriptor_is_refused() -> None:
    keypoints, descriptors = sorted_features(3).to_opencv()
    for bad in (
        descriptors[:2],
        descriptors[0],
        descriptors.astype(np.uint8),
        descriptors * np.nan,
    ):
        with pytest.raises(ConfigError, match="descriptors"):
            Features.from_opencv(keypoints, bad, (9, 9))
    with pytest.raises(ConfigError, match=r"hold a tuple, expected cv2\.KeyPoint"):
        Features.from_opencv([(1, 2)], None, (9, 9))
    with pytest.raises(ConfigError, match="finite"):
        Features.from_opencv([cv2.KeyPoint(float("nan"), 1, 1)], None, (9, 9))


def test_distances_of_matches_are_those_of_opencvs_matcher() -> None:
    a, b = (sorted_features(count).descriptors for count in (30, 25))
    theirs = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(a, b)
    matches = Matches.from_opencv(theirs)
    expected = (a[matches.pairs[:, 0]] * b[matches.pairs[:, 1]]).sum(axis=1)
    np.testing.assert_allclose(matches.scores, expected, atol=1e-5)
    assert (np.diff(matches.scores) <= 0).all()
    again = {(m.queryIdx, m.trainIdx): m.distance for m in matches.to_opencv()}
    assert len(again) == len(theirs) > 5
    for match in theirs:
        assert again[match.queryIdx, match.trainIdx] == pytest.approx(match.distance, abs=1e-4)


@pytest.mark.parametrize("kind", ["cosine", "dual-softmax"])
def test_matches_come_back_from_opencv(kind: str) -> None:
    scores = np.array([1, 0.9, 0.5, 0.1, 0.0], np.float32)
    pairs = np.array([[4, 1], [3, 2], [0, 3], [1, 0], [2, 4]], np.int64)
    matches = Matches(pairs, scores, {"settings": {"scores": kind}})
    theirs = matches.to_opencv()
    assert theirs[1].distance == pytest.approx(
        0.1 if kind == "dual-softmax" else 0.2**0.5, rel=1e-5
    )
    back = Matches.from_opencv(theirs, kind)
    np.testing.assert_array_equal(back.pairs, pairs)
    np.testing.assert_allclose(back.scores, scores, atol=1e-6)
    assert len(Matches.from_opencv([])) == 0


def test_lists_of_knn_and_matches_without_an_index_are_refused() -> None:
    with pytest.raises(ConfigError, match="knnMatch"):
        Matches.from_opencv([[cv2.DMatch(0, 0, 0.5)]])
    with pytest.raises(ConfigError, match="below 0"):
        Matches.from_opencv([cv2.DMatch(-1, 0, 0.5)])
    with pytest.raises(ConfigError, match="not finite"):
        Matches.from_opencv([cv2.DMatch()])
