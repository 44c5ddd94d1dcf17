"""Folders of photographs: the files that count as images, and the part that is held out."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from tiepoint.checks import check_choice
from tiepoint.errors import FormatError, how_to_install
from tiepoint.files.paths import is_folder

IMAGE_ENDINGS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".png", ".tif", ".tiff"),
        *(".webp", ".avif", ".qoi"),
        *(".bmp", ".gif", ".pbm", ".pgm", ".pnm", ".ppm"),
    }
)
"""Endings of the files that folders and globs give in any case; see `image_endings`."""

EXTRAS = dict.fromkeys((".heic", ".heif", ".hif"), how_to_install("heif"))
"""Endings that need an optional package, and the commands that install it."""

_ADVICE = (
    (
        "develop raw photographs first, for example to 16-bit TIFF",
        (
            *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq"),
            *(".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw"),
            *(".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
        ),
    ),
    (
        "videos are for `tiepoint track`; for single images extract frames, as with ffmpeg",
        (".mp4", ".mov", ".avi", ".mkv", ".m4v", ".mts", ".m2ts", ".mpg", ".webm"),
    ),
    ("convert them, for example to TIFF", (".exr", ".hdr", ".jxl", ".tga", ".pfm")),
)
"""What to do about pictures that folders do not give, and their endings."""

Part = Literal["development", "training", "all"]
PARTS: tuple[Part, ...] = get_args(Part)
"""Parts of the photographs; see `part_of`."""


def image_endings() -> frozenset[str]:
    """Endings of the files that folders and globs give; a file named itself may have any ending.

    Endings of an optional package are among them if it is installed, and those that the user has
    registered with Pillow.
    """
    pillow = sys.modules.get("PIL.Image")
    return _endings(len(pillow.EXTENSION) if pillow else 0)


@lru_cache(maxsize=1)
def _endings(registered: int) -> frozenset[str]:
    """`image_endings`, as long as nothing else is registered."""
    endings = set(IMAGE_ENDINGS)
    if find_spec("pillow_heif"):
        endings |= set(EXTRAS)
    pillow = sys.modules.get("PIL.Image")
    if pillow and registered:
        for ending, name in list(pillow.EXTENSION.items()):  # threads may register more
            opener = pillow.OPEN.get(name)
            if opener and not getattr(opener[0], "__module__", "").startswith("PIL."):
                endings.add(ending)
    return frozenset(endings)


def is_image_name(name: str) -> bool:
    """Whether a file's name has one of `image_endings`, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in image_endings()  # noqa: PTH122 - a million times


def advice_for(ending: str) -> str | None:
    """What a user can do about files of this ending that are not read; None without advice.

    Args:
        ending: With its dot, in lower case, such as ".heic".
    """
    if ending in EXTRAS:
        return EXTRAS[ending]
    return next((advice for advice, endings in _ADVICE if ending in endings), None)


def list_photos(folder: Path, part: Part = "development") -> list[Path]:
    """List the photographs of one part below a folder, sorted by file name, then path.

    Raises:
        FormatError: No such folder, or no photograph of this part in it.
        ConfigError: An unknown part.
    """
    check_choice("part", part, PARTS)
    if not is_folder(folder):
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

    digest = hashlib.sha1(os.fsencode(file_name), usedforsecurity=False).hexdigest()
    held_out = int(digest, 16) % 5 == 0 or file_name.startswith("skimage_cc0_")
    return "development" if held_out else "training"
