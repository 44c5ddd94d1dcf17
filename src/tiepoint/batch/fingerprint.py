"""Fingerprints of input files, kept with their results: a changed input is processed again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from tiepoint.images.urls import without_credentials

HEAD_BYTES = 65_536
"""Bytes at the start of a file that are hashed. Two photographs differ in them, and reading them
takes a tenth of a millisecond."""

IMAGE, MASK = "image_file", "mask_file"
"""Entries of `meta` with the fingerprint of the image and of its mask."""


def fingerprint(path: str | PathLike[str]) -> dict[str, Any] | None:
    """Size, time of the last change and hash of the first bytes of a file.

    Returns:
        JSON values, or None for a URL and for a file that cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a million times
            status = os.fstat(file.fileno())
            head = file.read(HEAD_BYTES)
    except (OSError, ValueError):
        return None
    return {
        "bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "head_sha256": hashlib.sha256(head).hexdigest(),
    }


def contents_fingerprint(source: str | bytes) -> dict[str, Any] | None:
    """The fingerprint without the time, which is equal for copies of a file.

    Args:
        source: Path of the file, or its bytes.
    """
    if isinstance(source, bytes):
        head = hashlib.sha256(source[:HEAD_BYTES]).hexdigest()
        return {"bytes": len(source), "head_sha256": head}
    state = fingerprint(source)
    return state and {name: value for name, value in state.items() if name != "modified_ns"}


def is_same_source(stored: str, source: str) -> bool:
    """Whether the source in stored results is this one, as far as can be seen."""
    if stored in (source, without_credentials(source)):
        return True
    try:
        return Path(stored).samefile(source)
    except (OSError, ValueError):  # it may be the same, seen from another folder
        return True


def has_changed(stored: Mapping[str, Any], name: str, current: Mapping[str, Any] | None) -> bool:
    """Whether an input differs from the one in the `meta` of stored results.

    What was never recorded, and what cannot be read now, counts as unchanged.
    """
    before = stored.get(name)
    return before is not None and current is not None and before != current
