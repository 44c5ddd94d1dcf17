"""Images and their matrices -> one picture: surface, exposure, seams and OpenCV's blender."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import RegistrationError
from tiepoint.geometry import Matrix, SizeHW
from tiepoint.images.gaps import filled

Surface = Literal["plane", "sphere"]
Picture = NDArray[np.uint8]
Array = NDArray[np.float64]

MAX_CANVAS_PX = 200_000_000
"""px; a panorama of more is made smaller."""

MAX_SIDE_PX = 32_000
"""Largest side, because OpenCV maps no larger pictures."""

_ROWS = 256
"""Rows that are mapped at a time: their directions are float64."""

MOST_STRETCH = 40.0
"""Largest canvas, in areas of all images: more is a picture of one plane that is seen edge-on."""

BANDS = 5
"""Levels of the multi-band blender, as in OpenCV's own program."""

_BORDER_POINTS = 64
"""Points along each side of an image by which its place on the canvas is found."""


@dataclass(frozen=True)
class Canvas:
    """Where a panorama is on its surface.

    Attributes:
        surface: "plane" (x, y of the common frame), or "sphere" (longitude, latitude).
        scale: px of the canvas for a unit of the surface.
        left, top: Place of the top-left pixel on the surface, canvas px.
        size_hw: px.
    """

    surface: Surface
    scale: float
    left: int
    top: int
    size_hw: SizeHW


