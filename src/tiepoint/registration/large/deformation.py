"""A smooth displacement as a grid of cubic B-splines, fitted to scattered points.

The fit minimises the squared distances, which weigh less where they are large, and the bending
energy. Its strength is the one that predicts groups of points best from all others. With weights
and strength given the fit is linear, so leaving out a group needs no second fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiepoint.registration.large import splines

Array = NDArray[np.float64]

STRENGTHS = 10.0 ** np.arange(-6, 3.5, 0.5)
"""Candidates for the strength of the bending energy, in units of its share in the equations."""

AS_GOOD = 1.03
"""The strongest candidate is taken of those whose mean square of left-out distances is at most this
times the least: a stiffer displacement is safer where no points are."""

ROUNDS = 6
"""Rounds of weighting; from the second on, the limit of what counts as near halves."""

_LEAST_STRENGTH = 1e-9
"""Keeps the equations solvable where no points are."""


@dataclass(frozen=True, eq=False)
class Deformation:
    """A displacement of the places of image A, in px of B.

    Attributes:
        origin_xy: First corner of the grid, px of A.
        spacing_px: Distance of its lines, px of A.
        coefficients: R+3 C+3 2 of a grid of R C intervals, px of B. Outside of it the displacement
            of its edge continues.
    """

    origin_xy: tuple[float, float]
    spacing_px: float
    coefficients: Array

    @property
    def intervals_xy(self) -> tuple[int, int]:
        """Columns and rows of the grid."""
        rows, columns = self.coefficients.shape[:2]
        return columns - 3, rows - 3

    def at(self, xy: Array) -> Array:
        """N 2: displacement at places of A, N 2; NaN at places that are NaN."""
        return self._summed(xy)[0]

    def slopes(self, xy: Array) -> Array:
        """N 2 2: derivative of the displacement along x and y of A."""
        return np.stack(self._summed(xy)[1:], axis=2)

    def _summed(self, xy: Array) -> tuple[Array, Array, Array]:
        """N 2 each: the displacement, and its derivatives along x and along y."""
        known = np.asarray(np.isfinite(xy).all(axis=1))
        (x, vx, sx), (y, vy, sy) = self._taps(np.where(known[:, None], xy, 0.0))
        steps = np.arange(splines.TAPS)
        rows, columns = (y[:, None] + steps)[:, :, None], (x[:, None] + steps)[:, None, :]
        near = self.coefficients[rows, columns]  # N 4 4 2
        along_x = np.einsum("nrcd,nc->nrd", near, vx)  # N 4 2
        value = np.einsum("nrd,nr->nd", along_x, vy)
        value[~known] = np.nan
        slope_x = np.einsum("nrcd,nc,nr->nd", near, sx, vy) / self.spacing_px
        slope_y = np.einsum("nrd,nr->nd", along_x, sy) / self.spacing_px
        return value, slope_x, slope_y

    def _taps(self, xy: Array) -> list[tuple[NDArray[np.int64], Array, Array]]:
        places = (xy - np.array(self.origin_xy)) / self.spacing_px
        return [splines.taps(places[:, axis], self.intervals_xy[axis]) for axis in (0, 1)]


@dataclass(frozen=True, eq=False)
class DeformationFit:
    """A deformation with what its points state about it.

    Attributes:
        deformation: The displacement.
        left_out: N 2, px: the offset of each point from a fit without the points of its group.
    """

    deformation: Deformation
    left_out: Array


def empty_grid(low_xy: Array, high_xy: Array, most_intervals: int) -> Deformation:
    """No displacement, on a grid over a rectangle of A, px, with square intervals."""
    sides = np.maximum(high_xy - low_xy, 1.0)
    spacing = float(sides.max()) / most_intervals
    columns, rows = (max(1, int(np.ceil(side / spacing - 1e-9))) for side in sides)
    return Deformation(
        (float(low_xy[0]), float(low_xy[1])), spacing, np.zeros((rows + 3, columns + 3, 2))
    )


def fit_deformation(
    grid: Deformation,
    xy: Array,
    offsets: Array,
    groups: NDArray[np.int64],
    *,
    weights: Array,
    within_px: float,
    from_px: float,
) -> DeformationFit:
    """Fit the coefficients of a grid to the offsets of points.

    Args:
        grid: Its place and spacing.
        xy: N 2, px of A.
        offsets: N 2, px of B, that the displacement shall have there.
        groups: N, number of the group of each point, which is left out as a whole.
        weights: N, relative weights.
        within_px: Distance at which a point weighs a quarter in the last round.
        from_px: The same in the first round.
    """
    equations = _Equations(grid, xy, groups)
    near_px, robust = max(from_px, within_px), np.ones(len(xy))
    for number in range(ROUNDS):
        fit = equations.solved(offsets, weights * robust, None)
        if number == ROUNDS - 1:
            break
        distances = np.hypot(*fit.left_out.T)
        robust = np.square(1 / (1 + np.square(distances / near_px)))
        near_px = max(within_px, near_px / 2)
    return fit


class _Equations:
    """The normal equations of one grid and one set of points."""

    def __init__(self, grid: Deformation, xy: Array, groups: NDArray[np.int64]) -> None:
        self._grid = grid
        self.design = design_matrix(grid, xy)  # N K
        columns, rows = grid.intervals_xy
        self._energy = splines.bending_energy(columns, rows)  # K K
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order[:1]] - 1))
        self._members = np.split(order, starts[1:])

    def solved(self, offsets: Array, weights: Array, strength: float | None) -> DeformationFit:
        """The fit at a strength, or at the best one."""
        design = self.design
        gram = design.T @ (design * weights[:, None])  # K K
        unit = np.trace(gram) / np.trace(self._energy)
        energy = unit * self._energy
        # Eigenvectors of both matrices at once: at any strength the inverse is then diagonal.
        lower = np.linalg.cholesky(
            gram + _LEAST_STRENGTH * (energy + np.trace(gram) * np.eye(len(gram)) / len(gram))
        )
        half = np.linalg.solve(lower, energy)
        share, vectors = np.linalg.eigh(np.linalg.solve(lower, half.T))
        basis = np.linalg.solve(lower.T, vectors)  # K K
        shown = design @ basis  # N K
        pull = shown.T @ (offsets * weights[:, None])  # K 2
        strengths = STRENGTHS if strength is None else np.array([strength])
        trials = [
            self._trial(shown, pull, offsets, weights, 1 / (1 + s * share)) for s in strengths
        ]
        limit = AS_GOOD * min(mean for mean, _, _ in trials)
        best = max(index for index, (mean, _, _) in enumerate(trials) if mean <= limit)
        _, scaled, left_out = trials[best]
        coefficients = (basis @ scaled).reshape(self._grid.coefficients.shape)
        deformation = Deformation(self._grid.origin_xy, self._grid.spacing_px, coefficients)
        return DeformationFit(deformation, left_out)

    def _trial(
        self, shown: Array, pull: Array, offsets: Array, weights: Array, damped: Array
    ) -> tuple[float, Array, Array]:
        """Mean square of the offsets left out, the solution, and these offsets N 2."""
        scaled = damped[:, None] * pull  # K 2
        residuals = offsets - shown @ scaled  # N 2
        left_out = np.empty_like(residuals)
        for members in self._members:
            part = shown[members]
            hat = (part * damped) @ part.T * weights[members]  # M M
            left_out[members] = np.linalg.solve(np.eye(len(members)) - hat, residuals[members])
        mean = float((weights @ np.square(left_out).sum(axis=1)) / max(weights.sum(), 1e-300))
        return mean, scaled, left_out


def design_matrix(grid: Deformation, xy: Array) -> Array:
    """N K: value of each spline of a grid at N places, row by row."""
    (x, vx, _), (y, vy, _) = grid._taps(xy)
    rows, columns = grid.coefficients.shape[:2]
    matrix = np.zeros((len(xy), rows * columns))
    index = np.arange(len(xy))
    for i in range(splines.TAPS):
        for j in range(splines.TAPS):
            matrix[index, (y + i) * columns + x + j] = vy[:, i] * vx[:, j]
    return matrix
