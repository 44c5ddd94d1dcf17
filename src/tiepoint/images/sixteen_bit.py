"""PNG files of 16-bit colours, which Pillow truncates to 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from tiepoint.images.arrays import (
    Decoded,
    Pixels,
    bands,
    blend_on_white,
    stored_view,
    upright_size,
)

FULL = 65535
_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}
"""Pillow's names of big-endian colours, and the names under which it keeps their low bytes."""

_GREY_ALPHA = "LA;16B"
_ROWS = 64
_COPIED_PX = 1 << 16
"""Rows of an image to copy at a time, and the fewest pixels, because rows may be short."""


def raw_mode_of(image: ImageFile.ImageFile) -> str:
    """Pillow's name for the samples in a file that it has opened, not loaded; else ""."""
    arguments = image.tile[0][3] if image.tile else ""
    name = arguments if isinstance(arguments, str) else (arguments or ("",))[0]
    return name if isinstance(name, str) else ""


def is_deep_png(image: ImageFile.ImageFile) -> bool:
    """Whether an opened PNG has 16-bit colours, or 16-bit grey with alpha."""
    return image.format == "PNG" and raw_mode_of(image) in (*_LOW_BYTES, _GREY_ALPHA)


def read_deep_png(
    reopen: Callable[[], ImageFile.ImageFile],
    load: Callable[[ImageFile.ImageFile], int],
) -> Decoded:
    """Decode a PNG for which `is_deep_png` holds.

    Pillow decodes it twice: once it keeps the high bytes, once the low ones. This needs no copy of
    the file and no more than 12 bytes a pixel.

    Args:
        reopen: Opens the file.
        load: Loads an opened image and returns its EXIF orientation.
    """
    image = reopen()
    if raw_mode_of(image) == _GREY_ALPHA:  # four bytes a pixel, which Pillow keeps as RGBA
        image._mode = "RGBA"
        image.tile = [image.tile[0]._replace(args="RGBA")]
        turn = load(image)
        stored = np.empty((*upright_size(image.size[::-1], turn), 4), np.uint8)
        for top, rows in _strips(image):
            stored_view(stored, turn)[top : top + len(rows)] = rows
        del image
        samples = stored.view(">u2")  # H W 2
        grey, opacity = (samples[..., band].astype(np.uint16) for band in (0, 1))
        return _on_white(grey, opacity, turn)
    turn = load(image)
    has_alpha, transparent = image.mode == "RGBA", image.info.get("transparency")
    pixels = _canvas(image, turn, 3)
    alpha = _canvas(image, turn, 1) if has_alpha else None
    for shift in (8, 0):
        if shift == 0:
            image = reopen()
            image.tile = [image.tile[0]._replace(args=_LOW_BYTES[raw_mode_of(image)])]
            load(image)
        for top, rows in _strips(image):
            place = slice(top, top + len(rows))
            _add(stored_view(pixels, turn)[place], rows[..., :3], shift)
            if alpha is not None:
                _add(stored_view(alpha, turn)[place], rows[..., 3:], shift)
    del image
    if alpha is not None:
        return _on_white(pixels, alpha[..., 0], turn)
    return (
        white_where(pixels, transparent, turn)
        if transparent
        else Decoded(pixels).upright(turn, applied=True)
    )


def white_where(pixels: Pixels, colour: Any, exif_orientation: int = 1) -> Decoded:
    """H W or H W C with one colour white and without data, as PNG's tRNS requires for 16 bits.

    The pixels, already upright, are changed in place.
    """
    gaps = np.empty(pixels.shape[:2], bool)
    for band in bands(gaps.shape):
        equal = pixels[band] == np.array(colour)
        gaps[band] = equal.all(axis=-1) if equal.ndim == 3 else equal
        pixels[band][gaps[band]] = FULL
    return Decoded(pixels).without(gaps).upright(exif_orientation, applied=True)


def _on_white(pixels: Pixels, alpha: Pixels, turn: int) -> Decoded:
    visible = blend_on_white(pixels, alpha)
    return Decoded(pixels, visible).upright(turn, applied=True)


def _canvas(image: Image.Image, turn: int, channels: int) -> Pixels:
    """Upright zeros, H W C."""
    return np.zeros((*upright_size(image.size[::-1], turn), channels), np.uint16)


def _strips(image: Image.Image) -> Any:
    """(first row, rows H W C uint8) of a loaded image, some at a time."""
    width, height = image.size
    at_once = max(_ROWS, _COPIED_PX // width)
    for top in range(0, height, at_once):
        box = (0, top, width, min(top + at_once, height))
        yield top, np.asarray(image._new(image.im.crop(box)))


def _add(target: Pixels, rows: Pixels, shift: int) -> None:
    target |= rows.astype(np.uint16) << shift
