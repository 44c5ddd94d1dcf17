"""Image statistics, to compare generated images with photographs.

Sources: the falling spectrum of natural images, Field (1987); heavy tails of their gradients,
Huang and Mumford, "Statistics of natural images and models" (1999).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import CELL_PX
from tiepoint.errors import ImageError
from tiepoint.geometry import SizeHW
from tiepoint.images.photographs import Part
from tiepoint.training.scenes.basics import Grey, Values
from tiepoint.training.scenes.labels import SQUARE, corner_strength, ring_contrast
from tiepoint.training.scenes.pairs import TrainingPair, TrainingView
from tiepoint.training.scenes.photographs import photo_files, read_grey

logger = logging.getLogger(__name__)

EMPTY_SPREAD = 0.015  # standard deviation of a cell's smoothed greys; a cell below it is empty
PEAK = 1e-3  # least smaller eigenvalue of a visible corner; see `labels.corner_strength`
SPECTRUM = (0.03, 0.35)  # range of the fitted slope, cycles per px
QUANTILES = (0.1, 0.5, 0.9)
PHOTO_SCALE = 5 / 6  # removes the 8x8 grid of a photograph's JPEG


@dataclass(frozen=True)
class ImageStatistics:
    """Statistics of one image."""

    slope: float  # exponent a of a 1/f^a amplitude spectrum
    kurtosis: float  # of the differences between neighbouring px; 3 if they are Gaussian
    empty: float  # share of the 8x8 cells that are empty, 0..1
    peaks: float  # corner-like points per 100 cells
    contrast: float  # median grey range on rings of 2 and 4 px around them, 0..1; NaN without any
    spread: float  # standard deviation of the greys, 0..1


def image_statistics(image: Grey) -> ImageStatistics:
    """Measure one image of at least 32 px each way."""
    values = image.astype(np.float32) * np.float32(1 / 255)
    cells = cell_spread(values)
    strength, is_corner = corner_strength(values)
    peaks = is_corner & (strength > PEAK) & (strength >= cv2.dilate(strength, SQUARE))
    rows, columns = np.nonzero(peaks)
    contrast = ring_contrast(values, np.stack([columns, rows], axis=1).astype(np.float64))
    return ImageStatistics(
        slope=spectrum_slope(values),
        kurtosis=_kurtosis(values),
        empty=float((cells < EMPTY_SPREAD).mean()),
        peaks=100 * len(rows) / cells.size,
        contrast=float(np.median(contrast)) if len(rows) else float("nan"),
        spread=float(values.std()),
    )


def spectrum_slope(values: Values) -> float:
    """Exponent a of a 1/f^a amplitude spectrum, fitted to means over rings; NaN if it is empty."""
    height, width = values.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    amplitude = np.abs(np.fft.rfft2((values - values.mean()) * window))
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    rings = np.geomspace(*SPECTRUM, 12)
    ring = np.digitize(radius.ravel(), rings)
    sums = np.bincount(ring, amplitude.ravel(), minlength=13)[1:12]
    counts = np.bincount(ring, minlength=13)[1:12]
    kept = (counts > 0) & (sums > 1e-9)
    if kept.sum() < 3:
        return float("nan")
    middle = np.sqrt(rings[:-1] * rings[1:])
    line = np.polyfit(np.log(middle[kept]), np.log(sums[kept] / counts[kept]), 1)
    return -float(line[0])


def cell_spread(values: Values) -> Values:
    """`h w`: standard deviation of the smoothed greys of each 8x8 cell."""
    cells = _cells(np.asarray(cv2.blur(values, (3, 3))))
    return np.asarray(cells.std(axis=(1, 3)), np.float32)


def in_cell_histogram(views: Iterable[TrainingView]) -> NDArray[np.int64]:
    """8 8: number of corners at each px of a cell (row, column)."""
    counts = np.zeros((CELL_PX, CELL_PX), np.int64)
    for view in views:
        columns, rows = (np.rint(view.corners_xy).astype(np.int64) % CELL_PX).T
        np.add.at(counts, (rows, columns), 1)
    return counts


def summary(images: Iterable[Grey]) -> dict[str, Any]:
    """The number of "images", and 10, 50 and 90 % quantiles of each field of `ImageStatistics`."""
    measured = [asdict(image_statistics(image)) for image in images]
    result: dict[str, Any] = {"images": len(measured)}
    for name in measured[0] if measured else ():
        values = [each[name] for each in measured if np.isfinite(each[name])]
        result[name] = _quantiles(values) if values else None
    return result


def pair_summary(pairs: Sequence[TrainingPair]) -> dict[str, Any]:
    """Quantiles of the labels, the ignored cells and the common view of at least one pair."""
    views = [view for pair in pairs for view in (pair.a, pair.b)]
    cells = views[0].image.size / CELL_PX**2
    histogram = in_cell_histogram(views)
    common = [
        max(np.isfinite(pair.a_to_b[..., 0]).mean(), np.isfinite(pair.b_to_a[..., 0]).mean())
        for pair in pairs
    ]
    return {
        "pairs": len(pairs),
        "corners_per_100_cells": _quantiles([100 * len(v.corners_xy) / cells for v in views]),
        "ignored_cells": _quantiles([_cells(v.ignore).any(axis=(1, 3)).mean() for v in views]),
        "common_view": _quantiles(common),
        "in_cell_of_flat": [
            round(float(extreme) * histogram.size / max(int(histogram.sum()), 1), 3)
            for extreme in (histogram.min(), histogram.max())
        ],
    }


def photographs_at(folders: tuple[str, ...], part: Part, size_hw: SizeHW, count: int) -> list[Grey]:
    """Middles of photographs downscaled to 5/6, at even steps of the sorted list.

    Photographs that cannot be read, or are then smaller than `size_hw`, are left out.
    """
    files = photo_files(folders, part)
    pieces = []
    for path in files[:: max(1, len(files) // count)][:count]:
        try:
            grey = read_grey(path)
        except ImageError as error:
            logger.warning("left out: %s", error)
            continue
        height, width = (round(side * PHOTO_SCALE) for side in grey.shape)
        top, left = (height - size_hw[0]) // 2, (width - size_hw[1]) // 2
        if top < 0 or left < 0:
            continue
        small = np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA))
        pieces.append(small[top : top + size_hw[0], left : left + size_hw[1]].astype(np.uint8))
    return pieces


def _kurtosis(values: Values) -> float:
    steps = np.concatenate([np.diff(values, axis=0).ravel(), np.diff(values, axis=1).ravel()])
    steps = steps.astype(np.float64) - steps.mean()
    variance = float((steps**2).mean())
    return float((steps**4).mean()) / variance**2 if variance > 1e-12 else float("nan")


def _cells(image: NDArray[Any]) -> NDArray[Any]:
    """`h 8 w 8`: the px of the whole 8x8 cells of an image."""
    rows, columns = (side // CELL_PX for side in image.shape)
    whole = image[: rows * CELL_PX, : columns * CELL_PX]
    return whole.reshape(rows, CELL_PX, columns, CELL_PX)


def _quantiles(values: Sequence[float]) -> list[float]:
    quantiles: list[float] = np.quantile(values, QUANTILES).round(4).tolist()
    return quantiles
