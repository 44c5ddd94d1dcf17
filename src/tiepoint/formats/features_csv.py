"""Features of one image as CSV for spreadsheets and R: x, y, score under comment lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import SEEK_END, TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np

from tiepoint.checks import shown
from tiepoint.errors import FormatError
from tiepoint.features import Features
from tiepoint.files.reading import open_regular
from tiepoint.formats import fields
from tiepoint.formats.fields import Summary

_TITLE = "# tiepoint features"
_COLUMNS = "x,y,score"
_LONGEST_LINE = 4_000_000
"""Characters; the line with `meta` is the longest."""
_LONGEST_ROW = 1000
"""Characters of three numbers, with whatever spaces another program adds."""


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
        lines = _rows(file)
        first = next(lines, "")
        rows = np.zeros((0, 3))
        if first.strip():  # NumPy warns of a file without rows
            most = summary.keypoints + 1  # one too many is enough to refuse the file
            lines = chain([first], lines)
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
    """The head of a file; of its rows only the number is checked."""
    with _opened(path) as file:
        summary = _summary(_head(file, str(path)), str(path))
        rows = sum(1 for line in _rows(file) if line.strip())
    if rows != summary.keypoints:
        raise fields.damaged(str(path), f"{rows} rows, its head states {summary.keypoints}")
    return summary


def is_begun(start: bytes) -> bool:
    """Whether a file that starts like this, cut off or not, is one of these."""
    return start.startswith(_TITLE.encode()) or _TITLE.encode().startswith(start)


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """A file as text. Errors inside the `with` are those of a damaged file."""
    with (
        fields.as_damaged(str(path), (ValueError,)),  # not text, or a row that is not numbers
        open_regular(path) as file,
        TextIOWrapper(file, encoding="utf-8-sig") as text,
    ):
        if not _ends_with_a_line(file):
            raise fields.damaged(str(path), "cut off in its last line")
        yield text


def _ends_with_a_line(file: BinaryIO) -> bool:
    """Whether the last byte ends a line; the file is then at its start."""
    size = file.seek(0, SEEK_END)
    file.seek(max(0, size - 1))
    last = file.read(1)
    file.seek(0)
    return last in (b"", b"\n")


def _head(file: TextIO, name: str) -> dict[str, str]:
    """The comment lines as key -> value; the file is then at its first row."""
    head: dict[str, str] = {}
    title = _line(file)
    if title != _TITLE and (is_begun(title.encode()) or title.startswith("\0")):
        raise fields.damaged(name, "its first line is cut off or zeros")
    if title != _TITLE:
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


def _rows(file: TextIO) -> Iterator[str]:
    """The lines of the table."""
    while line := file.readline(_LONGEST_ROW):
        if len(line) == _LONGEST_ROW:
            raise ValueError(f"a row longer than {_LONGEST_ROW} characters")
        yield line


def _summary(head: dict[str, str], name: str) -> Summary:
    fields.check_convention(head.get("convention"), name)
    fields.require(["size_hw", "keypoints", "meta"], head, name)
    count = head["keypoints"]
    if not count.isdecimal() or len(count) > len(str(fields.MAX_KEYPOINTS)):
        raise fields.damaged(name, f"keypoints is {shown(count)}, expected a count")
    size_hw = fields.check_size(head["size_hw"].split(","), name)
    return Summary(int(count), size_hw, fields.parse_meta(head["meta"], name))
