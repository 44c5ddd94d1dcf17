"""Images -> the guide's inputs under the exact rules: read, downscale, grey, pad, mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import shown
from tiepoint.config import ProcessorConfig
from tiepoint.errors import ConfigError, ImageError, TiepointError
from tiepoint.geometry import SizeHW
from tiepoint.images.ranges import check_nominal
from tiepoint.images.reading import read
from tiepoint.network import inputs as network_inputs

NOMINAL = ProcessorConfig(max_side=None, contrast="none")

MAX_SIDE_PX = 1_000_000
"""Largest side in a processor's settings, px."""

Size = Mapping[str, int] | Sequence[int] | int

_CHANNELS = (1, 3, 4)
_SIZE_FORMS = "a dict with height and width, with max_height and max_width, or with longest_edge"


def read_all(images: Any) -> list[NDArray[Any]]:
    """One image, a batch, a list or a list of lists -> pixels as from `images.read`.

    Arrays and tensors may be C H W or H W C, as in transformers.

    Raises:
        ImageError: An image cannot be read; in a list the error names its index.
    """
    if not isinstance(images, list | tuple):
        if getattr(images, "ndim", None) != 4:
            return [_read(images)]
        images = list(images)  # B C H W or B H W C
    if any(isinstance(item, list | tuple) for item in images):
        groups = [item if isinstance(item, list | tuple) else [item] for item in images]
        images = [image for group in groups for image in group]
    if not images:
        raise ImageError("an empty list, expected at least one image")
    pixels = []
    for index, image in enumerate(images):
        try:
            pixels.append(_read(image))
        except TiepointError as error:
            raise type(error)(f"item {index} of {len(images)}: {error}") from error
    return pixels


def _read(image: Any) -> NDArray[Any]:
    """Pixels in the nominal range of their type, as transformers' processor expects them."""
    source = read(usual_layout(image))
    check_nominal(source, complete=True)
    return source.pixels


def usual_layout(image: Any) -> Any:
    """An array that can only be C H W -> H W C, a tensor that can only be H W C -> C H W."""
    if getattr(image, "ndim", None) != 3:
        return image
    first, last = image.shape[0] in _CHANNELS, image.shape[2] in _CHANNELS
    if isinstance(image, np.ndarray):
        return np.moveaxis(image, 0, -1) if first and not last else image
    return image.permute(2, 0, 1) if last and not first and hasattr(image, "permute") else image


def prepare(
    images: Sequence[NDArray[Any]], box_hw: SizeHW | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images -> B 3 H W float32 in 0..1 and their mask B H W.

    H and W are those of the largest image, because the model pads to whole cells itself.

    Args:
        images: H W or H W 3 each, as from `read_all`.
        box_hw: (height, width) px that each image is downscaled to fit into; None keeps its size.
    """
    downscaled = []
    for image in images:
        height, width = image.shape[:2]
        longest = None if box_hw is None else longest_side((height, width), box_hw)
        downscaled.append(network_inputs.resize(image, longest))
    pixels, placements = network_inputs.prepare(downscaled, NOMINAL)
    largest = [max(sides) for sides in zip(*(one.resized_hw for one in placements), strict=True)]
    pixels = pixels[:, :, : largest[0], : largest[1]]  # B 1 H W
    mask = np.zeros((len(pixels), *pixels.shape[2:]), dtype=np.int64)  # B H W
    for image_mask, placement in zip(mask, placements, strict=True):
        height, width = placement.resized_hw
        image_mask[:height, :width] = 1
    return np.repeat(pixels, 3, axis=1), mask  # B 3 H W, B H W


def longest_side(image_hw: SizeHW, box_hw: SizeHW) -> int:
    """The `max_side` px with which an image of `image_hw` just fits into `box_hw`."""
    longer = max(image_hw)
    limits = (round(limit * longer / side) for limit, side in zip(box_hw, image_hw, strict=True))
    return max(1, min(longer, *limits))


def size_dict(size: Size) -> dict[str, int]:
    """Convert `size` from any of transformers' forms to a dict; a sequence must have two items."""
    if isinstance(size, Mapping):
        sides = dict(size)
    elif isinstance(size, int):
        sides = {"shortest_edge": size}
    elif not isinstance(size, Sequence) or len(size) != 2:
        raise ConfigError(f"size is {shown(size)}, expected (height, width) or {_SIZE_FORMS}")
    else:
        sides = {"height": size[0], "width": size[1]}
    for side in sides.values():
        is_whole = isinstance(side, int) and not isinstance(side, bool)
        if side is not None and not (is_whole and 1 <= side <= MAX_SIDE_PX):
            raise ConfigError(
                f"size is {shown(sides)}, expected whole numbers in 1..{MAX_SIDE_PX} px"
            )
    return sides


def box_hw(size: Mapping[str, int]) -> SizeHW:
    """The (height, width) px, whole and at least 1, that the exact rules downscale to fit into."""
    forms = (("height", "width"), ("max_height", "max_width"), ("longest_edge", "longest_edge"))
    names = next((form for form in forms if set(form) == set(size)), None)
    if names is None:
        raise ConfigError(f"size is {dict(size)}, expected {_SIZE_FORMS}")
    box: tuple[Any, Any] = size[names[0]], size[names[1]]
    if any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in box):
        raise ConfigError(f"size is {dict(size)}, expected whole numbers of at least 1 px")
    return box
