"""The two kinds of HDF5 files, for tests of what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import features_files, matches_files
from tiepoint.formats import H5MatchesWriter, H5Writer, read_h5, read_matches_h5


@dataclass(frozen=True)
class Kind:
    """One kind of file: its writer, its reader, and entries for numbers."""

    name: str
    writer: Callable[[Path], Any]
    read: Callable[[Path], Mapping[Any, Any]]
    key: Callable[[int], Any]
    make: Callable[[int], Any]
    add: Callable[[Any, int], None]

    def write(self, path: Path, *numbers: int) -> None:
        with self.writer(path) as writer:
            for number in numbers:
                self.add(writer, number)

    def leave(self, path: Path, *numbers: int) -> None:
        """Leave what an interrupted run leaves."""
        writer = self.writer(path)
        for number in numbers:
            self.add(writer, number)
        writer.suspend()


FEATURES = Kind(
    "features",
    H5Writer,
    read_h5,
    lambda number: f"{number}.jpg",
    lambda number: features_files.make(number + 1),
    lambda writer, number: writer.add(f"{number}.jpg", features_files.make(number + 1)),
)
MATCHES = Kind(
    "matches",
    H5MatchesWriter,
    read_matches_h5,
    lambda number: ("a.jpg", f"{number}.jpg"),
    lambda number: matches_files.make(number + 1),
    lambda writer, number: writer.add("a.jpg", f"{number}.jpg", matches_files.make(number + 1)),
)
BOTH = pytest.mark.parametrize("kind", [FEATURES, MATCHES], ids=["features", "matches"])
