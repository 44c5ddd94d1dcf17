"""NumPy's .npz: the field names are the keys; `meta` is JSON text; no pickles."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tiepoint.errors import FormatError
from tiepoint.features import Features
from tiepoint.formats import fields
from tiepoint.formats.fields import Summary

_BROKEN = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, NotImplementedError)
"""What NumPy and zipfile raise for damaged and foreign files."""


def encode(features: Features) -> bytes:
    """The file's bytes. Not compressed: descriptors hardly shrink, and packing takes longer."""
    arrays: dict[str, Any] = {
        "convention": np.array(fields.CONVENTION),
        "size_hw": np.array(features.size_hw, dtype=np.int64),
        "meta": np.array(fields.meta_text(features)),
        "scores": features.scores,
        "xy": features.xy,
    }
    if features.descriptors is not None:
        arrays["descriptors"] = features.descriptors
    if features.covariance is not None:
        arrays["covariance"] = features.covariance
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def read(path: Path) -> Features:
    """Features from a file."""
    return decode(path, str(path))


def decode(source: Path | BinaryIO, name: str) -> Features:
    """Features from a file or from the bytes of one; `name` is the file's, for errors."""
    with _opened(source, name) as arrays:
        summary = _summary(arrays, name)
        fields.require(["xy", "scores"], arrays, name)
        return fields.features_from(
            name,
            xy=arrays["xy"],
            scores=arrays["scores"],
            descriptors=arrays.get("descriptors"),
            covariance=arrays.get("covariance"),
            size_hw=summary.size_hw,
            meta=summary.stored,
        )


def summarise(path: Path) -> Summary:
    """The head of a file, without its coordinates and descriptors."""
    with _opened(path, str(path)) as arrays:
        return _summary(arrays, str(path))


def _summary(arrays: Any, name: str) -> Summary:
    fields.check_convention(str(arrays["convention"]) if "convention" in arrays else None, name)
    fields.require(["size_hw", "meta", "scores"], arrays, name)
    return Summary(
        keypoints=int(arrays["scores"].size),
        size_hw=fields.check_size(arrays["size_hw"].tolist(), name),
        stored=fields.parse_meta(str(arrays["meta"]), name),
    )


@contextmanager
def _opened(source: Path | BinaryIO, name: str) -> Iterator[Any]:
    try:
        with np.load(source, allow_pickle=False) as arrays:
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("one bare array")
            yield arrays
    except FormatError:
        raise
    except _BROKEN as error:
        raise fields.damaged(name, str(error)) from error
    except OSError as error:
        fields.unreadable(name, error)
