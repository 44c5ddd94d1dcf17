"""The network's output -> matches, in blocks that bound the memory.

log P(i, j) = log softmax_j(S) + log softmax_i(S) + log sigmoid(m_i) + log sigmoid(m_j), with the
similarities S and the matchability logits m. A match is the maximum of its row and of its column.

Source: LightGlue (Lindenberger et al. 2023), section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiepoint.matching.learned.inputs import MatcherOutput

Float32 = NDArray[np.float32]

KEPT_VALUES, BLOCK_VALUES = 2**22, 2**18
"""Similarities that are kept at most, 16 MB, and those that are worked on at a time, 1 MB, which
fits in the cache. More are computed twice. Temporary values need about three blocks."""

LOWEST, FAINT = np.float32(-80), np.float32(1e-24)
"""Exponents are raised to the first, because denormal numbers are slow. Sums below the second,
relative to the highest similarity, would notice that, and are computed apart."""


@dataclass(frozen=True, eq=False)
class Assignment:
    """Matches of two images, best score first; ties by the index in A.

    Attributes:
        pairs: M 2 int64, indices in A and B.
        scores: M float32, the probability P of each match, in 0..1.
        matchability_a: N_A float32, the probability that a keypoint of A has a match in B.
        matchability_b: N_B float32, the probability that a keypoint of B has a match in A.
    """

    pairs: NDArray[np.int64]
    scores: Float32
    matchability_a: Float32
    matchability_b: Float32


def assign(a: MatcherOutput, b: MatcherOutput, threshold: float) -> Assignment:
    """Mutual maxima of the assignment whose probability is above a threshold.

    Args:
        a, b: Output for each image; neither is empty.
        threshold: Probability in 0..1.
    """
    blocks = _Similarities(a.projected, b.projected)
    log_rows, log_columns = _log_sums(blocks)
    chance_a, chance_b = log_sigmoid(a.matchability), log_sigmoid(b.matchability)
    index, best_a, best_b = _maxima(blocks, chance_a - log_rows, chance_b - log_columns)
    kept = np.flatnonzero((best_a == best_b[index]) & (np.exp(best_a) > np.float32(threshold)))
    _, first = np.unique(index[kept], return_index=True)  # of equals the lower index of A
    kept = kept[np.sort(first)]  # M
    scores = np.exp(best_a[kept])  # M
    order = np.argsort(-scores, kind="stable")  # M
    pairs = np.stack([kept, index[kept]], axis=1)[order]  # M 2
    return Assignment(pairs, scores[order], np.exp(chance_a), np.exp(chance_b))


def unmatched(count_a: int, count_b: int) -> Assignment:
    """The assignment if one of the images has no keypoints."""
    nothing = np.empty(0, np.float32)
    none_a, none_b = np.zeros(count_a, np.float32), np.zeros(count_b, np.float32)
    return Assignment(np.empty((0, 2), np.int64), nothing, none_a, none_b)


def log_sigmoid(logits: Float32) -> Float32:
    """log(1 / (1 + exp(-x))), float32."""
    return -np.logaddexp(np.float32(0), -logits)


class _Similarities:
    """Blocks of rows of the similarity matrix, which is kept or computed again for each pass."""

    def __init__(self, a: Float32, b: Float32) -> None:
        self.a, self.b = a, b
        self._whole = a @ b.T if len(a) * len(b) <= KEPT_VALUES else None

    def __iter__(self) -> Iterator[tuple[slice, Float32]]:
        """Rows of A, and their similarities to all of B."""
        count = max(1, BLOCK_VALUES // len(self.b))
        for start in range(0, len(self.a), count):
            rows = slice(start, min(start + count, len(self.a)))
            yield rows, self.a[rows] @ self.b.T if self._whole is None else self._whole[rows]


def _log_sums(blocks: _Similarities) -> tuple[Float32, Float32]:
    """log of the sum of exp of each row, N_A, and of each column, N_B."""
    log_rows = np.empty(len(blocks.a), np.float32)
    sums, scale = np.zeros(len(blocks.b), np.float32), np.float32(-np.inf)
    for rows, similarity in blocks:
        top, powers = _powers(similarity)  # rows, rows N_B
        log_rows[rows] = top + np.log(powers.sum(axis=1))
        higher = np.maximum(scale, top.max())
        sums = sums * np.exp(scale - higher) + np.exp(top - higher) @ powers  # N_B
        scale = higher
    log_columns = scale + np.log(np.maximum(sums, FAINT))
    faint = np.flatnonzero(sums <= FAINT)
    for columns, similarity in _Similarities(blocks.b[faint], blocks.a):
        top, powers = _powers(similarity)
        log_columns[faint[columns]] = top + np.log(powers.sum(axis=1))
    return log_rows, log_columns


def _powers(similarity: Float32) -> tuple[Float32, Float32]:
    """The maximum of each row, N, and exp of the values relative to it, N M."""
    top = similarity.max(axis=1)
    powers = similarity - top[:, None]
    np.maximum(powers, LOWEST, out=powers)
    return top, np.exp(powers, out=powers)


def _maxima(
    blocks: _Similarities, bonus_a: Float32, bonus_b: Float32
) -> tuple[NDArray[np.int64], Float32, Float32]:
    """Index and value of the maximum of each row of log P, N_A, and the column's values, N_B."""
    index, best_a = np.empty(len(blocks.a), np.int64), np.empty(len(blocks.a), np.float32)
    best_b = np.full(len(blocks.b), -np.inf, np.float32)
    for rows, similarity in blocks:
        log_p = similarity + similarity  # rows N_B
        log_p += bonus_a[rows, None]
        log_p += bonus_b
        index[rows] = log_p.argmax(axis=1)
        best_a[rows] = np.take_along_axis(log_p, index[rows, None], 1)[:, 0]
        np.maximum(best_b, log_p.max(axis=0), out=best_b)
    return index, best_a, best_b
