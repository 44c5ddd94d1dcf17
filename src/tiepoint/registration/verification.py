"""Whether a model of two images is to be believed, and how well it is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import Float, SizeHW, apply_homography, corners_xy, inside
from tiepoint.registration import planar

GRID = 10
"""Cells along each side of an image, for `coverage` and the common view."""

LARGEST_SCALE = 30.0
"""A model that enlarges or reduces more than this, anywhere in the common view, is none: keypoints
are not found again over more than about 3x (measured on zooms)."""

DEGENERATE_SHARE = 0.8
"""Of the inliers of a two-view model: explained by a plane, or a turn of the camera, alone, they
leave the model open (COLMAP, Schoenberger and Frahm 2016, section 4.1)."""

SOLUTIONS = {"fundamental": 3, "essential": 10}
"""Models that a smallest sample can give; one for the others."""


@dataclass(frozen=True, eq=False)
class CommonView:
    """What both images show under a plane model.

    Attributes:
        places_xy: P 2, px of A: centres of the cells that lie in the other image.
        coverage: Share of these cells that hold inliers, 0..1.
    """

    places_xy: NDArray[np.float64]
    coverage: float


def common_view(
    matrix: planar.Matrix, xy_a: Float, xy_b: Float, a_hw: SizeHW, b_hw: SizeHW
) -> CommonView:
    """The common view, on a grid over that image of which more lies in the other.

    Args:
        matrix: 3x3, x_B ~ H x_A, facing the inliers.
        xy_a, xy_b: The inliers, M 2, px.
    """
    grid_a, grid_b = _grid(a_hw), _grid(b_hw)  # GRID*GRID 2
    back = apply_homography(np.linalg.inv(matrix), grid_b)
    shown_a = inside(apply_homography(matrix, grid_a), b_hw)  # GRID*GRID
    shown_b = inside(back, a_hw)
    if shown_a.sum() >= shown_b.sum():
        places, shown, held = grid_a[shown_a], shown_a, _held(xy_a, a_hw)
    else:
        places, shown, held = back[shown_b], shown_b, _held(xy_b, b_hw)
    return CommonView(places, float(held[shown].mean()) if shown.any() else 0.0)


def coverage_of(xy: Float, size_hw: SizeHW) -> float:
    """Share of the cells of a whole image that hold points, 0..1."""
    return float(_held(xy, size_hw).mean())


def log10_chance(
    matches: int, inliers: int, points_needed: int, share: float, solutions: int = 1
) -> float:
    """How many such models chance would bring about, were all matches wrong: log10.

    A contrario: Moisan and Stival, IJCV 2004, section 3. Below 0 chance would hardly do it.

    Args:
        share: Chance that a wrong match fits a given model: the area in which it would, over the
            area of the image, 0..1.
        solutions: Models that a smallest sample can give.
    """
    if inliers <= points_needed:
        return math.inf
    tests = solutions * (matches - points_needed)
    chosen = _log_choose(matches, inliers) + _log_choose(inliers, points_needed)
    alone = (inliers - points_needed) * math.log(min(1.0, share))
    return (math.log(tests) + chosen + alone) / math.log(10)


def distinct_places(xy: Float, cell_px: float) -> int:
    """How many cells hold points: neighbours are matched alike, right or wrong, and count once.

    Args:
        xy: N 2, px.
    """
    cells = np.floor(np.asarray(xy, np.float64) / cell_px)  # N 2
    return len(np.unique(cells[np.isfinite(cells).all(axis=1)], axis=0))


def plane_objection(
    matrix: planar.Matrix, common: CommonView, a_hw: SizeHW, scale_b_to_a: float
) -> str:
    """Why a plane model cannot be that of two photographs of one thing; "" if it can.

    Args:
        matrix: 3x3, facing the inliers.
        scale_b_to_a: px of A, as the detector saw it, to those of B: scale is judged by what the
            detector saw.
    """
    if np.linalg.det(matrix) < 0:
        return "one image would be the mirror image of the other; flip one of them"
    if not np.isfinite(apply_homography(matrix, corners_xy(a_hw))).all():
        return "the horizon of the matched plane would run through image A"
    if len(common.places_xy) == 0:
        return "the two images would have no common view"
    scales = _local_scales(matrix, common.places_xy) * scale_b_to_a
    least, most = float(scales.min()), float(scales.max())
    if least < 1 / LARGEST_SCALE or most > LARGEST_SCALE:
        extreme = most if most > LARGEST_SCALE else least
        return f"image A would be scaled by {extreme:.2g} in places, which cannot be matched"
    return ""


def _local_scales(matrix: planar.Matrix, xy: Float) -> NDArray[np.float64]:
    """N: how many px of B, in length, a px of A becomes."""
    w = xy @ matrix[2, :2] + matrix[2, 2]  # N
    scales: NDArray[np.float64] = np.sqrt(np.abs(np.linalg.det(matrix)) / np.abs(w) ** 3)
    return scales


def _grid(size_hw: SizeHW) -> NDArray[np.float64]:
    """GRID*GRID 2: centres of the cells, px."""
    steps = (np.arange(GRID) + 0.5) / GRID
    x, y = np.meshgrid(steps * size_hw[1] - 0.5, steps * size_hw[0] - 0.5)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _held(xy: Float, size_hw: SizeHW) -> NDArray[np.bool_]:
    """GRID*GRID: which cells hold a point; points past the edge belong to the last cell."""
    height, width = size_hw
    cells = np.floor((np.asarray(xy, np.float64) + 0.5) * GRID / (width, height)).astype(int)
    x, y = np.clip(cells, 0, GRID - 1).T
    held = np.zeros((GRID, GRID), bool)
    held[y, x] = True
    return held.ravel()


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
