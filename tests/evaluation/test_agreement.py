"""Distances between transforms, and the majority that agrees."""

from __future__ import annotations

import math

import numpy as np
import pytest

from support.registered import MATRICES
from tiepoint.evaluation.agreement import GRID, consensus, distance_px, distances_px, from_others_px

A_HW, B_HW = (300, 400), (280, 420)


def shift(x: float, y: float = 0.0) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def slow_distance_px(first: np.ndarray, second: np.ndarray) -> float:
    """The same point by point."""
    largest, overlap = 0.0, False
    for row in range(GRID):
        for column in range(GRID):
            x, y = column * (A_HW[1] - 1) / (GRID - 1), row * (A_HW[0] - 1) / (GRID - 1)
            places = []
            for matrix in (first, second):
                u, v, w = matrix @ [x, y, 1]
                places.append((u / w, v / w))
            if any(-0.5 <= u < B_HW[1] - 0.5 and -0.5 <= v < B_HW[0] - 0.5 for u, v in places):
                overlap = True
                largest = max(largest, math.dist(*places))
    return largest if overlap else math.inf


@pytest.mark.parametrize("first", MATRICES)
@pytest.mark.parametrize("second", MATRICES)
def test_the_distance_is_that_of_the_slow_twin_and_symmetric(first: str, second: str) -> None:
    one, other = MATRICES[first], MATRICES[second]
    expected = slow_distance_px(one, other)
    assert distance_px(one, other, A_HW, B_HW) == pytest.approx(expected, abs=1e-9)
    assert distance_px(other, one, A_HW, B_HW) == pytest.approx(expected, abs=1e-9)


def test_transforms_that_differ_outside_the_overlap_only_agree() -> None:
    tilt = np.array([[1, 0, 0], [0, 1, 0], [1e-4, 0, 1.0]])
    far = shift(-360) @ tilt  # only the right edge of A is in B
    near = distance_px(far, shift(-360), A_HW, B_HW)
    assert near == pytest.approx(slow_distance_px(far, shift(-360)), abs=1e-9)
    everywhere = distance_px(tilt, shift(0), A_HW, B_HW)
    assert everywhere > 10


def test_no_overlap_and_the_back_of_the_camera_are_infinitely_far() -> None:
    assert distance_px(shift(2000), shift(2001), A_HW, B_HW) == math.inf
    horizon = np.array([[1, 0, 0], [0, 1, 0], [-1 / 200, 0, 1.0]])  # runs through A
    assert distance_px(horizon, shift(0), A_HW, B_HW) == math.inf


def test_the_odd_one_out_is_outside_the_consensus_and_far_from_the_others() -> None:
    matrices = [shift(0), shift(1), None, shift(90), shift(0, 1)]
    distances = distances_px(matrices, A_HW, B_HW)
    assert np.isnan(distances[2]).all() and np.isnan(distances[:, 2]).all()
    assert consensus(distances, 3) == {0, 1, 4}
    others = from_others_px(distances)
    assert others[2] is None
    assert others[3] == pytest.approx(90, abs=1.01)
    assert max(others[index] or 0 for index in (0, 1, 4)) < 2


@pytest.mark.parametrize(
    ("shifts", "expected"),
    [
        ([], set()),
        ([0], set()),
        ([0, 90], set()),
        ([0, 1], {0, 1}),
        ([0, 1, 90, 91], set()),  # two against two
        ([0, 90, 180], set()),
        ([0, 90, 1], {0, 2}),
        ([0, 2, 4], {0, 1, 2}),  # all near the one in the middle
    ],
)
def test_a_consensus_is_more_than_half(shifts: list[float], expected: set[int]) -> None:
    matrices = [shift(x) for x in shifts]
    assert consensus(distances_px(matrices, A_HW, B_HW), 3) == expected
