"""Views of a plane by cameras: rotations, homographies, overlap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiepoint.evaluation import views
from tiepoint.geometry import apply_homography, inside

SIZE = 100, 140
ANGLES = st.floats(-math.pi, math.pi)


@given(ANGLES, ANGLES)
def test_rotations_are_orthogonal_and_keep_their_axis(tilt: float, axis: float) -> None:
    for rotation in (
        views.rotation_z(axis),
        views.rotation_x(tilt),
        views.rotation_about(axis, tilt),
    ):
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1)
    direction = np.array([math.cos(axis), math.sin(axis), 0])
    np.testing.assert_allclose(views.rotation_about(axis, tilt) @ direction, direction, atol=1e-12)
    assert views.rotation_about(axis, tilt)[2, 2] == pytest.approx(math.cos(tilt))


def test_a_quarter_turn_takes_x_to_y() -> None:
    np.testing.assert_allclose(views.rotation_z(math.pi / 2) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(views.rotation_x(math.pi / 2) @ [0, 1, 0], [0, 0, 1], atol=1e-12)


def test_a_translation_moves_points() -> None:
    moved = apply_homography(views.translation(np.array([3.0, -4.0])), [[1, 1], [0, 5]])
    np.testing.assert_array_equal(moved, [[4, -3], [3, 1]])


@given(st.floats(0.2, 5), ANGLES)
def test_a_camera_that_faces_the_plane_only_zooms_and_rolls(zoom: float, roll: float) -> None:
    matrix = views.view_of_plane(zoom, views.rotation_z(roll), 300.0)
    points = np.array([[10.0, 0], [-20, 35]])
    expected = zoom * points @ views.rotation_z(roll)[:2, :2].T
    np.testing.assert_allclose(apply_homography(matrix, points), expected, atol=1e-9)


def test_a_tilted_plane_is_smaller_where_it_is_farther() -> None:
    matrix = views.view_of_plane(1.0, views.rotation_x(math.radians(40)), 300.0)
    near_far = apply_homography(matrix, [[0, -50], [10, -50], [0, 50], [10, 50]])
    upper, lower = near_far[1, 0] - near_far[0, 0], near_far[3, 0] - near_far[2, 0]
    assert upper > 10 > lower or lower > 10 > upper
    np.testing.assert_allclose(apply_homography(matrix, [[0, 0]]), [[0, 0]], atol=1e-12)


def test_a_grid_is_of_the_centres_of_equal_fields() -> None:
    grid = views.grid_xy((4, 8), 2)
    np.testing.assert_array_equal(grid, [[1.5, 0.5], [5.5, 0.5], [1.5, 2.5], [5.5, 2.5]])
    np.testing.assert_allclose(views.grid_xy(SIZE, 9).mean(axis=0), [69.5, 49.5])


def test_points_go_onto_the_plane_and_back() -> None:
    to_view = views.translation(np.array([70.0, 50])) @ views.view_of_plane(
        1.3, views.rotation_about(1.0, 0.6), 200.0
    )
    grid = views.grid_xy(SIZE, 6)
    on_plane = views.onto_plane(to_view, grid)
    np.testing.assert_allclose(apply_homography(to_view, on_plane), grid, atol=1e-9)


def test_points_past_the_horizon_are_on_no_plane() -> None:
    to_view = views.view_of_plane(1.0, views.rotation_x(math.radians(80)), 100.0)
    above, below = views.onto_plane(to_view, np.array([[0.0, -2000], [0, 2000]]))
    assert np.isnan(above).all() != np.isnan(below).all()


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (np.eye(3), 1.0),
        (views.translation(np.array([70.0, 0])), 0.5),
        (views.translation(np.array([140.0, 0])), 0.0),
        (np.diag([0.5, 0.5, 1]), 1.0),  # all of A is in B, though A fills a quarter of B
        (np.diag([2.0, 2, 1]), 1.0),
    ],
)
def test_overlap_is_the_better_covered_views_share(matrix: np.ndarray, expected: float) -> None:
    assert views.overlap(np.eye(3), matrix, SIZE, 20) == pytest.approx(expected, abs=1e-9)


def slow_overlap(to_a: np.ndarray, to_b: np.ndarray, steps: int) -> float:
    """Point by point, by the homography between the views."""
    shares = []
    for matrix in (to_b @ np.linalg.inv(to_a), to_a @ np.linalg.inv(to_b)):
        count = 0
        for x, y in views.grid_xy(SIZE, steps):
            u, v, w = matrix / matrix[2, 2] @ [x, y, 1]
            count += w > 0 and bool(inside(np.array([[u / w, v / w]]), SIZE)[0])
        shares.append(count / steps**2)
    return max(shares)


@pytest.mark.parametrize("seed", range(6))
def test_overlap_equals_its_slow_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    middle = np.array([69.5, 49.5])

    def view() -> np.ndarray:
        rotation = views.rotation_z(rng.uniform(-1, 1)) @ views.rotation_about(
            rng.uniform(0, 6), rng.uniform(0, 0.7)
        )
        seen = views.view_of_plane(math.exp(rng.uniform(-0.5, 0.5)), rotation, 250.0)
        return views.translation(middle + rng.uniform(-40, 40, 2)) @ seen

    to_a, to_b = view(), view()
    fast = views.overlap(to_a, to_b, SIZE, 8)
    assert fast == pytest.approx(slow_overlap(to_a, to_b, 8))
    assert fast == views.overlap(to_b, to_a, SIZE, 8)
