"""Nearest neighbours between two sets of descriptors, exact, both ways, in bounded memory.

A cosine is the sum in float64, rounded to float32. float32 sums depend on the BLAS kernel and so on
the position in the block: equal descriptors would tie at one position and not at another. They are
several times as fast, so `by_cosine` takes them to find candidates, and float64 to decide.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1024
"""Descriptors of each image compared at a time: 8 MB of float64, whatever the counts."""

ROWS = 256
"""Descriptors of A compared at a time by float32 cosines: 1 MB, which stays in the cache."""

MOST_CANDIDATES = 2**18
"""Candidates kept before they are reduced to the best, unless the counts need more: 5 MB."""
UNIT_ROUNDOFF = 2.0**-24
"""Largest relative error of one operation in float32."""

_kept = threading.local()

Float = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]


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
    candidates = _Candidates(a, b, kept=2 if second else 1)
    for row in range(0, len(a), ROWS):
        for column in range(0, len(b), BLOCK):
            candidates.add_block(slice(row, row + ROWS), slice(column, column + BLOCK))
    return candidates.nearest()


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
    best_a, best_b = _Best(len(a)), _Best(len(b))
    for rows, columns, cosines in _rounded_blocks(a, b):
        scaled = cosines.astype(np.float64) / temperature  # BLOCK BLOCK
        scaled *= 2
        scaled -= log_a[rows, None]
        scaled -= log_b[columns]
        best_b.improve(columns, np.ascontiguousarray(scaled.T), rows.start)
        best_a.improve(rows, scaled, columns.start)
    return best_a.nearest(), best_b.nearest()


def among(
    counts: tuple[int, int], pairs: Indices, scores: Float, *, second: bool = False
) -> tuple[Nearest, Nearest]:
    """Nearest neighbours among given pairs.

    Args:
        counts: Sizes N_A and N_B of the two sets.
        pairs: P 2, indices into both, each pair once.
        scores: P.
        second: Also return the score of the second nearest neighbour.
    """
    i, j = pairs.T
    return _best_of(counts[0], i, j, scores, second), _best_of(counts[1], j, i, scores, second)


def best_of_either(pairs: Indices, scores: Float, kept: int = 1) -> NDArray[np.bool_]:
    """P: whether a pair is among the `kept` best of either of its vectors."""
    best = np.zeros(len(pairs), bool)
    for own, other in (pairs.T, pairs.T[::-1]):
        order = np.lexsort((other, -scores, own))  # P: by vector, the best first, ties by index
        rank = np.arange(len(order)) - np.searchsorted(own[order], own[order])
        best[order[rank < kept]] = True
    return best


def cosines(a: NDArray[np.float32], b: NDArray[np.float32], pairs: Indices) -> NDArray[np.float64]:
    """P: cosine of the two descriptors of each pair, summed in float64."""
    found = np.empty(len(pairs))
    for start in range(0, len(pairs), ROWS):
        part = slice(start, start + ROWS)
        left, right = a[pairs[part, 0]].astype(np.float64), b[pairs[part, 1]].astype(np.float64)
        found[part] = np.einsum("ij,ij->i", left, right)
    return found


def rounding_margin(a: NDArray[np.float32], b: NDArray[np.float32]) -> np.float32 | None:
    """Bound of how far two float32 cosines of equal float64 ones differ; None if it may not hold.

    A sum of D products errs by at most D u |x| |y| in any order, u the unit roundoff; the factors
    below leave room for the roundings of the bound itself.

    Source:
        Higham, Accuracy and Stability of Numerical Algorithms (2002), section 3.1.
    """
    with np.errstate(over="ignore"):
        longest = [float(np.sqrt(np.einsum("ij,ij->i", x, x).max())) for x in (a, b)]
    product = longest[0] * longest[1]
    if not 1e-6 < product < 1e6:  # float32 products may overflow, or lose their last digits
        return None
    return np.float32(2.5 * (a.shape[1] + 4) * UNIT_ROUNDOFF * product)


def _best_of(count: int, own: Indices, other: Indices, scores: Float, second: bool) -> Nearest:
    """For each of `count` vectors, the best of the pairs whose index `own` is its own."""
    order = np.lexsort((other, -scores, own))  # P: by vector, the best first, ties by index
    own, other, scores = own[order], other[order], scores[order]
    first = np.flatnonzero(np.append(True, own[1:] != own[:-1])[: len(own)])
    index, score = np.zeros(count, np.int64), np.full(count, -np.inf, scores.dtype)
    index[own[first]], score[own[first]] = other[first], scores[first]
    if not second:
        return Nearest(index, score, None)
    runner_up = np.full(count, -np.inf, scores.dtype)
    following = first + 1
    has_second = following < np.append(first[1:], len(own))
    runner_up[own[first[has_second]]] = scores[following[has_second]]
    return Nearest(index, score, runner_up)


def _scratch() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Memory of this thread for one block; fresh one would take as long as the work in it."""
    if getattr(_kept, "size", None) != ROWS * BLOCK:
        _kept.size = ROWS * BLOCK
        _kept.arrays = np.empty(_kept.size, np.float32), np.empty((2, _kept.size), np.bool_)
    arrays: tuple[NDArray[np.float32], NDArray[np.bool_]] = _kept.arrays
    return arrays


