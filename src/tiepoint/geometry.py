"""THE pixel convention: integer coordinates are pixel centres, x right, y down.

(0, 0) is the centre of the top-left pixel, so an image of width W spans x from -0.5 to W - 0.5.
Resizing by s maps x to (x + 0.5) s - 0.5. Cell (i, j) is centred at (8 j + 3.5, 8 i + 3.5).
Other conventions exist only in the readers and writers of the formats that use them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiepoint.architecture import CELL_PX
from tiepoint.errors import ConfigError

Float = NDArray[np.floating[Any]]
Matrix = NDArray[np.float64]
"""3x3."""
SizeHW = tuple[int, int]


def resize_xy(xy: Float, from_hw: SizeHW, to_hw: SizeHW) -> Float:
    """Move points along when an image is resized.

    Args:
        xy: N 2, px of an image of size `from_hw`.
        from_hw, to_hw: (height, width) in px.

    Returns:
        N 2 of xy's type, px of the image of size `to_hw`.
    """
    if from_hw == to_hw:
        return xy.copy()
    scale = np.array([to_hw[1] / from_hw[1], to_hw[0] / from_hw[0]], dtype=np.float64)  # 2 (x, y)
    moved: Float = ((xy.astype(np.float64) + 0.5) * scale - 0.5).astype(xy.dtype)  # N 2
    return moved


def resize_covariance(covariance: Float, from_hw: SizeHW, to_hw: SizeHW) -> Float:
    """N 2 2 (x, y), px^2, of points that `resize_xy` moves along."""
    if from_hw == to_hw:
        return covariance.copy()
    scale = np.array([to_hw[1] / from_hw[1], to_hw[0] / from_hw[0]])  # 2 (x, y)
    moved: Float = (covariance * np.outer(scale, scale)).astype(covariance.dtype)  # N 2 2
    return moved


def resize_matrix(from_hw: SizeHW, to_hw: SizeHW) -> NDArray[np.float64]:
    """`resize_xy` as a 3x3 matrix on homogeneous (x, y, 1)."""
    sx, sy = to_hw[1] / from_hw[1], to_hw[0] / from_hw[0]
    return np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]])


def apply_homography(homography: ArrayLike, xy: ArrayLike) -> NDArray[np.float64]:
    """Map points by x' ~ H x.

    Args:
        homography: 3x3.
        xy: N 2, px.

    Returns:
        N 2 float64; points that map to or behind infinity are NaN.
    """
    points = np.asarray(xy, dtype=np.float64).reshape(-1, 2)  # N 2
    matrix = np.asarray(homography, dtype=np.float64)  # 3 3
    mapped = points @ matrix[:, :2].T + matrix[:, 2]  # N 3
    w = mapped[:, 2:]  # N 1
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        result: NDArray[np.float64] = np.where(w > 0, mapped[:, :2] / w, np.nan)  # N 2
    return result


def corners_xy(size_hw: SizeHW) -> NDArray[np.float64]:
    """4 2: the centres of the four corner pixels."""
    right, bottom = size_hw[1] - 1, size_hw[0] - 1
    return np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], dtype=np.float64)


def inside(xy: Float, size_hw: SizeHW) -> NDArray[np.bool_]:
    """N bool: whether N 2 points are on the image, the outer edges of its pixels included."""
    height, width = size_hw
    x, y = xy[:, 0], xy[:, 1]
    on_image: NDArray[np.bool_] = (
        (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    )
    return on_image


def fit_inside(size_hw: SizeHW, max_side: int | None) -> SizeHW:
    """The size after the longer side is reduced to `max_side`; never larger, no side below 1.

    Args:
        size_hw: (height, width) in px.
        max_side: px, or None to keep the size.
    """
    if max_side is None or max(size_hw) <= max_side:
        return size_hw
    return with_longer_side(size_hw, max_side)


def with_longer_side(size_hw: SizeHW, longer_px: int) -> SizeHW:
    """The size of the same aspect ratio with a given longer side; no side below 1."""
    longer = max(size_hw)
    height, width = (max(1, round(side * longer_px / longer)) for side in size_hw)
    return height, width


def whole_cells(size_hw: SizeHW) -> SizeHW:
    """The size rounded up to whole cells of 8x8 px."""
    height, width = (-(-side // CELL_PX) * CELL_PX for side in size_hw)
    return height, width


def grid_hw(size_hw: SizeHW, shift: tuple[int, int] = (0, 0)) -> SizeHW:
    """(h, w) of the grid of cells on an area of whole cells; see `architecture.PHASES`."""
    h, w = (side // CELL_PX + (moved > 0) for side, moved in zip(size_hw, shift, strict=True))
    return h, w


@dataclass(frozen=True)
class Placement:
    """The area of an image in the network's input, and the mapping back.

    The image, resized to `resized_hw`, is in the top-left corner of an area of `padded_hw`: whole
    cells, whose last rows and columns (up to 7) repeat the image's edge. Beyond it there is only
    padding for larger images of the same batch.

    Attributes:
        image_hw: (height, width) of the original image, px.
        resized_hw: (height, width) in the input, px.
    """

    image_hw: SizeHW
    resized_hw: SizeHW

    def __post_init__(self) -> None:
        for name, size in (("image_hw", self.image_hw), ("resized_hw", self.resized_hw)):
            if len(size) != 2 or min(size) < 1:
                raise ConfigError(f"{name} is {size}, expected (height, width) of at least 1 px")

    @property
    def padded_hw(self) -> SizeHW:
        """`resized_hw` rounded up to whole cells."""
        return whole_cells(self.resized_hw)

    @property
    def px_per_input_px(self) -> float:
        """Pixels of the original image per pixel of the input, along the longer side."""
        return max(self.image_hw) / max(self.resized_hw)

    def cells_hw(self, shift: tuple[int, int] = (0, 0)) -> SizeHW:
        """(h, w) of the image's own cells on a grid; see `architecture.PHASES`."""
        return grid_hw(self.padded_hw, shift)

    def to_image(self, xy: Float) -> Float:
        """N 2 in px of the input -> N 2 in px of the original image."""
        return resize_xy(xy, self.resized_hw, self.image_hw)

    def covariance_to_image(self, covariance: Float) -> Float:
        """N 2 2 in px^2 of the input -> N 2 2 in px^2 of the original image."""
        return resize_covariance(covariance, self.resized_hw, self.image_hw)


def stored_matrix(upright_hw: SizeHW, exif_orientation: int) -> NDArray[np.float64]:
    """Upright image -> the image as its file stores it: 3x3 on homogeneous (x, y, 1).

    Args:
        upright_hw: (height, width) of the upright image, px.
        exif_orientation: EXIF orientation of the file, 1 to 8; others count as 1.
    """
    bottom, right = upright_hw[0] - 1, upright_hw[1] - 1
    flip_x, flip_y = [-1, 0, right], [0, -1, bottom]
    keep_x, keep_y = [1, 0, 0], [0, 1, 0]
    rows = {
        2: (flip_x, keep_y),
        3: (flip_x, flip_y),
        4: (keep_x, flip_y),
        5: (keep_y, keep_x),
        6: (keep_y, flip_x),
        7: (flip_y, flip_x),
        8: (flip_y, keep_x),
    }.get(exif_orientation, (keep_x, keep_y))
    return np.array([*rows, [0, 0, 1]], np.float64)
