"""Grey images to measure a checkpoint on: a user's photographs, or drawn scenes. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import ProcessorConfig
from tiepoint.errors import ImageError
from tiepoint.evaluation.sizes import grey_uint8
from tiepoint.images.photographs import list_photos
from tiepoint.images.reading import read
from tiepoint.training.scenes.pairs import training_pair
from tiepoint.training.scenes.settings import DataConfig

SCENE_SIDE_PX = 320


def sample_images(
    photos: Path | None, count: int, seed: int, *, on_skip: Callable[[ImageError], None]
) -> Iterator[NDArray[np.uint8]]:
    """Yield grey images, `H W` uint8: evenly chosen photographs, or drawn scenes.

    Args:
        photos: Folder with photographs, downscaled to the detector's default size; None draws
            scenes of `SCENE_SIDE_PX`.
        count: Number of images, at least 1.
        on_skip: Called with the error of each photograph that cannot be read.

    Raises:
        FormatError: The folder has no photographs.
    """
    if photos is None:
        config = DataConfig(size_hw=(SCENE_SIDE_PX, SCENE_SIDE_PX))
        for index in range(count):
            yield training_pair(config, seed, index).a.image
        return
    files = list_photos(photos, "all")
    for path in files[:: max(1, len(files) // count)][:count]:
        try:
            yield grey_uint8(read(path).pixels, ProcessorConfig().max_side)
        except ImageError as error:
            on_skip(error)
