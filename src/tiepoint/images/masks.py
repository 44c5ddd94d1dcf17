"""Where keypoints may lie: masks for images, from arrays and files, and folders of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError, ImageError
from tiepoint.geometry import Placement
from tiepoint.images.reading import SourceImage, read

Mask = NDArray[np.bool_]

MaskSource = Any
"""A mask for all images, a list of one for each, or a function of the source; see `mask_of`."""


@dataclass(frozen=True)
class MaskFolder:
    """A folder of masks, named as COLMAP does: that of `a/b.jpg` is `a/b.jpg.png`.

    Attributes:
        path: Where they lie.
    """

    path: Path

    def __post_init__(self) -> None:
        if not self.path.is_dir():
            raise ConfigError(f"{self.path}: no such folder; expected one with masks, a.jpg.png")

    def of(self, place: PurePosixPath | str) -> Path | None:
        """The mask of the image at this place below the images' own folder, if there is one."""
        path = self.path / f"{place}.png"
        return path if path.is_file() else None


def read_masked(source: Any, mask: Any, channel_order: str) -> SourceImage:
    """Read an image and its mask.

    Args:
        source: As for `image.read`.
        mask: An array `H W` (bool or numbers: 0 = no keypoint here), or whatever `image.read`
            takes: black = no keypoint here. None = keypoints everywhere. Of the size of the
            upright image.

    Raises:
        ImageError: The image or the mask cannot be read, or they differ in size.
    """
    image = read(source, channel_order=channel_order)
    if mask is None:
        return image
    name = os.fsdecode(mask) if isinstance(mask, str | os.PathLike) else "array"
    try:
        # NumPy's own truth serves arrays of any type; files and PIL images are read as images.
        pixels = np.asarray(mask) if isinstance(mask, np.ndarray) else read(mask).pixels
    except ImageError as error:
        raise ImageError(f"{image.name}: its mask cannot be read ({error})") from error
    allowed = pixels != 0
    if allowed.ndim == 3:
        allowed = allowed[:, :, :3].any(axis=2)  # an alpha channel says nothing
    if allowed.shape != image.size_hw:
        raise ImageError(
            f"{image.name}: its mask {name} has shape {allowed.shape}, expected (height, width) "
            f"{image.size_hw} of the upright image"
        )
    return replace(image, mask=np.ascontiguousarray(allowed), mask_name=name)


def check_masks(masks: MaskSource, count: int | None) -> None:
    """Raise unless a list of masks has one for each image.

    Args:
        count: How many images there are, or None if that is not known.

    Raises:
        ConfigError: A list of another length.
    """
    if isinstance(masks, list | tuple) and count != len(masks):
        images = "a stream of unknown length" if count is None else f"{count} images"
        raise ConfigError(f"mask holds {len(masks)} masks for {images}, expected one for each")


def mask_of(masks: MaskSource, source: Any, index: int) -> Any:
    """The mask of one of several images.

    Args:
        masks: None; a list or tuple with one (or None) for each image; a function that takes the
            source and gives one (or None); anything else is the mask of every image.
        index: The image's number.
    """
    if isinstance(masks, list | tuple):
        return masks[index]
    return masks(source) if callable(masks) else masks


def in_input(mask: Mask | None, placement: Placement) -> Mask | None:
    """A mask in px of the network's input: what lies under the middle of each px counts."""
    if mask is None or mask.shape == placement.resized_hw:
        return mask
    height, width = placement.resized_hw
    how = cv2.INTER_NEAREST_EXACT
    resized = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=how)
    return np.asarray(resized > 0)
