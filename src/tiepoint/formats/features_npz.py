"""Features of one image as NumPy's .npz: keys are the field names, `meta` is JSON text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tiepoint.features import Features
from tiepoint.formats import fields
from tiepoint.formats.fields import Summary
from tiepoint.formats.npz import opened, packed

_ZIP, _FIRST, _NAME_AT = b"PK\3\4", b"convention.npy", 30
"""Start of a zip file, and the name of the first member of ours with its place."""


def encode(features: Features) -> bytes:
    """The file's bytes."""
    fields.check_finite(features)
    arrays: dict[str, Any] = {
        "convention": np.array(fields.CONVENTION),
        "size_hw": np.array(features.size_hw, dtype=np.int64),
        "meta": np.array(fields.meta_text(features)),
        "scores": features.scores,
        "xy": features.xy,
    }
    for name in fields.ARRAYS:
        if (values := getattr(features, name)) is not None:
            arrays[name] = values
    return packed(**arrays)


def read(path: Path) -> Features:
    """Features from a file."""
    return decode(path, str(path))


def decode(source: Path | BinaryIO, name: str) -> Features:
    """Features from a file or its bytes; `name` is the file's, for errors."""
    with opened(source, name) as arrays:
        summary = _summary(arrays, name)
        fields.require(["xy", "scores"], arrays, name)
        return fields.features_from(
            name,
            xy=arrays["xy"],
            scores=arrays["scores"],
            **{each: arrays.get(each) for each in fields.ARRAYS},
            size_hw=summary.size_hw,
            meta=summary.stored,
        )


def summarise(path: Path) -> Summary:
    """The head of a file, without its coordinates and descriptors."""
    with opened(path, str(path)) as arrays:
        return _summary(arrays, str(path))


def is_begun(start: bytes) -> bool:
    """Whether a file that starts like this, cut off or not, is one of these."""
    signature, name = start[: len(_ZIP)], start[_NAME_AT : _NAME_AT + len(_FIRST)]
    return signature == _ZIP[: len(signature)] and name == _FIRST[: len(name)]


def _summary(arrays: Any, name: str) -> Summary:
    fields.check_convention(str(arrays["convention"]) if "convention" in arrays else None, name)
    fields.require(["size_hw", "meta", "scores"], arrays, name)
    return Summary(
        keypoints=int(arrays["scores"].size),
        size_hw=fields.check_size(arrays["size_hw"].tolist(), name),
        stored=fields.parse_meta(str(arrays["meta"]), name),
    )
