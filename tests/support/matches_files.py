"""Matches to write and compare."""

from __future__ import annotations

from typing import Any

import numpy as np

from tiepoint.features import Matches


def make(count: int = 5, keypoints: int = 9, seed: int = 0, **meta: Any) -> Matches:
    """Matches in the order that `match` gives: best first, ties by the index in A."""
    rng = np.random.default_rng(seed)
    index_a = np.sort(rng.permutation(keypoints)[:count])
    scores = rng.choice([0.25, 0.5, 0.9], count).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    pairs = np.stack([index_a, rng.integers(0, 50_000, count)], axis=1)[order]
    return Matches(pairs, scores[order], {"keypoints": [keypoints, 50_000], **meta})


def assert_equal(left: Matches, right: Matches) -> None:
    np.testing.assert_array_equal(left.pairs, right.pairs)
    np.testing.assert_array_equal(left.scores, right.scores)
    assert left.pairs.dtype == np.int64 and left.scores.dtype == np.float32
    assert left.pairs.shape == right.pairs.shape and left.meta == right.meta
