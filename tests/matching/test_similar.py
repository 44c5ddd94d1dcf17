"""Pairs of similar images among vectors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tiepoint.errors import ConfigError
from tiepoint.matching import pairing, similar
from tiepoint.matching.similar import similar_pairs


def vectors(count: int, length: int = 5, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, length))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def slow_similar(table: NDArray[np.float32], k: int) -> list[tuple[int, int]]:
    found = set()
    usable = [i for i in range(len(table)) if table[i].any()]
    for i in usable:
        alike = {j: np.float32(np.dot(table[i].astype(float), table[j])) for j in usable if j != i}
        for j in sorted(alike, key=lambda j, alike=alike: (-alike[j], j))[:k]:
            found.add((min(i, j), max(i, j)))
    return sorted(found)


def as_tuples(pairs: NDArray[np.int64]) -> list[tuple[int, int]]:
    return [(i, j) for i, j in pairs.tolist()]


@pytest.mark.parametrize("rows", [3, 256])
@pytest.mark.parametrize("k", [1, 3, 100])
def test_similar_pairs_equal_the_slow_twin(
    k: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar, "_ROWS", rows)
    monkeypatch.setattr(similar, "_RERANK_VALUES", 100)
    table = vectors(20)
    table[[3, 9, 14]] = table[3]  # ties
    table[[5, 6]] = 0  # images without keypoints
    found = similar_pairs(table, k)
    assert as_tuples(found) == slow_similar(table, k)
    assert not np.isin(found, [5, 6]).any()


def test_cells_that_are_all_searched_give_the_exact_pairs() -> None:
    table = vectors(150, 6)
    table[40] = 0
    exact = similar_pairs(table, 4)
    assert as_tuples(exact) == slow_similar(table, 4)
    in_cells = similar_pairs(table, 4, most_exact=100, probes=10**6)
    np.testing.assert_array_equal(in_cells, exact)


def test_some_cells_find_most_pairs_and_no_wrong_ones() -> None:
    places = np.repeat(vectors(200, 24), 10, axis=0)  # ten images each
    table = places + 0.1 * vectors(2000, 24, seed=1)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    exact = set(as_tuples(similar_pairs(table, 9)))
    found = similar_pairs(table, 9, most_exact=1000, probes=4)
    assert len(exact & set(as_tuples(found))) > 0.97 * len(exact)
    assert len(found) < 1.1 * len(exact)


@pytest.mark.parametrize("most_exact", [0, 1000])
def test_the_number_of_threads_changes_nothing(most_exact: int) -> None:
    table = vectors(700, 16).astype(np.float16)
    one = similar_pairs(table, 5, threads=1, most_exact=most_exact, probes=3)
    two = similar_pairs(table, 5, threads=2, most_exact=most_exact, probes=3)
    np.testing.assert_array_equal(one, two)
    assert len(one) >= 700 * 5 / 2 * 0.9


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_give_no_pair(count: int) -> None:
    assert similar_pairs(np.ones((count, 4), np.float32)).shape == (0, 2)
    assert similar_pairs(np.zeros((3, 4), np.float32)).shape == (0, 2)


def test_nonsense_and_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="k is True"):
        similar_pairs(np.eye(3, dtype=np.float32), True)
    for threads in (0, -1):
        with pytest.raises(ConfigError, match=f"threads is {threads}"):
            similar_pairs(vectors(5), threads=threads)
    with pytest.raises(ConfigError, match="probes is 0"):
        similar_pairs(np.eye(3, dtype=np.float32), 1, probes=0)
    with pytest.raises(ConfigError, match=r"shape \(3,\)"):
        similar_pairs(np.ones(3, np.float32))
    monkeypatch.setattr(pairing, "MOST_PAIRS", 100)
    with pytest.raises(ConfigError, match="the 19 most similar of 20 images are 190 pairs"):
        similar_pairs(vectors(20), 50)
