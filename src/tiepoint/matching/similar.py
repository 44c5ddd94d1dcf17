"""Vectors of images -> pairs of similar images: exact, or by cells for large collections."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tiepoint.checks import check_whole
from tiepoint.config import PairConfig
from tiepoint.errors import ConfigError
from tiepoint.matching.image_vectors import nearest_centres, spherical_means
from tiepoint.matching.pairing import Pairs, check_pairs, neighbour_pairs
from tiepoint.network.cores import usable_cores
from tiepoint.streaming import read_ahead

MOST_EXACT = 50_000
"""Most images of which all pairs are compared: about a minute on one core."""
PROBES = 32
"""Cells that are searched for an image."""

_ROWS = 256  # of a table of similarities at a time
_SPARE = 8  # neighbours kept beyond k, because float32 products are not exact
_PER_CELL = 64  # vectors of the sample that each centre is learned from
_CELL_STEPS = 8
_TABLE_VALUES = 2**22  # of similarities to the members of a cell at a time
_RERANK_VALUES = 2**21

Vectors = NDArray[np.float32] | NDArray[np.float16]


class _Part(NamedTuple):
    """Images that are compared with the members of one cell."""

    rows: NDArray[np.int64]
    members: NDArray[np.int64]


class _Best(NamedTuple):
    """The best of some images so far, in no order: similarities, and indices with -1 for none."""

    similarity: NDArray[np.float32]
    others: NDArray[np.int64]


def similar_pairs(
    vectors: Vectors,
    k: int = PairConfig.k,
    *,
    threads: int | None = None,
    most_exact: int = MOST_EXACT,
    probes: int = PROBES,
) -> Pairs:
    """Every image with its k most similar images.

    More than `most_exact` images are divided into about sqrt(n) cells by k-means, and an image is
    compared with the members of the `probes` nearest cells only. The result depends on neither the
    number of threads nor the run.

    Args:
        vectors: n G of unit length, from `Vocabulary.vector`.
        k: Images for each. The relation is not mutual, so an image can be in more than k pairs.
        threads: Number of threads; None takes one per core.
        most_exact: Most images of which all pairs are compared.
        probes: Cells that are searched for each image.

    Returns:
        P 2 int64 with i < j, sorted. Of equally similar images the lower index is taken. An image
        whose vector is zero is in no pair.

    Raises:
        ConfigError: k, threads or probes below 1, vectors of another shape, or more pairs than
            `MOST_PAIRS`.
    """
    check_whole("k", k, minimum=1, unit="images")
    check_whole("probes", probes, minimum=1, unit="cells")
    if vectors.ndim != 2:
        raise ConfigError(f"vectors have shape {vectors.shape}, expected (images, G)")
    starts = range(0, len(vectors), 8192)
    filled = [vectors[start : start + 8192].any(axis=1) for start in starts]
    usable = np.flatnonzero(np.concatenate(filled)) if filled else np.empty(0, np.int64)
    k = min(k, len(usable) - 1)
    if k < 1:
        return np.empty((0, 2), np.int64)
    check_pairs(len(usable) * k // 2, f"the {k} most similar of {len(usable)} images")
    # BLAS on one core: its sums then depend on the shapes alone, and parts run side by side.
    with threadpool_limits(1, user_api="blas"):
        if len(usable) <= most_exact:
            vectors, parts = np.asarray(vectors, np.float32), _whole(usable)
        else:
            parts = _cells(vectors, usable, probes)
        neighbours = _neighbours(vectors, parts, k, usable_cores(threads))
    return neighbour_pairs(neighbours)


def _whole(usable: NDArray[np.int64]) -> Iterator[_Part]:
    for start in range(0, len(usable), _ROWS):
        yield _Part(usable[start : start + _ROWS], usable)


def _cells(vectors: Vectors, usable: NDArray[np.int64], probes: int) -> Iterator[_Part]:
    """The images of each cell, with all images that search it."""
    count = round(math.sqrt(len(usable)))
    picked = np.linspace(0, len(usable) - 1, min(len(usable), _PER_CELL * count)).astype(np.int64)
    sample = _float32(vectors, usable[picked])
    centres = spherical_means(sample, count, steps=_CELL_STEPS)
    probes = min(probes, count)
    homes: list[NDArray[np.int64]] = []
    searched: list[NDArray[np.int64]] = []
    for start in range(0, len(usable), 4096):
        block = _float32(vectors, usable[start : start + 4096])
        homes.append(nearest_centres(block, centres))
        cosines = block @ centres.T  # R cells
        searched.append(np.argpartition(-cosines, probes - 1, axis=1)[:, :probes])
    home = np.concatenate(homes)  # n
    probed = np.concatenate(searched).astype(np.int32)  # n probes
    by_home = np.argsort(home, kind="stable")
    home_ends = np.searchsorted(home[by_home], np.arange(count + 1))
    by_probe = np.argsort(probed.ravel(), kind="stable")
    probe_ends = np.searchsorted(probed.ravel()[by_probe], np.arange(count + 1))
    for cell in range(count):
        members = usable[by_home[home_ends[cell] : home_ends[cell + 1]]]
        rows = usable[by_probe[probe_ends[cell] : probe_ends[cell + 1]] // probes]
        if len(members):
            step = min(max(1, _TABLE_VALUES // len(members)), 16 * _ROWS)
            for start in range(0, len(rows), step):
                yield _Part(rows[start : start + step], members)


def _neighbours(
    vectors: Vectors, parts: Iterator[_Part], k: int, workers: int
) -> NDArray[np.int64]:
    """The k most similar images of each, n k; -1 for none."""
    kept = k + 1 + _SPARE  # with the image itself
    best = _Best(
        np.full((len(vectors), kept), -np.inf, np.float32),
        np.full((len(vectors), kept), -1, np.int64),
    )

    def compare(part: _Part) -> _Best:
        rows, members = _float32(vectors, part.rows), _float32(vectors, part.members)
        similarity = rows @ members.T  # R M
        return _top(_Best(similarity, np.broadcast_to(part.members, similarity.shape)), kept)

    for part, found in read_ahead(parts, compare, workers):
        before = _Best(best.similarity[part.rows], best.others[part.rows])
        merged = _Best(
            np.hstack([before.similarity, found.similarity]),
            np.hstack([before.others, found.others]),
        )
        best.similarity[part.rows], best.others[part.rows] = _top(merged, kept)
    rows_at_once = max(1, _RERANK_VALUES // (kept * vectors.shape[1]))
    starts = range(0, len(vectors), rows_at_once)

    def ranked(start: int) -> NDArray[np.int64]:
        return _ranked(vectors, start, best.others[start : start + rows_at_once], k)

    return np.concatenate([found for _, found in read_ahead(starts, ranked, workers)])


def _top(found: _Best, kept: int) -> _Best:
    """The `kept` best columns of each row."""
    if found.similarity.shape[1] <= kept:
        return found
    chosen = np.argpartition(-found.similarity, kept - 1, axis=1)[:, :kept]
    return _Best(
        np.take_along_axis(found.similarity, chosen, axis=1),
        np.take_along_axis(found.others, chosen, axis=1),
    )


def _ranked(vectors: Vectors, start: int, index: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The k best of some, by products in float64 that are rounded, so that equal images tie."""
    rows = np.arange(start, start + len(index))
    own = vectors[rows].astype(np.float64)  # R G
    others = vectors[np.maximum(index, 0)].astype(np.float64)  # R kept G
    similarity = (others @ own[:, :, None])[:, :, 0].astype(np.float32)  # R kept
    similarity[(index < 0) | (index == rows[:, None])] = -np.inf
    order = np.lexsort((index, -similarity), axis=1)[:, :k]
    ranked = np.take_along_axis(index, order, axis=1)
    ranked[np.take_along_axis(similarity, order, axis=1) == -np.inf] = -1
    return ranked


def _float32(vectors: Vectors, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    taken: Any = vectors[rows]
    result: NDArray[np.float32] = taken.astype(np.float32, copy=False)
    return result
