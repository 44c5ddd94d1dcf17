"""Features of one image as CSV, which pandas, R and spreadsheets read as it is.

Columns: x, y, score; scale_px and cov_xx, cov_xy, cov_yy where known; d0, d1, ... if descriptors
are asked for. The last column, `tiepoint`, has the record of the image as JSON in the first row and
is empty below. An image without keypoints has one row, with the record alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import SEEK_END, TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import FormatError
from tiepoint.features import Features
from tiepoint.features.tables import COVARIANCE, POSITION, SCALE, columns_of
from tiepoint.files.reading import open_regular
from tiepoint.formats import fields, table_records
from tiepoint.formats.fields import Summary

_HEADERS = tuple(
    ",".join([*POSITION, *scale, *covariance, ""])
    for scale in ((SCALE,), ())
    for covariance in (COVARIANCE, ())
)
"""Starts of the first line."""
_LONGEST_LINE = 4_000_000
"""Characters; the first row, with `meta`, is the longest."""
_LONGEST_NUMBER = 300
"""Characters of a number, with whatever spaces another program adds."""
_MAX_COLUMNS = 65_536


def encode(features: Features, *, descriptors: bool = False) -> bytes:
    """The file's bytes."""
    fields.check_finite(features)
    columns = columns_of(features)
    if descriptors and features.descriptors is not None:
        columns |= {f"d{index}": each for index, each in enumerate(features.descriptors.T)}
    rows = np.column_stack([*columns.values()]).astype(np.float32)  # N C
    record = table_records.record_text(features).replace('"', '""')
    # NumPy prints a float32 with the fewest digits that identify it.
    lines = [",".join(row) + "," for row in rows.astype("U32").tolist()] or ["," * len(columns)]
    lines[0] += f'"{record}"'
    if len(lines[0]) >= _LONGEST_LINE - 2:  # no reader would take it
        raise FormatError(
            f"the first row, with meta, has {len(lines[0])} characters, CSV files hold up to "
            f"{_LONGEST_LINE}; shorten meta, or save as .npz"
        )
    return "\n".join([",".join([*columns, table_records.NAME]), *lines, ""]).encode()


def read(path: Path) -> Features:
    """Features from a file."""
    name = str(path)
    with _opened(path) as file:
        names, first, summary = _head(file, name)
        limit, commas = len(names) * _LONGEST_NUMBER, len(names)
        lines = chain([",".join(first) + ","], _rows(file, limit, commas)) if any(first) else ()
        rows = np.zeros((0, len(names)))
        if any(first):  # NumPy warns of a file without rows
            # One row too many is enough to refuse the file.
            rows = np.loadtxt(
                lines, delimiter=",", comments=None, ndmin=2, max_rows=summary.keypoints + 1,
                usecols=range(len(names)),
            )  # fmt: skip
        columns = dict(zip(names, rows.T, strict=True))
        return table_records.features_from(name, summary, columns, _descriptors_from(columns))


def summarise(path: Path) -> Summary:
    """The head of a file; of its rows only the number is checked."""
    with _opened(path) as file:
        names, first, summary = _head(file, str(path))
        limit = len(names) * _LONGEST_NUMBER
        rows = any(first) + sum(1 for line in _rows(file, limit, len(names)) if line.strip())
    if rows != summary.keypoints:
        raise fields.damaged(str(path), f"{rows} rows, its record states {summary.keypoints}")
    return summary


def is_begun(start: bytes) -> bool:
    """Whether a file that starts like this, cut off or not, is one of these.

    Many tables of others start with x and y, so less than the columns of all files decides nothing.
    """
    if not start.startswith(",".join(POSITION).encode()):
        return False
    return any(
        start.startswith(f"{header}{end}".encode()) or header.encode().startswith(start)
        for header in _HEADERS
        for end in (table_records.NAME, "d0,")
    )


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """A file as text. Errors inside the `with` are those of a damaged file."""
    with (
        fields.as_damaged(str(path), (ValueError,)),  # not text, or no numbers
        open_regular(path) as file,
        TextIOWrapper(file, encoding="utf-8-sig", newline="") as text,
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


def _head(file: TextIO, name: str) -> tuple[list[str], list[str], Summary]:
    """Names of the columns, the numbers of the first row as text, and the record in it."""
    title = _line(file)
    if not title or title.startswith("\0"):
        raise fields.damaged(name, "its first line is empty or zeros")
    names = title.replace('"', "").split(",")
    if (
        names[:3] != list(POSITION)
        or names[-1] != table_records.NAME
        or len(set(names)) < len(names)
    ):
        raise FormatError(
            f"{name}: not a features file that tiepoint wrote (its first line is not "
            f"'x,y,score,...,{table_records.NAME}'); read other tables with NumPy or pandas"
        )
    if len(names) > _MAX_COLUMNS:
        raise ValueError(f"{len(names)} columns, the limit is {_MAX_COLUMNS}")
    *cells, record = _line(file).split(",", len(names) - 1)
    if len(cells) != len(names) - 1:
        raise fields.damaged(name, f"a first row of {len(cells) + 1} cells, expected {len(names)}")
    record = record.removeprefix('"').removesuffix('"').replace('""', '"')
    return names[:-1], cells, table_records.parse_record(record, name)


def _line(file: TextIO) -> str:
    line = file.readline(_LONGEST_LINE)
    if len(line) == _LONGEST_LINE:
        raise ValueError(f"a line longer than {_LONGEST_LINE} characters")
    return line.rstrip("\r\n")


def _rows(file: TextIO, longest: int, commas: int) -> Iterator[str]:
    """The lines of the table below the first."""
    while line := file.readline(longest):
        if len(line) == longest:
            raise ValueError(f"a row longer than {longest} characters")
        if line.count(",") != commas and line.strip():
            raise ValueError(f"a row of {line.count(',') + 1} cells, expected {commas + 1}")
        yield line


def _descriptors_from(columns: dict[str, NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """N D from the columns d0, d1, ..., in this order."""
    names: Sequence[str] = [name for name in columns if name[:1] == "d" and name[1:].isdecimal()]
    if not names:
        return None
    return np.column_stack([columns[f"d{index}"] for index in range(len(names))])
