"""Which images to match with which: pairs of indices, each once, in a steady order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import PairConfig
from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Features

Pairs = NDArray[np.int64]

_ROWS = 256  # of a table of similarities at a time


def all_pairs(count: int) -> Pairs:
    """Every image with every other.

    Returns:
        P 2 int64 with i < j, P = count (count - 1) / 2.

    Raises:
        ConfigError: A negative count.
    """
    _require(count, "count", 0)
    i, j = np.triu_indices(count, k=1)  # P each
    return np.stack([i, j], axis=1).astype(np.int64)


def sequential_pairs(
    count: int, window: int = PairConfig.window, *, quadratic: bool = False
) -> Pairs:
    """Every image with those that follow it: for video and for images taken along a way.

    Args:
        count: Of the images, which are in the order in which they were taken.
        window: How many following images each is matched with.
        quadratic: Also with those 1, 2, 4, ... 2^(window - 1) further on, as COLMAP's
            `quadratic_overlap`: this finds what comes back into view.

    Returns:
        P 2 int64 with i < j, sorted.

    Raises:
        ConfigError: A negative count, or a window below 1.
    """
    _require(count, "count", 0)
    _require(window, "window", 1)
    steps = set(range(1, min(window, count - 1) + 1))
    if quadratic:
        steps |= {2**power for power in range(min(window, count.bit_length()))}
    pairs = [(i, i + step) for i in range(count) for step in sorted(steps) if i + step < count]
    return _as_pairs(pairs)


def similar_pairs(descriptors: NDArray[np.float32], k: int = PairConfig.k) -> Pairs:
    """Every image with the k that are most like it.

    Args:
        descriptors: n G, of the images, from `global_descriptor`.
        k: How many for each; the most alike image may have others that are more like it, so an
            image can stand in more pairs than k.

    Returns:
        P 2 int64 with i < j, sorted. Of equally alike images the lower index is taken. An image
        whose descriptor is zero stands in no pair.

    Raises:
        ConfigError: k below 1, or descriptors of another shape.
    """
    _require(k, "k", 1)
    if descriptors.ndim != 2:
        raise ConfigError(f"descriptors have shape {descriptors.shape}, expected (images, G)")
    count = len(descriptors)
    empty = np.abs(descriptors).sum(axis=1) == 0  # n
    found: set[tuple[int, int]] = set()
    for start in range(0, count, _ROWS):
        rows = np.arange(start, min(start + _ROWS, count))  # R
        # In float64 and rounded, equal images tie wherever they stand: `neighbours`.
        alike = descriptors[rows].astype(np.float64) @ descriptors.astype(np.float64).T  # R n
        alike = alike.astype(np.float32)
        alike[np.arange(len(rows)), rows] = -np.inf
        alike[:, empty] = -np.inf
        nearest = np.argsort(-alike, axis=1, kind="stable")[:, :k]  # R k
        for i, others in zip(rows.tolist(), nearest, strict=True):
            if not empty[i]:
                usable = others[alike[i - start, others] > -np.inf]
                found.update((min(i, j), max(i, j)) for j in usable.tolist())
    return _as_pairs(sorted(found))


def global_descriptor(features: Features) -> NDArray[np.float32]:
    """One vector for a whole image, made of its keypoints' descriptors.

    Second-order pooling: the sum over keypoints of score * d d^T, of which the upper triangle is
    kept, with signed square roots and unit length. Before the roots, the dot product of two images
    is the sum of the squared cosines of all pairs of their keypoints, so that few good matches
    count more than many poor ones.

    Args:
        features: With descriptors N D.

    Returns:
        D (D + 1) / 2 float32 of unit length; zeros without keypoints, alike to nothing.

    Raises:
        ConfigError: Features without descriptors, or with values that are not finite.

    Source:
        Carreira et al., Semantic Segmentation with Second-Order Pooling, ECCV 2012. The roots:
        Perronnin et al., Improving the Fisher Kernel, ECCV 2010.
    """
    if features.descriptors is None:
        raise ConfigError(
            "features have no descriptors, which likeness is found by: detect with descriptors=True"
        )
    local = features.descriptors.astype(np.float64)  # N D
    table = (local * features.scores[:, None]).T @ local  # D D
    if not np.isfinite(table).all():
        raise ConfigError("features have scores or descriptors that are not finite: detect again")
    rows, columns = np.triu_indices(len(table))
    pooled = table[rows, columns]  # G
    pooled[rows != columns] *= np.sqrt(2)  # those stand twice in the table
    pooled = np.sign(pooled) * np.sqrt(np.abs(pooled))
    length = np.linalg.norm(pooled)
    result: NDArray[np.float32] = (pooled / (length or 1)).astype(np.float32)
    return result


def listed_pairs(path: str | PathLike[str], names: Sequence[str]) -> Pairs:
    """The pairs of a text file, as hloc and COLMAP take it: two names per line.

    Names are separated by blanks, or by a tab when they hold blanks themselves. Empty lines and
    lines that start with # are left out. A pair that stands there again, in either order, is
    taken once.

    Args:
        path: UTF-8 text.
        names: Of the images; the result holds indices into it.

    Returns:
        P 2 int64, in the order and direction of the file.

    Raises:
        FormatError: No such file, not text, or a line that does not name two of the images; the
            error says its number.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise FormatError(f"{path}: cannot be read ({reason}); check the path") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 text, expected two image names per line") from error
    index = {name: number for number, name in enumerate(names)}
    found: dict[frozenset[int], tuple[int, int]] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            pair = _pair_of_line(line, index, f"{path}, line {number}")
            found.setdefault(frozenset(pair), pair)
    return _as_pairs(found.values())


def _pair_of_line(line: str, index: dict[str, int], where: str) -> tuple[int, int]:
    separator = "\t" if "\t" in line else None
    parts = [part.strip() for part in line.strip().split(separator)]
    if len(parts) != 2:
        raise FormatError(
            f"{where}: {line.strip()!r} has {len(parts)} parts, expected two image names; put a "
            "tab between names that hold blanks"
        )
    for name in parts:
        if name not in index:
            raise FormatError(
                f"{where}: no image {name!r} among the {len(index)} there are"
                + (f", such as {next(iter(index))!r}" if index else "")
            )
    i, j = index[parts[0]], index[parts[1]]
    if i == j:
        raise FormatError(f"{where}: {parts[0]!r} stands there twice, expected two images")
    return i, j


def _as_pairs(pairs: Iterable[tuple[int, int]]) -> Pairs:
    return np.array(list(pairs), np.int64).reshape(-1, 2)  # P 2


def _require(value: int, name: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} is {value!r}, expected a whole number of at least {least}")
