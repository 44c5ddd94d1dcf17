"""What images look like in numbers, so that generated ones can be held against photographs.

Sources: the falling spectrum of natural images, Field (1987); heavy tails of their gradients,
Huang and Mumford, "Statistics of natural images and models" (1999).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import CELL_PX
from tiepoint.geometry import SizeHW
from tiepoint.images.photographs import Part
from tiepoint.training.scenes.labels import SQUARE, ring_contrast, structure_of
from tiepoint.training.scenes.pairs import TrainingPair, TrainingView
from tiepoint.training.scenes.photographs import photo_files, read_grey

EMPTY_SPREAD = 0.015
"""A cell whose smoothed greys (0..1) deviate by less shows nothing."""
PEAK = 1e-3
"""Smaller eigenvalue of a point that the eye takes for a corner; see `labels.structure_of`."""
SPECTRUM = (0.03, 0.35)  # cycles per px between which the slope is fitted
QUANTILES = (0.1, 0.5, 0.9)
PHOTO_SCALE = 5 / 6  # takes a photograph off the 8x8 grid of its JPEG


@dataclass(frozen=True)
class ImageStatistics:
    """Of one image.

    Attributes:
        slope: Amplitude falls with frequency to this power (positive).
        kurtosis: Of differences between neighbouring px; 3 for Gaussian ones.
        empty: Share of the 8x8 cells that show nothing.
        peaks: Corner-like points per 100 cells.
        contrast: Their median range of grey on rings of 2 and 4 px, 0..1.
        spread: Standard deviation of the greys, 0..1.
    """

    slope: float
    kurtosis: float
    empty: float
    peaks: float
    contrast: float
    spread: float


def image_statistics(image: NDArray[np.uint8]) -> ImageStatistics:
    """Measure one image.

    Args:
        image: `H W` uint8, at least 32 px each way.
    """
    values = image.astype(np.float32) * np.float32(1 / 255)
    cells = cell_spread(values)
    eigen, cornered = structure_of(values)
    highest = cornered & (eigen > PEAK) & (eigen >= cv2.dilate(eigen, SQUARE))
    rows, columns = np.nonzero(highest)
    contrast = ring_contrast(values, np.stack([columns, rows], axis=1).astype(np.float64))
    return ImageStatistics(
        slope=spectrum_slope(values),
        kurtosis=_kurtosis(values),
        empty=float((cells < EMPTY_SPREAD).mean()),
        peaks=100 * len(rows) / cells.size,
        contrast=float(np.median(contrast)) if len(rows) else float("nan"),
        spread=float(values.std()),
    )


def spectrum_slope(values: NDArray[np.float32]) -> float:
    """How fast the amplitude spectrum falls: a of 1/f^a, fitted to means over rings."""
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
    fitted = np.polyfit(np.log(middle[kept]), np.log(sums[kept] / counts[kept]), 1)
    return -float(fitted[0])


def cell_spread(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """`h w`: standard deviation of the smoothed greys of each 8x8 cell."""
    height, width = (side // CELL_PX * CELL_PX for side in values.shape)
    smooth = np.asarray(cv2.blur(values, (3, 3)))[:height, :width]
    cells = smooth.reshape(height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX)
    return np.asarray(cells.std(axis=(1, 3)), np.float32)


def in_cell_histogram(views: Iterable[TrainingView]) -> NDArray[np.int64]:
    """How many corners lie at each of the 64 places of a cell: 8 8, rows first."""
    counts = np.zeros((CELL_PX, CELL_PX), np.int64)
    for view in views:
        places = np.rint(view.corners_xy).astype(np.int64) % CELL_PX  # N 2 (x, y)
        np.add.at(counts, (places[:, 1], places[:, 0]), 1)
    return counts


def summary(images: Iterable[NDArray[np.uint8]]) -> dict[str, Any]:
    """Quantiles of each statistic over some images.

    Returns:
        "images": how many; each field of `ImageStatistics`: its 10, 50 and 90 % quantiles.
    """
    measured = [asdict(image_statistics(image)) for image in images]
    result: dict[str, Any] = {"images": len(measured)}
    for name in measured[0] if measured else ():
        values = [one[name] for one in measured if np.isfinite(one[name])]
        result[name] = np.quantile(values, QUANTILES).round(4).tolist() if values else None
    return result


def pair_summary(pairs: Sequence[TrainingPair]) -> dict[str, Any]:
    """What only generated pairs can tell: labels, what is ignored, common view."""
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
        "ignored_cells": _quantiles([_ignored_cells(view) for view in views]),
        "common_view": _quantiles(common),
        "in_cell_of_flat": [
            round(float(extreme) * histogram.size / max(int(histogram.sum()), 1), 3)
            for extreme in (histogram.min(), histogram.max())
        ],
    }


def photographs_at(
    folders: tuple[str, ...], part: Part, size_hw: SizeHW, count: int
) -> list[NDArray[np.uint8]]:
    """Middles of photographs, brought down to 5/6, evenly picked from a sorted list.

    Photographs smaller than `size_hw` are left out.
    """
    files = photo_files(folders, part)
    pieces = []
    for path in files[:: max(1, len(files) // count)][:count]:
        grey = read_grey(Path(path))
        height, width = (round(side * PHOTO_SCALE) for side in grey.shape)
        top, left = (height - size_hw[0]) // 2, (width - size_hw[1]) // 2
        if top < 0 or left < 0:
            continue
        small = np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA))
        pieces.append(small[top : top + size_hw[0], left : left + size_hw[1]].astype(np.uint8))
    return pieces


def _kurtosis(values: NDArray[np.float32]) -> float:
    steps = np.concatenate([np.diff(values, axis=0).ravel(), np.diff(values, axis=1).ravel()])
    steps = steps.astype(np.float64) - steps.mean()
    variance = float((steps**2).mean())
    return float((steps**4).mean()) / variance**2 if variance > 1e-12 else float("nan")


def _ignored_cells(view: TrainingView) -> float:
    height, width = view.ignore.shape
    cells = view.ignore.reshape(height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX)
    return float(cells.any(axis=(1, 3)).mean())


def _quantiles(values: Sequence[float]) -> list[float]:
    found: list[float] = np.quantile(values, QUANTILES).round(4).tolist()
    return found
