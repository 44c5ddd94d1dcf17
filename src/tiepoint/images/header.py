"""The header of an image file, without decoding pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

from PIL import Image

from tiepoint.errors import ImageError
from tiepoint.files.reading import open_regular
from tiepoint.files.writing import special_kind
from tiepoint.images.openers import open_image

_PREFIX_BYTES = 16


@contextmanager
def image_header(path: str | PathLike[str]) -> Iterator[Image.Image]:
    """An image file opened by Pillow, for its size and EXIF blocks.

    Raises:
        ImageError: No such file, or not an image.
    """
    if kind := special_kind(path):
        raise ImageError(f"{path}: {kind}, expected an image file")
    try:
        with open_regular(path) as stream:
            yield open_image(stream, stream.read(_PREFIX_BYTES), str(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path}: cannot be read ({reason}); check the path") from error
