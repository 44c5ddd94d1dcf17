"""Uniform cubic B-splines: values, slopes, and the bending energy of a grid of them.

Source: Unser, "Splines: a perfect fit for signal and image processing" (1999); the energy is that
of thin plate splines (Bookstein 1989).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TAPS = 4
"""Number of splines that are not 0 at a place."""

_POWERS = np.array([[1, -3, 3, -1], [4, 0, -6, 3], [1, 3, 3, -3], [0, 0, 0, 1]]) / 6
"""Coefficients of 1, t, t^2, t^3 of the four splines within an interval, t in 0..1."""


def taps(places: Array, intervals: int) -> tuple[NDArray[np.int64], Array, Array]:
    """The splines that are not 0 at N places in 0..intervals; places outside count as the edge.

    Returns:
        first: N, index of the first of four splines.
        values: N 4.
        slopes: N 4, derivatives; 0 outside.
    """
    inside = np.clip(places, 0, intervals)
    first = np.minimum(inside.astype(np.int64), intervals - 1)
    t = inside - first
    powers = np.stack([np.ones_like(t), t, t**2, t**3], axis=1)  # N 4
    derived = np.stack([np.zeros_like(t), np.ones_like(t), 2 * t, 3 * t**2], axis=1)  # N 4
    slopes = derived @ _POWERS.T
    slopes[places != inside] = 0
    return first, powers @ _POWERS.T, slopes


def bending_energy(columns: int, rows: int) -> Array:
    """K K: the energy of coefficients row by row, K = (rows + 3) (columns + 3).

    The integral of f_xx^2 + 2 f_xy^2 + f_yy^2 over the grid, in units of its intervals.
    """
    x, y = _products(columns), _products(rows)
    energy: Array = np.kron(y[0], x[2]) + 2 * np.kron(y[1], x[1]) + np.kron(y[2], x[0])
    return energy


def _products(intervals: int) -> tuple[Array, Array, Array]:
    """Integrals of products of splines, of their first, and of their second derivatives."""
    nodes, weights = np.polynomial.legendre.leggauss(TAPS)  # exact for degree 7
    t, weights = (nodes + 1) / 2, weights / 2
    bases = (
        np.stack([np.ones_like(t), t, t**2, t**3]),
        np.stack([np.zeros_like(t), np.ones_like(t), 2 * t, 3 * t**2]),
        np.stack([np.zeros_like(t), np.zeros_like(t), np.full_like(t, 2), 6 * t]),
    )
    first, second, third = (
        _assembled((_POWERS @ one) * weights @ (_POWERS @ one).T, intervals) for one in bases
    )
    return first, second, third


def _assembled(within: Array, intervals: int) -> Array:
    """The integrals over all intervals, from those over one."""
    whole = np.zeros((intervals + 3, intervals + 3))
    for start in range(intervals):
        whole[start : start + TAPS, start : start + TAPS] += within
    return whole
