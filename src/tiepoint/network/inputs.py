"""Images -> pixels: grey, stretched to 0..1, fitted inside the longest side, padded to cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.config import ProcessorConfig
from tiepoint.geometry import Placement, SizeHW, fit_inside, with_longer_side
from tiepoint.images.arrays import not_finite
from tiepoint.images.gaps import blanked, filled, valid_in
from tiepoint.images.ranges import Range, nominal_white, range_of, step_of, white_of

LUMA = np.array([[0.299, 0.587, 0.114]], dtype=np.float32)
"""Weights of R, G, B in grey (ITU-R BT.601), as Pillow and OpenCV use them."""

STRIP_ROWS = 32
"""Rows that become grey at once: their colours as floats stay in the processor's cache."""


@dataclass(frozen=True, eq=False)
class GreyImage:
    """An image as the network sees it at scale 1, and what other scales are made from.

    Attributes:
        pixels: H W or H W 3, as stored except where it has no data.
        valid: H W, where it has data; None = everywhere.
        grey: H' W' float32 in 0..1, of the size that `max_side` leaves.
        stretch: Range of values that became 0..1, with the nominal white of the type as 1; None
            for the nominal one.
    """

    pixels: NDArray[Any]
    valid: NDArray[np.bool_] | None
    grey: NDArray[np.float32]
    stretch: Range | None

    @property
    def value_range(self) -> Range | None:
        """`stretch` in the image's own values."""
        return None if self.stretch is None else own_range(self.stretch, self.pixels.dtype)

    def at(self, scale: float) -> NDArray[np.float32]:
        """`H W` grey at a scale; smaller ones are made from `grey`, larger ones from `pixels`."""
        if scale == 1:
            return self.grey
        height, width = self.pixels.shape[:2]
        size_hw = with_longer_side((height, width), max(1, round(max(self.grey.shape) * scale)))
        if scale < 1:
            return resize_to(self.grey, size_hw)
        larger = resize_to(self.pixels, size_hw)
        if self.stretch is None and larger.dtype.kind == "f":
            larger = np.clip(larger, 0, 1)  # cubics overshoot beside edges
        grey = to_grey(larger, self.stretch)
        return grey if self.valid is None else filled(grey, valid_in(self.valid, size_hw))


def as_grey(
    pixels: NDArray[Any], config: ProcessorConfig, valid: NDArray[np.bool_] | None = None
) -> GreyImage:
    """Convert an image to the network's grey levels.

    Args:
        pixels: `H W` or `H W 3` RGB, as from `images.read`.
        valid: `H W`, where it has data; None = wherever it is finite.
    """
    gaps = not_finite(pixels) if valid is None else None
    valid = ~gaps if gaps is not None else valid
    if valid is not None:
        pixels = blanked(pixels, valid)
    reduced = resize(pixels, config.max_side)
    known = None if valid is None else valid_in(valid, size_of(reduced))
    eight_bit = pixels.dtype == np.uint8
    values, stretch = luma(reduced), None
    if config.contrast == "stretch" or (config.contrast == "auto" and not eight_bit):
        step = step_of(pixels)
        stretch = range_of(values, known, contrast=config.contrast, eight_bit=eight_bit, step=step)
    grey = _levels(values, stretch, clip=pixels.dtype.kind == "f")
    grey = grey if known is None else filled(grey, known)
    return GreyImage(pixels, valid, grey, stretch)


def own_range(stretch: Range, dtype: np.dtype[Any]) -> Range:
    """A range with the nominal white of a type as 1 -> in its own values."""
    white = white_of(dtype)
    black, white = (float(f"{end * white:.7g}") for end in stretch)  # as float32 has them
    return black, white


def prepare(
    images: Sequence[NDArray[Any]], config: ProcessorConfig, scale: float = 1.0
) -> tuple[NDArray[np.float32], list[Placement]]:
    """Put images of any size into one batch.

    Args:
        images: At least one, each `H W` or `H W 3` RGB, as from `images.read`.
        scale: Part of the size that `config.max_side` leaves, at which they are seen.

    Returns:
        pixels: B 1 H W float32 in 0..1, H and W the multiples of 8 that hold the largest image.
        placements: Each image's area in the batch, and the mapping back.
    """
    return next(pyramid([as_grey(image, config) for image in images], (scale,)))


def pyramid(
    images: Sequence[GreyImage], scales: Sequence[float]
) -> Iterator[tuple[NDArray[np.float32], list[Placement]]]:
    """The same images at several scales, one after the other; results as those of `prepare`.

    Sizes below `max_side` are made from what that leaves, in grey: a photograph of many megapixels
    is averaged down once.
    """
    for scale in scales:
        fields = [image.at(scale) for image in images]
        placements = [
            Placement(image_hw=size_of(image.pixels), resized_hw=size_of(field))
            for image, field in zip(images, fields, strict=True)
        ]
        cells = (placement.padded_hw for placement in placements)
        yield _batch([pad_to(*each) for each in zip(fields, cells, strict=True)]), placements


def size_of(image: NDArray[Any]) -> SizeHW:
    """(height, width), px."""
    return image.shape[0], image.shape[1]


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
    return larger


def to_grey(image: NDArray[Any], stretch: Range | None = None) -> NDArray[np.float32]:
    """`H W` or `H W 3` -> `H W` float32 in 0..1; see `GreyImage.stretch`."""
    return _levels(luma(image), stretch, clip=image.dtype.kind == "f")


def _levels(
    values: NDArray[np.floating], stretch: Range | None, *, clip: bool
) -> NDArray[np.float32]:
    if stretch is None:
        return np.asarray(np.clip(values, 0, 1) if clip else values, np.float32)
    black, white = stretch
    return np.asarray(np.clip((values - black) * (1 / (white - black)), 0, 1), np.float32)


def luma(image: NDArray[Any]) -> NDArray[np.floating]:
    """`H W` or `H W 3` -> `H W` with the nominal white as 1; float64 of float64, else float32."""
    kind = np.float64 if image.dtype == np.float64 else np.float32
    scale = np.float32(1 / nominal_white(image))
    if image.ndim == 3:
        grey = np.empty(image.shape[:2], kind)
        for top in range(0, len(grey), STRIP_ROWS):
            strip = slice(top, top + STRIP_ROWS)
            cv2.transform(image[strip].astype(kind), LUMA * scale, dst=grey[strip])
        if image.dtype.kind != "f":
            np.minimum(grey, np.float32(1), out=grey)  # rounding may pass 1
        return grey
    return np.asarray(np.multiply(image, scale, dtype=kind))


def pad_to(field: NDArray[np.float32], size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Repeat the bottom row and right column, so that padding draws no edge of its own."""
    below, right = size_hw[0] - field.shape[0], size_hw[1] - field.shape[1]
    if below == right == 0:
        return np.ascontiguousarray(field)
    return np.pad(field, ((0, below), (0, right)), mode="edge")
