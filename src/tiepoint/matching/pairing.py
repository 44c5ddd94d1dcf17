"""Which images to match with which: pairs of indices, each once, in a steady order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import check_whole, shown
from tiepoint.config import PairConfig
from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Features
from tiepoint.files.reading import text_lines

Pairs = NDArray[np.int64]

_ROWS = 256  # of a table of similarities at a time


def all_pairs(count: int) -> Pairs:
    """Every image with every other.

    Returns:
        P 2 int64 with i < j, P = count (count - 1) / 2.

    Raises:
        ConfigError: A negative count.
    """
    check_whole("count", count, minimum=0, unit="images")
    i, j = np.triu_indices(count, k=1)  # P each
    return np.stack([i, j], axis=1).astype(np.int64)


def sequential_pairs(
    count: int, window: int = PairConfig.window, *, quadratic: bool = False
) -> Pairs:
    """Every image with the following ones, for video and images taken along a path.

    Args:
        count: Number of images, in the order in which they were taken.
        window: Number of following images that each is matched with.
        quadratic: Also those 1, 2, 4, ... 2^(window - 1) further on, as COLMAP's
            `quadratic_overlap`: it finds places that come back into view.

    Returns:
        P 2 int64 with i < j, sorted.

    Raises:
        ConfigError: A negative count, or a window below 1.
    """
    check_whole("count", count, minimum=0, unit="images")
    check_whole("window", window, minimum=1, unit="images")
    steps = set(range(1, min(window, count - 1) + 1))
    if quadratic:
        steps |= {2**power for power in range(min(window, count.bit_length()))}
    pairs = [(i, i + step) for i in range(count) for step in sorted(steps) if i + step < count]
    return _as_pairs(pairs)


def similar_pairs(descriptors: NDArray[np.float32], k: int = PairConfig.k) -> Pairs:
    """Every image with its k most similar images.

    Args:
        descriptors: n G, from `global_descriptor`.
        k: Images for each. The relation is not mutual, so an image can be in more than k pairs.

    Returns:
        P 2 int64 with i < j, sorted. Of equally similar images the lower index is taken. An image
        whose descriptor is zero is in no pair.

    Raises:
        ConfigError: k below 1, or descriptors of another shape.
    """
    check_whole("k", k, minimum=1, unit="images")
    if descriptors.ndim != 2:
        raise ConfigError(f"descriptors have shape {descriptors.shape}, expected (images, G)")
    count = len(descriptors)
    empty = np.abs(descriptors).sum(axis=1) == 0  # n
    pairs: set[tuple[int, int]] = set()
    for start in range(0, count, _ROWS):
        rows = np.arange(start, min(start + _ROWS, count))  # R
        # Summed in float64 and rounded, so that equal images tie in any order.
        similarity = descriptors[rows].astype(np.float64) @ descriptors.astype(np.float64).T  # R n
        similarity = similarity.astype(np.float32)
        similarity[np.arange(len(rows)), rows] = -np.inf
        similarity[:, empty] = -np.inf
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]  # R k
        for i, others in zip(rows.tolist(), nearest, strict=True):
            if not empty[i]:
                usable = others[similarity[i - start, others] > -np.inf]
                pairs.update((min(i, j), max(i, j)) for j in usable.tolist())
    return _as_pairs(sorted(pairs))


def global_descriptor(features: Features) -> NDArray[np.float32]:
    """One vector for a whole image, made of its keypoints' descriptors.

    Second-order pooling: the sum over keypoints of score * d d^T, of which the upper triangle is
    kept, with signed square roots and unit length. Before the roots, the dot product of two images
    is the sum of the squared cosines of all pairs of their keypoints, so that few good matches
    count more than many poor ones.

    Args:
        features: With descriptors N D.

    Returns:
        D (D + 1) / 2 float32 of unit length; zeros without keypoints, similar to nothing.

    Raises:
        ConfigError: Features without descriptors, or with values that are not finite.

    Source:
        Carreira et al., Semantic Segmentation with Second-Order Pooling, ECCV 2012. The roots:
        Perronnin et al., Improving the Fisher Kernel, ECCV 2010.
    """
    if features.descriptors is None:
        raise ConfigError(
            "features have no descriptors, which similarity needs: detect with descriptors=True"
        )
    local = features.descriptors.astype(np.float64)  # N D
    table = (local * features.scores[:, None]).T @ local  # D D
    if not np.isfinite(table).all():
        raise ConfigError("features have scores or descriptors that are not finite: detect again")
    rows, columns = np.triu_indices(len(table))
    pooled = table[rows, columns]  # G
    pooled[rows != columns] *= np.sqrt(2)  # they occur twice in the table
    pooled = np.sign(pooled) * np.sqrt(np.abs(pooled))
    length = np.linalg.norm(pooled)
    result: NDArray[np.float32] = (pooled / (length or 1)).astype(np.float32)
    return result


def listed_pairs(path: str | PathLike[str], names: Sequence[str]) -> Pairs:
    """The pairs of a text file, as hloc and COLMAP take it: two names per line.

    Names are separated by blanks, or by a tab if they contain blanks. Empty lines and lines that
    start with # are ignored. A repeated pair, in either order, is taken once.

    Args:
        path: UTF-8 text.
        names: Names of the images; the result holds indices into them.

    Returns:
        P 2 int64, in the order and direction of the file.

    Raises:
        FormatError: No such file, not text, or a line that does not name two of the images.
    """
    index = {name: number for number, name in enumerate(names)}
    listed: dict[frozenset[int], tuple[int, int]] = {}
    try:
        for number, line in enumerate(text_lines(path), start=1):
            if line.strip() and not line.lstrip().startswith("#"):
                pair = _pair_of_line(line, index, f"{path}, line {number}")
                listed.setdefault(frozenset(pair), pair)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise FormatError(f"{path}: cannot be read ({reason}); check the path") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 text, expected two image names per line") from error
    except ValueError as error:
        raise FormatError(f"{path}: {error}, expected two image names per line") from error
    return _as_pairs(listed.values())


def pairs_text(pairs: Iterable[tuple[str, str]]) -> str:
    """Names of pairs as text for hloc and COLMAP: two per line, one blank between.

    Args:
        pairs: Names of two images each.

    Raises:
        FormatError: A name with blanks, at which hloc splits a line.
    """
    lines = []
    for pair in pairs:
        for name in pair:
            if name.split() != [name]:
                raise FormatError(
                    f"image {shown(name)} has blanks in its name, at which hloc splits a line of "
                    "pairs; rename it"
                )
        lines.append(" ".join(pair) + "\n")
    return "".join(lines)


def _pair_of_line(line: str, index: dict[str, int], where: str) -> tuple[int, int]:
    separator = "\t" if "\t" in line else None
    parts = [part.strip() for part in line.strip().split(separator)]
    if len(parts) != 2:
        raise FormatError(
            f"{where}: {shown(line.strip())} has {len(parts)} parts, expected two image names; put "
            "a tab between names that hold blanks"
        )
    for name in parts:
        if name not in index:
            raise FormatError(
                f"{where}: no image {shown(name)} among the {len(index)} there are"
                + (f", such as {next(iter(index))!r}" if index else "")
            )
    i, j = index[parts[0]], index[parts[1]]
    if i == j:
        raise FormatError(f"{where}: {parts[0]!r} twice, expected two images")
    return i, j


def _as_pairs(pairs: Iterable[tuple[int, int]]) -> Pairs:
    return np.array(list(pairs), np.int64).reshape(-1, 2)  # P 2
