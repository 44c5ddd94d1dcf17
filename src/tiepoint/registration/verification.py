"""Figures behind the verdict: common view, coverage, number of false alarms, local zoom."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import Float, Matrix, SizeHW, apply_homography, inside

GRID = 10
"""Cells along each side of an image, for `coverage` and the common view."""

ANSWER_GRID = 6
"""Cells along each side of A, for `answered_cells`."""

NEIGHBOURS = 6
"""Neighbours that `neighbour_ratio` compares; one point may match at two scales."""

_LEAST_KEYPOINTS = 3  # of a cell that counts


@dataclass(frozen=True, eq=False)
class CommonView:
    """The area that both images show under a plane model.

    Attributes:
        places_xy: P 2, px of A: centres of the cells that are inside the other image.
        coverage: Share of these cells that contain inliers, 0..1.
    """

    places_xy: NDArray[np.float64]
    coverage: float


def common_view(matrix: Matrix, xy_a: Float, xy_b: Float, a_hw: SizeHW, b_hw: SizeHW) -> CommonView:
    """The common view, on a grid over the image with more of its cells inside the other.

    The matrix faces the inliers, M 2 each.
    """
    grid_a, grid_b = _grid(a_hw), _grid(b_hw)  # GRID*GRID 2
    grid_b_in_a = apply_homography(np.linalg.inv(matrix), grid_b)
    shown_a = inside(apply_homography(matrix, grid_a), b_hw)  # GRID*GRID
    shown_b = inside(grid_b_in_a, a_hw)
    if shown_a.sum() >= shown_b.sum():
        places, shown, occupied = grid_a[shown_a], shown_a, _occupied(xy_a, a_hw)
    else:
        places, shown, occupied = grid_b_in_a[shown_b], shown_b, _occupied(xy_b, b_hw)
    return CommonView(places, float(occupied[shown].mean()) if shown.any() else 0.0)


def coverage_of(xy: Float, size_hw: SizeHW) -> float:
    """Share of the cells of a whole image that contain points, 0..1."""
    return float(_occupied(xy, size_hw).mean())


def answered_cells(
    xy_a: Float, a_hw: SizeHW, shown: NDArray[np.bool_], answered: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Share of the keypoints in each cell of A that B answers where the model maps them.

    Args:
        xy_a: N 2, px.
        shown: N, keypoints in the common view.
        answered: N, keypoints with a similar keypoint of B near their mapped position.

    Returns:
        One share, 0..1, per cell with at least three keypoints in the common view.
    """
    height, width = a_hw
    cells = np.floor((np.asarray(xy_a, np.float64) + 0.5) * ANSWER_GRID / (width, height))  # N 2
    x, y = np.clip(cells, 0, ANSWER_GRID - 1).astype(int).T
    flat, size = y * ANSWER_GRID + x, ANSWER_GRID**2
    counts = np.bincount(flat[shown], minlength=size)
    answers = np.bincount(flat[shown & answered], minlength=size)
    counted = counts >= _LEAST_KEYPOINTS
    shares: NDArray[np.float64] = answers[counted] / counts[counted]
    return shares


def log10_nfa(
    matches: int, inliers: int, *, sample_size: int, inlier_rate: float, solutions: int = 1
) -> float:
    """Number of false alarms (NFA), log10: equally good models expected from random matches.

    A contrario: Moisan and Stival, IJCV 2004, section 3. Below 0 chance is unlikely.

    Args:
        inlier_rate: Probability that a random match fits a given model, 0..1: the area where its
            point in B would be an inlier, over the area of the image.
        sample_size, solutions: See `ModelFacts`.
    """
    if inliers <= sample_size:
        return math.inf
    tests = solutions * (matches - sample_size)
    samples = _log_binomial(matches, inliers) + _log_binomial(inliers, sample_size)
    probability = (inliers - sample_size) * math.log(min(1.0, inlier_rate))
    return (math.log(tests) + samples + probability) / math.log(10)


def neighbour_ratio(xy_a: Float, xy_b: Float) -> float:
    """How differently neighbours move: far below 1 where a scene has surfaces, about 1 by chance.

    The median difference between the displacements of a match and of its `NEIGHBOURS` nearest ones
    in A, over that between random pairings of the same points. 0 for too few matches.

    Args:
        xy_a, xy_b: M 2, px.
    """
    if len(xy_a) <= NEIGHBOURS:
        return 0.0
    moves = np.asarray(xy_b, np.float64) - xy_a  # M 2
    apart = np.linalg.norm(xy_a[:, None] - xy_a[None], axis=2)  # M M
    nearest = np.argsort(apart, axis=1, kind="stable")[:, 1 : NEIGHBOURS + 1]  # M NEIGHBOURS
    near = np.linalg.norm(moves[:, None] - moves[nearest], axis=2)  # M NEIGHBOURS
    rng = np.random.default_rng(0)
    random = np.asarray(xy_b, np.float64)[rng.permutation(len(moves))] - xy_a  # M 2
    far = np.linalg.norm(random - random[rng.permutation(len(moves))], axis=1)  # M
    typical = float(np.median(far))
    return float(np.median(np.median(near, axis=1))) / typical if typical > 0 else 0.0


def occupied_cells(xy: Float, cell_px: float) -> int:
    """Number of square cells that contain finite points; neighbours in one cell count once."""
    cells = np.floor(np.asarray(xy, np.float64) / cell_px)  # N 2
    return len(np.unique(cells[np.isfinite(cells).all(axis=1)], axis=0))


def local_zoom(matrix: Matrix, xy: Float) -> NDArray[np.float64]:
    """N: length in px of B of one px of A, at points of A."""
    w = xy @ matrix[2, :2] + matrix[2, 2]  # N
    zoom: NDArray[np.float64] = np.sqrt(np.abs(np.linalg.det(matrix)) / np.abs(w) ** 3)
    return zoom


def _grid(size_hw: SizeHW) -> NDArray[np.float64]:
    """GRID*GRID 2: centres of the cells, px."""
    steps = (np.arange(GRID) + 0.5) / GRID
    x, y = np.meshgrid(steps * size_hw[1] - 0.5, steps * size_hw[0] - 0.5)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _occupied(xy: Float, size_hw: SizeHW) -> NDArray[np.bool_]:
    """GRID*GRID: which cells contain a point; points outside count in the nearest cell."""
    height, width = size_hw
    cells = np.floor((np.asarray(xy, np.float64) + 0.5) * GRID / (width, height)).astype(int)
    x, y = np.clip(cells, 0, GRID - 1).T
    occupied = np.zeros((GRID, GRID), bool)
    occupied[y, x] = True
    return occupied.ravel()


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
