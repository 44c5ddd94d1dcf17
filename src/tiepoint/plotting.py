"""Pictures of results, drawn with OpenCV so that no plotting library is needed."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Features
from tiepoint.files import write_bytes
from tiepoint.image import read

SUBPIXEL_BITS = 4
"""OpenCV draws at 1/16 px: a marker sits where the keypoint is, not on the next whole pixel."""


def plot(
    features: Features, image: Any, path: str | PathLike[str] | None = None
) -> NDArray[np.uint8]:
    """Draw keypoints over their image: the better the score, the more yellow the ring.

    Args:
        features: Of this image.
        image: Whatever the detector reads.
        path: Where to write the picture as PNG; None only returns it.

    Returns:
        H W 3 uint8, RGB. Images whose longer side is under 480 px are enlarged by a whole
        number, so that the rings leave the picture visible.

    Raises:
        ConfigError: The image has another size than the features say.
        FormatError: The path does not end in .png, or cannot be written.
        ImageError: The image cannot be read.
    """
    if path is not None and Path(path).suffix.lower() != ".png":
        raise FormatError(f"{path}: overlays are written as PNG; let the name end in .png")
    pixels = read(image).pixels
    if pixels.shape[:2] != features.size_hw:
        raise ConfigError(
            f"the image is {pixels.shape[1]}x{pixels.shape[0]} px, the features are of one of "
            f"{features.size_hw[1]}x{features.size_hw[0]} px: pass the image they were found in"
        )
    height, width = features.size_hw
    zoom = max(1, min(8, 480 // max(height, width)))
    canvas = as_rgb8(pixels)
    canvas = canvas.repeat(zoom, axis=0).repeat(zoom, axis=1)
    radius = max(3.0, 0.004 * zoom * max(height, width))
    thickness = max(1, round(radius / 3))
    ranks = np.linspace(0, 1, max(1, len(features)))[::-1]  # best first
    levels = (ranks * 255).astype(np.uint8)[:, None]  # N 1
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_PLASMA)[: len(features), 0, ::-1]  # N 3
    centres = (features.xy + 0.5) * zoom - 0.5  # N 2
    fixed = np.round(centres * 2**SUBPIXEL_BITS).astype(int)
    for centre, colour in zip(fixed[::-1], colours[::-1], strict=True):
        _ring(canvas, centre, radius, colour.tolist(), thickness)
    if path is not None:
        encoded = cv2.imencode(".png", canvas[:, :, ::-1])[1]
        write_bytes(path, encoded.tobytes())
    return canvas


def _ring(
    canvas: NDArray[np.uint8],
    centre: NDArray[np.int_],
    radius: float,
    colour: list[int],
    thickness: int,
) -> None:
    scaled = round(radius * 2**SUBPIXEL_BITS)
    point = (int(centre[0]), int(centre[1]))
    cv2.circle(canvas, point, scaled, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def as_rgb8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """What `image.read` gives, of any type, as a copy in 8-bit RGB for the eye."""
    if pixels.dtype == np.uint8:
        scaled = pixels
    else:
        top = 65535.0 if pixels.dtype == np.uint16 else 1.0
        scaled = np.round(pixels * (255.0 / top)).astype(np.uint8)
    return scaled.copy() if scaled.ndim == 3 else np.stack([scaled] * 3, axis=2)
