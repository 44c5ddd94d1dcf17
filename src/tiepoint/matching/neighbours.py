"""Nearest neighbours between two sets of descriptors, exact, both ways, in bounded memory.

All cosines are summed in float64 and rounded to float32. float32 sums depend on the BLAS kernel
and so on the position in the block: equal descriptors would tie at one position and not at another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1024
"""Descriptors of each image compared at a time: 8 MB of float64, whatever the counts."""

Float = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest neighbour of each of N vectors in another set; ties go to the lower index.

    Attributes:
        index: N int64; 0 if no neighbour was allowed.
        score: N, cosines or log probabilities; -inf if no neighbour was allowed.
        second: N, score of the second nearest neighbour, -inf if there is none; None if not
            requested.
    """

    index: NDArray[np.int64]
    score: Float
    second: Float | None


def by_cosine(
    a: NDArray[np.float32], b: NDArray[np.float32], *, second: bool = False
) -> tuple[Nearest, Nearest]:
    """Nearest neighbours by cosine.

    Args:
        a, b: N_A D and N_B D float32 of unit length, neither empty.
        second: Also return the cosine of the second nearest neighbour.

    Returns:
        For a, indices into b; and for b, indices into a.
    """
    best_a = _Best(len(a), np.float32, second=second)
    best_b = _Best(len(b), np.float32, second=second)
    for rows, columns, cosines in _rounded_blocks(a, b):
        best_b.improve(columns, cosines.T.copy(), rows.start)  # a copy, because it is written into
        best_a.improve(rows, cosines, columns.start)
    return best_a.nearest(), best_b.nearest()


def by_probability(
    a: NDArray[np.float32], b: NDArray[np.float32], temperature: float
) -> tuple[Nearest, Nearest]:
    """Nearest neighbours by the dual soft-max of the cosines over a temperature.

    The probability of (i, j) is that of j among all that i could choose times that of i among all
    that j could choose. All cosines are computed twice: for the sums, then for the choice.

    Args:
        a, b: N_A D and N_B D float32 of unit length, neither empty.

    Returns:
        As `by_cosine`, with log probabilities.

    Source:
        Rocco et al., NeurIPS 2018, and LoFTR (CVPR 2021), section 3.3.
    """
    sum_a, sum_b = _LogSum(len(a)), _LogSum(len(b))
    for rows, columns, cosines in _rounded_blocks(a, b):
        scaled = cosines.astype(np.float64) / temperature  # BLOCK BLOCK
        sum_a.add(rows, scaled)
        sum_b.add(columns, np.ascontiguousarray(scaled.T))
    log_a, log_b = sum_a.log(), sum_b.log()
    best_a, best_b = _Best(len(a), np.float64), _Best(len(b), np.float64)
    for rows, columns, cosines in _rounded_blocks(a, b):
        scaled = cosines.astype(np.float64) / temperature  # BLOCK BLOCK
        scaled *= 2
        scaled -= log_a[rows, None]
        scaled -= log_b[columns]
        best_b.improve(columns, scaled.T.copy(), rows.start)
        best_a.improve(rows, scaled, columns.start)
    return best_a.nearest(), best_b.nearest()


def nearest_allowed(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    allowed: Callable[[slice, slice], NDArray[np.bool_]],
) -> tuple[Nearest, Nearest]:
    """Nearest neighbours by cosine in float64 among the pairs that are allowed.

    Args:
        a, b: N_A D and N_B D float32 of unit length.
        allowed: (rows of a, rows of b) -> BLOCK BLOCK bool.
    """
    best_a, best_b = _Best(len(a), np.float64), _Best(len(b), np.float64)
    for rows, columns, cosines in _blocks(a, b):
        scores = np.where(allowed(rows, columns), cosines, -np.inf)  # BLOCK BLOCK
        best_b.improve(columns, scores.T, rows.start)
        best_a.improve(rows, scores, columns.start)
    return best_a.nearest(), best_b.nearest()


def _blocks(
    a: NDArray[np.float32], b: NDArray[np.float32]
) -> Iterator[tuple[slice, slice, NDArray[np.float64]]]:
    """Rows of a, rows of b and their cosines, BLOCK BLOCK."""
    for row in range(0, len(a), BLOCK):
        rows = slice(row, row + BLOCK)
        left = a[rows].astype(np.float64)  # BLOCK D
        for column in range(0, len(b), BLOCK):
            columns = slice(column, column + BLOCK)
            yield rows, columns, left @ b[columns].astype(np.float64).T


def _rounded_blocks(
    a: NDArray[np.float32], b: NDArray[np.float32]
) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
    for rows, columns, cosines in _blocks(a, b):
        yield rows, columns, cosines.astype(np.float32)


class _Best:
    """Best and second best score of each row over the blocks so far."""

    def __init__(self, count: int, kind: type[np.floating[Any]], *, second: bool = False) -> None:
        self._index = np.zeros(count, np.int64)
        self._score: Float = np.full(count, -np.inf, kind)
        self._second: Float | None = self._score.copy() if second else None

    def improve(self, part: slice, scores: Float, offset: int) -> None:
        """Take the scores of a block that are strictly better; may write into `scores`."""
        rows = np.arange(len(scores))
        nearest = scores.argmax(axis=1)  # BLOCK; the first of equals
        highest = scores[rows, nearest]  # BLOCK
        best = self._score[part]
        if self._second is not None:
            scores[rows, nearest] = -np.inf
            loser = np.minimum(best, highest)  # BLOCK
            runner_up = np.maximum(scores.max(axis=1), loser)  # BLOCK
            self._second[part] = np.maximum(self._second[part], runner_up)
        better = highest > best
        self._index[part][better] = nearest[better] + offset
        best[better] = highest[better]

    def nearest(self) -> Nearest:
        return Nearest(self._index, self._score, self._second)


class _LogSum:
    """log(sum(exp(x))) of each row over the blocks so far, safe at any temperature."""

    def __init__(self, count: int) -> None:
        self._high = np.full(count, -np.inf)
        self._sum = np.zeros(count)

    def add(self, part: slice, x: NDArray[np.float64]) -> None:
        high = np.maximum(self._high[part], x.max(axis=1))  # BLOCK
        before = self._sum[part] * np.exp(self._high[part] - high)  # BLOCK
        self._sum[part] = before + np.exp(x - high[:, None]).sum(axis=1)
        self._high[part] = high

    def log(self) -> NDArray[np.float64]:
        total: NDArray[np.float64] = self._high + np.log(self._sum)
        return total
