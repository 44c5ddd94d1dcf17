"""Places of the windows that are matched: evenly over the common view, where there is detail."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import CELL_PX
from tiepoint.geometry import Matrix, SizeHW, apply_homography, corners_xy, inside
from tiepoint.registration.large.patches import Overview
from tiepoint.registration.large.transform import LargeTransform

Array = NDArray[np.float64]

SAMPLES = 64
"""Places per axis at which the common view is examined."""
CANDIDATES = 3
"""Places per axis among which the one with the most detail is taken, if there is room."""
FEW_CELLS, LEAST_FRAME_PX = 12, 128
"""Number of windows below which they are made smaller, and their least side, px of the frame."""
DETAIL_PX = 9
"""Side of the area of an overview over which detail is averaged, px."""


@dataclass(frozen=True)
class Level:
    """One step from coarse to fine.

    Attributes:
        px: Pixels of the image with less detail per pixel of the frames.
        frame_px: Side of the frames in which windows are compared.
        reach_px: Search radius in them.
        most_cells: Maximum number of windows.
    """

    px: float
    frame_px: int
    reach_px: float
    most_cells: int


@dataclass(frozen=True, eq=False)
class Frame:
    """A window in both images: a square in A, and its image in B by the local affine map.

    Attributes:
        centre_xy: Its centre in A, px.
        to_a, to_b: 3x3, px of the frame -> px of each image.
        size_hw: (height, width) of the frame, px.
    """

    centre_xy: tuple[float, float]
    to_a: Matrix
    to_b: Matrix
    size_hw: SizeHW


class Detail:
    """Mean gradient of an overview around a place; 0 without data."""

    def __init__(self, view: Overview) -> None:
        pixels = view.image.pixels.astype(np.float32)
        grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
        if view.image.valid is not None:
            grey = np.where(view.image.valid, grey, 0)
        gradient = cv2.magnitude(
            cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
        )
        if view.image.valid is not None:
            kernel = np.ones((3, 3), np.uint8)
            gradient[cv2.dilate((~view.image.valid).astype(np.uint8), kernel) > 0] = 0
        detail = cv2.blur(gradient, (DETAIL_PX, DETAIL_PX))
        self._detail = detail / max(float(detail.mean()), 1e-12)
        self._from_full = np.linalg.inv(view.to_full)

    def at(self, xy: Array) -> Array:
        """N, at places of the image, N 2 px."""
        places = np.nan_to_num(apply_homography(self._from_full, xy), nan=-1e9)
        height, width = self._detail.shape
        x, y = (
            np.clip(np.rint(v), 0, n - 1).astype(int)
            for v, n in zip(places.T, (width, height), strict=True)
        )
        return np.where(inside(places, (height, width)), self._detail[y, x], 0.0)


def common_samples(transform: LargeTransform, a_hw: SizeHW, b_hw: SizeHW) -> tuple[Array, float]:
    """Places of A inside B, N 2 px of an even grid, and the area of each in px^2 of A."""
    height, width = a_hw
    x, y = ((np.arange(SAMPLES) + 0.5) * side / SAMPLES - 0.5 for side in (width, height))
    xy = np.stack(np.meshgrid(x, y), axis=2).reshape(-1, 2)
    return xy[inside(transform.forward(xy), b_hw)], height * width / SAMPLES**2


def common_area(transform: LargeTransform, a_hw: SizeHW, b_hw: SizeHW) -> tuple[Array, Array]:
    """Two corners of the rectangle around A's part of the common view, px."""
    samples, _ = common_samples(transform, a_hw, b_hw)
    if len(samples) == 0:
        samples = corners_xy(a_hw)
    half = np.array([a_hw[1], a_hw[0]]) / SAMPLES / 2
    return samples.min(axis=0) - half, samples.max(axis=0) + half


