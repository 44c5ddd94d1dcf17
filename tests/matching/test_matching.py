"""Mutual nearest neighbours."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from support.provenance import made
from tiepoint.errors import ConfigError
from tiepoint.features import Features, Provenance
from tiepoint.geometry import apply_homography
from tiepoint.matching import guided, near, neighbours
from tiepoint.matching.guided import match_guided
from tiepoint.matching.match import match


def features(
    descriptors: NDArray[np.float32] | None, count: int = 0, provenance: Provenance | None = None
) -> Features:
    n = count if descriptors is None else len(descriptors)
    xy = np.zeros((n, 2), np.float32)
    scores = np.linspace(1, 0, n, dtype=np.float32)
    return Features(xy, scores, descriptors, (10, 10), provenance=provenance)


def unit(count: int, length: int = 16, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, length))
    vectors: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def slow_match(a: NDArray[np.float32], b: NDArray[np.float32]) -> list[tuple[int, int, float]]:
    def cosine(i: int, j: int) -> np.float32:
        return np.float32((a[i].astype(np.float64) * b[j].astype(np.float64)).sum())

    found = []
    for i in range(len(a)):
        j = max(range(len(b)), key=lambda j, i=i: (cosine(i, j), -j))
        if max(range(len(a)), key=lambda other, j=j: (cosine(other, j), -other)) == i:
            found.append((i, j, float(cosine(i, j))))
    return sorted(found, key=lambda row: (-row[2], row[0]))


def assert_equals_slow_twin(a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    result, expected = match(features(a), features(b)), slow_match(a, b)
    assert result.pairs.tolist() == [[i, j] for i, j, _ in expected]
    np.testing.assert_array_equal(result.scores, np.array([row[2] for row in expected], np.float32))


@pytest.mark.parametrize("counts", [(1, 1), (1, 30), (30, 1), (40, 55)])
def test_matches_equal_the_slow_twin(counts: tuple[int, int]) -> None:
    assert_equals_slow_twin(unit(counts[0], seed=1), unit(counts[1], seed=2))


@pytest.mark.parametrize("block", [1, 7, 16])
def test_the_block_size_changes_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = unit(33, seed=3), unit(47, seed=4)
    whole = match(features(a), features(b))
    monkeypatch.setattr(neighbours, "BLOCK", block)
    monkeypatch.setattr(neighbours, "ROWS", block)
    assert_equals_slow_twin(a, b)
    np.testing.assert_array_equal(match(features(a), features(b)).pairs, whole.pairs)


@pytest.mark.parametrize("block", [3, 1024])
def test_of_equal_descriptors_the_lower_index_wins(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    monkeypatch.setattr(neighbours, "ROWS", block)
    kinds = unit(4, length=67, seed=5)
    a, b = kinds[[2, 0, 2, 1, 0, 2, 1]], kinds[[1, 1, 0, 2, 2, 0, 3, 1]]
    result = match(features(a), features(b))
    assert sorted(map(tuple, result.pairs.tolist())) == [(0, 3), (1, 2), (3, 0)]
    assert_equals_slow_twin(a, b)


def test_equal_descriptors_tie_wherever_they_stand_in_a_large_set() -> None:
    b = unit(3000, length=64, seed=6)
    place = np.random.default_rng(7).permutation(3000)[:500]
    b[place] = b[place.min()]
    a = b[[place.min()]]
    assert match(features(a), features(b)).pairs.tolist() == [[0, int(place.min())]]


def test_swapping_the_images_swaps_the_pairs() -> None:
    a, b = features(unit(60, seed=8)), features(unit(50, seed=9))
    there, back = match(a, b).pairs, match(b, a).pairs
    assert {tuple(p) for p in there} == {tuple(p[::-1]) for p in back}


def test_a_shuffled_copy_is_matched_completely_with_cosine_one_best_first() -> None:
    a = unit(200, length=32, seed=10)
    order = np.random.default_rng(11).permutation(200)
    result = match(features(a), features(a[order]))
    assert len(result) == 200
    assert (order[result.pairs[:, 1]] == result.pairs[:, 0]).all()
    np.testing.assert_allclose(result.scores, 1, atol=1e-6)
    assert (np.diff(result.scores) <= 0).all()


@pytest.mark.parametrize("counts", [(0, 0), (0, 5), (5, 0)])
def test_no_keypoints_give_no_matches(counts: tuple[int, int]) -> None:
    result = match(features(unit(counts[0])), features(unit(counts[1])))
    assert result.pairs.shape == (0, 2)
    assert result.pairs.dtype == np.int64
    assert result.scores.shape == (0,)


def test_an_image_without_keypoints_needs_no_descriptors() -> None:
    """As OpenCV's detectors give it."""
    nothing = Features.from_opencv([], None, (40, 50))
    some = features(unit(5))
    assert len(match(nothing, some)) == len(match(some, nothing)) == 0


def test_missing_descriptors_are_named_with_their_image() -> None:
    with pytest.raises(ConfigError, match="features B have no descriptors"):
        match(features(unit(3)), features(None, count=3))


