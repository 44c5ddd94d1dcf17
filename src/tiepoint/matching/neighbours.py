"""Nearest neighbours between two sets of descriptors, exact, both ways, in bounded memory.

All cosines are summed in float64 and rounded to float32. float32 sums depend on the BLAS kernel,
hence on the place in the block: equal descriptors would tie in one place and not in another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1024
"""Descriptors of each image compared at a time: 8 MB of float64, whatever the counts."""

Float = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Nearest:
    """Of each vector of one set, the nearest in the other; ties go to the lower index.

    Attributes:
        index: N int64.
        score: N, what was compared by: cosines in float32, or logarithms in float64.
        second: N, the same of the second nearest, -inf where there is none; None if not asked for.
    """

    index: NDArray[np.int64]
    score: Float
    second: Float | None


def by_cosine(
    a: NDArray[np.float32], b: NDArray[np.float32], *, second: bool = False
) -> tuple[Nearest, Nearest]:
    """The nearest by cosine.

    Args:
        a, b: N_A D and N_B D float32 of unit length, neither empty.
        second: Also the cosine of the second nearest.

    Returns:
        For a, indices into b; and for b, indices into a.
    """
    of_a = _Best(len(a), np.float32, second=second)
    of_b = _Best(len(b), np.float32, second=second)
    for rows, columns, cosines in _blocks(a, b):
        of_b.improve(columns, cosines.T.copy(), rows.start)  # a copy, since it is written into
        of_a.improve(rows, cosines, columns.start)
    return of_a.found(), of_b.found()


def by_probability(
    a: NDArray[np.float32], b: NDArray[np.float32], temperature: float
) -> tuple[Nearest, Nearest]:
    """The nearest by the dual soft-max of the cosines over a temperature.

    The probability of (i, j) is that of j among all that i could choose times that of i among all
    that j could choose. All cosines are computed twice: first for the sums, then to choose.

    Args:
        a, b: N_A D and N_B D float32 of unit length, neither empty.

    Returns:
        As `by_cosine`, with log probabilities.

    Source:
        Rocco et al., NeurIPS 2018, and LoFTR (CVPR 2021), section 3.3.
    """
    sum_a, sum_b = _LogSum(len(a)), _LogSum(len(b))
    for rows, columns, cosines in _blocks(a, b):
        scaled = cosines.astype(np.float64) / temperature  # BLOCK BLOCK
        sum_a.add(rows, scaled)
        sum_b.add(columns, np.ascontiguousarray(scaled.T))
    log_a, log_b = sum_a.log(), sum_b.log()
    of_a, of_b = _Best(len(a), np.float64), _Best(len(b), np.float64)
    for rows, columns, cosines in _blocks(a, b):
        scaled = cosines.astype(np.float64) / temperature  # BLOCK BLOCK
        scaled *= 2
        scaled -= log_a[rows, None]
        scaled -= log_b[columns]
        of_b.improve(columns, scaled.T.copy(), rows.start)
        of_a.improve(rows, scaled, columns.start)
    return of_a.found(), of_b.found()


def _blocks(
    a: NDArray[np.float32], b: NDArray[np.float32]
) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
    for row in range(0, len(a), BLOCK):
        rows = slice(row, row + BLOCK)
        left = a[rows].astype(np.float64)  # BLOCK D
        for column in range(0, len(b), BLOCK):
            columns = slice(column, column + BLOCK)
            cosines = left @ b[columns].astype(np.float64).T  # BLOCK BLOCK
            yield rows, columns, cosines.astype(np.float32)


class _Best:
    """The best of each row, and the second best, over the blocks seen so far."""

    def __init__(self, count: int, kind: type[np.floating[Any]], *, second: bool = False) -> None:
        self._index = np.zeros(count, np.int64)
        self._score: Float = np.full(count, -np.inf, kind)
        self._second: Float | None = self._score.copy() if second else None

    def improve(self, part: slice, scores: Float, offset: int) -> None:
        """Take over what this block has strictly better than those before; writes into `scores`."""
        places = np.arange(len(scores))
        nearest = scores.argmax(axis=1)  # BLOCK; the first of equals
        found = scores[places, nearest]  # BLOCK
        best = self._score[part]
        if self._second is not None:
            scores[places, nearest] = -np.inf
            loser = np.minimum(best, found)  # BLOCK
            runner_up = np.maximum(scores.max(axis=1), loser)  # BLOCK
            self._second[part] = np.maximum(self._second[part], runner_up)
        better = found > best
        self._index[part][better] = nearest[better] + offset
        best[better] = found[better]

    def found(self) -> Nearest:
        return Nearest(self._index, self._score, self._second)


class _LogSum:
    """log(sum(exp(x))) of each row over the blocks seen so far, safe at any temperature."""

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
