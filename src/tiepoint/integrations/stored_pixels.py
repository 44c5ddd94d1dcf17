"""What the writers for photogrammetry share: stored pixels, scales, and names of files.

OpenSfM, openMVG and MicMac ignore the EXIF orientation, so their images are those of the file.
tiepoint's are upright. Features of a photograph that is stored rotated are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import FormatError
from tiepoint.features import Features

UPRIGHT = 1
"""EXIF orientation of pixels that are stored upright."""


def check_plain_name(name: str, program: str) -> None:
    """Refuse a name with a folder, for a program that has all images in one folder.

    Raises:
        FormatError: Not the name of a file alone.
    """
    if name in ("", ".", "..") or not set("/\\\0").isdisjoint(name):
        raise FormatError(
            f"image {name!r}: {program} has all images in one folder; name them without it"
        )


def check_orientation(name: str, features: Features, program: str) -> None:
    """Refuse features of an image that the program sees rotated.

    Raises:
        FormatError: The image's EXIF orientation is not upright.
    """
    orientation = features.meta.get("exif_orientation")
    if orientation not in (None, UPRIGHT):
        raise FormatError(
            f"{name}: its EXIF orientation is {orientation}, which {program} ignores; rotate the "
            "pixels of the file (mogrify -auto-orient), detect again"
        )


def scales_px(features: Features) -> NDArray[np.float32]:
    """N: scale of each keypoint, px of the image per px of the network's input.

    Features of other programs do not know it; theirs is that of the whole image.
    """
    if features.scales_px is not None:
        return features.scales_px
    return np.full(len(features), features.px_per_input_px, np.float32)


def unique_stems(names: Iterable[str], program: str) -> dict[str, str]:
    """Name of each image -> its file name without folder and ending, which the program uses.

    Raises:
        FormatError: Two images share one.
    """
    stems: dict[str, str] = {}
    owners: dict[str, str] = {}
    for name in names:
        stem = PurePosixPath(name).stem
        if stem in owners:
            raise FormatError(
                f"{owners[stem]} and {name}: {program} stores both as {stem}; rename one"
            )
        owners[stem], stems[name] = name, stem
    return stems
