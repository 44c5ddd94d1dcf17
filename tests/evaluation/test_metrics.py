"""Corner error, repeatability, correct matches, intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tiepoint.evaluation import metrics
from tiepoint.evaluation.metrics import corner_error, correct_matches, mean_interval
from tiepoint.geometry import apply_homography, inside

TRUTH = np.array([[0.9, 0.1, 12], [-0.08, 1.05, 6], [1e-4, -2e-4, 1]])
SIZE = 200, 300


def points(count: int, seed: int, size_hw: tuple[int, int] = SIZE) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0, 1, (count, 2)) * (size_hw[1], size_hw[0]) - 0.5


def moved(dx: float, dy: float) -> NDArray[np.float64]:
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]])


def repeatability(*arguments) -> float:
    return metrics.repeatability(*arguments).share


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


@given(st.lists(st.floats(0, 50), min_size=1, max_size=30), st.floats(0.5, 20))
def test_the_area_is_that_under_the_curve_of_shares(errors: list[float], up_to: float) -> None:
    values = np.array(errors)
    steps = (np.arange(5000) + 0.5) / 5000 * up_to  # the slow way: a fine sum
    slow = (values[:, None] <= steps).mean()
    assert metrics.area_shares(values, up_to).mean() == pytest.approx(slow, abs=1e-3)


def test_areas_of_pairs_without_an_estimate_are_zero() -> None:
    assert metrics.area_shares(np.array([math.inf, 180.0]), 20).tolist() == [0, 0]


def test_a_mean_of_nothing_is_unknown_and_of_booleans_a_share() -> None:
    assert all(math.isnan(value) for value in vars(metrics.mean_of([])).values())
    share = metrics.mean_of([True, False, False, True])
    assert share.mean == 0.5
    assert 0 <= share.low <= 0.5 <= share.high <= 1
    assert metrics.mean_of([3]) == metrics.Mean(3, 3, 3)


def slow_interval(values: list[float]) -> tuple[float, float]:
    """Resample by loops from the same random numbers."""
    rng = np.random.default_rng(metrics.BOOTSTRAP_SEED)
    index = rng.integers(len(values), size=(metrics.BOOTSTRAP_RESAMPLES, len(values)))
    means = sorted(sum(values[i] for i in row) / len(values) for row in index.tolist())
    low, high = (np.interp(p * (len(means) - 1), range(len(means)), means) for p in (0.025, 0.975))
    return float(low), float(high)


def test_the_interval_equals_its_slow_twin() -> None:
    values = np.random.default_rng(17).exponential(2, 12).tolist()
    assert mean_interval(np.array(values)) == pytest.approx(slow_interval(values))


def slow_map(matrix: NDArray[np.float64], x: float, y: float) -> tuple[float, float]:
    u, v, w = matrix @ [x, y, 1]
    return (u / w, v / w) if w > 0 else (math.nan, math.nan)


@pytest.mark.parametrize("within_px", [0.5, 2, 5])
def test_correct_matches_and_accuracy_equal_their_slow_twins(within_px: float) -> None:
    a = points(200, 21)
    b = apply_homography(TRUTH, a) + np.random.default_rng(22).normal(0, 2, (200, 2))
    slow = [math.dist(slow_map(TRUTH, *p), q) <= within_px
            for p, q in zip(a.tolist(), b.tolist(), strict=True)]  # fmt: skip
    assert correct_matches(a, b, TRUTH, within_px).tolist() == slow
    assert metrics.matching_accuracy(a, b, TRUTH, [within_px, 1e9]) == (sum(slow) / 200, 1.0)


def test_points_behind_the_camera_are_matched_wrongly() -> None:
    folded = np.array([[1, 0, 0], [0, 1, 0], [-1 / 100, 0, 1.0]])  # w < 0 right of x = 100
    a = np.array([[50.0, 10], [150, 10]])
    b = np.array([[100.0, 20], [-300, -20]])
    assert correct_matches(a, b, folded, 1).tolist() == [True, False]


def test_accuracy_without_matches_is_zero_at_every_distance() -> None:
    none = np.empty((0, 2))
    assert metrics.matching_accuracy(none, none, TRUTH, (1, 2, 3)) == (0.0, 0.0, 0.0)
    assert metrics.matching_accuracy(none, none, TRUTH, ()) == ()


def test_common_points_equal_their_slow_twin() -> None:
    a, b = points(130, 23), points(90, 24)
    truth = TRUTH + np.array([[0, 0, -140], [0, 0, 60], [0, 0, 0]])

    def on_image(x: float, y: float) -> bool:
        return -0.5 <= x <= SIZE[1] - 0.5 and -0.5 <= y <= SIZE[0] - 0.5

    back = np.linalg.inv(truth)
    in_b = sum(on_image(*slow_map(truth, *p)) for p in a.tolist())
    in_a = sum(on_image(*slow_map(back, *p)) for p in b.tolist())
    assert 0 < in_b < 130
    assert metrics.common_points(a, b, truth, SIZE, SIZE) == (in_a + in_b) / 2
    assert metrics.common_points(a[:0], b[:0], truth, SIZE, SIZE) == 0


@pytest.mark.parametrize("seed", range(5))
def test_corner_error_equals_its_slow_twin(seed: int) -> None:
    estimate = TRUTH + np.random.default_rng(seed).normal(0, 1e-5, (3, 3))
    corners = [(0, 0), (SIZE[1] - 1, 0), (0, SIZE[0] - 1), (SIZE[1] - 1, SIZE[0] - 1)]
    slow = sum(math.dist(slow_map(estimate, *c), slow_map(TRUTH, *c)) for c in corners) / 4
    assert corner_error(estimate, TRUTH, SIZE) == pytest.approx(slow)


def test_localisation_is_the_mean_distance_of_repeated_points_only() -> None:
    a = np.array([[20.0, 20], [100, 50], [200, 150]])
    b = a + np.array([[0.5, 0], [0, 1.5], [40, 0]])
    found = metrics.repeatability(a, b, np.eye(3), SIZE, SIZE, 10, 3)
    assert found.share == pytest.approx(4 / 6)
    assert found.localisation_px == pytest.approx(1.0)
    none = metrics.repeatability(a, a + 90, np.eye(3), SIZE, SIZE, 10, 3)
    assert none.share == 0
    assert math.isnan(none.localisation_px)
