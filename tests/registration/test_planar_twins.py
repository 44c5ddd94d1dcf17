"""Plane models held to slow twins, which take one match at a time."""

from __future__ import annotations

import numpy as np
import pytest

from support.registered import MATRICES, SIZE_HW, carried
from tiepoint.geometry import apply_homography, corners_xy
from tiepoint.registration import derivatives, models, planar

MODELS = sorted(MATRICES)


def directions(model: str) -> list[np.ndarray]:
    """3x3 each: changes of px of A, by which points of an image move about 1 px."""
    shifts = [single(0, 2), single(1, 2)]
    if model == "translation":
        return shifts
    if model == "similarity":
        return [*shifts, np.diag([1, 1, 0]) / 500, (single(1, 0) - single(0, 1)) / 500]
    linear = [single(row, column) / 500 for row in (0, 1) for column in (0, 1)]
    if model == "affine":
        return shifts + linear
    return shifts + linear + [single(2, 0) / 500**2, single(2, 1) / 500**2]


def single(row: int, column: int) -> np.ndarray:
    matrix = np.zeros((3, 3))
    matrix[row, column] = 1
    return matrix


def refined_slowly(
    model: str, matrix: np.ndarray, a: np.ndarray, b: np.ndarray, deviation: np.ndarray
) -> np.ndarray:
    """Gauss-Newton with derivatives by small steps, and the pseudo-inverse."""
    small = 1e-3
    for _ in range(30):
        rows, residuals = [], []
        for point, partner, sd in zip(a, b, deviation / np.median(deviation), strict=True):
            scale = planar.ROBUST_SHARE * 3.0 * sd
            offset = partner - apply_homography(matrix, point)[0]
            root = 1 / ((1 + offset @ offset / scale**2) * scale)
            columns = []
            for change in directions(model):
                ends = [
                    apply_homography(matrix @ (np.eye(3) + step * change), point)[0]
                    for step in (small, -small)
                ]
                columns.append(root * (ends[0] - ends[1]) / (2 * small))
            rows.append(np.stack(columns, axis=1))  # 2 K
            residuals.append(root * offset)
        steps = np.linalg.pinv(np.concatenate(rows)) @ np.concatenate(residuals)
        change = sum(step * one for step, one in zip(steps, directions(model), strict=True))
        matrix = matrix @ (np.eye(3) + change)
    return matrix


@pytest.mark.parametrize("model", MODELS)
def test_the_refinement_ends_where_a_slow_twin_does(model: str) -> None:
    a, b = carried(MATRICES[model], count=60, noise_px=0.8, wrong=12)
    deviation = np.random.default_rng(0).uniform(0.3, 2, len(a))
    start = MATRICES[model] @ [[1, 0, 1], [0, 1, -0.5], [0, 0, 1]]
    found, _ = planar.refine(model, start, a, b, 3.0, deviation)
    expected = refined_slowly(model, start, a, b, deviation)
    corners = corners_xy(SIZE_HW)
    apart = apply_homography(found, corners) - apply_homography(expected, corners)
    assert np.abs(apart).max() < 0.03  # refinement ends at the first small gain


@pytest.mark.parametrize("model", MODELS)
def test_the_covariance_of_the_model_equals_sums_over_single_matches(model: str) -> None:
    a, b = carried(MATRICES[model], count=50, noise_px=0.8, wrong=8)
    deviation_px = np.random.default_rng(3).uniform(0.3, 2, len(a))
    places = np.array([[0.0, 0], [300, 200], [np.nan, 1], [639, 479]])
    matrix, _ = planar.refine(model, MATRICES[model], a, b, 3.0, deviation_px)
    found = planar.model_covariance(model, matrix, a, b, 3.0, deviation_px).at(places)

    def slopes(xy: np.ndarray) -> np.ndarray:
        points = derivatives.in_local(local, xy[None])
        return derivatives.linearised(model, matrix @ local, points)[1][:, 0]  # 2 K

    local = derivatives.local_coordinates(a)
    distances = np.linalg.norm(apply_homography(matrix, a) - b, axis=1)
    information = scatter = 0
    for point, distance, sd in zip(a, distances, deviation_px, strict=True):
        if distance <= 30:
            scale = planar.ROBUST_SHARE * 3.0 * sd / np.median(deviation_px[distances <= 30])
            squares = (distance / scale) ** 2
            weight = 1 / ((1 + squares) * scale) ** 2
            outer = slopes(point).T @ slopes(point)  # K K
            information = information + weight * (1 - squares) / (1 + squares) * outer
            scatter = scatter + (weight * distance) ** 2 / 2 * outer
    inverse = np.linalg.inv(information)
    count = int((distances <= 3).sum())
    redundancy = 2 * count - models.MODELS[model].degrees_of_freedom
    of_model = 2 * count / redundancy * inverse @ scatter @ inverse
    expected = [slopes(place) @ of_model @ slopes(place).T for place in places[[0, 1, 3]]]
    np.testing.assert_allclose(found[[0, 1, 3]], expected, rtol=1e-6, atol=1e-12)
    assert np.isinf(found[2]).all()


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_least_squares_are_those_of_numpy_whatever_the_rank(rank: int) -> None:
    rng = np.random.default_rng(rank)
    residuals = rng.normal(size=40)
    for spread in (1.0, 1e-3, 1e-7):  # of the singular values
        rows = (
            rng.normal(size=(40, rank)) * np.geomspace(1, spread, rank) @ rng.normal(size=(rank, 5))
        )
        expected = np.linalg.lstsq(rows, residuals, rcond=None)[0]
        found = planar._least_squares(rows, residuals)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())
