"""Features of many images -> where each image was taken, from its file's EXIF block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiepoint.batch.left_out import LeftOut
from tiepoint.errors import ImageError, TiepointError
from tiepoint.features import Features
from tiepoint.files.paths import is_file
from tiepoint.formats.features_store import StoreFeatures, records
from tiepoint.images.gps import Place, read_place
from tiepoint.streaming import read_ahead

READERS = 8
"""Headers that are read at a time, because disks and servers answer late."""

_NO_FILE = "its image is not at the path that its features state; name the folder with --images"
_NO_PLACE = "no GPS position in its EXIF block"


def image_places(
    features: Mapping[str, Features],
    left_out: LeftOut,
    *,
    images: Path | None = None,
    on_image: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """Where the images were taken.

    Args:
        features: Features by image name.
        left_out: Counts the images without a place.
        images: Folder of the images; None takes the paths that the features state.
        on_image: Called after each image.

    Returns:
        n 2 latitude and longitude in the order of the features, degrees; NaN if unknown.
    """
    places = np.full((len(features), 2), np.nan)
    paths = _paths(features, images)
    for row, (name, place) in enumerate(read_ahead(features, partial(_place, paths), READERS)):
        if isinstance(place, str):
            left_out.add(name, place)
        else:
            places[row] = place
        on_image()
    return places


def _place(path_of: Callable[[str], str | None], name: str) -> Place | str:
    """The place of an image, or the reason why it has none."""
    try:
        path = path_of(name)
        if path is None or not is_file(path):
            return _NO_FILE
        return read_place(path) or _NO_PLACE
    except ImageError as error:
        return str(error)
    except TiepointError as error:  # damaged features
        return f"its path cannot be read: {error}"


def _paths(features: Mapping[str, Features], images: Path | None) -> Callable[[str], str | None]:
    """Name of an image -> path of its file."""
    if images is not None:
        return lambda name: str(images / name)
    if isinstance(features, StoreFeatures):  # records have the paths, and are read at once
        return dict(_sources(features)).get
    return lambda name: _text(features[name].meta.get("source"))


def _sources(features: StoreFeatures) -> Iterator[tuple[str, str]]:
    for record in records(features.path, features.manifest.identity):
        for row in record.images:
            yield row.name, row.source


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
