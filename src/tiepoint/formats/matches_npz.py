"""Matches of one pair of images as NumPy's .npz: `pairs`, `scores`, and `meta` as JSON text."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Matches
from tiepoint.files.writing import write_bytes
from tiepoint.formats import fields
from tiepoint.formats.npz import opened, packed

ENDING = ".npz"
KIND = "tiepoint matches"

_LARGEST = np.iinfo(np.int64).max


def save_matches(matches: Matches, path: str | PathLike[str]) -> None:
    """Write the matches of one pair of images to a file, whole or not at all.

    Args:
        matches: Matches of one pair of images.
        path: Path with the ending .npz; an existing file is replaced.
            `tiepoint.formats.H5MatchesWriter` writes many pairs to one .h5 file.

    Raises:
        FormatError: Another ending, values that are no indices or not finite, or a `meta` that
            JSON cannot hold.
        OutputError: The file cannot be written.
    """
    _check_ending(path)
    write_bytes(path, encode(matches))


def load_matches(path: str | PathLike[str]) -> Matches:
    """Read matches that `save_matches` wrote; executes nothing from the file.

    Raises:
        FormatError: Another ending, no such file, or a damaged or foreign one.
    """
    _check_ending(path)
    return decode(Path(path), str(path))


def encode(matches: Matches, meta_text: str | None = None, **others: NDArray[np.generic]) -> bytes:
    """The file's bytes.

    Args:
        meta_text: What `fields.meta_text` returns for the matches, if it is known already.
        others: Further arrays, for other programs; `decode` passes over them.

    Raises:
        FormatError: Matches that no reader would take, or a `meta` that JSON cannot hold.
    """
    pairs, scores = matches.pairs, matches.scores
    is_whole = pairs.dtype.kind in "iu"
    if not is_whole or (pairs.size and not 0 <= pairs.min() <= pairs.max() <= _LARGEST):
        raise FormatError("pairs hold other values than indices; expected whole numbers from 0")
    if scores.dtype.kind not in "fiu" or not np.isfinite(scores).all():
        raise FormatError("scores hold NaN or infinity, which no file keeps; drop these matches")
    return packed(
        kind=np.array(KIND),
        meta=np.array(fields.meta_text(matches) if meta_text is None else meta_text),
        pairs=pairs,
        scores=scores,
        **others,
    )


def decode(source: Path | BinaryIO, name: str) -> Matches:
    """Matches from a file or its bytes; `name` is the file's, for errors."""
    with opened(source, name, "matches") as arrays:
        kind = str(arrays["kind"]) if "kind" in arrays else None
        if kind != KIND:
            raise ValueError(f"kind is {kind!r}, expected {KIND!r}")
        meta = fields.parse_meta(str(arrays["meta"]), name)
        return matches_from(name, arrays["pairs"], arrays["scores"], meta)


def matches_from(name: str, pairs: ArrayLike, scores: ArrayLike, meta: dict[str, Any]) -> Matches:
    """Matches from the arrays of a file, or a FormatError that states what does not fit."""
    index, values = np.asarray(pairs), np.asarray(scores)
    if index.dtype.kind not in "iu" or values.dtype.kind not in "fiu":
        raise fields.damaged(name, f"pairs are {index.dtype} and scores {values.dtype}", "matches")
    for extreme in (index.min(), index.max()) if index.size else ():
        if not 0 <= extreme <= _LARGEST:
            raise fields.damaged(name, f"pairs hold the index {extreme}", "matches")
    if not np.isfinite(values).all():
        raise fields.damaged(name, "scores hold NaN or infinity", "matches")
    try:
        turned_deg = int(meta.get(fields.TURNED, 0))
        meta = {name: value for name, value in meta.items() if name != fields.TURNED}
        return Matches(index.astype(np.int64), values.astype(np.float32), meta, turned_deg)
    except (ConfigError, TypeError, ValueError, OverflowError) as error:
        raise fields.damaged(name, str(error), "matches") from error


def _check_ending(path: str | PathLike[str]) -> None:
    if Path(path).suffix.lower() != ENDING:
        raise FormatError(
            f"{path}: expected the ending {ENDING} for the matches of one pair; for many pairs in "
            "one .h5 file use tiepoint.formats.H5MatchesWriter and read_matches_h5"
        )
