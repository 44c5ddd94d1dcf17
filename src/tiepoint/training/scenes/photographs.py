"""Photographs as sheets: real texture, exact flows, corners unknown."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint import images
from tiepoint.images.photographs import Part, list_photos
from tiepoint.network.inputs import to_grey
from tiepoint.training.scenes.canvas import Sheet

Rng = np.random.Generator

ENLARGED = (0.75, 1.8)
"""px of the sheet per px of the photograph: never 1 : 1 with the 8x8 grid of its JPEG."""


def photograph(rng: Rng, size_hw: tuple[int, int], folders: tuple[str, ...], part: Part) -> Sheet:
    """A random piece of a random photograph, mirrored in half of the cases.

    Args:
        size_hw: (height, width) in px of the sheet.
        folders: Where photographs lie; read anew only in a new process.
        part: Which of them may be used; see `tiepoint.images.photographs.part_of`.

    Raises:
        FormatError: No such folder, or none of the part in it.
        ImageError: A photograph cannot be read.
    """
    files = photo_files(folders, part)
    grey = read_grey(files[int(rng.integers(len(files)))])
    if rng.random() < 0.5:
        grey = grey[:, ::-1]
    height, width = size_hw
    least = max(height / grey.shape[0], width / grey.shape[1])  # to fill the sheet
    scale = max(math.exp(rng.uniform(*np.log(ENLARGED))), least)
    side = (
        min(math.ceil(height / scale), grey.shape[0]),
        min(math.ceil(width / scale), grey.shape[1]),
    )
    top, left = (int(rng.integers(0, full - part + 1)) for full, part in
                 zip(grey.shape, side, strict=True))  # fmt: skip
    piece = np.ascontiguousarray(grey[top : top + side[0], left : left + side[1]])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(piece, (width, height), interpolation=how)
    return Sheet(
        np.asarray(resized, np.uint8),
        np.zeros((0, 2), np.float32),
        np.zeros(0, bool),
        np.zeros(0, np.float32),
    )


@lru_cache(maxsize=8)
def photo_files(folders: tuple[str, ...], part: Part) -> tuple[Path, ...]:
    """The photographs of one part below some folders, in a fixed order."""
    return tuple(path for folder in folders for path in list_photos(Path(folder), part))


@lru_cache(maxsize=64)
def read_grey(path: Path) -> NDArray[np.uint8]:
    """`H W` uint8; a few are kept, since planes take small pieces of many."""
    values = to_grey(images.read(path).pixels)
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
