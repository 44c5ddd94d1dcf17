"""Small scenes, sheets and slow twins for the tests of the scene generator."""

from __future__ import annotations

import numpy as np

from tiepoint.training.scenes.canvas import Sheet, sheet_without_corners
from tiepoint.training.scenes.pairs import TrainingPair
from tiepoint.training.scenes.render import Plane
from tiepoint.training.scenes.settings import DataConfig, Photometry

SIZE = (96, 128)
CALM = Photometry(
    gamma=1, contrast=(1, 1), bias=0, shading=0, shadow=0, vignette=0, blur_px=0, motion=0,
    rescale=0, patches=0, noise=0, pepper=0, jpeg=0,
)  # fmt: skip


def of_kind(kind: str, **changes) -> DataConfig:
    """Settings for pairs of one kind without photometry."""
    settings = {"size_hw": SIZE, "mix": ((kind, 1.0),), "photometry": CALM, "bank": 6, "reuse": 4}
    return DataConfig(**(settings | changes))


def grey_sheet(size_hw: tuple[int, int], grey: int = 128) -> Sheet:
    return sheet_without_corners(np.full(size_hw, grey, np.uint8))


def plane_of(sheet: Sheet, body: int = 0) -> Plane:
    return Plane(sheet, sheet.outline, np.zeros(4, bool), body)


def same_pair(one: TrainingPair, other: TrainingPair) -> bool:
    """Whether all arrays of two pairs have the same bits."""
    return (
        np.array_equal(one.a_to_b, other.a_to_b, equal_nan=True)
        and np.array_equal(one.b_to_a, other.b_to_a, equal_nan=True)
        and one.kind == other.kind
        and all(
            np.array_equal(a.image, b.image)
            and np.array_equal(a.ignore, b.ignore)
            and np.array_equal(a.corners_xy, b.corners_xy)
            for a, b in ((one.a, other.a), (one.b, other.b))
        )
    )


def sampled(field: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Bilinear, NaN beside NaN. OpenCV's own counts in 1/32 px, which is too coarse here."""
    height, width = field.shape[:2]
    x, y = xy[..., 0], xy[..., 1]
    known = np.isfinite(x) & (x >= 0) & (y >= 0) & (x < width - 1) & (y < height - 1)
    left, top = (np.where(known, np.floor(axis), 0).astype(int) for axis in (x, y))
    u, v = (np.where(known, axis - low, np.nan)[..., None] for axis, low in ((x, left), (y, top)))
    above = (1 - u) * field[top, left] + u * field[top, left + 1]
    below = (1 - u) * field[top + 1, left] + u * field[top + 1, left + 1]
    return (1 - v) * above + v * below


def slow_coverage(rings: list[np.ndarray], size_hw: tuple[int, int], fine: int = 32) -> np.ndarray:
    """`H W` in 0..1: the share of each px inside an odd number of rings, on a fine grid."""
    height, width = size_hw
    x = (np.arange(width * fine) + 0.5) / fine - 0.5
    y = (np.arange(height * fine) + 0.5) / fine - 0.5
    inside = np.zeros((len(y), len(x)), bool)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            rows = (y >= min(y0, y1)) & (y < max(y0, y1))
            crossing = x0 + (y[rows] - y0) * (x1 - x0) / ((y1 - y0) or 1)
            inside[rows] ^= x[None] > crossing[:, None]
    return inside.reshape(height, fine, width, fine).mean(axis=(1, 3))