def test_descriptors_of_different_lengths_are_refused() -> None:
    with pytest.raises(ConfigError, match="length 16 and features B of 8"):
        match(features(unit(3)), features(unit(3, length=8)))


@pytest.mark.parametrize("key", ["weights_sha256", "rules"])
def test_descriptors_of_other_weights_or_rules_are_refused(key: str) -> None:
    a, b = unit(3), unit(4)
    one, two = made(**{key: "one"}), made(**{key: "two"})
    with pytest.raises(ConfigError, match=f"{key} one and features B two"):
        match(features(a, provenance=one), features(b, provenance=two))
    assert len(match(features(a, provenance=one), features(b, provenance=one))) > 0
    assert len(match(features(a, provenance=one), features(b))) > 0  # made by hand: unknown


def test_descriptors_that_are_not_finite_are_refused() -> None:
    bad = unit(3)
    bad[1, 2] = np.nan
    with pytest.raises(ConfigError, match="features A have descriptors with NaN"):
        match(features(bad), features(unit(3)))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.float16, np.bool_])
def test_descriptors_whose_products_overflow_or_are_rounded_are_refused(dtype: type) -> None:
    other = (unit(3) * 100).astype(dtype)
    with pytest.raises(ConfigError, match=f"B have descriptors of type {other.dtype}, expected"):
        match(features(unit(3)), features(other))
    with pytest.raises(ConfigError, match="B have descriptors of type"):
        match_guided(features(unit(3)), features(other), np.eye(3), 5.0)
    assert len(match(features(unit(3)), features(unit(3).astype(np.float64)))) == 3


def test_memory_stays_far_below_the_whole_similarity_matrix() -> None:
    a, b = features(unit(9000, length=8, seed=12)), features(unit(9000, length=8, seed=13))
    tracemalloc.start()
    match(a, b)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6  # the matrix has 324 MB


def placed(count: int, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    return Features(
        rng.uniform(0, 60, (count, 2)).astype(np.float32),
        np.linspace(1, 0, count, dtype=np.float32),
        unit(count, 4, seed),
        (60, 60),
    )


@pytest.mark.parametrize("few", [0, guided.FEW])
@pytest.mark.parametrize("counts", [(70, 90), (1, 1), (0, 5), (5, 0)])
def test_guided_matching_equals_the_slow_twin(
    counts: tuple[int, int], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Near by the model, most alike of these, and mutually so; over several blocks."""
    monkeypatch.setattr(neighbours, "BLOCK", 16)
    monkeypatch.setattr(neighbours, "ROWS", 16)
    monkeypatch.setattr(near, "MOST_PAIRS", 200)
    monkeypatch.setattr(guided, "FEW", few)
    a, b = placed(counts[0], 1), placed(counts[1], 2)
    matrix = np.array([[0.9, 0.1, 4], [-0.1, 1.1, 2], [1e-3, 0, 1]])
    there = apply_homography(matrix, a.xy)
    alike = {}
    for i in range(len(a)):
        for j in range(len(b)):
            if np.hypot(*(there[i] - b.xy[j])) <= 8:
                alike[i, j] = float(a.descriptors[i] @ b.descriptors[j])
    expected = [
        (i, j)
        for (i, j), score in alike.items()
        if score >= 0.1
        and score == max(alike[k, m] for k, m in alike if k == i)
        and score == max(alike[k, m] for k, m in alike if m == j)
    ]
    found = match_guided(a, b, matrix, 8.0, min_similarity=0.1)
    assert sorted(map(tuple, found.pairs.tolist())) == sorted(expected)
    assert (np.diff(found.scores) <= 0).all()
    assert counts != (70, 90) or len(found) > 10


def test_guided_matching_finds_partners_that_others_far_away_would_take() -> None:
    """Each point of B has a double elsewhere that is more alike; only their positions differ."""
    rng, descriptors = np.random.default_rng(0), unit(40)
    xy = rng.uniform(0, 200, (40, 2)).astype(np.float32)
    scores = np.ones(80, np.float32)
    noisy = descriptors + rng.normal(0, 0.05, descriptors.shape)
    noisy = (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
    a = Features(xy, scores[:40], descriptors, (200, 200))
    b = Features(
        np.concatenate([xy + 500, xy + np.array([3, 0])]).astype(np.float32), scores,
        np.concatenate([descriptors, noisy]), (900, 900),
    )  # fmt: skip
    assert (match(a, b).pairs[:, 1] < 40).all()
    found = match_guided(a, b, np.eye(3), 5.0)
    assert sorted(map(tuple, found.pairs.tolist())) == [(i, i + 40) for i in range(40)]


def test_points_that_the_model_sends_behind_the_camera_have_no_partner() -> None:
    a, b = placed(30, 1), placed(30, 2)
    behind = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0.5]])
    assert len(match_guided(a, b, behind, 1000.0, min_similarity=-1)) < 3
