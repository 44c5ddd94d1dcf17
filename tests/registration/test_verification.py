"""The figures of the verdict against slow twins."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from support.registered import MATRICES, SIZE_HW, carried, scattered, two_views
from tiepoint.geometry import apply_homography, inside
from tiepoint.registration import verification


@pytest.mark.parametrize(("matches", "inliers"), [(10, 5), (200, 12), (200, 150)])
def test_chance_equals_the_exact_fraction(matches: int, inliers: int) -> None:
    share = Fraction(1, 10_000)
    exact = (matches - 4) * math.comb(matches, inliers) * math.comb(inliers, 4)
    expected = Fraction(exact) * share ** (inliers - 4)
    logarithm = math.log10(expected.numerator) - math.log10(expected.denominator)
    assert verification.log10_nfa(
        matches, inliers, sample_size=4, inlier_rate=1e-4
    ) == pytest.approx(logarithm)


def test_no_more_inliers_than_a_sample_are_no_evidence() -> None:
    assert verification.log10_nfa(100, 4, sample_size=4, inlier_rate=1e-4) == math.inf


def test_random_matches_agree_no_more_often_than_the_number_of_false_alarms() -> None:
    """Among sets of random matches, a shift this common is at most as frequent as predicted."""
    rng = np.random.default_rng(0)
    count, trials, radius = 30, 2000, 40.0
    share = math.pi * radius**2 / (640 * 480)
    found = []
    for _ in range(trials):
        shifts = rng.uniform(0, (640, 480), (count, 2)) - rng.uniform(0, (640, 480), (count, 2))
        apart = np.linalg.norm(shifts[:, None] - shifts[None], axis=2)
        found.append(int((apart <= radius).sum(axis=1).max()))
    for inliers in (5, 6, 7):
        foretold = 10 ** verification.log10_nfa(count, inliers, sample_size=1, inlier_rate=share)
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


def test_coverage_counts_cells_once_and_points_at_the_edge() -> None:
    corner = np.array([[639.5, 479.5], [-0.5, -0.5], [0, 0], [1, 1]])
    assert verification.coverage_of(corner, SIZE_HW) == 0.02
    assert verification.coverage_of(np.empty((0, 2)), SIZE_HW) == 0
    assert verification.coverage_of(scattered(5000), SIZE_HW) == 1


def test_neighbours_count_as_one_cell() -> None:
    xy = np.array([[1.0, 1], [2, 7.5], [7.9, 3], [8.1, 3], [80, 90], [np.nan, 1]])
    assert verification.occupied_cells(xy, 8.0) == 3
    assert verification.occupied_cells(xy, 16.0) == 2
    assert verification.occupied_cells(np.empty((0, 2)), 8.0) == 0


@pytest.mark.parametrize("cell_px", [1.0, 8.0, 13.7])
def test_occupied_cells_equal_the_slow_twin(cell_px: float) -> None:
    xy = scattered(500, seed=4) - 100  # cells on both sides of zero
    cells = {(math.floor(x / cell_px), math.floor(y / cell_px)) for x, y in xy}
    assert verification.occupied_cells(xy, cell_px) == len(cells)


@pytest.mark.parametrize("model", sorted(MATRICES))
def test_the_local_zoom_is_the_root_of_how_areas_grow(model: str) -> None:
    """A small square around each point, transformed, by the shoelace formula."""
    matrix, xy, half = MATRICES[model], scattered(20, seed=7), 0.01
    for point, zoom in zip(xy, verification.local_zoom(matrix, xy), strict=True):
        square = point + half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        x, y = apply_homography(matrix, square).T
        area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
        assert zoom == pytest.approx(math.sqrt(area) / (2 * half), rel=1e-5)


def test_the_local_zoom_does_not_depend_on_sign_or_scale_of_the_matrix() -> None:
    xy, matrix = scattered(10), MATRICES["homography"]
    for factor in (-1.0, 7.5):
        np.testing.assert_allclose(
            verification.local_zoom(factor * matrix, xy), verification.local_zoom(matrix, xy)
        )


def test_false_alarms_fall_with_inliers_and_rise_with_solutions_and_inlier_rate() -> None:
    def nfa(inliers: int = 20, rate: float = 1e-3, solutions: int = 1) -> float:
        return verification.log10_nfa(
            100, inliers, sample_size=4, inlier_rate=rate, solutions=solutions
        )

    assert nfa(inliers=21) < nfa() < nfa(inliers=19)
    assert nfa(rate=1e-4) < nfa() < nfa(rate=1e-2)
    assert nfa(solutions=10) == pytest.approx(nfa() + 1)
    assert nfa(rate=1.0) > 0
    assert nfa(rate=5.0) == nfa(rate=1.0)  # a disc larger than the image


def test_the_common_view_does_not_depend_on_which_image_is_called_a() -> None:
    """The finer grid counts, whichever image has it."""
    zoom = np.array([[0.25, 0, 200.0], [0, 0.25, 100], [0, 0, 1]])  # A is a detail of B
    a = scattered(30, seed=3)
    b = apply_homography(zoom, a)
    there = verification.common_view(zoom, a, b, SIZE_HW, SIZE_HW)
    back = verification.common_view(np.linalg.inv(zoom), b, a, SIZE_HW, SIZE_HW)
    assert there.coverage == back.coverage
    assert len(there.places_xy) == len(back.places_xy) == 100
    np.testing.assert_allclose(apply_homography(zoom, there.places_xy), back.places_xy)


def test_images_that_do_not_overlap_have_no_common_view() -> None:
    away = np.array([[1.0, 0, 5000], [0, 1, 0], [0, 0, 1]])
    none = np.empty((0, 2))
    common = verification.common_view(away, none, none, SIZE_HW, SIZE_HW)
    assert common.places_xy.shape == (0, 2) and common.coverage == 0


def test_full_coverage_needs_a_point_in_every_cell_of_the_common_view() -> None:
    matrix = np.eye(3)
    y, x = np.mgrid[24:480:48, 32:640:64]  # the centre of each cell
    xy = np.stack([x.ravel(), y.ravel()], axis=1).astype(float)
    assert verification.common_view(matrix, xy, xy, SIZE_HW, SIZE_HW).coverage == 1
    fewer = verification.common_view(matrix, xy[1:], xy[1:], SIZE_HW, SIZE_HW)
    assert fewer.coverage == pytest.approx(0.99)


def test_answered_cells_equal_the_slow_twin() -> None:
    rng = np.random.default_rng(3)
    xy = rng.uniform(0, (SIZE_HW[1] - 1, SIZE_HW[0] - 1), (400, 2))
    shown, answered = rng.random(400) < 0.7, rng.random(400) < 0.4
    expected = []
    for row in range(6):
        for column in range(6):
            inside = [
                answered[i]
                for i, (x, y) in enumerate(xy)
                if int((x + 0.5) * 6 / SIZE_HW[1]) == column
                and int((y + 0.5) * 6 / SIZE_HW[0]) == row
                and shown[i]
            ]
            if len(inside) >= 3:
                expected.append(sum(inside) / len(inside))
    found = verification.answered_cells(xy, SIZE_HW, shown, answered)
    np.testing.assert_allclose(found, expected)


def test_no_keypoints_answer_in_no_cell() -> None:
    none = np.empty((0, 2))
    assert len(verification.answered_cells(none, SIZE_HW, none[:, 0] > 0, none[:, 0] > 0)) == 0


def test_neighbours_move_alike_in_a_scene_and_not_by_chance() -> None:
    a, b = two_views(300, noise_px=0.3)
    smooth = np.column_stack([a[:, 0] + 0.05 * a[:, 0] + 0.03 * a[:, 1] + 20, a[:, 1]])
    assert verification.neighbour_ratio(a, smooth) < 0.05
    rng = np.random.default_rng(0)
    along = np.column_stack([rng.uniform(0, 640, 300), a[:, 1]])
    assert verification.neighbour_ratio(a, along) > 0.4
    assert verification.neighbour_ratio(a, b) < 0.15  # depth at random, within its range
    assert verification.neighbour_ratio(a, a + 5) == 0
    assert verification.neighbour_ratio(a[:4], b[:4]) == 0
