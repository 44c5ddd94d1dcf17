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

BLOCK_VALUES = 2**22
"""Similarities computed at a time, 16 MB; with temporary values at most 80 MB are needed."""


@dataclass(frozen=True, eq=False)
class Assignment:
    """Matches of two images, best score first; ties by the index in A.

    Attributes:
        pairs: M 2 int64, indices in A and B.
        scores: M float32, the probability P of each match, in 0..1.
        matchability_a: N_A float32, the probability that a keypoint of A has a match in B.
        matchability_b: N_B float32, likewise of B.
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
    bonus_a = log_sigmoid(a.matchability) - log_rows  # N_A
    bonus_b = log_sigmoid(b.matchability) - log_columns  # N_B
    index_a, best_a, index_b = _maxima(blocks, bonus_a, bonus_b)
    scores = np.exp(best_a)  # N_A
    mutual = index_b[index_a] == np.arange(len(index_a))
    kept = np.flatnonzero(mutual & (scores > np.float32(threshold)))  # M
    order = kept[np.argsort(-scores[kept], kind="stable")]  # M
    pairs = np.stack([order, index_a[order]], axis=1)  # M 2
    return Assignment(
        pairs, scores[order], np.exp(log_sigmoid(a.matchability)),
        np.exp(log_sigmoid(b.matchability)),
    )  # fmt: skip


def unmatched(count_a: int, count_b: int) -> Assignment:
    """The assignment if one of the images has no keypoints."""
    nothing = np.empty(0, np.float32)
    none_a, none_b = np.zeros(count_a, np.float32), np.zeros(count_b, np.float32)
    return Assignment(np.empty((0, 2), np.int64), nothing, none_a, none_b)


def log_sigmoid(logits: Float32) -> Float32:
    """log(1 / (1 + exp(-x))), float32."""
    return -np.logaddexp(np.float32(0), -logits)


class _Similarities:
    """Blocks of rows of the similarity matrix; one block is kept, several are computed again."""

    def __init__(self, a: Float32, b: Float32) -> None:
        self.shape = len(a), len(b)
        self._a, self._transposed = a, b.T
        self._rows = max(1, BLOCK_VALUES // len(b))
        self._whole = a @ self._transposed if len(a) <= self._rows else None

    def __iter__(self) -> Iterator[tuple[slice, Float32]]:
        """Rows of A, and their similarities to all of B."""
        if self._whole is not None:
            yield slice(0, len(self._a)), self._whole
            return
        for start in range(0, len(self._a), self._rows):
            rows = slice(start, min(start + self._rows, len(self._a)))
            yield rows, self._a[rows] @ self._transposed


def _log_sums(blocks: _Similarities) -> tuple[Float32, Float32]:
    """log of the sum of exp of each row, N_A, and of each column, N_B."""
    count_a, count_b = blocks.shape
    log_rows = np.empty(count_a, np.float32)
    highest = np.full(count_b, -np.inf, np.float32)
    sums = np.zeros(count_b, np.float32)
    for rows, similarity in blocks:
        top = similarity.max(axis=1)  # rows
        powers = np.exp(similarity - top[:, None])  # rows N_B
        log_rows[rows] = top + np.log(powers.sum(axis=1))
        higher = np.maximum(highest, similarity.max(axis=0))  # N_B
        np.subtract(similarity, higher, out=powers)
        np.exp(powers, out=powers)
        ones = np.ones(len(powers), np.float32)
        sums = sums * np.exp(highest - higher) + ones @ powers  # N_B
        highest = higher
    return log_rows, highest + np.log(sums)


def _maxima(
    blocks: _Similarities, bonus_a: Float32, bonus_b: Float32
) -> tuple[NDArray[np.int64], Float32, NDArray[np.int64]]:
    """The maximum of each row of log P, its index and value, and the index of each column's."""
    count_a, count_b = blocks.shape
    index_a, best_a = np.empty(count_a, np.int64), np.empty(count_a, np.float32)
    index_b, best_b = np.zeros(count_b, np.int64), np.full(count_b, -np.inf, np.float32)
    for rows, similarity in blocks:
        log_p = 2 * similarity  # rows N_B
        log_p += bonus_a[rows, None]
        log_p += bonus_b
        index_a[rows] = log_p.argmax(axis=1)
        best_a[rows] = np.take_along_axis(log_p, index_a[rows, None], 1)[:, 0]
        in_block = log_p.argmax(axis=0)  # N_B
        values = np.take_along_axis(log_p, in_block[None], 0)[0]
        better = values > best_b  # of equals the lower index stays
        index_b[better] = in_block[better] + rows.start
        best_b[better] = values[better]
    return index_a, best_a, index_b
