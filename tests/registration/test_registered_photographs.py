"""Photographs are registered right, or not at all."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tiepoint
from support.registered import (
    MATRICES,
    carried,
    corners_off_px,
    matched,
)
from tiepoint.errors import RegistrationError
from tiepoint.geometry import corners_xy
from tiepoint.registration.models import PLANE_MODELS
from tiepoint.registration.register import register, registration_detector


def warped(photo: NDArray[np.uint8], matrix: np.ndarray) -> NDArray[np.uint8]:
    done = cv2.warpPerspective(photo, matrix, photo.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
    return np.asarray(done * 0.8 + 20, np.uint8)


@pytest.mark.parametrize("model", PLANE_MODELS)
def test_a_photograph_is_registered_with_its_warped_copy(
    model: str, photographs: list[NDArray[np.uint8]]
) -> None:
    truth = {
        "translation": np.array([[1, 0, 30.5], [0, 1, 12.25], [0, 0, 1]]),
        "similarity": np.array([[0.95, -0.1, 40], [0.1, 0.95, -20], [0, 0, 1]]),
        "affine": np.array([[0.95, 0.1, 10], [-0.05, 0.9, 25], [0, 0, 1]]),
        "homography": np.array([[0.95, 0.08, 20], [-0.05, 0.95, 25], [5e-5, 5e-5, 1]]),
    }[model]
    photo = photographs[2]
    result = register(photo, warped(photo, truth), model=model)
    assert result.success, result.reason
    assert corners_off_px(result, truth) < 3


def test_unrelated_photographs_are_not_registered(photographs: list[NDArray[np.uint8]]) -> None:
    found = [tiepoint.Detector(threshold=0.0)(photo, max_keypoints=500) for photo in photographs]
    for i in range(len(found)):
        for j in range(i):
            result = register(found[i], found[j])
            assert not result.success and result.matrix is None
            with pytest.raises(RegistrationError, match="not registered: "):
                result.transform([0, 0])


def test_identical_images_give_the_identity(photographs: list[NDArray[np.uint8]]) -> None:
    result = register(photographs[0], photographs[0])
    assert result.success and result.inlier_ratio == 1
    np.testing.assert_allclose(result.matrix, np.eye(3), atol=1e-4)


def test_an_image_without_texture_is_refused(photographs: list[NDArray[np.uint8]]) -> None:
    result = register(np.full((200, 300), 128, np.uint8), photographs[0])
    assert not result.success and "asked for" in result.reason


def test_a_mirrored_photograph_is_not_registered(photographs: list[NDArray[np.uint8]]) -> None:
    assert not register(photographs[2], np.ascontiguousarray(photographs[2][:, ::-1])).success


def test_guided_matching_brings_more_inliers_and_is_no_farther_from_the_truth(
    photographs: list[NDArray[np.uint8]],
) -> None:
    """Photographs seen from elsewhere, under other light."""
    more, off = [], []
    for number, photograph in enumerate([*photographs, *photographs, *photographs]):
        height, width = photograph.shape[:2]
        rng = np.random.default_rng(number)
        corners = corners_xy((height, width)).astype(np.float32)
        moved = corners + rng.uniform(-0.2, 0.2, (4, 2)).astype(np.float32) * (width, height)
        truth = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
        seen = cv2.warpPerspective(photograph, truth, (width, height))
        seen = 0.6 * cv2.GaussianBlur(seen, (0, 0), 1.6) + 30 + rng.normal(0, 6, seen.shape)
        seen = np.clip(seen, 0, 255).astype(np.uint8)
        plain, guided = (register(photograph, seen, guided=wanted) for wanted in (False, True))
        assert plain.success and guided.success
        assert "guided_px" in guided.matches.meta and "guided_px" not in plain.matches.meta
        more.append(guided.inliers.sum() / plain.inliers.sum())
        off.append([corners_off_px(result, truth) for result in (plain, guided)])
    assert min(more) >= 1 and np.mean(more) > 1.1
    plain_px, guided_px = np.transpose(off)
    assert np.exp(np.log(plain_px / guided_px).mean()) > 0.9  # 12 pairs know it to a tenth
    assert np.max(off) < 5


def test_matches_that_were_given_are_kept_as_they_are() -> None:
    features_a, features_b, matches = matched(*carried(MATRICES["homography"], 300))
    assert register(features_a, features_b, matches=matches, guided=True).matches is matches


def test_features_of_a_detector_of_ones_own_are_taken(photographs: list[NDArray[np.uint8]]) -> None:
    detector = tiepoint.Detector(max_side=300)
    result = register(photographs[0], detector(photographs[0]), detector=detector)
    assert result.success
    assert result.features_a.provenance.settings["max_side"] == 300
    assert len(register(photographs[0], photographs[0], max_keypoints=50).features_a) == 50


def test_real_pairs_are_registered_right_or_not_at_all(shared: Path) -> None:
    from tiepoint.evaluation.homography import HOMOGRAPHY
    from tiepoint.evaluation.pair_lists import read_folders

    folders = [shared / "eval" / name for name in ("iguazu", "oxford")]
    pairs = [
        pair
        for pair in read_folders(HOMOGRAPHY, folders)[0]
        if "ubc" in pair.name or "iguazu" in pair.group
    ]
    done = 0
    for pair in pairs:
        loaded = pair.load(640)
        result = register(loaded.image_a, loaded.image_b)
        if result.success:
            done += 1
            assert corners_off_px(result, loaded.homography) < 10
    assert done >= len(pairs) - 2


def test_the_fundamental_matrix_of_a_real_stereo_pair_keeps_rows(shared: Path) -> None:
    folder = shared / "eval" / "stereo"
    result = register(folder / "motorcycle_A.png", folder / "motorcycle_B.png", model="fundamental")
    assert result.success, result.reason
    rows = result.xy_b[result.inliers, 1] - result.xy_a[result.inliers, 1]  # rectified
    assert np.median(np.abs(rows)) < 1


@pytest.fixture(scope="module")
def small() -> NDArray[np.uint8]:
    """A photograph of 225x150 px, colour."""
    data = pytest.importorskip("skimage.data", reason="photographs need scikit-image")
    return np.ascontiguousarray(data.cat()[::2, ::2])


def test_the_detector_for_registration_keeps_keypoints_of_any_score(
    small: NDArray[np.uint8],
) -> None:
    strong, every = tiepoint.Detector()(small), registration_detector()(small)
    assert len(every) > len(strong)
    assert every.scores.min() < 0.005 <= strong.scores.min()
    smaller = registration_detector("default", device="cpu", max_side=100)(small)
    assert smaller.provenance is not None
    assert smaller.provenance.settings["max_side"] == 100
    assert smaller.provenance.settings["threshold"] == 0


def test_images_are_detected_as_by_the_detector_for_registration(
    small: NDArray[np.uint8], tmp_path: Path
) -> None:
    """A path, an array and its features give the same registration."""
    seen = warped(small, np.array([[1, 0, 5.0], [0, 1, 3], [0, 0, 1]]))
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), small[..., ::-1])
    detector = registration_detector()
    features = [detector(image, max_keypoints=1000) for image in (small, seen)]
    expected = register(*features)
    assert expected.success
    for a, b in ((small, features[1]), (path, features[1]), (features[0], seen)):
        result = register(a, b)
        np.testing.assert_array_equal(result.matrix, expected.matrix)
        np.testing.assert_array_equal(result.matches.pairs, expected.matches.pairs)


def test_two_view_models_and_failures_are_not_matched_again(small: NDArray[np.uint8]) -> None:
    detector = registration_detector()
    photo, shifted, upside_down = (
        detector(image, max_keypoints=500)
        for image in (
            small,
            warped(small, np.array([[1, 0, 5.5], [0, 1, 2.25], [0, 0, 1]])),
            np.ascontiguousarray(small[::-1]),
        )
    )
    for other, model in ((shifted, "fundamental"), (upside_down, "homography")):
        result = register(photo, other, model=model)
        assert not result.success  # one plane; a mirror image
        assert "guided_px" not in result.matches.meta
