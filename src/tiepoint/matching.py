"""Which keypoint of image A is which of image B: mutual nearest neighbours by cosine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError
from tiepoint.features import Features, Matches

BLOCK = 1024
"""Descriptors of each image compared at a time: 8 MB of cosines, whatever the counts."""

SAME_WEIGHTS = ("sha256", "rules")
"""Entries of `meta` that must agree: descriptors of other weights live in another space."""

Index = NDArray[np.int64]
Cosines = NDArray[np.float32]


def match(features_a: Features, features_b: Features) -> Matches:
    """Match two images: each keypoint's most similar one, where both choose each other.

    Cosines are summed in float64 and then rounded to float32; among equal ones the lower index,
    that is the better score, wins. The result depends on nothing but the descriptors.

    Args:
        features_a, features_b: Features with descriptors (N_A D and N_B D) of the same weights.

    Returns:
        Matches, best cosine first; ties by the index in A. Empty when either image has no
        keypoints.

    Raises:
        ConfigError: Features without descriptors, of different lengths D, of different weights
            or rules, or with descriptors that are not finite.
    """
    a, b = _descriptors(features_a, "A"), _descriptors(features_b, "B")
    _same_kind(features_a, features_b, a.shape[1], b.shape[1])
    if len(a) == 0 or len(b) == 0:
        return Matches(np.empty((0, 2), np.int64), np.empty(0, np.float32))
    of_a, cosines, of_b = nearest_both_ways(a, b)
    mutual = np.flatnonzero(of_b[of_a] == np.arange(len(a)))  # M
    mutual = mutual[np.argsort(-cosines[mutual], kind="stable")]  # M
    pairs = np.stack([mutual, of_a[mutual]], axis=1).astype(np.int64)  # M 2
    return Matches(pairs, cosines[mutual])


def nearest_both_ways(
    a: NDArray[np.float32], b: NDArray[np.float32]
) -> tuple[Index, Cosines, Index]:
    """The nearest neighbours between two sets of unit vectors, in bounded memory.

    Args:
        a, b: N_A D and N_B D float32, neither empty.

    Returns:
        N_A indices into b, N_A cosines of these, N_B indices into a. Ties go to the lower index.
    """
    best_a, of_a = np.full(len(a), -np.inf, np.float32), np.zeros(len(a), np.int64)
    best_b, of_b = np.full(len(b), -np.inf, np.float32), np.zeros(len(b), np.int64)
    for row in range(0, len(a), BLOCK):
        rows = slice(row, row + BLOCK)
        left = a[rows].astype(np.float64)  # BLOCK D
        for column in range(0, len(b), BLOCK):
            columns = slice(column, column + BLOCK)
            # float32 sums depend on the BLAS kernel, hence on the place in the block: equal
            # descriptors would tie in one place and not in another.
            cosines = (left @ b[columns].astype(np.float64).T).astype(np.float32)  # BLOCK BLOCK
            _improve(best_a[rows], of_a[rows], cosines, column)
            _improve(best_b[columns], of_b[columns], np.ascontiguousarray(cosines.T), row)
    return of_a, best_a, of_b


def _improve(best: Cosines, index: Index, cosines: Cosines, offset: int) -> None:
    """Take over, in place, what this block has strictly better than the blocks before it."""
    nearest = cosines.argmax(axis=1)  # BLOCK; the first of equals
    found = cosines[np.arange(len(cosines)), nearest]  # BLOCK
    better = found > best
    best[better] = found[better]
    index[better] = nearest[better] + offset


def _descriptors(features: Features, name: str) -> NDArray[np.float32]:
    if features.descriptors is None:
        raise ConfigError(
            f"features {name} have no descriptors, which matching compares: "
            "detect with descriptors=True"
        )
    if not np.isfinite(features.descriptors).all():
        raise ConfigError(
            f"features {name} have descriptors with NaN or infinite values, expected unit "
            "vectors: detect again"
        )
    return features.descriptors


def _same_kind(a: Features, b: Features, length_a: int, length_b: int) -> None:
    for key in SAME_WEIGHTS:
        left, right = a.meta.get(key), b.meta.get(key)
        if left is not None and right is not None and left != right:
            raise ConfigError(
                f"features A have {key} {left} and features B {right}: descriptors of different "
                "weights or rules cannot be compared; detect both images with one checkpoint"
            )
    if length_a != length_b:
        raise ConfigError(
            f"features A have descriptors of length {length_a} and features B of {length_b}, "
            "expected one length: detect both images with one checkpoint"
        )
