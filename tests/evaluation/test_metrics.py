"""Corner error, repeatability, correct matches, intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from support.registered import MATRICES, SIZE_HW, carried
from tiepoint.evaluation.metrics import (
    corner_error,
    correct_matches,
    estimate_homography,
    mean_interval,
    repeated,
)
from tiepoint.evaluation.settings import ESTIMATORS
from tiepoint.geometry import apply_homography, inside
from tiepoint.registration import planar

TRUTH = np.array([[0.9, 0.1, 12], [-0.08, 1.05, 6], [1e-4, -2e-4, 1]])
SIZE = 200, 300


def points(count: int, seed: int, size_hw: tuple[int, int] = SIZE) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0, 1, (count, 2)) * (size_hw[1], size_hw[0]) - 0.5


def moved(dx: float, dy: float) -> NDArray[np.float64]:
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]])


def repeatability(*arguments) -> float:
    return repeated(*arguments).share


def slow_repeatability(
    a: NDArray[np.float64], b: NDArray[np.float64], k: int, within_px: float
) -> float:
    def go(matrix: NDArray[np.float64], x: float, y: float) -> tuple[float, float]:
        u, v, w = matrix @ [x, y, 1]
        return u / w, v / w

    def on(x: float, y: float) -> bool:
        return -0.5 <= x <= SIZE[1] - 0.5 and -0.5 <= y <= SIZE[0] - 0.5

    back = np.linalg.inv(TRUTH)
    shared_a = [(p, go(TRUTH, *p)) for p in a.tolist() if on(*go(TRUTH, *p))][:k]
    shared_b = [(p, go(back, *p)) for p in b.tolist() if on(*go(back, *p))][:k]
    found = sum(any(math.dist(q, p) <= within_px for p, _ in shared_b) for _, q in shared_a)
    found += sum(any(math.dist(q, p) <= within_px for p, _ in shared_a) for _, q in shared_b)
    return found / (len(shared_a) + len(shared_b))


@pytest.mark.parametrize("k", [20, 1000])
@pytest.mark.parametrize("within_px", [1, 3, 8])
def test_repeatability_equals_its_slow_twin(k: int, within_px: float) -> None:
    a, b = points(150, 1), points(120, 2)
    b[:40] = apply_homography(TRUTH, a[:40]) + points(40, 3, (4, 4)) - 2
    fast = repeatability(a, b, TRUTH, SIZE, SIZE, k, within_px)
    assert 0 < fast < 1
    assert fast == slow_repeatability(a, b, k, within_px)


def test_the_same_points_seen_twice_repeat_completely() -> None:
    a = points(900, 4)  # more than one chunk
    a = a[inside(apply_homography(TRUTH, a), SIZE)]
    b = apply_homography(TRUTH, a)
    assert repeatability(a, b, TRUTH, SIZE, SIZE, 1000, 0.01) == 1


def test_points_outside_the_common_view_do_not_count() -> None:
    truth = moved(-150, 0)  # B shows the right half of A
    a = np.array([[200.0, 50], [20, 50], [10, 60]])
    b = np.array([[50.0, 50], [200, 50]])
    assert repeatability(a, b, truth, SIZE, SIZE, 10, 1) == 1
    assert repeatability(a[1:], b[1:], truth, SIZE, SIZE, 10, 1) == 0  # nothing in common view
    assert repeatability(a[:1], b[1:], truth, SIZE, SIZE, 10, 1) == 0


def test_the_k_best_are_taken_inside_the_common_view() -> None:
    truth = moved(-150, 0)
    a = np.array([[20.0, 50], [30, 50], [200, 50]])  # the first two are not shared
    b = np.array([[50.0, 50], [60, 80]])
    assert repeatability(a, b, truth, SIZE, SIZE, 1, 1) == 1


@pytest.mark.parametrize("counts", [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_points_repeats_nothing(counts: tuple[int, int]) -> None:
    a, b = points(counts[0], 5), points(counts[1], 6)
    assert repeatability(a, b, np.eye(3), SIZE, SIZE, 10, 3) == 0


def test_random_points_repeat_as_often_as_chance_says() -> None:
    a, b = points(300, 7), points(300, 8)
    area = SIZE[0] * SIZE[1]
    chance = 1 - math.exp(-300 * math.pi * 3**2 / area)
    assert abs(repeatability(a, b, np.eye(3), SIZE, SIZE, 1000, 3) - chance) < 0.05


def test_corner_error_is_the_mean_over_the_four_corners() -> None:
    assert corner_error(TRUTH, TRUTH, SIZE) == 0
    assert corner_error(moved(3, 4), np.eye(3), SIZE) == pytest.approx(5)
    scaled = np.diag([1.01, 1, 1])  # moves the right corners by 2.99 px, the left not at all
    assert corner_error(scaled, np.eye(3), SIZE) == pytest.approx(2.99 / 2)


def test_the_scale_and_sign_of_an_estimate_are_free() -> None:
    for factor in (7, -0.3):
        assert corner_error(factor * TRUTH, TRUTH, SIZE) == pytest.approx(0, abs=1e-9)


def test_no_estimate_or_a_corner_at_infinity_is_an_infinite_error() -> None:
    assert corner_error(None, TRUTH, SIZE) == math.inf
    folded = np.array([[1, 0, 0], [0, 1, 0], [-1 / 200, 0, 1.0]])  # w < 0 right of x = 200
    assert corner_error(folded, np.eye(3), SIZE) == math.inf


def test_a_match_is_correct_up_to_the_distance_given() -> None:
    a = np.array([[10.0, 10], [50, 60], [100, 20]])
    b = apply_homography(TRUTH, a) + np.array([[0, 2.9], [3.1, 0], [0, 0]])
    assert correct_matches(a, b, TRUTH, 3).tolist() == [True, False, True]
    assert correct_matches(a[:0], b[:0], TRUTH, 3).shape == (0,)


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


def test_the_interval_covers_a_known_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(16)
    covered = 0
    for _ in range(200):
        low, high = mean_interval(rng.random(100) < 0.3)
        covered += low <= 0.3 <= high
    assert 0.89 <= covered / 200 <= 0.99


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_interval_holds_the_mean_and_repeats(values: list[float]) -> None:
    numbers = np.array(values)
    low, high = mean_interval(numbers)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert mean_interval(numbers) == (low, high)


def test_one_value_is_its_own_interval() -> None:
    assert mean_interval(np.array([0.25])) == (0.25, 0.25)


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
