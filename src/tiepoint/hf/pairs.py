"""Pairs of images, as the guide passes them, and pictures of their matches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tiepoint.errors import ImageError, TiepointError
from tiepoint.hf.inputs import usual_layout
from tiepoint.images.reading import read
from tiepoint.plotting import to_rgb8

LINE_PX, DOT_RADIUS_PX = 3, 2
"""As in transformers' pictures."""

Ends = NDArray[np.float64]


def flat_pairs(images: Any) -> list[Any]:
    """A pair of images, or a list of pairs -> all images, 2 for each pair.

    Raises:
        ImageError: No pair, or one that has not two images.
    """
    if not isinstance(images, list | tuple):
        raise ImageError(
            f"an object of type {type(images).__name__}, expected a list of two images or a list "
            "of such pairs"
        )
    holds_lists = any(isinstance(item, list | tuple) for item in images)
    pairs = list(images) if holds_lists else [images]
    for index, pair in enumerate(pairs):
        is_list = isinstance(pair, list | tuple)
        if is_list and len(pair) == 2 and not any(isinstance(one, list | tuple) for one in pair):
            continue
        what = f"{len(pair)} items" if is_list else f"an object of type {type(pair).__name__}"
        if is_list and len(pair) == 2:
            what = "lists in place of images"
        where = f"pair {index} of {len(pairs)}: " if holds_lists else ""
        raise ImageError(
            f"{where}{what}, expected two images: [image_a, image_b], or a list of such pairs"
        )
    return [image for pair in pairs for image in pair]


def in_pairs(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Items 0 and 1, 2 and 3, and further pairs."""
    return zip(items[::2], items[1::2], strict=True)


def read_rgb(images: list[Any]) -> list[NDArray[np.uint8]]:
    """Images of any source that `images.read` has -> H W 3 uint8 each.

    Raises:
        ImageError: An image cannot be read; the error names its index.
    """
    pictures = []
    for index, image in enumerate(images):
        try:
            pictures.append(to_rgb8(read(usual_layout(image))))
        except TiepointError as error:
            raise type(error)(f"item {index} of {len(images)}: {error}") from error
    return pictures


def draw_pair(
    a: NDArray[np.uint8],
    b: NDArray[np.uint8],
    ends_a: Ends,
    ends_b: Ends,
    scores: NDArray[np.float32],
) -> Image.Image:
    """Two images side by side with a line for each match, from red for 0 to green for 1.

    Args:
        a, b: H W 3, RGB; their sizes may differ.
        ends_a, ends_b: M 2 (x, y) px of each image; later matches are drawn over earlier ones.
        scores: M, in 0..1.
    """
    canvas = np.zeros((max(len(a), len(b)), a.shape[1] + b.shape[1], 3), np.uint8)
    canvas[: len(a), : a.shape[1]] = a
    canvas[: len(b), a.shape[1] :] = b
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    scores = np.clip(scores, 0, 1)
    reds, greens = (255 * (1 - scores)).astype(int), (255 * scores).astype(int)
    first, second = ends_a.round(), (ends_b + np.array([a.shape[1], 0])).round()
    for start, end, red, green in zip(
        first.tolist(), second.tolist(), reds.tolist(), greens.tolist(), strict=True
    ):
        pen.line((*start, *end), fill=(red, green, 0), width=LINE_PX)
        for x, y in (start, end):
            box = (x - DOT_RADIUS_PX, y - DOT_RADIUS_PX, x + DOT_RADIUS_PX, y + DOT_RADIUS_PX)
            pen.ellipse(box, fill="black")
    return picture