def frames(
    transform: LargeTransform,
    a_hw: SizeHW,
    b_hw: SizeHW,
    level: Level,
    details: tuple[Detail, Detail],
) -> list[Frame]:
    """The windows of a level; none if the images do not overlap."""
    samples, area = common_samples(transform, a_hw, b_hw)
    if len(samples) == 0:
        return []
    zooms = np.abs(np.linalg.det(transform.slopes(samples))) ** 0.5
    px = level.px * max(1.0, 1 / float(np.median(zooms)))
    fitting = int(math.sqrt(area * len(samples) / FEW_CELLS) / px) // CELL_PX * CELL_PX
    level = replace(level, frame_px=min(level.frame_px, max(LEAST_FRAME_PX, fitting)))
    side = level.frame_px * px
    spacing = max(side, math.sqrt(area * len(samples) / level.most_cells))
    low, high = common_area(transform, a_hw, b_hw)
    while True:
        centres = _centres(low, high, spacing, side, (transform, a_hw, b_hw), details)
        if len(centres) <= level.most_cells:
            break
        spacing *= 1.03
    return [_frame(transform, centre, level) for centre in centres]


def _centres(
    low: Array,
    high: Array,
    spacing: float,
    side: float,
    views: tuple[LargeTransform, SizeHW, SizeHW],
    details: tuple[Detail, Detail],
) -> Array:
    """N 2: the best place in each square of a grid over the common view of A."""
    counts = np.maximum(1, np.round((high - low) / spacing)).astype(int)
    steps = (high - low) / counts
    x, y = (low[axis] + (np.arange(counts[axis]) + 0.5) * steps[axis] for axis in (0, 1))
    squares = np.stack(np.meshgrid(x, y), axis=2).reshape(-1, 1, 2)  # S 1 2
    room = np.maximum(steps - side, 0) / 2
    inner = _best(squares, room if room.max() > side / 8 else np.zeros(2), side, views, details)
    # Squares at the edge of the common view, whose centres are outside: as far inwards as needed.
    outer = np.isnan(inner).any(axis=1)
    inner[outer] = _best(squares[outer], steps * 0.45, side, views, details)
    return np.asarray(inner[~np.isnan(inner).any(axis=1)])


def _best(
    squares: Array,
    room: Array,
    side: float,
    views: tuple[LargeTransform, SizeHW, SizeHW],
    details: tuple[Detail, Detail],
) -> Array:
    """S 2: the place with the most detail around the centre of each square, S 1 2; NaN for none."""
    transform, a_hw, b_hw = views
    tries = np.linspace(-1, 1, CANDIDATES) if room.any() else np.zeros(1)
    offsets = np.stack(np.meshgrid(tries * room[0], tries * room[1]), axis=2).reshape(1, -1, 2)
    width, height = a_hw[::-1]
    margin = np.minimum(side / 2, np.array([width, height]) / 2)
    places = np.clip(squares + offsets, margin - 0.5, np.array([width, height]) - margin - 0.5)
    flat = places.reshape(-1, 2)
    mapped = transform.forward(flat)
    value = np.minimum(details[0].at(flat), details[1].at(mapped))
    value[~inside(mapped, b_hw)] = 0
    value = value.reshape(places.shape[:2])  # S C
    chosen = places[np.arange(len(places)), value.argmax(axis=1)]
    chosen[value.max(axis=1) <= 0] = np.nan
    return np.asarray(chosen)


def _frame(transform: LargeTransform, centre: Array, level: Level) -> Frame:
    slopes = transform.slopes(centre[None])[0]
    zoom = math.sqrt(abs(float(np.linalg.det(slopes))))
    px = level.px * max(1.0, 1 / zoom)
    half = (level.frame_px - 1) / 2
    first = centre - px * half
    if px == 1:
        first = np.rint(first)  # the pixels of A as they are
    to_a = np.array([[px, 0, first[0]], [0, px, first[1]], [0, 0, 1.0]])
    middle = first + px * half
    to_b = np.eye(3)
    to_b[:2, :2] = slopes * px
    to_b[:2, 2] = transform.forward(middle[None])[0] - slopes @ (px * np.array([half, half]))
    size = level.frame_px
    return Frame((float(middle[0]), float(middle[1])), to_a, to_b, (size, size))
