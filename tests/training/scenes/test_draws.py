"""Random draws and elementary geometry of the scene generator."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tiepoint.training.scenes import basics, draws


def rng_of(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_logarithm_of_a_log_uniform_number_is_uniform() -> None:
    rng = rng_of()
    values = np.log([draws.log_uniform(rng, 0.5, 8) for _ in range(4000)])
    low, high = math.log(0.5), math.log(8)
    assert values.min() >= low and values.max() <= high
    quantiles = np.quantile(values, [0.25, 0.5, 0.75])
    assert quantiles == pytest.approx(low + (high - low) * np.array([0.25, 0.5, 0.75]), abs=0.08)


def test_a_log_uniform_number_between_equal_limits_is_that_limit() -> None:
    assert draws.log_uniform(rng_of(), 3.0, 3.0) == pytest.approx(3.0)


def test_a_log_uniform_number_needs_positive_limits() -> None:
    with pytest.raises(ValueError):
        draws.log_uniform(rng_of(), 0.0, 1.0)


def test_angles_cover_the_circle_evenly() -> None:
    rng = rng_of(1)
    angles = np.array([draws.angle(rng) for _ in range(4000)])
    assert angles.min() >= 0 and angles.max() < 2 * math.pi
    counts = np.histogram(angles, 8, (0, 2 * math.pi))[0]
    assert counts.min() > 400 and counts.max() < 600
    assert np.hypot(np.cos(angles).mean(), np.sin(angles).mean()) < 0.05


def test_picks_are_equally_likely() -> None:
    rng = rng_of(2)
    picks = [draws.pick(rng, "abcd") for _ in range(4000)]
    counts = [picks.count(letter) for letter in "abcd"]
    assert sum(counts) == 4000
    assert min(counts) > 900 and max(counts) < 1100


def test_the_only_choice_is_picked() -> None:
    assert draws.pick(rng_of(), ["only"]) == "only"
    assert draws.pick_by_share(rng_of(), [("only", 0.1)]) == "only"


def test_nothing_to_pick_from_is_an_error() -> None:
    with pytest.raises(ValueError):
        draws.pick(rng_of(), [])


def test_a_pick_by_share_follows_the_shares() -> None:
    rng = rng_of(3)
    table = [("often", 3.0), ("seldom", 1.0), ("never", 0.0)]
    picks = [draws.pick_by_share(rng, table) for _ in range(4000)]
    assert picks.count("often") / 4000 == pytest.approx(0.75, abs=0.03)
    assert picks.count("never") == 0


def test_shares_need_not_sum_to_one() -> None:
    small, large = [("a", 0.1), ("b", 0.3)], [("a", 10.0), ("b", 30.0)]
    one, other = rng_of(4), rng_of(4)
    for _ in range(200):
        assert draws.pick_by_share(one, small) == draws.pick_by_share(other, large)


def test_a_draw_uses_one_number_of_the_generator() -> None:
    one, other = rng_of(5), rng_of(5)
    draws.angle(one)
    other.random()
    assert one.random() == other.random()


def test_a_rectangle_has_its_half_sizes() -> None:
    points = basics.rectangle((3, 1.5))
    assert points.tolist() == [[-3, -1.5], [3, -1.5], [3, 1.5], [-3, 1.5]]
    assert points.dtype == np.float64


def test_a_rectangle_may_be_changed_without_changing_the_next() -> None:
    first = basics.rectangle((1, 1))
    first += 5
    assert basics.rectangle((1, 1)).mean() == 0


@pytest.mark.parametrize("angle", [0.0, 0.7, -2.1, math.pi])
def test_turning_keeps_lengths_and_adds_to_the_angle(angle: float) -> None:
    points = rng_of(6).normal(0, 10, (20, 2))
    turned = basics.turned(points, angle)
    assert np.hypot(*turned.T) == pytest.approx(np.hypot(*points.T))
    difference = np.arctan2(turned[:, 1], turned[:, 0]) - np.arctan2(points[:, 1], points[:, 0])
    assert np.cos(difference) == pytest.approx(math.cos(angle))
    assert np.sin(difference) == pytest.approx(math.sin(angle))


def test_a_quarter_turn_takes_x_to_y() -> None:
    assert basics.turned(np.array([[1.0, 0]]), math.pi / 2) == pytest.approx(np.array([[0.0, 1]]))


def test_the_nearest_distance_is_that_of_the_slow_twin() -> None:
    rng = rng_of(7)
    from_xy, to_xy = rng.uniform(0, 50, (30, 2)), rng.uniform(0, 50, (12, 2))
    slow = [min(math.dist(point, other) for other in to_xy) for point in from_xy]
    assert basics.nearest_distance(from_xy, to_xy) == pytest.approx(slow)


def test_no_points_have_no_distances_and_a_point_itself_is_at_zero() -> None:
    assert basics.nearest_distance(np.zeros((0, 2)), np.ones((3, 2))).shape == (0,)
    assert basics.nearest_distance(np.ones((1, 2)), np.ones((1, 2))).tolist() == [0.0]


def test_the_size_of_an_image_is_height_and_width() -> None:
    assert basics.size_hw_of(np.zeros((4, 7))) == (4, 7)
    assert basics.size_hw_of(np.zeros((4, 7, 3))) == (4, 7)