class _Candidates:
    """Pairs that may be nearest neighbours: all whose float32 cosine is near the best so far."""

    def __init__(self, a: NDArray[np.float32], b: NDArray[np.float32], kept: int) -> None:
        """`kept` is 1 for the nearest neighbours, 2 for the second nearest as well."""
        self._a, self._b, self._kept = a, b, kept
        self._margin = rounding_margin(a, b)
        self._bar_a, self._bar_b = _Bar(len(a), kept), _Bar(len(b), kept)
        self._found: list[tuple[Indices, Indices, NDArray[np.float32]]] = []
        """Indices into a and b with the float32 cosine, which is inf where it is not known."""
        self._count = 0
        self._scratch = _scratch()

    def add_block(self, rows: slice, columns: slice) -> None:
        """Compare some vectors of a with some of b."""
        if self._margin is None:
            self._add_exactly(rows, columns)
            return
        left, right = self._a[rows], self._b[columns]
        size, shape = len(left) * len(right), (len(left), len(right))
        approximate = self._scratch[0][:size].reshape(shape)
        near, work = (flags[:size].reshape(shape) for flags in self._scratch[1])
        np.matmul(left, right.T, out=approximate)
        bar_a = self._bar_a.raised(rows, approximate, work, axis=1) - self._margin
        bar_b = self._bar_b.raised(columns, approximate, work, axis=0) - self._margin
        np.greater_equal(approximate, bar_a[:, None], out=near)
        np.greater_equal(approximate, bar_b, out=work)
        found = np.flatnonzero(np.logical_or(near, work, out=near))
        if len(found) > 4 * self._kept * sum(shape):
            self._add_exactly(rows, columns)  # many equal descriptors, as of repeated patterns
        else:
            i, j = found // shape[1], found % shape[1]
            self._add(i + rows.start, j + columns.start, approximate[i, j])

    def _add_exactly(self, rows: slice, columns: slice) -> None:
        """Add the nearest neighbours within a block, and the second nearest if needed."""
        left, right = self._a[rows].astype(np.float64), self._b[columns].astype(np.float64)
        exact = (left @ right.T).astype(np.float32)  # BLOCK BLOCK
        of_a, of_b = np.arange(exact.shape[0]), np.arange(exact.shape[1])
        for scores, own in ((exact.copy(), of_a), (exact.T.copy(), of_b)):
            for _ in range(min(self._kept, scores.shape[1])):
                best = scores.argmax(axis=1)  # BLOCK; the first of equals
                scores[own, best] = -np.inf
                i, j = (own, best) if own is of_a else (best, own)
                self._add(i + rows.start, j + columns.start, np.full(len(i), np.inf, np.float32))

    def _add(self, i: Indices, j: Indices, approximate: NDArray[np.float32]) -> None:
        self._found.append((i, j, approximate))
        self._count += len(i)
        if self._count > max(MOST_CANDIDATES, 4 * (len(self._a) + len(self._b))):
            self._reduce()

    def _reduce(self) -> None:
        """Keep the pairs that are nearest neighbours so far."""
        pairs, scores = self._scored()
        i, j = pairs[best_of_either(pairs, scores, self._kept)].T
        self._found, self._count = [], 0
        self._add(i, j, np.full(len(i), np.inf, np.float32))

    def _scored(self) -> tuple[Indices, NDArray[np.float32]]:
        """The candidates, P 2, each once, and their cosines."""
        i, j, approximate = (np.concatenate(parts) for parts in zip(*self._found, strict=True))
        margin = np.float32(0) if self._margin is None else self._margin
        near = (approximate >= self._bar_a.level[i] - margin) | (
            approximate >= self._bar_b.level[j] - margin
        )
        keys = np.unique(i[near] * len(self._b) + j[near])
        pairs = np.stack([keys // len(self._b), keys % len(self._b)], axis=1)
        return pairs, cosines(self._a, self._b, pairs).astype(np.float32)

    def nearest(self) -> tuple[Nearest, Nearest]:
        pairs, scores = self._scored()
        return among((len(self._a), len(self._b)), pairs, scores, second=self._kept == 2)


class _Bar:
    """The best score of each vector over the blocks so far, or a lower bound of the second best."""

    def __init__(self, count: int, kept: int) -> None:
        self._best = np.full(count, -np.inf, np.float32)
        self._second = np.full(count, -np.inf, np.float32) if kept == 2 else None

    @property
    def level(self) -> NDArray[np.float32]:
        return self._best if self._second is None else self._second

    def raised(
        self, part: slice, scores: NDArray[np.float32], work: NDArray[np.bool_], axis: int
    ) -> NDArray[np.float32]:
        """The level of some vectors after a block of scores; `work` is written into."""
        best, highest = self._best[part], scores.max(axis=axis)
        if self._second is not None:
            # Equals of the highest are left out with it, which only lowers the bound.
            np.less(scores, np.expand_dims(highest, axis), out=work)
            others = scores.max(axis=axis, where=work, initial=-np.inf)
            second = np.maximum(others, np.minimum(best, highest))
            np.maximum(self._second[part], second, out=self._second[part])
        np.maximum(best, highest, out=best)
        return self.level[part]


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
    """The best score of each row over the blocks so far."""

    def __init__(self, count: int) -> None:
        self._index = np.zeros(count, np.int64)
        self._score = np.full(count, -np.inf)

    def improve(self, part: slice, scores: NDArray[np.float64], offset: int) -> None:
        """Take the scores of a block that are strictly better."""
        rows = np.arange(len(scores))
        nearest = scores.argmax(axis=1)  # BLOCK; the first of equals
        highest = scores[rows, nearest]  # BLOCK
        best = self._score[part]
        better = highest > best
        self._index[part][better] = nearest[better] + offset
        best[better] = highest[better]

    def nearest(self) -> Nearest:
        return Nearest(self._index, self._score, None)


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
