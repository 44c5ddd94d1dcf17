"""Folders of photographs: the files that count as images, and the part that is held out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

from tiepoint.checks import check_choice
from tiepoint.errors import FormatError

IMAGE_ENDINGS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jp2", ".png", ".tif", ".tiff", ".webp", ".avif"),
        *(".bmp", ".gif", ".pbm", ".pgm", ".pnm", ".ppm"),
    }
)
"""Endings of the files that folders and globs give; a file named itself may have any ending."""

Part = Literal["development", "training", "all"]
PARTS: tuple[Part, ...] = get_args(Part)
"""Parts of the photographs; see `part_of`."""


def is_image_name(name: str) -> bool:
    """Whether a file's name has the ending of an image, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS  # noqa: PTH122 - a million times


def list_photos(folder: Path, part: Part = "development") -> list[Path]:
    """List the photographs of one part below a folder, sorted by file name, then path.

    Raises:
        FormatError: No such folder, or no photograph of this part in it.
        ConfigError: An unknown part.
    """
    check_choice("part", part, PARTS)
    if not folder.is_dir():
        raise FormatError(f"{folder}: no such folder; expected one with photographs")
    photos = [path for path in folder.rglob("*") if is_image_name(path.name)]
    of_part = [path for path in photos if part in ("all", part_of(path.name))]
    if not of_part:
        raise FormatError(
            f"{folder}: none of its {len(photos)} images belongs to the part {part!r}; "
            "'all' takes every image"
        )
    return sorted(of_part, key=lambda path: (path.name, path.as_posix()))


def part_of(file_name: str) -> Part:
    """Return the part that a photograph belongs to, by its file name alone, ending included.

    A fifth of all names, chosen by SHA-1, and scikit-image's samples (`skimage_cc0_*`) are the
    development part. Training never uses it; checkpoints and settings are chosen on it.
    """
    import hashlib  # here, because the command line reads this module for its options

    digest = hashlib.sha1(file_name.encode(), usedforsecurity=False).hexdigest()
    held_out = int(digest, 16) % 5 == 0 or file_name.startswith("skimage_cc0_")
    return "development" if held_out else "training"
