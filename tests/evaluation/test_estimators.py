"""Homographies and poses estimated from right and wrong matches."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from support.registered import MATRICES, SIZE_HW, carried
from tiepoint.errors import MissingExtraError
from tiepoint.evaluation.estimators import estimate_homography, estimate_pose
from tiepoint.evaluation.metrics import corner_error
from tiepoint.evaluation.pose import pose_error_deg
from tiepoint.evaluation.settings import ESTIMATORS, Estimator
from tiepoint.geometry import apply_homography
from tiepoint.registration import epipolar, planar

TRUTH = np.array([[0.9, 0.1, 12], [-0.08, 1.05, 6], [1e-4, -2e-4, 1]])
SIZE = 200, 300
CAMERA = np.array([[500.0, 0, 319.5], [0, 510.0, 239.5], [0, 0, 1]])


def points(count: int, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0, 1, (count, 2)) * (SIZE[1], SIZE[0]) - 0.5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_magsac_finds_the_homography_among_outliers(seed: int) -> None:
    a = points(200, 9)
    b = apply_homography(TRUTH, a)
    b[:80] = points(80, 10)
    assert corner_error(estimate_homography(a, b, seed), TRUTH, SIZE) < 0.01


def test_the_seed_shuffles_and_the_same_seed_repeats() -> None:
    a = points(120, 11)
    b = apply_homography(TRUTH, a) + np.random.default_rng(12).normal(0, 1, (120, 2))
    b[:70] = points(70, 13)
    found = [estimate_homography(a, b, seed) for seed in (0, 1, 2, 3, 4, 0)]
    np.testing.assert_array_equal(found[0], found[5])
    assert len({str(matrix) for matrix in found}) > 1


@pytest.mark.parametrize("count", [0, 1, 3])
def test_under_four_matches_there_is_no_homography(count: int) -> None:
    assert estimate_homography(points(count, 14), points(count, 15), 0) is None


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_finds_the_homography_among_wrong_matches(estimator: str) -> None:
    if estimator == "poselib":
        pytest.importorskip("poselib")
    truth = MATRICES["homography"]
    a, b = carried(truth, count=300, noise_px=0.5, wrong=120)
    found = estimate_homography(a, b, 0, None, estimator, 2.0)  # type: ignore[arg-type]
    assert corner_error(found, truth, SIZE_HW) < 0.6
    assert estimate_homography(a[:3], b[:3], 0, None, estimator) is None  # type: ignore[arg-type]


def test_refined_estimates_are_the_better_ones_where_some_matches_are_less_exact() -> None:
    """As in photographs: a few exact ones, many fair ones, some a few px beside the place."""
    truth, off = MATRICES["homography"], []
    for seed in range(10):
        a, b = carried(truth, count=300, wrong=60, seed=seed)
        rng = np.random.default_rng(seed)
        deviation = rng.choice([0.4, 1.5, 4.0], (300, 1), p=[0.4, 0.4, 0.2])
        b += rng.normal(0, deviation, (300, 2))
        start = planar.consensus("homography", a, b, 1.5)
        refined = estimate_homography(a, b, seed)
        off.append([corner_error(found, truth, SIZE_HW) for found in (start, refined)])
    alone, refined_px = np.median(off, axis=0)
    assert refined_px < 0.7 * alone


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_repeats_itself_and_follows_the_seed(estimator: Estimator) -> None:
    if estimator == "poselib":
        pytest.importorskip("poselib")
    a, b = carried(MATRICES["homography"], count=200, noise_px=1.5, wrong=120)
    found = [estimate_homography(a, b, seed, None, estimator, 2.0) for seed in (0, 1, 2, 3, 0)]
    np.testing.assert_array_equal(found[0], found[4])
    assert len({str(matrix) for matrix in found}) > 1


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_points_on_a_line_determine_no_homography(estimator: Estimator) -> None:
    if estimator == "poselib":
        pytest.importorskip("poselib")
    line = np.stack([np.arange(30.0), np.arange(30.0)], axis=1)
    matrix = estimate_homography(line, line, 0, None, estimator)
    assert matrix is None or np.isfinite(matrix).all()


def test_covariances_give_exact_points_the_greater_weight() -> None:
    truth, errors = MATRICES["homography"], []
    for seed in range(6):
        a, b = carried(truth, count=200, seed=seed)
        rng = np.random.default_rng(seed)
        deviation = rng.choice([0.1, 2.0], (200, 1))
        b += rng.normal(0, deviation, (200, 2))
        covariance = np.tile(np.eye(2), (200, 1, 1)) * deviation[:, :, None] ** 2 / 2
        found = (estimate_homography(a, b, 0, known) for known in (None, (covariance, covariance)))
        errors.append([corner_error(matrix, truth, SIZE_HW) for matrix in found])
    alike, weighted = np.median(errors, axis=0)
    assert weighted < alike


def test_poselib_without_poselib_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "poselib", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    a = points(20, 1)
    with pytest.raises(MissingExtraError, match=r"tiepoint\[pose\]"):
        estimate_homography(a, a, 0, None, "poselib")


def scene(noise_px: float, wrong: int = 0) -> tuple[np.ndarray, np.ndarray, epipolar.Pose]:
    """Points of a scene in both views, the first `wrong` of B anywhere, and the pose."""
    rng = np.random.default_rng(5)
    rotation = cv2.Rodrigues(math.radians(9) * np.array([0.2, 0.97, 0.1]))[0]
    truth = epipolar.Pose(rotation, np.array([1, 0.1, 0.2]) / np.linalg.norm([1, 0.1, 0.2]))
    in_a = rng.uniform([-2, -1.5, 4], [2, 1.5, 9], (200, 3))
    in_b = in_a @ rotation.T + truth.translation
    a, b = ((points @ CAMERA.T)[:, :2] / points[:, 2:] for points in (in_a, in_b))
    b = b + rng.normal(0, noise_px, b.shape)
    b[:wrong] = rng.uniform(0, 400, (wrong, 2))
    return a.astype(np.float32), b.astype(np.float32), truth


@pytest.mark.parametrize(
    ("noise_px", "wrong", "most_deg"), [(0, 0, 0.05), (0, 80, 0.1), (0.3, 50, 1)]
)
def test_the_pose_is_found_among_wrong_matches(
    noise_px: float, wrong: int, most_deg: float
) -> None:
    a, b, truth = scene(noise_px, wrong)
    estimate = estimate_pose(a, b, (CAMERA, CAMERA), 0, 1.0)
    assert pose_error_deg(estimate, truth) < most_deg


@pytest.mark.parametrize("count", [0, 1, 4])
def test_under_five_matches_there_is_no_pose(count: int) -> None:
    a, b, _ = scene(0)
    assert estimate_pose(a[:count], b[:count], (CAMERA, CAMERA), 0, 1.0) is None


def test_the_pose_repeats_for_the_same_seed() -> None:
    a, b, _ = scene(1.0, 80)
    one, two = (estimate_pose(a, b, (CAMERA, CAMERA), 3, 1.0) for _ in range(2))
    assert one is not None
    assert two is not None
    np.testing.assert_array_equal(one.rotation, two.rotation)
    np.testing.assert_array_equal(one.translation, two.translation)
