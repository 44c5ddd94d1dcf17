"""Features of one image as CSV for spreadsheets and R: x, y, score under comment lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tiepoint.errors import FormatError
from tiepoint.features import Features
from tiepoint.formats import fields
from tiepoint.formats.fields import Summary

_TITLE = "# tiepoint features"
_COLUMNS = "x,y,score"


def encode(features: Features) -> bytes:
    """The file's bytes; descriptors and covariances are left out."""
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
    head, body = _parts(path)
    summary = _summary(head, name)
    if len(body) != summary.keypoints:
        raise fields.damaged(name, f"{len(body)} rows, its head states {summary.keypoints}")
    with fields.as_damaged(name, (ValueError,)):  # a row that is not three numbers
        rows = np.array([line.split(",") for line in body], dtype=np.float64)  # N 3
        rows = rows.reshape(len(body), 3)
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
    return _summary(_parts(path, head_only=True)[0], str(path))


def _parts(path: Path, *, head_only: bool = False) -> tuple[dict[str, str], list[str]]:
    """The comment lines as key -> value, and the rows."""
    head: dict[str, str] = {}
    with (
        fields.as_damaged(str(path), (UnicodeDecodeError,)),
        path.open(encoding="utf-8-sig") as file,
    ):
        if file.readline().rstrip("\n") != _TITLE:
            raise FormatError(
                f"{path}: not a features file that tiepoint wrote (first line is not "
                f"{_TITLE!r}); read other tables with NumPy or pandas"
            )
        line = file.readline().rstrip("\n")
        while line.startswith("# "):
            key, _, value = line[2:].partition(": ")
            head[key] = value
            line = file.readline().rstrip("\n")
        if line != _COLUMNS:
            raise fields.damaged(str(path), f"no line {_COLUMNS!r} after the comments")
        return head, [] if head_only else file.read().splitlines()


def _summary(head: dict[str, str], name: str) -> Summary:
    fields.check_convention(head.get("convention"), name)
    fields.require(["size_hw", "keypoints", "meta"], head, name)
    if not head["keypoints"].isdecimal():
        raise fields.damaged(name, f"keypoints is {head['keypoints']!r}, expected a count")
    size_hw = fields.check_size(head["size_hw"].split(","), name)
    return Summary(int(head["keypoints"]), size_hw, fields.parse_meta(head["meta"], name))
