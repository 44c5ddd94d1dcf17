"""Features of many images -> where each image was taken, from its file's EXIF block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

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
    named = _paths(features, images)
    for row, (image, place) in enumerate(read_ahead(named, _place, READERS)):
        if isinstance(place, str):
            left_out.add(image.name, place)
        else:
            places[row] = place
        on_image()
    return places


class _Named(NamedTuple):
    """An image with the path of its file; or the reason why there is none."""

    name: str
    path: str | None
    reason: str = _NO_FILE


def _place(image: _Named) -> Place | str:
    """The place of an image, or the reason why it has none."""
    if image.path is None or not is_file(image.path):
        return image.reason
    try:
        return read_place(image.path) or _NO_PLACE
    except ImageError as error:
        return str(error)


def _paths(features: Mapping[str, Features], images: Path | None) -> Iterator[_Named]:
    """The images with their paths. Features are read in the thread of the caller."""
    if images is not None:
        yield from (_Named(name, str(images / name)) for name in features)
    elif isinstance(features, StoreFeatures):  # records have the paths, and are read at once
        sources = dict(_sources(features))
        yield from (_Named(name, sources.get(name)) for name in features)
    else:
        for name in features:
            try:
                source = features[name].meta.get("source")
                yield _Named(name, source if isinstance(source, str) else None)
            except TiepointError as error:
                yield _Named(name, None, f"its path cannot be read: {error}")


def _sources(features: StoreFeatures) -> Iterator[tuple[str, str]]:
    for record in records(features.path, features.manifest.identity):
        for row in record.images:
            yield row.name, row.source
