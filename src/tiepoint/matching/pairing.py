"""Which images to match with which: pairs of indices, each once, in a steady order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import check_whole, shown
from tiepoint.config import PairConfig
from tiepoint.errors import ConfigError, FormatError
from tiepoint.files.reading import text_lines

Pairs = NDArray[np.int64]

MOST_PAIRS = 100_000_000
"""Most pairs of a choice: 1.6 GB, and weeks of matching."""

_NUMBERS = re.compile("([0-9]+)")


def all_pairs(count: int) -> Pairs:
    """Every image with every other.

    Returns:
        P 2 int64 with i < j, P = count (count - 1) / 2.

    Raises:
        ConfigError: A negative count, or one with more pairs than `MOST_PAIRS`.
    """
    check_whole("count", count, minimum=0, unit="images")
    check_pairs(count * (count - 1) // 2, f"all pairs of {count} images")
    following = np.arange(count - 1, -1, -1)  # images after each
    i = np.repeat(np.arange(count), following)  # P
    before = np.repeat(np.cumsum(following) - following, following)  # pairs of the images before i
    return np.stack([i, np.arange(len(i)) - before + i + 1], axis=1)


def check_pairs(count: int, which: str) -> None:
    """Raise ConfigError for more pairs than memory and time allow.

    Args:
        count: Number of pairs.
        which: What they are, for the message.
    """
    if count > MOST_PAIRS:
        raise ConfigError(
            f"{which} are {count:,} pairs, expected up to {MOST_PAIRS:,}; choose fewer, such as "
            "'similar', 'sequential' or 'gps' with fewer neighbours"
        )


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
    check_pairs(count * len(steps), f"sequential pairs of {count} images")
    i = np.repeat(np.arange(count), len(steps))
    j = i + np.tile(np.array(sorted(steps), np.int64), count)
    return np.stack([i, j], axis=1)[j < count]


def neighbour_pairs(neighbours: NDArray[np.int64]) -> Pairs:
    """Every image with its neighbours, each pair once.

    Args:
        neighbours: n k, indices of the neighbours of each image; -1 for none.

    Returns:
        P 2 int64 with i < j, sorted.
    """
    count = len(neighbours)
    own = np.repeat(np.arange(count), neighbours.shape[1])
    other = neighbours.ravel()
    own, other = own[other >= 0], other[other >= 0]
    keys = np.unique(np.minimum(own, other) * count + np.maximum(own, other))
    return np.stack([keys // max(count, 1), keys % max(count, 1)], axis=1)  # P 2


def united_pairs(parts: Sequence[Pairs]) -> Pairs:
    """The pairs of several choices, each once.

    Returns:
        P 2 int64. One choice keeps its order; several are sorted. A pair that is in two choices has
        the direction of the first.
    """
    if len(parts) == 1:
        return parts[0]
    pairs = np.concatenate([np.empty((0, 2), np.int64), *parts])
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    order = np.lexsort((high, low))  # stable, so the first choice comes first
    low, high = low[order], high[order]
    is_first = np.ones(len(pairs), np.bool_)
    is_first[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    return pairs[order][is_first]


def in_sequence(names: Sequence[str]) -> list[list[int]]:
    """The images of each folder in the order in which cameras number them.

    Numbers in names count as numbers: frame2.jpg comes before frame10.jpg.

    Returns:
        Indices into the names, folder by folder.
    """
    folders: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        folders.setdefault(name.rpartition("/")[0], []).append(index)
    for members in folders.values():
        members.sort(key=lambda index: _natural(names[index]))
    return [folders[folder] for folder in sorted(folders, key=_natural)]


def _natural(name: str) -> tuple[list[tuple[int, str, str]], str]:
    """Sort key: text as text, numbers by value, of any length."""
    parts = [
        (len(part.lstrip("0")), part.lstrip("0"), "") if odd else (0, "", part)
        for number, part in enumerate(_NUMBERS.split(name))
        for odd in (number % 2,)
    ]
    return parts, name


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
