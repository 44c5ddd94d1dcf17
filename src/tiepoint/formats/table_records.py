"""Shared by the formats of tables: the record of the image next to its columns."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import shown
from tiepoint.features import Features
from tiepoint.features.tables import SCALE, Columns, covariance_from
from tiepoint.files.reading import check_json, parse_json
from tiepoint.formats import fields
from tiepoint.formats.fields import Summary

NAME = "tiepoint"
"""Name of the record in each format."""


def record_text(features: Features) -> str:
    """Convention, size, count and `meta` as one line of JSON.

    Raises:
        FormatError: JSON has no form for `meta`.
    """
    height, width = features.size_hw
    head = f'{{"convention": {json.dumps(fields.CONVENTION)}, "size_hw": [{height}, {width}], '
    return f'{head}"keypoints": {len(features)}, "meta": {fields.meta_text(features)}}}'


def parse_record(text: str, name: str) -> Summary:
    """The reverse of `record_text`; `name` is the file's, for errors."""
    try:
        held = parse_json(text)
    except ValueError as error:
        raise fields.damaged(name, f"its record is not JSON: {error}") from error
    return summary_from(held, name)


def summary_from(record: Any, name: str) -> Summary:
    """The summary in a record, or a FormatError that states what does not fit."""
    if not isinstance(record, dict):
        raise fields.damaged(name, f"its record is a {type(record).__name__}, expected an object")
    fields.check_convention(record.get("convention"), name)
    fields.require(["size_hw", "keypoints", "meta"], record, name)
    count, meta = record["keypoints"], record["meta"]
    if type(count) is not int or not 0 <= count <= fields.MAX_KEYPOINTS:
        raise fields.damaged(name, f"keypoints is {shown(count)}, expected a count")
    if not isinstance(meta, dict):
        raise fields.damaged(name, f"meta is a {type(meta).__name__}, expected an object")
    with fields.as_damaged(name, (ValueError,)):
        check_json(meta)
    return Summary(count, fields.check_size(record["size_hw"], name), meta)


def features_from(
    name: str, summary: Summary, columns: Columns, descriptors: NDArray[Any] | None
) -> Features:
    """Features from a record and columns, or a FormatError that states what does not fit."""
    fields.require(["x", "y", "score"], columns, name)
    counts = {len(column) for column in columns.values()}
    if counts != {summary.keypoints}:
        rows = ", ".join(map(str, sorted(counts)))
        raise fields.damaged(name, f"{rows} rows, its record states {summary.keypoints}")
    return fields.features_from(
        name,
        xy=np.stack([columns["x"], columns["y"]], axis=1),
        scores=columns["score"],
        descriptors=descriptors,
        covariance=covariance_from(columns),
        scales_px=columns.get(SCALE),
        size_hw=summary.size_hw,
        meta=summary.stored,
    )
