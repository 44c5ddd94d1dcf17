"""Features of one image as JSON: keys are the field names, one line each, short ones first.

Numbers are the shortest decimals that give the same float32 again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import shown
from tiepoint.errors import FormatError
from tiepoint.features import Features
from tiepoint.files.reading import (
    check_growth,
    check_json,
    memory_bytes,
    open_regular,
    parse_json,
    read_json,
)
from tiepoint.formats import fields
from tiepoint.formats.fields import Summary

EMPTY_LENGTH = "descriptor_length"
"""Key in files without keypoints, because `descriptors: []` does not state the length D."""
MAX_BYTES = 400_000_000
"""Most bytes of a file: 120,000 keypoints with descriptors of length 256."""
MAX_FOREIGN_BYTES = 40_000_000
"""Most bytes of a file of another layout than ours, which is parsed before it can be judged."""
MAX_LENGTH = 65_536
"""No network has longer descriptors; a damaged file must not ask for all memory."""

_HEAD = ("convention", "size_hw", "meta", "scores")
_START = f'{{\n"convention": "{fields.CONVENTION}"'.encode()
_END = b"\n}\n"
_MAX_HEAD_BYTES = 160_000_000
"""More than the scores of a file of `MAX_BYTES` without descriptors."""
_NUMBERS = b"0123456789+-.eE,[] \n"
_MAX_OTHERS = 1000
"""Most bytes below the head that belong to no number: keys, and null for no descriptors."""
_LONGEST_NUMBER = 64
"""Characters of a number with its comma and spaces, on average."""
_BLOCK_BYTES = 4_000_000


def encode(features: Features) -> bytes:
    """The file's bytes."""
    fields.check_finite(features)
    descriptors = features.descriptors
    lines = {
        "convention": json.dumps(fields.CONVENTION),
        "size_hw": json.dumps([int(side) for side in features.size_hw]),
        "meta": fields.meta_text(features),
        "scores": _vector(features.scores),
        "xy": _table(features.xy),
        "descriptors": "null" if descriptors is None else _table(descriptors),
    }
    if features.covariance is not None:
        rows = (_table(matrix) for matrix in features.covariance)
        lines["covariance"] = f"[{', '.join(rows)}]"
    if features.scales_px is not None:
        lines["scales_px"] = _vector(features.scales_px)
    if descriptors is not None and len(descriptors) == 0:
        lines[EMPTY_LENGTH] = str(descriptors.shape[1])
    body = ",\n".join(f'"{key}": {text}' for key, text in lines.items())
    data = f"{{\n{body}".encode() + _END
    if len(data) > MAX_BYTES:
        raise FormatError(
            f"{len(features)} keypoints take {len(data)} bytes of JSON, the limit is {MAX_BYTES}; "
            "save as .npz"
        )
    try:
        check_growth(memory_bytes(body), len(data))
    except ValueError as error:  # no reader would take it
        raise FormatError(f"JSON of {len(features)} keypoints {error}; save as .npz") from error
    return data


def read(path: Path) -> Features:
    """Features from a file."""
    name = str(path)
    with fields.as_damaged(name, (ValueError,)):  # not JSON, or not UTF-8
        _check_large(path)
        held = read_json(path, most_bytes=MAX_BYTES, finite=False)
    summary = _summary(held, name)
    fields.require(["xy", "descriptors"], held, name)
    descriptors = held["descriptors"]
    if descriptors == []:
        descriptors = np.zeros((0, empty_length(held, name)))
    return fields.features_from(
        name,
        xy=held["xy"] or np.zeros((0, 2)),
        scores=held["scores"],
        descriptors=descriptors,
        covariance=np.zeros((0, 2, 2)) if held.get("covariance") == [] else held.get("covariance"),
        scales_px=held.get("scales_px"),
        size_hw=summary.size_hw,
        meta=summary.stored,
    )


def summarise(path: Path) -> Summary:
    """The head of a file: its first lines if tiepoint wrote it, else the whole file."""
    head = _head(path)
    if isinstance(head, dict) and tuple(head) == _HEAD:
        return _summary(head, str(path))
    features = read(path)
    return fields.summary_of(features)


def is_begun(start: bytes) -> bool:
    """Whether a file that starts like this, cut off or not, is one of these."""
    return start.startswith(_START) or _START.startswith(start)


def _head(path: Path) -> Any:
    """The first lines of a file as JSON, or None if it has another layout or is cut off."""
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                return None
            lines = [file.readline(_MAX_HEAD_BYTES) for _ in range(len(_HEAD) + 1)]
            file.seek(-min(len(_END), file.seek(0, os.SEEK_END)), os.SEEK_END)
            is_whole = file.read() == _END
        if not is_whole or sum(map(len, lines)) > _MAX_HEAD_BYTES:
            return None
        return parse_json((b"".join(lines).rstrip(b",\n") + b"}").decode(), finite=False)
    except ValueError:
        return None
    except OSError as error:
        fields.unreadable(str(path), error)


def _check_large(path: Path) -> None:
    """Raise ValueError for a large file that is not a head of ours and numbers below it."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if not MAX_FOREIGN_BYTES < size <= MAX_BYTES:
            return
        head = _head(path)
        if not isinstance(head, dict) or tuple(head) != _HEAD:
            raise ValueError(
                f"{size} bytes, the limit is {MAX_FOREIGN_BYTES} for JSON that tiepoint did not "
                "write"
            )
        for _ in range(len(_HEAD) + 1):
            file.readline(_MAX_HEAD_BYTES)
        others = needed = 0
        while block := file.read(_BLOCK_BYTES):
            others += len(block.translate(None, _NUMBERS))
            is_long = block.count(b",") * _LONGEST_NUMBER < len(block) == _BLOCK_BYTES
            if others > _MAX_OTHERS or is_long:
                raise ValueError("other values than short numbers below its head")
            needed += memory_bytes(block.decode())
            check_growth(needed, size)


def _summary(held: Any, name: str) -> Summary:
    if not isinstance(held, dict):
        raise fields.damaged(name, f"holds a {type(held).__name__}, expected an object")
    fields.check_convention(held.get("convention"), name)
    fields.require(["size_hw", "meta", "scores"], held, name)
    if not isinstance(held["scores"], list) or not isinstance(held["meta"], dict):
        raise fields.damaged(name, "scores must be a list and meta an object")
    with fields.as_damaged(name, (ValueError,)):
        check_json(held["meta"])
    size_hw = fields.check_size(held["size_hw"], name)
    return Summary(len(held["scores"]), size_hw, held["meta"])


def empty_length(held: dict[str, Any], name: str) -> int:
    """The length D that a file without keypoints states; `name` is the file's, for errors."""
    length = held.get(EMPTY_LENGTH, 0)
    if not isinstance(length, int) or not 0 <= length <= MAX_LENGTH:
        raise fields.damaged(name, f"{EMPTY_LENGTH} is {shown(length)}, expected 0..{MAX_LENGTH}")
    return length


def _vector(values: NDArray[np.float32]) -> str:
    # NumPy prints a float32 with the fewest digits that identify it.
    return f"[{', '.join(values.astype(np.float32).astype('U32').tolist())}]"


def _table(rows: NDArray[np.float32]) -> str:
    return f"[{', '.join(map(_vector, rows))}]"
