"""Images -> pixels: grey, scaled to 0..1, fitted inside the longest side, padded to cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.config import ProcessorConfig
from tiepoint.geometry import Placement, fit_inside, with_longer_side

LUMA = np.array([[0.299, 0.587, 0.114]], dtype=np.float32)
"""Weights of R, G, B in grey (ITU-R BT.601), as Pillow and OpenCV use them."""

STRIP_ROWS = 32
"""Rows that become grey at once: their colours as floats stay in the processor's cache."""

_RANGE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}


def prepare(
    images: Sequence[NDArray[Any]], config: ProcessorConfig, scale: float = 1.0
) -> tuple[NDArray[np.float32], list[Placement]]:
    """Put images of any size into one batch.

    Args:
        images: At least one, each `H W` or `H W 3` RGB; uint8, uint16, or float32 in 0..1.
        scale: Part of the size that `config.max_side` leaves, at which they are seen.

    Returns:
        pixels: B 1 H W float32 in 0..1, H and W the multiples of 8 that hold the largest image.
        placements: Each image's area in the batch, and the mapping back.
    """
    return next(pyramid(images, config, (scale,)))


def pyramid(
    images: Sequence[NDArray[Any]], config: ProcessorConfig, scales: Sequence[float]
) -> Iterator[tuple[NDArray[np.float32], list[Placement]]]:
    """The same images at several scales, one after the other; arguments and results as `prepare`'s.

    Sizes below `config.max_side` are made from what that leaves, in grey: a photograph of many
    megapixels is averaged down once.
    """
    whole = [to_grey(resize(image, config.max_side)) for image in images]  # each H' W'
    for scale in scales:
        fields, placements = [], []
        for image, grey in zip(images, whole, strict=True):
            height, width = image.shape[:2]
            field = grey
            if scale != 1:
                longer_px = max(1, round(max(grey.shape) * scale))
                size_hw = with_longer_side((height, width), longer_px)
                larger = scale > 1
                field = to_grey(resize_to(image, size_hw)) if larger else resize_to(grey, size_hw)
            rows, columns = field.shape
            placement = Placement(image_hw=(height, width), resized_hw=(rows, columns))
            placements.append(placement)
            fields.append(pad_to(field, placement.padded_hw))  # whole cells
        yield _batch(fields), placements


def _batch(fields: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Each `H W` -> B 1 H W; 0 beyond smaller images."""
    if len(fields) == 1:
        return fields[0][None, None]
    height = max(field.shape[0] for field in fields)
    width = max(field.shape[1] for field in fields)
    pixels = np.zeros((len(fields), 1, height, width), dtype=np.float32)
    for batch_pixels, field in zip(pixels, fields, strict=True):
        batch_pixels[0, : field.shape[0], : field.shape[1]] = field
    return pixels


def resize(image: NDArray[Any], max_side: int | None) -> NDArray[Any]:
    """Bring the longer side down to `max_side`, aspect and type kept; never enlarge.

    Averages the area under each new pixel, so nothing aliases and pixel centres follow
    `geometry.resize_xy` exactly.
    """
    return resize_to(image, fit_inside(image.shape[:2], max_side))


def resize_to(image: NDArray[Any], size_hw: tuple[int, int]) -> NDArray[Any]:
    """Bring an image to (height, width) px, type kept: by areas where smaller, else by cubics."""
    height, width = size_hw
    if (height, width) == image.shape[:2]:
        return image
    if height <= image.shape[0] and width <= image.shape[1]:
        smaller: NDArray[Any] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return smaller
    larger: NDArray[Any] = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    # Cubics overshoot beside edges; whole-number types are held to their range by OpenCV.
    return np.clip(larger, 0, 1) if larger.dtype == np.float32 else larger


def to_grey(image: NDArray[Any]) -> NDArray[np.float32]:
    """`H W` or `H W 3` of any of the three types -> `H W` float32 in 0..1."""
    scale = np.float32(1 / _RANGE[image.dtype])
    if image.ndim == 3:
        grey: NDArray[np.float32] = np.empty(image.shape[:2], np.float32)
        for top in range(0, len(grey), STRIP_ROWS):
            strip = slice(top, top + STRIP_ROWS)
            cv2.transform(image[strip].astype(np.float32), LUMA * scale, dst=grey[strip])
        return np.minimum(grey, np.float32(1), out=grey)  # rounding may pass 1
    scaled: NDArray[np.float32] = np.multiply(image, scale, dtype=np.float32)
    return scaled


def pad_to(field: NDArray[np.float32], size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Repeat the bottom row and right column, so that padding draws no edge of its own."""
    below, right = size_hw[0] - field.shape[0], size_hw[1] - field.shape[1]
    if below == right == 0:
        return np.ascontiguousarray(field)
    return np.pad(field, ((0, below), (0, right)), mode="edge")
