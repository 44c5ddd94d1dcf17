"""Names of images or of features files -> features, and the images to draw them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tiepoint.features import Features
from tiepoint.files.paths import is_file
from tiepoint.formats import ALL_FORMATS, load

if TYPE_CHECKING:
    from tiepoint.detector import Detector


def is_features_file(name: str) -> bool:
    """Whether the ending is that of a features file."""
    return Path(name).suffix.lower() in ALL_FORMATS


def load_or_detect(names: Sequence[str], make_detector: Callable[[], Detector]) -> list[Features]:
    """Load features files, and detect in images.

    Args:
        names: Paths of features files, and paths or URLs of images.
        make_detector: Called once, and only if there is an image.

    Raises:
        FormatError: A features file cannot be read.
        ImageError: An image cannot be read.
    """
    detector = None if all(map(is_features_file, names)) else make_detector()
    return [
        load(name) if detector is None or is_features_file(name) else detector(name)
        for name in names
    ]


def image_of(name: str, features: Features) -> str | None:
    """The image behind a name of `load_or_detect`.

    Returns:
        The name itself, or the source of a features file; None if that is no file any more.
    """
    if not is_features_file(name):
        return name
    source = features.meta.get("source")
    return source if isinstance(source, str) and is_file(source) else None
