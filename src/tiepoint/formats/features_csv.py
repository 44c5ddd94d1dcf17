"""Features of one image as CSV for spreadsheets and R: x, y, score under comment lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import TextIO

import numpy as np

from tiepoint.bounded import open_regular
from tiepoint.checks import shown
from tiepoint.errors import FormatError
from tiepoint.features import Features
from tiepoint.formats import fields
from tiepoint.formats.fields import Summary

_TITLE = "# tiepoint features"
_COLUMNS = "x,y,score"
_LONGEST_LINE = 4_000_000
"""Characters; the line with `meta` is the longest."""


def encode(features: Features) -> bytes:
    """The file's bytes; descriptors and covariances are left out."""
    fields.check_finite(features)
    rows = np.column_stack([features.xy, features.scores]).astype(np.float32)  # N 3
    lines = [
        _TITLE,
        f"# convention: {fields.CONVENTION}",
        f"# size_hw: {features.size_hw[0]},{features.size_hw[1]}",
        f"# keypoints: {len(features)}",
        f"# meta: {fields.meta_text(features)}",
        _COLUMNS,
        # NumPy prints a float32 with the fewest digits that identify it.
        *(",".join(row) for row in rows.astype("U32").tolist()),
    ]
    return ("\n".join(lines) + "\n").encode()


def read(path: Path) -> Features:
    """Features without descriptors from a file."""
    name = str(path)
    with _opened(path) as file:
        summary = _summary(_head(file, name), name)
        first = file.readline(_LONGEST_LINE)
        rows = np.zeros((0, 3))
        if first.strip():  # NumPy warns of a file without rows
            most = summary.keypoints + 1  # one too many is enough to refuse the file
            lines = chain([first], file)
            rows = np.loadtxt(lines, delimiter=",", comments=None, ndmin=2, max_rows=most)
    if len(rows) != summary.keypoints:
        raise fields.damaged(name, f"{len(rows)} rows, its head states {summary.keypoints}")
    if rows.shape[1] != 3:
        raise fields.damaged(name, f"rows of {rows.shape[1]} numbers, expected 3")
    return fields.features_from(
        name,
        xy=rows[:, :2],
        scores=rows[:, 2],
        descriptors=None,
        size_hw=summary.size_hw,
        meta=summary.stored,
    )


def summarise(path: Path) -> Summary:
    """The head of a file; only `read` sees that rows are missing."""
    with _opened(path) as file:
        return _summary(_head(file, str(path)), str(path))


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """A file as text. Errors inside the `with` are those of a damaged file."""
    with (
        fields.as_damaged(str(path), (ValueError,)),  # not text, or a row that is not numbers
        open_regular(path) as file,
        TextIOWrapper(file, encoding="utf-8-sig") as text,
    ):
        yield text


def _head(file: TextIO, name: str) -> dict[str, str]:
    """The comment lines as key -> value; the file is then at its first row."""
    head: dict[str, str] = {}
    if _line(file) != _TITLE:
        raise FormatError(
            f"{name}: not a features file that tiepoint wrote (first line is not "
            f"{_TITLE!r}); read other tables with NumPy or pandas"
        )
    line = _line(file)
    while line.startswith("# "):
        key, _, value = line[2:].partition(": ")
        head[key] = value
        line = _line(file)
    if line != _COLUMNS:
        raise fields.damaged(name, f"no line {_COLUMNS!r} after the comments")
    return head


def _line(file: TextIO) -> str:
    line = file.readline(_LONGEST_LINE)
    if len(line) == _LONGEST_LINE:
        raise ValueError(f"a line longer than {_LONGEST_LINE} characters")
    return line.rstrip("\n")


def _summary(head: dict[str, str], name: str) -> Summary:
    fields.check_convention(head.get("convention"), name)
    fields.require(["size_hw", "keypoints", "meta"], head, name)
    count = head["keypoints"]
    if not count.isdecimal() or len(count) > len(str(fields.MAX_KEYPOINTS)):
        raise fields.damaged(name, f"keypoints is {shown(count)}, expected a count")
    size_hw = fields.check_size(head["size_hw"].split(","), name)
    return Summary(int(count), size_hw, fields.parse_meta(head["meta"], name))
