"""Pictures of a scene with depth: textured boards at three distances, seen by known cameras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE_WH = 480, 360
FOCAL_PX = 1.2 * SIZE_WH[0]
"""What COLMAP assumes of photographs without EXIF."""

CAMERA = np.array([[FOCAL_PX, 0, 239.5], [0, FOCAL_PX, 179.5], [0, 0, 1]])
BOARDS = (((0.0, 0.0, 6.0), 4.6), ((-0.9, 0.3, 4.6), 1.7), ((0.8, -0.3, 5.2), 2.0))
"""Centre and width of each board, from back to front."""


def centres(count: int) -> NDArray[np.float64]:
    """N 3: positions of the cameras, at growing distances from one another."""
    x = 0.3 * np.arange(count) + 0.04 * np.arange(count) ** 2
    return np.stack([x - x.mean(), 0.08 * (np.arange(count) % 2), np.zeros(count)], axis=1)


def write_views(folder: Path, textures: list[Any], count: int) -> None:
    """Write the views 0.png, 1.png, ... that cameras at `centres` have of three BGR textures."""
    for number, centre in enumerate(centres(count)):
        angle = 0.06 * (number - count / 2)
        c, s = np.cos(angle), np.sin(angle)
        rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        view = np.zeros((*SIZE_WH[::-1], 3), np.uint8)
        for texture, (middle, width) in zip(textures, BOARDS, strict=True):
            height_px, width_px = texture.shape[:2]
            px = width / width_px
            corner = np.array(middle) - [width / 2, px * height_px / 2, 0]
            plane = np.array([[px, 0, 0], [0, px, 0], [0, 0, 0]])  # px of the texture -> space
            plane[:, 2] = corner - centre
            homography = CAMERA @ rotation @ plane
            shown = cv2.warpPerspective(
                np.full(texture.shape[:2], 255, np.uint8), homography, SIZE_WH
            )
            warped = cv2.warpPerspective(texture, homography, SIZE_WH)
            view[shown > 127] = warped[shown > 127]
        cv2.imwrite(str(folder / f"{number}.png"), view)
