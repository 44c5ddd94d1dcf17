"""Photographs as sheets: real texture and exact flows, but unknown corners."""

from __future__ import annotations

import logging
import math
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from tiepoint import images
from tiepoint.config import ProcessorConfig
from tiepoint.errors import ImageError
from tiepoint.geometry import SizeHW
from tiepoint.images.photographs import Part, list_photos
from tiepoint.network.inputs import as_grey
from tiepoint.training.scenes import draws
from tiepoint.training.scenes.basics import Grey, Rng
from tiepoint.training.scenes.canvas import Sheet, sheet_without_corners

logger = logging.getLogger(__name__)

MOST_UNREADABLE = 20
"""Unreadable photographs in a row that end the work."""

SCALE = (0.75, 1.8)
"""px of the sheet per px of the photograph: random, so that the 8x8 grid of its JPEG differs."""


def photograph(rng: Rng, size_hw: SizeHW, folders: tuple[str, ...], part: Part) -> Sheet:
    """A random crop of a random photograph, mirrored in half of the cases.

    Each process lists the folders only once. A photograph that cannot be read is logged once, and
    another one is taken.

    Raises:
        FormatError: No such folder, or no photograph of this part in it.
        ImageError: Most photographs cannot be read.
    """
    grey = _random_grey(rng, photo_files(folders, part))
    if rng.random() < 0.5:
        grey = grey[:, ::-1]
    height, width = size_hw
    least = max(height / grey.shape[0], width / grey.shape[1])  # fills the sheet
    scale = max(draws.log_uniform(rng, *SCALE), least)
    crop_height = min(math.ceil(height / scale), grey.shape[0])
    crop_width = min(math.ceil(width / scale), grey.shape[1])
    top = int(rng.integers(0, grey.shape[0] - crop_height + 1))
    left = int(rng.integers(0, grey.shape[1] - crop_width + 1))
    crop = np.ascontiguousarray(grey[top : top + crop_height, left : left + crop_width])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(crop, (width, height), interpolation=interpolation)
    return sheet_without_corners(np.asarray(resized, np.uint8))


def _random_grey(rng: Rng, files: tuple[Path, ...]) -> Grey:
    for _ in range(MOST_UNREADABLE - 1):
        path = draws.pick(rng, files)
        try:
            return read_grey(path)
        except ImageError as error:
            _report_once(path, str(error))
    return read_grey(draws.pick(rng, files))


@lru_cache(maxsize=1024)
def _report_once(path: Path, error: str) -> None:
    logger.warning("left out of training: %s", error)


@lru_cache(maxsize=8)
def photo_files(folders: tuple[str, ...], part: Part) -> tuple[Path, ...]:
    """The photographs of one part below some folders, in a fixed order."""
    return tuple(path for folder in folders for path in list_photos(Path(folder), part))


@lru_cache(maxsize=64)
def read_grey(path: Path) -> Grey:
    """`H W` uint8; some are cached, because a scene takes small crops of many photographs."""
    values = as_grey(images.read(path).pixels, ProcessorConfig(max_side=None)).grey
    return np.rint(values * 255).astype(np.uint8)
