"""Grids of splines against slow twins, and fits that leave groups of points out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tiepoint.registration.large import splines
from tiepoint.registration.large.deformation import (
    Deformation,
    _Equations,
    empty_grid,
    fit_deformation,
)

RNG = np.random.default_rng(0)


def cubic(t: float) -> float:
    """The cubic B-spline around 0 by its textbook formula."""
    t = abs(t)
    if t < 1:
        return 2 / 3 - t**2 + t**3 / 2
    return (2 - t) ** 3 / 6 if t < 2 else 0.0


def slowly_at(grid: Deformation, x: float, y: float) -> NDArray[np.float64]:
    """The displacement at one place, summed over all coefficients."""
    u, v = (x - grid.origin_xy[0]) / grid.spacing_px, (y - grid.origin_xy[1]) / grid.spacing_px
    rows, columns = grid.coefficients.shape[:2]
    total = np.zeros(2)
    for i in range(rows):
        for j in range(columns):
            total += cubic(v - (i - 1)) * cubic(u - (j - 1)) * grid.coefficients[i, j]
    return total


def some_grid(seed: int = 0, columns: int = 5, rows: int = 3) -> Deformation:
    values = np.random.default_rng(seed).normal(0, 4, (rows + 3, columns + 3, 2))
    return Deformation((10.0, -20.0), 40.0, values)


def places(grid: Deformation, count: int, seed: int = 1) -> NDArray[np.float64]:
    sides = np.array(grid.intervals_xy) * grid.spacing_px
    return np.random.default_rng(seed).uniform(0, 1, (count, 2)) * sides + grid.origin_xy


def test_the_displacement_is_the_sum_of_all_splines() -> None:
    grid = some_grid()
    xy = places(grid, 40)
    expected = np.array([slowly_at(grid, x, y) for x, y in xy])
    np.testing.assert_allclose(grid.at(xy), expected, atol=1e-12)


def test_the_slopes_are_those_of_small_steps() -> None:
    grid, step = some_grid(), 1e-4
    xy = places(grid, 40)
    along = [(grid.at(xy + d) - grid.at(xy - d)) / (2 * step) for d in np.eye(2) * step]
    np.testing.assert_allclose(grid.slopes(xy), np.stack(along, axis=2), atol=1e-6)


def test_outside_the_grid_the_displacement_of_its_edge_continues() -> None:
    grid = some_grid()
    right = grid.origin_xy[0] + grid.intervals_xy[0] * grid.spacing_px
    at = grid.at(np.array([[right, 30.0], [right + 500, 30.0], [np.nan, 0]]))
    np.testing.assert_array_equal(at[0], at[1])
    assert np.isnan(at[2]).all()
    assert (grid.slopes(np.array([[right + 500, 30.0]]))[0, :, 0] == 0).all()


def test_the_bending_energy_is_the_integral_of_the_second_derivatives() -> None:
    columns, rows, step = 3, 2, 1 / 64
    coefficients = RNG.normal(0, 1, (rows + 3, columns + 3))
    exact = coefficients.ravel() @ splines.bending_energy(columns, rows) @ coefficients.ravel()
    grid = Deformation((0.0, 0.0), 1.0, np.stack([coefficients] * 2, axis=2))
    x, y = (np.arange(step / 2, count, step) for count in (columns, rows))
    xy = np.stack(np.meshgrid(x, y), axis=2).reshape(-1, 2)
    h = 1e-4

    def value(dx: float, dy: float) -> Any:
        return grid.at(np.clip(xy + np.array([dx, dy]) * h, 0, (columns, rows)))[:, 0]

    xx = (value(1, 0) - 2 * value(0, 0) + value(-1, 0)) / h**2
    yy = (value(0, 1) - 2 * value(0, 0) + value(0, -1)) / h**2
    mixed = (value(1, 1) - value(1, -1) - value(-1, 1) + value(-1, -1)) / (4 * h**2)
    assert exact == pytest.approx((xx**2 + 2 * mixed**2 + yy**2).mean() * columns * rows, rel=5e-3)


def test_a_plane_has_no_bending_energy() -> None:
    i, j = np.mgrid[:6, :8]
    plane = (2 * i - 3 * j + 5).ravel().astype(float)
    assert plane @ splines.bending_energy(5, 3) @ plane == pytest.approx(0, abs=1e-9)


def groups_of(xy: NDArray[np.float64]) -> NDArray[np.int64]:
    return (xy[:, 0] // 50).astype(np.int64) * 10 + (xy[:, 1] // 50).astype(np.int64)


@pytest.mark.parametrize("strength", [1e-4, 1e-1])
def test_left_out_residuals_are_those_of_fits_without_the_group(strength: float) -> None:
    grid = empty_grid(np.zeros(2), np.array([200.0, 150.0]), 4)
    xy = np.random.default_rng(2).uniform(0, (200, 150), (120, 2))
    offsets = np.random.default_rng(3).normal(0, 2, (120, 2))
    weights = np.random.default_rng(4).uniform(0.2, 1, 120)
    groups = groups_of(xy)
    whole = _Equations(grid, xy, groups)
    fit = whole.solved(offsets, weights, strength)
    gram = whole.design.T @ (whole.design * weights[:, None])
    energy = splines.bending_energy(*grid.intervals_xy)
    unit = np.trace(gram) / np.trace(energy)
    least = 1e-9 * (unit * energy + np.trace(gram) * np.eye(len(gram)) / len(gram))
    for group in np.unique(groups)[:5]:
        others = groups != group
        design = whole.design[others]
        equations = design.T @ (design * weights[others, None]) + strength * unit * energy + least
        solution = np.linalg.solve(equations, design.T @ (offsets[others] * weights[others, None]))
        expected = offsets[~others] - whole.design[~others] @ solution
        np.testing.assert_allclose(fit.left_out[~others], expected, rtol=1e-5, atol=1e-6)


def wave(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = xy.T
    return np.stack([8 * np.sin(y / 200), 6 * np.cos(x / 250)], axis=1)


def fitted(noise_px: float, wrong: int) -> tuple[Deformation, NDArray[np.float64]]:
    rng = np.random.default_rng(5)
    xy = rng.uniform(0, (1000, 800), (800, 2))
    offsets = wave(xy) + rng.normal(0, noise_px, xy.shape)
    offsets[:wrong] += rng.uniform(15, 40, (wrong, 2))
    groups = (xy[:, 0] // 100).astype(np.int64) * 10 + (xy[:, 1] // 100).astype(np.int64)
    fit = fit_deformation(
        empty_grid(np.zeros(2), np.array([1000.0, 800.0]), 10), xy, offsets, groups,
        weights=np.ones(800), within_px=2.0, from_px=20.0,
    )  # fmt: skip
    return fit.deformation, fit.left_out[wrong:]


def test_a_smooth_displacement_is_found_under_noise() -> None:
    deformation, left_out = fitted(0.5, 0)
    at = np.random.default_rng(6).uniform(50, (950, 750), (200, 2))
    assert np.linalg.norm(deformation.at(at) - wave(at), axis=1).max() < 0.6
    # Left-out residuals show the noise: the median of a Rayleigh distribution is 1.18 sigma.
    assert np.median(np.linalg.norm(left_out, axis=1)) == pytest.approx(1.18 * 0.5, rel=0.15)


def test_wrong_points_do_not_bend_the_fit() -> None:
    deformation, _ = fitted(0.3, 100)
    at = np.random.default_rng(6).uniform(50, (950, 750), (200, 2))
    assert np.linalg.norm(deformation.at(at) - wave(at), axis=1).max() < 0.6


def test_the_residuals_of_left_out_groups_grow_where_the_grid_cannot_follow() -> None:
    rng = np.random.default_rng(7)
    xy = rng.uniform(0, 1000, (1000, 2))
    offsets = np.zeros((1000, 2))
    torn = xy[:, 0] > 500
    offsets[torn] = 2.0
    fit = fit_deformation(
        empty_grid(np.zeros(2), np.full(2, 1000.0), 8), xy, offsets,
        (xy // 100).astype(np.int64) @ np.array([10, 1]), weights=np.ones(1000), within_px=4.0,
        from_px=4.0,
    )  # fmt: skip
    distances = np.linalg.norm(fit.left_out, axis=1)
    near = np.abs(xy[:, 0] - 500) < 50
    assert np.median(distances[near]) > 10 * np.median(distances[np.abs(xy[:, 0] - 500) > 300])
