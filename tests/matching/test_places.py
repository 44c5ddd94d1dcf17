"""Pairs of images that were taken near each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tiepoint.errors import ConfigError
from tiepoint.matching import pairing, places
from tiepoint.matching.places import EARTH_M, near_pairs


def haversine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    (latitude_a, longitude_a), (latitude_b, longitude_b) = np.radians(a), np.radians(b)
    half = (
        math.sin((latitude_b - latitude_a) / 2) ** 2
        + math.cos(latitude_a) * math.cos(latitude_b)
        * math.sin((longitude_b - longitude_a) / 2) ** 2
    )  # fmt: skip
    return 2 * EARTH_M * math.asin(math.sqrt(min(half, 1)))


def slow_near(
    table: NDArray[np.float64], k: int | None, metres: float | None
) -> list[tuple[int, int]]:
    found = set()
    for i in range(len(table)):
        away = {
            j: round(haversine(table[i], table[j]), 3)
            for j in range(len(table))
            if j != i and not np.isnan(table[[i, j]]).any()
        }
        near = sorted(away, key=lambda j, away=away: (away[j], j))[:k]
        found |= {tuple(sorted((i, j))) for j in near if metres is None or away[j] <= metres}
    return sorted(found)


def as_tuples(pairs: NDArray[np.int64]) -> list[tuple[int, int]]:
    return [(i, j) for i, j in pairs.tolist()]


@pytest.mark.parametrize("leaf", [2, 64])
@pytest.mark.parametrize(("k", "metres"), [(1, None), (4, None), (None, 120.0), (3, 80.0)])
def test_a_flight_equals_the_slow_twin(
    k: int | None, metres: float | None, leaf: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_LEAF", leaf)
    rng = np.random.default_rng(0)
    table = np.array([37.5, 127.0]) + rng.uniform(-0.004, 0.004, (150, 2))
    table[[5, 60, 61]] = table[5]  # hovering
    table[[7, 90]] = np.nan
    table[8, 1] = np.nan
    assert as_tuples(near_pairs(table, k, metres)) == slow_near(table, k, metres)


@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 5))
def test_places_all_over_the_world_equal_the_slow_twin(seed: int, count: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    table = np.stack([rng.uniform(-90, 90, count), rng.uniform(-180, 180, count)], axis=1)
    table[0], table[-1] = (60, 179.9999), (60, -179.9999)  # 22 km apart
    assert as_tuples(near_pairs(table, k)) == slow_near(table, k, None)
    near = near_pairs(table, None, 3e6)
    assert as_tuples(near) == slow_near(table, None, 3e6)
    assert len(near_pairs(table, None, 1e9)) == count * (count - 1) // 2


def test_the_pole_has_one_place_at_all_longitudes() -> None:
    table = np.array([[90, 0], [90, 120], [89, 0], [-90, 5]], np.float64)
    assert as_tuples(near_pairs(table, 1)) == [(0, 1), (0, 2), (2, 3)]
    assert as_tuples(near_pairs(table, None, 1)) == [(0, 1)]


def test_places_that_are_all_one_take_the_lowest_indices() -> None:
    table = np.tile([[48.1, 11.5]], (300, 1))
    pairs = as_tuples(near_pairs(table, 2))
    assert pairs == sorted(
        {(0, 1), (0, 2), (1, 2)} | {(i, j) for j in range(3, 300) for i in (0, 1)}
    )


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_known_places_give_no_pair(count: int) -> None:
    table = np.full((5, 2), np.nan)
    table[:count] = 3
    assert near_pairs(table, 3).shape == (0, 2)


def test_nonsense_and_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.zeros((50, 2))
    for arguments, message in (
        ((None, None), "k and metres are None"),
        ((0, None), "k is 0"),
        ((None, 0), "metres is 0"),
        ((None, math.nan), "metres is nan"),
    ):
        with pytest.raises(ConfigError, match=message):
            near_pairs(table, *arguments)
    with pytest.raises(ConfigError, match=r"shape \(50, 1\)"):
        near_pairs(table[:, :1], 1)
    monkeypatch.setattr(pairing, "MOST_PAIRS", 1000)
    with pytest.raises(ConfigError, match="taken near each other are 1,225 pairs"):
        near_pairs(table, None, 1)
