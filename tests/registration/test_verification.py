"""The verdict's figures against slow twins, and what it objects to."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from support.registered import MATRICES, SIZE_HW, carried, scattered
from tiepoint.geometry import apply_homography, inside
from tiepoint.registration import verification


@pytest.mark.parametrize(("matches", "inliers"), [(10, 5), (200, 12), (200, 150)])
def test_chance_equals_the_exact_fraction(matches: int, inliers: int) -> None:
    share = Fraction(1, 10_000)
    exact = (matches - 4) * math.comb(matches, inliers) * math.comb(inliers, 4)
    expected = Fraction(exact) * share ** (inliers - 4)
    logarithm = math.log10(expected.numerator) - math.log10(expected.denominator)
    assert verification.log10_chance(matches, inliers, 4, 1e-4) == pytest.approx(logarithm)


def test_no_more_inliers_than_determine_the_model_mean_nothing() -> None:
    assert verification.log10_chance(100, 4, 4, 1e-4) == math.inf


def test_chance_brings_about_as_much_as_is_said() -> None:
    """Of many sets of wrong matches, at most the foretold number hold a shift so common."""
    rng = np.random.default_rng(0)
    count, trials, radius = 30, 2000, 40.0
    share = math.pi * radius**2 / (640 * 480)
    found = []
    for _ in range(trials):
        shifts = rng.uniform(0, (640, 480), (count, 2)) - rng.uniform(0, (640, 480), (count, 2))
        apart = np.linalg.norm(shifts[:, None] - shifts[None], axis=2)
        found.append(int((apart <= radius).sum(axis=1).max()))
    for inliers in (5, 6, 7):
        foretold = 10 ** verification.log10_chance(count, inliers, 1, share)
        assert np.mean(np.array(found) >= inliers) <= foretold


@pytest.mark.parametrize("model", sorted(MATRICES))
def test_coverage_equals_the_slow_twin(model: str) -> None:
    matrix = MATRICES[model]
    a, b = carried(matrix, count=40)
    on_b = inside(b, SIZE_HW)
    found = verification.common_view(matrix, a[on_b], b[on_b], SIZE_HW, SIZE_HW)
    grids = []
    for way, points in ((matrix, a[on_b]), (np.linalg.inv(matrix), b[on_b])):
        shown = held = 0
        for i in range(10):
            for j in range(10):
                centre = [(j + 0.5) * 64 - 0.5, (i + 0.5) * 48 - 0.5]
                if not inside(apply_homography(way, [centre]), SIZE_HW)[0]:
                    continue
                shown += 1
                left, top = j * 64 - 0.5, i * 48 - 0.5
                held += any(left <= x < left + 64 and top <= y < top + 48 for x, y in points)
        grids.append((shown, held))
    shown, held = grids[0] if grids[0][0] >= grids[1][0] else grids[1]
    assert found.coverage == pytest.approx(held / shown)
    assert len(found.places_xy) == shown


def test_the_common_view_of_a_patch_is_the_patch() -> None:
    """A is so much larger than B that no cell of A has its centre in B."""
    shrink = np.diag([1, 1, 1.0])
    shrink[:2, 2] = -2000
    common = verification.common_view(
        shrink, np.empty((0, 2)), np.empty((0, 2)), (9000, 9000), (50, 50)
    )
    assert len(common.places_xy) == 100
    assert common.coverage == 0


def test_a_plausible_plane_is_not_objected_to() -> None:
    for matrix in MATRICES.values():
        assert objection(matrix) == ""


@pytest.mark.parametrize(
    ("matrix", "word"),
    [
        ([[-1, 0, 600], [0, 1, 0], [0, 0, 1]], "mirror"),
        ([[1, 0, 0], [0, 1, 0], [-0.002, 0, 1]], "horizon"),
        ([[1, 0, 9000], [0, 1, 0], [0, 0, 1]], "common view"),
        ([[0.02, 0, 300], [0, 0.02, 200], [0, 0, 1]], "scaled by 0.02"),
        ([[50, 0, -9000], [0, 50, -9000], [0, 0, 1]], "scaled by 50"),
    ],
)
def test_what_cannot_be_is_objected_to(matrix: list[list[float]], word: str) -> None:
    assert word in objection(np.array(matrix, dtype=float))


def objection(matrix: np.ndarray) -> str:
    none = np.empty((0, 2))
    common = verification.common_view(matrix, none, none, SIZE_HW, SIZE_HW)
    return verification.plane_objection(matrix, common, SIZE_HW, 1.0)


def test_coverage_counts_cells_once_and_points_at_the_edge() -> None:
    corner = np.array([[639.5, 479.5], [-0.5, -0.5], [0, 0], [1, 1]])
    assert verification.coverage_of(corner, SIZE_HW) == 0.02
    assert verification.coverage_of(np.empty((0, 2)), SIZE_HW) == 0
    assert verification.coverage_of(scattered(5000), SIZE_HW) == 1


def test_neighbours_count_as_one_place() -> None:
    xy = np.array([[1.0, 1], [2, 7.5], [7.9, 3], [8.1, 3], [80, 90], [np.nan, 1]])
    assert verification.distinct_places(xy, 8.0) == 3
    assert verification.distinct_places(xy, 16.0) == 2
    assert verification.distinct_places(np.empty((0, 2)), 8.0) == 0
