"""What `match` and `register` take for each of two images: the image, or its features."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tiepoint.errors import ConfigError
from tiepoint.features import Features
from tiepoint.images.masks import read_masked
from tiepoint.images.reading import SourceImage, is_source
from tiepoint.weights.checkpoint import files_state

if TYPE_CHECKING:
    from tiepoint.detector import Detector


def kept(make: Callable[[str], Detector]) -> Callable[[str], Detector]:
    """A function that keeps its last detector while the checkpoint and its files are the same.

    Args:
        make: Makes a detector from the name of a checkpoint.
    """

    @lru_cache(maxsize=1)
    def made(checkpoint: str, _: tuple[object, ...]) -> Detector:
        return make(checkpoint)

    return lambda checkpoint: made(checkpoint, files_state(checkpoint))


class View(NamedTuple):
    """The features of an image, and the image itself if that was given."""

    features: Features
    image: SourceImage | None = None


def view_of(
    source: Any, mask: Any, make_detector: Callable[[], Detector], caller: str, **options: Any
) -> View:
    """Detect in an image; features are taken as they are.

    Args:
        source: Any source of `images.read`, or Features.
        mask: See `masks.read_masked`.
        make_detector: Called for an image only.
        caller: Name of the function that the user called.
        options: Settings of the detector for this image.

    Raises:
        ImageError: The image or its mask cannot be read.
        ConfigError: Neither an image nor features; a mask for features.
    """
    if isinstance(source, Features):
        if mask is not None:
            raise ConfigError(
                "a mask is given with Features, expected an image: mask its keypoints"
            )
        return View(source)
    if isinstance(source, list | tuple):
        raise ConfigError(f"{caller} takes one image at a time, got a {type(source).__name__}")
    if not is_source(source):
        raise ConfigError(
            f"{caller} takes two images or their Features, got an object of type "
            f"{type(source).__name__}: pass a path, a URL, bytes, a PIL image, an array or Features"
        )
    image = read_masked(source, mask, "rgb")
    features: Features = make_detector()(image, **options)
    return View(features, image)
