"""One pixel convention: centres are whole numbers, and every way there has a way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiepoint import geometry
from tiepoint.errors import ConfigError
from tiepoint.geometry import Placement
from tiepoint.images.arrays import stored_view

sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
coordinates = st.floats(-1000, 6000, allow_nan=False)
points = st.lists(st.tuples(coordinates, coordinates), min_size=0, max_size=8).map(
    lambda rows: np.array(rows, dtype=np.float64).reshape(-1, 2)
)


@given(points, sizes, sizes)
def test_resizing_there_and_back_returns_every_point(xy, a_hw, b_hw) -> None:
    there = geometry.resize_xy(xy, a_hw, b_hw)
    np.testing.assert_allclose(geometry.resize_xy(there, b_hw, a_hw), xy, atol=1e-6)


@given(sizes, sizes)
def test_resizing_moves_the_outer_edges_onto_each_other(a_hw, b_hw) -> None:
    edges = np.array([[-0.5, -0.5], [a_hw[1] - 0.5, a_hw[0] - 0.5]])
    expected = [[-0.5, -0.5], [b_hw[1] - 0.5, b_hw[0] - 0.5]]
    np.testing.assert_allclose(geometry.resize_xy(edges, a_hw, b_hw), expected, atol=1e-9)


@given(points, sizes, sizes)
def test_the_resize_matrix_moves_points_as_resize_does(xy, a_hw, b_hw) -> None:
    by_matrix = geometry.apply_homography(geometry.resize_matrix(a_hw, b_hw), xy)
    np.testing.assert_allclose(by_matrix, geometry.resize_xy(xy, a_hw, b_hw), atol=1e-6)


def test_halving_an_image_puts_the_first_centre_between_the_first_two_pixels() -> None:
    (centre,) = geometry.resize_xy(np.array([[0.0, 0.0]]), (4, 4), (8, 8))
    assert centre.tolist() == [0.5, 0.5]


def test_points_behind_the_horizon_of_a_homography_are_nan() -> None:
    homography = np.array([[1.0, 0, 0], [0, 1, 0], [-0.1, 0, 1]])
    mapped = geometry.apply_homography(homography, [[5, 1], [10, 1], [20, 1]])
    assert np.isfinite(mapped[0]).all() and np.isnan(mapped[1:]).all()


@given(sizes, st.integers(1, 3000))
def test_fitting_inside_never_enlarges_and_never_passes_the_longest_side(size_hw, side) -> None:
    fitted = geometry.fit_inside(size_hw, side)
    assert max(fitted) <= max(side, 1) and min(fitted) >= 1
    assert all(new <= max(1, old) for new, old in zip(fitted, size_hw, strict=True))
    if max(size_hw) > side:
        assert max(fitted) == side


@pytest.mark.parametrize(
    ("size_hw", "side", "expected"),
    [
        ((480, 640), None, (480, 640)),
        ((480, 640), 640, (480, 640)),
        ((3000, 4000), 1024, (768, 1024)),
        ((1, 9000), 1000, (1, 1000)),
        ((100, 50), 1024, (100, 50)),
    ],
)
def test_aspect_is_kept_when_an_image_is_brought_down(size_hw, side, expected) -> None:
    assert geometry.fit_inside(size_hw, side) == expected


@given(sizes)
def test_whole_cells_hold_the_image_and_waste_less_than_a_cell(size_hw) -> None:
    for padded, side in zip(geometry.whole_cells(size_hw), size_hw, strict=True):
        assert padded % 8 == 0 and 0 <= padded - side < 8


@given(points, sizes, sizes)
def test_a_placement_leads_there_and_back(xy, image_hw, resized_hw) -> None:
    placement = Placement(image_hw, resized_hw)
    np.testing.assert_allclose(
        placement.to_image(geometry.resize_xy(xy, placement.image_hw, placement.resized_hw)),
        xy,
        atol=1e-6,
    )


def test_a_placement_keeps_float32() -> None:
    placement = Placement((3000, 4000), (768, 1024))
    assert placement.to_image(np.zeros((2, 2), np.float32)).dtype == np.float32


def test_an_image_without_pixels_has_no_placement() -> None:
    with pytest.raises(ConfigError, match="image_hw"):
        Placement((0, 5), (8, 8))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_stored_matrix_finds_each_pixel_of_the_upright_image_in_the_file(orientation) -> None:
    upright_hw = 3, 5
    numbers = np.arange(15).reshape(upright_hw)
    stored = stored_view(numbers, orientation)
    y, x = np.indices(upright_hw)
    upright_xy = np.stack([x.ravel(), y.ravel()], axis=1)
    matrix = geometry.stored_matrix(upright_hw, orientation)
    column, row = geometry.apply_homography(matrix, upright_xy).astype(int).T
    np.testing.assert_array_equal(stored[row, column], numbers.ravel())
