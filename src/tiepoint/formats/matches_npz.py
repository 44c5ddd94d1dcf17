"""Matches of one pair of images as NumPy's .npz: `pairs`, `scores`, and `meta` as JSON text."""

from __future__ import annotations

import io
import zipfile
import zlib
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Matches
from tiepoint.files import write_bytes
from tiepoint.formats import fields

ENDING = ".npz"
KIND = "tiepoint matches"

_BROKEN = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, NotImplementedError)
"""What NumPy and zipfile raise for damaged and foreign files."""


def save_matches(matches: Matches, path: str | PathLike[str]) -> None:
    """Write the matches of one pair to a file: whole or not at all, replacing what was there.

    Args:
        matches: As `match` gives them.
        path: Ends in .npz. For many pairs in one .h5 file: `tiepoint.formats.H5MatchesWriter`.

    Raises:
        FormatError: Another ending, a `meta` that JSON cannot hold, or the file cannot be written.
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


def encode(matches: Matches) -> bytes:
    """The file's bytes."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        kind=np.array(KIND),
        meta=np.array(fields.meta_text(matches)),
        pairs=matches.pairs,
        scores=matches.scores,
    )
    return buffer.getvalue()


def decode(source: Path | BinaryIO, name: str) -> Matches:
    """Matches from a file or from the bytes of one; `name` is the file's, for errors."""
    try:
        with np.load(source, allow_pickle=False) as arrays:
            if not isinstance(arrays, np.lib.npyio.NpzFile) or "kind" not in arrays:
                raise ValueError("it does not say that it holds matches")
            if str(arrays["kind"]) != KIND:
                raise ValueError(f"kind is {str(arrays['kind'])!r}, expected {KIND!r}")
            meta = fields.parse_meta(str(arrays["meta"]), name)
            return matches_from(name, arrays["pairs"], arrays["scores"], meta)
    except FormatError:
        raise
    except _BROKEN as error:
        raise damaged(name, str(error)) from error
    except OSError as error:
        fields.unreadable(name, error)


def matches_from(name: str, pairs: ArrayLike, scores: ArrayLike, meta: dict[str, Any]) -> Matches:
    """Matches from what a file held, or a FormatError that says what does not fit."""
    index, values = np.asarray(pairs), np.asarray(scores)
    if index.dtype.kind not in "iu" or values.dtype.kind not in "fiu":
        raise damaged(name, f"pairs are {index.dtype} and scores {values.dtype}")
    if index.size and index.min() < 0:
        raise damaged(name, f"pairs hold the index {index.min()}")
    try:
        turned_deg = int(meta.get(fields.TURNED, 0))
        meta = {name: value for name, value in meta.items() if name != fields.TURNED}
        return Matches(index.astype(np.int64), values.astype(np.float32), meta, turned_deg)
    except (ConfigError, TypeError) as error:
        raise damaged(name, str(error)) from error


def damaged(name: str, reason: str) -> FormatError:
    """The error of a file that is cut off, damaged, or not ours."""
    return FormatError(f"{name}: not a whole matches file ({reason}); match again")


def _check_ending(path: str | PathLike[str]) -> None:
    if Path(path).suffix.lower() != ENDING:
        raise FormatError(
            f"{path}: the matches of one pair are kept in {ENDING} files; those of many in .h5, by "
            "tiepoint.formats.H5MatchesWriter and read_matches_h5"
        )
