"""Files of features and of matches. Float32 comes back exactly as it went in."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Protocol

from tiepoint.errors import FormatError
from tiepoint.features import Features
from tiepoint.files import write_bytes
from tiepoint.formats import csv_text, h5, json_text, npz
from tiepoint.formats.fields import Summary as Summary
from tiepoint.formats.fields import as_json as as_json
from tiepoint.formats.h5 import H5Features as H5Features
from tiepoint.formats.h5 import read_h5 as read_h5
from tiepoint.formats.h5_writer import H5Writer as H5Writer
from tiepoint.formats.matches_h5 import H5Matches as H5Matches
from tiepoint.formats.matches_h5 import H5MatchesWriter as H5MatchesWriter
from tiepoint.formats.matches_h5 import read_matches_h5 as read_matches_h5
from tiepoint.formats.matches_npz import load_matches as load_matches
from tiepoint.formats.matches_npz import save_matches as save_matches


class Format(Protocol):
    """What a module of this package offers."""

    def encode(self, features: Features, /) -> bytes: ...
    def read(self, path: Path, /) -> Features: ...
    def summarise(self, path: Path, /) -> Summary: ...


FORMATS: dict[str, Format] = {".npz": npz, ".json": json_text, ".csv": csv_text}
"""Formats of one file per image, by ending."""
ALL_FORMATS: dict[str, Format] = {**FORMATS, h5.ENDING: h5}
"""Those, and .h5, whose files hold one image or many: `H5Writer` and `read_h5`."""


def save(features: Features, path: str | PathLike[str]) -> None:
    """Write features to a file: whole or not at all, replacing what was there.

    Args:
        features: Of one image.
        path: Ends in .npz, .json, .csv or .h5; CSV holds x, y and score, no descriptors.

    Raises:
        FormatError: An unknown ending, values the format cannot hold, or the file cannot be
            written.
        MissingExtraError: .h5 needs the extra `hdf5`.
    """
    write_bytes(path, format_of(path).encode(features))


def load(path: str | PathLike[str]) -> Features:
    """Read features that `save` wrote; executes nothing from the file.

    Returns:
        Features; tuples in `meta` come back as lists, and from CSV there are no descriptors.

    Raises:
        FormatError: An unknown ending, no such file, a damaged or foreign one, or an .h5 file of
            several images.
        MissingExtraError: .h5 needs the extra `hdf5`.
    """
    return format_of(path).read(Path(path))


def summarise(path: str | PathLike[str]) -> Summary:
    """Count, image size and `meta` of a features file, without reading its descriptors.

    Raises:
        FormatError: As for `load`.
    """
    return format_of(path).summarise(Path(path))


def format_of(path: str | PathLike[str]) -> Format:
    """The format that a path's ending picks.

    Raises:
        FormatError: An ending that is none of them.
    """
    ending = Path(path).suffix.lower()
    if ending not in ALL_FORMATS:
        raise FormatError(f"{path}: the ending picks the format, one of {', '.join(ALL_FORMATS)}")
    return ALL_FORMATS[ending]
