"""Outlines of single shapes: their form, their size and their corners."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from tiepoint.training.scenes import outlines
from tiepoint.training.scenes.canvas import CORNER, doubled_area, vertex_kinds

MAKERS = [maker for maker, _ in outlines.OUTLINES]
Maker = Callable[[np.random.Generator, float], np.ndarray]


def drawn(maker: Maker, radius: float = 40, count: int = 12) -> list[np.ndarray]:
    return [maker(np.random.default_rng(seed), radius) for seed in range(count)]


def crosses(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> bool:
    """Whether segment a b crosses segment c d."""

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


@pytest.mark.parametrize("maker", MAKERS)
def test_an_outline_is_a_list_of_finite_points(maker: Maker) -> None:
    for points in drawn(maker):
        assert points.ndim == 2 and points.shape[1] == 2 and len(points) >= 3
        assert points.dtype == np.float64
        assert np.isfinite(points).all()


@pytest.mark.parametrize("maker", MAKERS)
def test_an_outline_does_not_exceed_its_radius_by_much(maker: Maker) -> None:
    for points in drawn(maker):
        longest = np.hypot(*points.T).max()
        assert longest <= 40 * 1.6
        assert longest >= 40 * 0.25


@pytest.mark.parametrize("maker", MAKERS)
def test_an_outline_does_not_cross_itself(maker: Maker) -> None:
    for points in drawn(maker, count=3):
        ends = np.roll(points, -1, axis=0)
        for i in range(len(points)):
            for j in range(i + 2, len(points)):
                assert not crosses(points[i], ends[i], points[j], ends[j])


@pytest.mark.parametrize("maker", MAKERS)
def test_an_outline_encloses_an_area(maker: Maker) -> None:
    for points in drawn(maker):
        assert abs(doubled_area(points)) > 40


@pytest.mark.parametrize("maker", MAKERS)
def test_an_outline_repeats_with_its_seed_and_differs_with_another(maker: Maker) -> None:
    first, second = drawn(maker, count=2)
    assert np.array_equal(first, maker(np.random.default_rng(0), 40))
    assert first.shape != second.shape or not np.allclose(first, second)


@pytest.mark.parametrize(
    "maker",
    [outlines.polygon, outlines.regular, outlines.parallelogram, outlines.star, outlines.angular,
     outlines.sector],
)  # fmt: skip
def test_twice_the_radius_is_twice_the_outline(maker: Maker) -> None:
    small, large = maker(np.random.default_rng(3), 20), maker(np.random.default_rng(3), 40)
    assert large == pytest.approx(2 * small)


def test_a_polygon_keeps_a_little_more_than_half_its_radius_free() -> None:
    for points in drawn(outlines.polygon, count=40):
        lengths = np.hypot(*points.T)
        assert 3 <= len(points) <= 8
        assert lengths.min() >= 0.55 * 40 - 1e-9 and lengths.max() <= 40 + 1e-9


def test_a_regular_polygon_has_equal_sides_on_its_circle() -> None:
    counts = set()
    for points in drawn(outlines.regular, count=40):
        sides = np.hypot(*(np.roll(points, -1, axis=0) - points).T)
        assert sides == pytest.approx(np.full(len(points), sides[0]))
        assert np.hypot(*points.T) == pytest.approx(np.full(len(points), 40.0))
        counts.add(len(points))
    assert counts == set(range(3, 9))


def test_opposite_sides_of_a_parallelogram_are_equal() -> None:
    ratios = []
    for points in drawn(outlines.parallelogram, count=60):
        sides = np.roll(points, -1, axis=0) - points
        assert sides[0] == pytest.approx(-sides[2]) and sides[1] == pytest.approx(-sides[3])
        lengths = np.hypot(*sides.T)
        ratios.append(lengths[1] / lengths[0])
    assert min(ratios) >= 0.19 and max(ratios) < 1.3
    assert min(ratios) < 0.4 < 0.8 < max(ratios)


def test_points_of_a_star_alternate_between_two_radii() -> None:
    for points in drawn(outlines.star):
        lengths = np.hypot(*points.T)
        assert len(points) % 2 == 0 and 8 <= len(points) <= 16
        assert lengths[::2] == pytest.approx(np.full(len(points) // 2, 40.0))
        inner = lengths[1::2]
        assert inner == pytest.approx(np.full(len(points) // 2, inner[0]))
        assert 0.35 * 40 <= inner[0] <= 0.7 * 40


def test_angular_shapes_have_right_angles_outwards_and_inwards() -> None:
    vertex_counts = set()
    for points in drawn(outlines.angular, count=30):
        vertex_counts.add(len(points))
        steps = np.roll(points, -1, axis=0) - points
        before = np.roll(steps, 1, axis=0)
        turns = before[:, 0] * steps[:, 1] - before[:, 1] * steps[:, 0]
        assert (turns > 0).any() and (turns < 0).any()
        if len(points) != 7:  # all but the arrow
            cosine = (before * steps).sum(axis=1)
            assert np.abs(cosine / np.hypot(*before.T) / np.hypot(*steps.T)).max() < 1e-6
    assert vertex_counts == {6, 7, 8}


def test_an_ellipse_satisfies_its_equation_and_has_no_corner() -> None:
    for points in drawn(outlines.ellipse):
        moments = points.T @ points / len(points)
        values, axes = np.linalg.eigh(moments)
        scaled = points @ axes / np.sqrt(2 * values)
        assert np.hypot(*scaled.T) == pytest.approx(np.ones(len(points)), abs=1e-6)
        assert 0.3 - 1e-6 <= math.sqrt(values[0] / values[1]) <= 1
        assert not (vertex_kinds(points) == CORNER).any()


@pytest.mark.parametrize("radius", [4.0, 30.0, 300.0])
def test_smooth_outlines_have_enough_vertices_at_any_size(radius: float) -> None:
    for points in drawn(outlines.ellipse, radius, count=4):
        assert 28 <= len(points) <= 80
    for points in drawn(outlines.blob, radius, count=4):
        assert 36 <= len(points) <= 90


def test_a_blob_has_no_sharp_corner() -> None:
    corners = [(vertex_kinds(points) == CORNER).sum() for points in drawn(outlines.blob, count=30)]
    assert np.mean(corners) < 0.7


def test_a_bar_is_as_long_as_its_circle_and_at_least_three_px_wide() -> None:
    for radius in (10.0, 80.0):
        for points in drawn(outlines.bar, radius):
            sides = np.hypot(*(np.roll(points, -1, axis=0) - points).T)
            assert sides[0] == pytest.approx(2 * radius)
            assert 3 - 1e-9 <= sides[1] <= max(3.0, 0.3 * radius) + 1e-9


def test_the_arc_of_a_sector_is_on_its_circle() -> None:
    with_middle = 0
    for points in drawn(outlines.sector, count=40):
        assert np.hypot(*points[:24].T) == pytest.approx(np.full(24, 40.0))
        if len(points) == 25:
            with_middle += 1
            assert points[24].tolist() == [0, 0]
    assert 10 < with_middle < 40


@pytest.mark.parametrize(
    ("maker", "corners"), [(outlines.parallelogram, 4), (outlines.bar, 2), (outlines.ellipse, 0)]
)
def test_sharp_outlines_have_their_corners(maker: Maker, corners: int) -> None:
    counts = [(vertex_kinds(points) == CORNER).sum() for points in drawn(maker, 120)]
    assert min(counts) >= corners


def test_outlines_are_drawn_as_often_as_their_shares() -> None:
    rng = np.random.default_rng(5)
    sizes = [len(outlines.outline(rng, 100.0)) for _ in range(1500)]
    shares = dict(outlines.OUTLINES)
    total = sum(shares.values())
    ellipses = sum(size == 51 for size in sizes)  # 2.5 sqrt(100) + 26
    blobs = sum(size == 60 for size in sizes)  # 3 sqrt(100) + 30
    assert ellipses / 1500 == pytest.approx(shares[outlines.ellipse] / total, abs=0.03)
    assert blobs / 1500 == pytest.approx(shares[outlines.blob] / total, abs=0.03)
