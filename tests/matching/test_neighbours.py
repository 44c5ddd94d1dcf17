"""The quick search for nearest neighbours gives what float64 gives, wherever the ties are."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tiepoint.matching import near, neighbours

KINDS = ("random", "signs", "copies", "almost-copies", "one", "long", "tiny")


def vectors(kind: str, count: int, length: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Descriptors with as many ties as the kind has."""
    x = rng.normal(size=(count, length))
    if kind == "signs":
        x = np.sign(x)
    elif kind in ("copies", "almost-copies"):
        x = x[rng.integers(0, 1 + count // 7, count)]
        x += (1e-7 if kind == "almost-copies" else 0.0) * rng.normal(size=x.shape)
    elif kind == "one":
        x[:] = x[0]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return (x * {"long": 1e4, "tiny": 1e-20}.get(kind, 1.0)).astype(np.float32)


def slow_nearest(
    a: NDArray[np.float32], b: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Index, cosine and second best cosine from the whole matrix in float64."""
    cosines = (a.astype(np.float64) @ b.astype(np.float64).T).astype(np.float32)
    index = cosines.argmax(axis=1)
    rows = np.arange(len(a))
    score = cosines[rows, index].copy()
    cosines[rows, index] = -np.inf
    return index, score, cosines.max(axis=1)


def assert_equals_slow(a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    for found, (left, right) in zip(
        neighbours.by_cosine(a, b, second=True), ((a, b), (b, a)), strict=True
    ):
        index, score, second = slow_nearest(left, right)
        np.testing.assert_array_equal(found.index, index)
        np.testing.assert_array_equal(found.score, score)
        np.testing.assert_array_equal(found.second, second)
    for found, with_second in zip(
        neighbours.by_cosine(a, b), neighbours.by_cosine(a, b, second=True), strict=True
    ):
        np.testing.assert_array_equal(found.index, with_second.index)
        np.testing.assert_array_equal(found.score, with_second.score)
        assert found.second is None


@pytest.mark.parametrize("of_b", KINDS)
@pytest.mark.parametrize("of_a", KINDS)
def test_neighbours_of_a_million_pairs_are_those_of_float64(of_a: str, of_b: str) -> None:
    rng = np.random.default_rng(KINDS.index(of_a) * 10 + KINDS.index(of_b))
    a, b = vectors(of_a, 1100, 32, rng), vectors(of_b, 1300, 32, rng)
    shared = rng.permutation(1100)[:500]
    b[:500] = a[shared]  # ties between images, at other places of their blocks
    assert_equals_slow(a, b)


@pytest.mark.parametrize("counts", [(1, 1), (1, 700), (700, 1), (64, 65)])
def test_neighbours_of_few_are_those_of_float64(
    counts: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", 64)
    monkeypatch.setattr(neighbours, "ROWS", 64)
    rng = np.random.default_rng(0)
    a, b = (vectors("copies", count, 128, rng) for count in counts)
    assert_equals_slow(a, b)


def test_candidates_are_reduced_on_the_way_without_a_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    a, b = vectors("almost-copies", 900, 32, rng), vectors("copies", 800, 32, rng)
    monkeypatch.setattr(neighbours, "BLOCK", 64)
    monkeypatch.setattr(neighbours, "ROWS", 64)
    monkeypatch.setattr(neighbours, "MOST_CANDIDATES", 100)
    reduced = []
    reduce = neighbours._Candidates._reduce
    monkeypatch.setattr(
        neighbours._Candidates, "_reduce", lambda self: reduced.append(1) or reduce(self)
    )
    assert_equals_slow(a, b)
    assert reduced


def test_memory_stays_bounded_where_everything_ties() -> None:
    """4,000 equal descriptors in both images: 16 million ties."""
    import tracemalloc

    same = np.full((4000, 64), 0.125, np.float32)
    tracemalloc.start()
    found, _ = neighbours.by_cosine(same, same, second=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.index == 0).all() and (found.score == 1).all()
    assert peak < 60e6


@pytest.mark.parametrize("radius", [0.0, 0.7, 3.0, 1e4])
@pytest.mark.parametrize("most", [1, 50, near.MOST_PAIRS])
def test_near_pairs_equal_those_of_all_distances(
    radius: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near, "MOST_PAIRS", most)
    rng = np.random.default_rng(1)
    a, b = rng.uniform(-20, 60, (150, 2)), rng.uniform(0, 40, (170, 2)).round(1)
    a[:40] = b[:40]  # at no distance, and at the edges of cells
    a[40:60] = b[40:60] + np.array([3.0, 0.0])
    a[60], a[61], b[60] = [np.nan, 1], [1e300, -np.inf], [np.nan, 3]
    parts = list(near.within(a, b, radius))
    found = [tuple(pair) for part in parts for pair in part.tolist()]
    with np.errstate(invalid="ignore"):
        distances = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1))
    assert sorted(found) == [tuple(pair) for pair in np.argwhere(distances <= radius).tolist()]
    assert len(found) == len(set(found))
    firsts = [set(part[:, 0].tolist()) for part in parts]
    assert sum(map(len, firsts)) == len(set().union(*firsts))  # all of one point together


def test_no_points_are_near_none() -> None:
    none, some = np.empty((0, 2)), np.zeros((3, 2))
    assert list(near.within(none, some, 1.0)) == []
    assert list(near.within(some, none, 1.0)) == []
