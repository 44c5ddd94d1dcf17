"""Masks: where keypoints are allowed, from arrays, files and folders."""

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
from tiepoint.images.arrays import ChannelOrder
from tiepoint.images.reading import SourceImage, read

Mask = NDArray[np.bool_]

MaskSource = Any
"""A mask of all images, a list with one per image, or a function of the source; see `mask_of`."""


@dataclass(frozen=True)
class MaskFolder:
    """A folder of masks in COLMAP's naming: `a/b.jpg.png` is the mask of `a/b.jpg`.

    Raises:
        ConfigError: No such folder.
    """

    path: Path

    def __post_init__(self) -> None:
        if not self.path.is_dir():
            raise ConfigError(f"{self.path}: no such folder; expected one with masks, a.jpg.png")

    def of(self, place: PurePosixPath | str) -> Path | None:
        """The mask of the image with this path relative to the images' folder, if there is one."""
        path = self.path / f"{place}.png"
        return path if path.is_file() else None


def read_masked(source: Any, mask: Any, channel_order: ChannelOrder) -> SourceImage:
    """Read an image and its mask.

    Args:
        source: Any source of `images.read`.
        mask: Mask of the size of the upright image: an array `H W` of any type (0: no keypoints),
            or another source of `images.read` (black: no keypoints). None allows all keypoints.

    Raises:
        ImageError: The image or the mask cannot be read, or they differ in size.
    """
    image = read(source, channel_order=channel_order)
    if mask is None:
        return image
    name = os.fsdecode(mask) if isinstance(mask, str | os.PathLike) else "array"
    try:
        # Arrays may have any type, because only zero matters; other sources are read as images.
        pixels = np.asarray(mask) if isinstance(mask, np.ndarray) else read(mask).pixels
    except ImageError as error:
        raise ImageError(f"{image.name}: its mask cannot be read ({error})") from error
    allowed = pixels != 0
    if allowed.ndim == 3:
        allowed = allowed[:, :, :3].any(axis=2)  # alpha does not count
    if allowed.shape != image.size_hw:
        raise ImageError(
            f"{image.name}: its mask {name} has shape {allowed.shape}, expected (height, width) "
            f"{image.size_hw} of the upright image"
        )
    return replace(image, mask=np.ascontiguousarray(allowed), mask_name=name)


def check_masks(masks: MaskSource, count: int | None) -> None:
    """Raise ConfigError unless a list of masks has one per image; None is an unknown count."""
    if isinstance(masks, list | tuple) and count != len(masks):
        images = "a stream of unknown length" if count is None else f"{count} images"
        raise ConfigError(f"mask holds {len(masks)} masks for {images}, expected one for each")


def mask_of(masks: MaskSource, source: Any, index: int) -> Any:
    """Select the mask of one of several images.

    Args:
        masks: None; a list or tuple with one mask or None per image; a function that returns the
            mask or None of a source; anything else is the mask of all images.
    """
    if isinstance(masks, list | tuple):
        return masks[index]
    return masks(source) if callable(masks) else masks


def in_input(mask: Mask | None, placement: Placement) -> Mask | None:
    """Resize a mask to the network's input, with the nearest value at each pixel's centre."""
    if mask is None or mask.shape == placement.resized_hw:
        return mask
    size_wh, nearest = placement.resized_hw[::-1], cv2.INTER_NEAREST_EXACT
    return np.asarray(cv2.resize(mask.astype(np.uint8), size_wh, interpolation=nearest) > 0)
