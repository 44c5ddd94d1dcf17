"""Masks: where keypoints are allowed, from arrays, files and folders."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError, ImageError
from tiepoint.files.paths import is_folder
from tiepoint.geometry import Placement
from tiepoint.images.arrays import ChannelOrder, Decoded, is_black
from tiepoint.images.gaps import away_from_gaps
from tiepoint.images.ranges import check_nominal
from tiepoint.images.reading import SourceImage, decoded_of, read

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
        if not is_folder(self.path):
            raise ConfigError(f"{self.path}: no such folder; expected one with masks, a.jpg.png")

    def of(self, place: PurePosixPath | str) -> Path | None:
        """The mask of the image with this path relative to the images' folder, if there is one.

        Raises:
            ImageError: Something else in its place, or a name that the system refuses.
        """
        path = self.path / f"{place}.png"
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            if not path.is_symlink():
                return None
            raise ImageError(f"{path}: the link to the mask leads nowhere; mend it") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ImageError(
                f"{path}: the mask cannot be looked up ({reason}); check path and rights"
            ) from error
        if not stat.S_ISREG(mode):
            raise ImageError(f"{path}: not a regular file, expected a mask")
        return path


def read_masked(
    source: Any, mask: Any, channel_order: ChannelOrder, *, nominal: bool = False
) -> SourceImage:
    """Read an image and its mask.

    Args:
        source: Any source of `images.read`.
        mask: Mask of the size of the upright image: an array of any type or another source of
            `images.read`; `allowed_by` has its rule. None allows all keypoints.
        nominal: Require values in the nominal range of the type; see `ranges.check_nominal`.

    Raises:
        ImageError: The image or the mask cannot be read, or they differ in size.
    """
    image = read(source, channel_order=channel_order)
    if nominal:
        check_nominal(image)
    if mask is None:
        return image
    name = name_of(mask)
    try:
        allowed = allowed_by(mask)
    except ImageError as error:
        raise ImageError(f"{image.name}: its mask cannot be read ({error})") from error
    if allowed.shape != image.size_hw:
        raise ImageError(
            f"{image.name}: its mask {name} has shape {allowed.shape}, expected (height, width) "
            f"{image.size_hw} of the upright image"
        )
    return replace(image, mask=np.ascontiguousarray(allowed), mask_name=name)


def allowed_by(mask: Any, max_pixels: int | None = None) -> Mask:
    """`H W`, where a mask allows keypoints: nowhere that it is black or fully transparent.

    If all visible pixels are black, as in a shape drawn on nothing, transparency alone decides.
    Palettes count by their colours. In arrays of any type black is 0.

    Args:
        mask: An array, or another source of `images.read`.
        max_pixels: As for `images.read`.
    """
    if isinstance(mask, np.ndarray):  # any type, because only zero matters
        array = np.ma.filled(mask, 0)
        seen = array[:, :, 3] != 0 if array.ndim == 3 and array.shape[2] == 4 else None
        coloured = (array[:, :, :3] if array.ndim == 3 else array[..., None]).any(axis=-1)
        allowed = coloured.astype(bool, copy=False)
        allowed = allowed if seen is None else allowed & seen
    else:
        image = decoded_of(mask, max_pixels=max_pixels)[0]
        seen, allowed = image.seen, allowed_in(image)
    return allowed if seen is None or allowed.any() or seen.all() else seen


def allowed_in(image: Decoded) -> Mask:
    """`H W`, where a part of a mask is neither black nor transparent."""
    coloured = ~is_black(image)
    return coloured if image.seen is None else coloured & image.seen


def name_of(mask: Any) -> str:
    """The name of a mask in `meta`: its path as given, or "array"."""
    return os.fsdecode(mask) if isinstance(mask, str | os.PathLike) else "array"


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


def in_input(image: SourceImage, placement: Placement) -> Mask | None:
    """Where keypoints are allowed in the network's input; None allows them everywhere.

    The mask has the nearest value at each pixel's centre, and reaches to its edge. Pixels without
    data also exclude their neighbours up to `GAP_REACH_PX`.
    """
    mask, size_hw = image.mask, placement.resized_hw
    if mask is not None and mask.shape != size_hw:
        size_wh, nearest = size_hw[::-1], cv2.INTER_NEAREST_EXACT
        mask = cv2.resize(mask.astype(np.uint8), size_wh, interpolation=nearest) > 0
    if image.valid is None:
        return mask
    with_data = away_from_gaps(image.valid, size_hw)
    return with_data if mask is None else mask & with_data