def on_surface(vectors: Array, surface: Surface) -> Array:
    """N 2: places of N 3 vectors of the common frame; NaN behind the plane."""
    x, y, z = vectors.T
    if surface == "sphere":
        return np.stack([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(z[:, None] > 0, vectors[:, :2] / z[:, None], np.nan)


def vectors_at(u: Array, v: Array, surface: Surface) -> Array:
    """... 3: vectors of the common frame at places of the surface."""
    if surface == "plane":
        return np.stack([u, v, np.ones_like(u)], axis=-1)
    return np.stack([np.sin(u) * np.cos(v), np.sin(v), np.cos(u) * np.cos(v)], axis=-1)


def extent(matrix: Matrix, size_hw: SizeHW, surface: Surface) -> Array:
    """2 2: least and largest place on the surface of an image, from its border."""
    bottom, right = size_hw[0] - 0.5, size_hw[1] - 0.5
    along = np.linspace(0, 1, _BORDER_POINTS)
    x, y = -0.5 + along * (right + 0.5), -0.5 + along * (bottom + 0.5)
    low, high = np.full(_BORDER_POINTS, -0.5), np.ones(_BORDER_POINTS)
    sides = [(x, low), (x, high * bottom), (low, y), (high * right, y)]
    border = np.concatenate([np.stack([a, b, high], axis=1) for a, b in sides])
    places = on_surface(border @ matrix.T, surface)
    low_high = np.stack([places.min(axis=0), places.max(axis=0)])
    if surface == "sphere":
        for pole, row in ((-1, 0), (1, 1)):  # inside an image, whose border goes around it
            x, y, w = np.linalg.solve(matrix, np.array([0, pole, 0]))
            if w > 0 and -0.5 <= x / w <= right and -0.5 <= y / w <= bottom:
                low_high[row, 1] = pole * np.pi / 2
                low_high[:, 0] = -np.pi, np.pi
    return low_high


def canvas_of(
    matrices: Array, sizes_hw: Sequence[SizeHW], surface: Surface, scale: float
) -> Canvas:
    """The smallest canvas with all images.

    Raises:
        RegistrationError: The images do not fit on a plane.
    """
    extents = np.stack(
        [extent(matrix, size, surface) for matrix, size in zip(matrices, sizes_hw, strict=True)]
    )
    low, high = scale * extents[:, 0].min(axis=0), scale * extents[:, 1].max(axis=0)
    area = float(np.prod(high - low))
    if not area < MOST_STRETCH * sum(math.prod(size) for size in sizes_hw):
        raise RegistrationError(
            "the images do not fit on one plane, because some are seen nearly edge-on: choose "
            "surface 'sphere', or leave out the outer images"
        )
    shrink = min(1.0, math.sqrt(MAX_CANVAS_PX / area), MAX_SIDE_PX / float((high - low).max()))
    left, top = np.ceil(low * shrink).astype(int).tolist()
    right, bottom = np.floor(high * shrink).astype(int).tolist()
    return Canvas(surface, scale * shrink, left, top, (bottom - top + 1, right - left + 1))


def warped(
    picture: Picture, matrix: Matrix, canvas: Canvas, valid: NDArray[np.bool_] | None = None
) -> tuple[Picture, Picture, tuple[int, int]]:
    """An image on the canvas.

    Args:
        valid: H W, where the image has data; None = everywhere.

    Returns:
        Its pixels h w 3, its mask h w (255 where it has data), and its top-left corner (x, y) on
        the canvas.
    """
    size_hw = picture.shape[0], picture.shape[1]
    low, high = extent(matrix, size_hw, canvas.surface) * canvas.scale
    x0, y0 = np.ceil(low).astype(int).tolist()
    x1, y1 = np.floor(high).astype(int).tolist()
    xy = np.empty((y1 - y0 + 1, x1 - x0 + 1, 2), np.float32)
    inverse = np.linalg.inv(matrix)
    for first in range(0, len(xy), _ROWS):
        rows = np.arange(y0 + first, min(y0 + first + _ROWS, y1 + 1))
        u, v = np.meshgrid(np.arange(x0, x1 + 1), rows)
        vectors = vectors_at(u / canvas.scale, v / canvas.scale, canvas.surface)  # h w 3
        mapped = vectors @ inverse.T
        with np.errstate(divide="ignore", invalid="ignore"):
            place = np.where(mapped[..., 2:] > 0, mapped[..., :2] / mapped[..., 2:], -1e6)
        xy[first : first + _ROWS] = np.clip(place, -1e6, 1e6)
    inside = (xy >= -0.5).all(axis=2) & (xy <= np.array(size_hw[::-1]) - 0.5).all(axis=2)
    if valid is not None:
        picture = np.dstack([filled(band, valid) for band in np.moveaxis(picture, 2, 0)])
        inside &= _remapped(np.where(valid, 255, 0).astype(np.uint8), xy) == 255
    pixels = _remapped(picture, xy)
    corner = x0 - canvas.left, y0 - canvas.top
    return pixels, np.where(inside, 255, 0).astype(np.uint8), corner


def _remapped(picture: Picture, xy: NDArray[np.float32]) -> Picture:
    how = {"interpolation": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
    return np.asarray(cv2.remap(picture, xy[..., 0], xy[..., 1], **how), np.uint8)


def seams(
    masks: Sequence[Picture], corners: Sequence[tuple[int, int]], size_hw: SizeHW
) -> list[Picture]:
    """The masks without overlap: a pixel belongs to the image whose border is farthest from it.

    Seams are half-way between the borders, as those of OpenCV's Voronoi finder, which crashes on
    some images (5.0.0).

    Args:
        masks: h w each, 255 inside.
        corners: Their top-left corners (x, y) on the canvas.
        size_hw: Size of the canvas, px.
    """
    farthest = np.zeros(size_hw, np.float32)
    owner = np.full(size_hw, -1, np.int32)
    places = []
    for index, (mask, (x, y)) in enumerate(zip(masks, corners, strict=True)):
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]  # h w
        place = slice(y, y + mask.shape[0]), slice(x, x + mask.shape[1])
        is_mine = distance > farthest[place]
        farthest[place][is_mine] = distance[is_mine]
        owner[place][is_mine] = index
        places.append(place)
    return [
        np.where(owner[place] == index, 255, 0).astype(np.uint8)
        for index, place in enumerate(places)
    ]


def blended(
    pictures: Sequence[Picture],
    valid: Sequence[NDArray[np.bool_] | None],
    matrices: Array,
    canvas: Canvas,
) -> tuple[Picture, NDArray[np.bool_]]:
    """The panorama H W 3, and H W where it has pixels.

    Gains even out the exposure, and the multi-band blender hides the seams.

    Args:
        valid: H W of each image, where it has data; None = everywhere.
    """
    each = zip(pictures, matrices, valid, strict=True)
    parts = [warped(picture, matrix, canvas, data) for picture, matrix, data in each]
    corners = [corner for _, _, corner in parts]
    pixels, masks = [part[0] for part in parts], [part[1] for part in parts]
    detail: Any = cv2.detail  # OpenCV's type stubs lack some of its names
    exposure = detail.ExposureCompensator_createDefault(detail.EXPOSURE_COMPENSATOR_GAIN_BLOCKS)
    exposure.feed(corners, pixels, masks)
    even = [
        exposure.apply(index, corners[index], pixels[index].copy(), masks[index])
        for index in range(len(pixels))
    ]
    cut = seams(masks, corners, canvas.size_hw)
    blender = detail.MultiBandBlender()
    blender.setNumBands(BANDS)
    height, width = canvas.size_hw
    blender.prepare((0, 0, width, height))
    for one, mask, corner in zip(even, cut, corners, strict=True):
        blender.feed(one.astype(np.int16), mask, corner)
    picture, seen = blender.blend(None, None)
    return np.clip(picture, 0, 255).astype(np.uint8), np.asarray(seen) > 0
