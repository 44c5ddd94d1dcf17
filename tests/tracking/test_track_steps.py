"""The steps of the tracker, compared with plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tiepoint.tracking import steps

Array = NDArray[np.float64]


def unit(rng: np.random.Generator, count: int, kinds: int) -> NDArray[np.float32]:
    """Descriptors, several of them equal."""
    x = rng.normal(size=(kinds, 16))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x[rng.integers(0, kinds, count)].astype(np.float32)


def slow_pairs(
    predicted: Array, a: Array, xy: Array, b: Array, radius: float, least: float
) -> list[list[int]]:
    cosine = np.full((len(a), len(b)), -np.inf, np.float32)
    for i in range(len(a)):
        for j in range(len(b)):
            if np.hypot(*(predicted[i] - xy[j])) <= radius:
                cosine[i, j] = sum(x * y for x, y in zip(a[i].tolist(), b[j].tolist(), strict=True))
    pairs = []
    for i in range(len(a)):
        j = int(cosine[i].argmax())
        if int(cosine[:, j].argmax()) == i and cosine[i, j] >= np.float32(least):
            pairs.append([i, j])
    return pairs


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("radius", [0, 5, 30, np.inf])
@pytest.mark.parametrize("least", [-1, 0.3])
def test_pairs_near_are_those_of_plain_loops(seed: int, radius: float, least: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = unit(rng, 40, 25), unit(rng, 50, 25)
    predicted = rng.integers(0, 60, (40, 2)).astype(np.float64)
    xy = rng.integers(0, 60, (50, 2)).astype(np.float32)
    pairs = steps.pairs_near(predicted, a, xy, b, radius, least)
    assert pairs.tolist() == slow_pairs(predicted, a, xy, b, radius, least)


def slow_residuals(xy: Array, at: Array, residuals: Array) -> Array:
    found = np.full((len(xy), 2), np.nan)
    for row, place in enumerate(xy):
        order = sorted(range(len(at)), key=lambda k: np.hypot(*(at[k] - place)))
        others = [k for k in order if (at[k] != place).any()]
        count = min(steps.NEIGHBOURS, len(at) - 1)
        found[row] = np.median(residuals[others[:count]], axis=0)
    return found


@pytest.mark.parametrize("count", [4, 8, 9, 60])
def test_the_motion_of_the_surroundings_is_that_of_plain_loops(count: int) -> None:
    rng = np.random.default_rng(count)
    at, residuals = rng.uniform(0, 100, (count, 2)), rng.normal(size=(count, 2))
    xy = np.concatenate([rng.uniform(0, 100, (20, 2)), at[:4]])
    found = steps.local_residuals(xy, at, residuals)
    np.testing.assert_allclose(found, slow_residuals(xy, at, residuals))


def test_without_matches_around_the_surroundings_have_no_motion() -> None:
    assert np.isnan(steps.local_residuals(np.ones((2, 2)), np.ones((3, 2)), np.ones((3, 2)))).all()


def slow_spaced(xy: Array, taken: Array, order: list[int], spacing: float, most: int) -> list[int]:
    chosen: list[int] = []
    for index in order:
        others = [*taken, *xy[chosen]]
        if len(chosen) < most and all(np.hypot(*(xy[index] - p)) > spacing for p in others):
            chosen.append(index)
    return chosen


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("most", [-3, 0, 1, 20, 100])
def test_starts_are_spaced_as_by_plain_loops(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    xy = rng.integers(0, 50, (80, 2)).astype(np.float32)
    taken = rng.integers(0, 50, (10, 2)).astype(np.float64)
    order = rng.permutation(80)[:60]
    chosen = steps.spaced(xy, taken, order, 4, most)
    assert chosen.tolist() == slow_spaced(xy, taken, order.tolist(), 4, most)


def test_a_group_that_moves_by_itself_agrees_and_a_wrong_match_does_not() -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(0, 200, (300, 2))
    after = before + np.array([5, 2])
    group = (before[:, 0] > 140) & (before[:, 1] > 120)
    after[group] += [9, -4]
    wrong = np.flatnonzero(~group)[:5]
    after[wrong] += [[20, 0], [-15, 9], [0, 30], [12, 12], [-40, 3]]
    motion = steps.motion_of(before, after, 1.5)
    agreeing = steps.agreeing(before, after, motion, 1.5)
    as_frame = ~group
    as_frame[wrong] = False
    np.testing.assert_array_equal(agreeing[:, 0], as_frame)
    inner = np.linalg.norm(before - [170, 160], axis=1) < 20
    assert inner.sum() > 4 and agreeing[inner, 1].all() and not agreeing[wrong].any()


def test_too_few_matches_have_no_motion_and_points_stay() -> None:
    xy = np.arange(14.0).reshape(7, 2)
    assert steps.motion_of(xy, xy, 1.0) is None
    np.testing.assert_array_equal(steps.moved(xy, None), xy)
