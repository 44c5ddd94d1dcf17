"""Images at evaluation size, and the matrix that carries points along."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.config import ProcessorConfig
from tiepoint.evaluation.settings import FrameSize
from tiepoint.geometry import SizeHW, resize_matrix
from tiepoint.network.inputs import as_grey

Grey = NDArray[np.uint8]
"""`H W`."""


@dataclass(frozen=True, eq=False)
class LoadedImages:
    """Two images at evaluation size; each task adds its ground truth."""

    image_a: Grey
    image_b: Grey
    names: tuple[str, str] = field(default=("", ""), kw_only=True)
    """Names of the images in a features file; empty for generated images."""


def in_frame(pixels: NDArray[Any], frame: FrameSize) -> tuple[Grey, NDArray[np.float64]]:
    """An image at the size of a frame, grey and resampled once.

    Args:
        pixels: `H W` or `H W 3` RGB, as from `images.read`.

    Returns:
        `H W` uint8, and the 3x3 matrix from px of `pixels` to px of it.
    """
    from_hw = size_hw_of(pixels)
    if frame.long_side is not None:
        image = grey_uint8(pixels, frame.long_side)
        return image, resize_matrix(from_hw, size_hw_of(image))
    if frame.crop_hw is None:
        assert frame.short_side is not None
        scale = frame.short_side / min(from_hw)
        crop_hw = to_hw = round(from_hw[0] * scale), round(from_hw[1] * scale)
    else:
        crop_hw = frame.crop_hw
        scale = max(crop_hw[0] / from_hw[0], crop_hw[1] / from_hw[1])
        height, width = (round(side * scale) for side in from_hw)
        to_hw = max(height, crop_hw[0]), max(width, crop_hw[1])
    grey = as_grey(pixels, ProcessorConfig(max_side=None)).grey
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(grey, to_hw[::-1], interpolation=interpolation)
    top, left = (to_hw[0] - crop_hw[0]) // 2, (to_hw[1] - crop_hw[1]) // 2
    crop = resized[top : top + crop_hw[0], left : left + crop_hw[1]]
    shift = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]])
    return to_uint8(crop), shift @ resize_matrix(from_hw, to_hw)


def grey_uint8(pixels: NDArray[Any], long_side: int | None) -> Grey:
    """`H W` uint8; a longer side above `long_side` px is downscaled to it."""
    grey = as_grey(pixels, ProcessorConfig(max_side=long_side)).grey
    return np.rint(grey * 255).astype(np.uint8)  # H W


def to_uint8(values: NDArray[Any]) -> Grey:
    """Levels 0..255 of values in 0..1; values outside are clipped."""
    levels: Grey = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return levels


def size_hw_of(pixels: NDArray[Any]) -> SizeHW:
    return pixels.shape[0], pixels.shape[1]
