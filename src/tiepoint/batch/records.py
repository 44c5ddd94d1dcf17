"""Records of a run: one for each image or pair."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tiepoint.errors import TiepointError

Status = Literal["done", "skipped", "failed", "refused"]
"""Done now; done by an earlier run; failed; or other results are in the place of these."""

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EBUSY}


@dataclass(frozen=True)
class ImageRecord:
    """Outcome of one input.

    Attributes:
        source: Path or URL, as given.
        status: "done"; "skipped": its results existed; "failed"; "refused": other results are in
            their place.
        output: Features file, or None if there is none.
        overlay: Picture with the keypoints, or None if none was requested.
        keypoints: Number of keypoints, or None if unknown.
        size_hw: (height, width) of the image in px, or None if it was never read.
        milliseconds: Time between requesting the features and having them, or None if nothing was
            detected. Images are read ahead, so reading and detecting take longer.
        error: What went wrong and what to do, or None.
        reason: The error of a refused input without its name, the same for all that are refused
            alike; or None.
        redone: Why an earlier result was replaced, or None.
    """

    source: str
    status: Status
    output: Path | None = None
    overlay: Path | None = None
    keypoints: int | None = None
    size_hw: tuple[int, int] | None = None
    milliseconds: float | None = None
    error: str | None = None
    reason: str | None = None
    redone: str | None = None


@dataclass(frozen=True)
class PairRecord:
    """Outcome of one pair.

    Attributes:
        image_a, image_b: Names of the images.
        status: "done"; "skipped": its matches existed; "failed"; "refused": matches of other
            settings or other features are in their place.
        matches: Number of matches, or None if unknown.
        milliseconds: Time of matching, or None if nothing was matched.
        error: What went wrong and what to do, or None.
        reason, redone: As in `ImageRecord`.
    """

    image_a: str
    image_b: str
    status: Status
    matches: int | None = None
    milliseconds: float | None = None
    error: str | None = None
    reason: str | None = None
    redone: str | None = None


@dataclass(frozen=True)
class TwoViewRecord(PairRecord):
    """Outcome of one pair whose geometry is verified.

    Attributes:
        inliers: Number of matches that fit the geometry, or None if unknown.
        geometry: The model that holds, see `two_view.Geometry`; or None if unknown.
    """

    inliers: int | None = None
    geometry: str | None = None


def stops_a_run(error: TiepointError) -> bool:
    """Whether every later file would meet the same error.

    That is a full or read-only disk, and a database that another program holds.
    """
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _DISK_ERRORS
