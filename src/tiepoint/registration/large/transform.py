"""The map between two large images: a plane matrix, and a smooth displacement after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import Matrix, apply_homography
from tiepoint.registration.derivatives import local_jacobian
from tiepoint.registration.large.deformation import Deformation

Array = NDArray[np.float64]

INVERSE_ROUNDS, INVERSE_PX = 20, 1e-7
"""Newton steps at most, and the step in px of A below which they end."""


@dataclass(frozen=True, eq=False)
class LargeTransform:
    """A map from px of A to px of B.

    Attributes:
        matrix: 3x3, positive in front of the camera.
        deformation: Displacement in px of B that is added, by the place in A; None for none.
    """

    matrix: Matrix
    deformation: Deformation | None = None

    @property
    def is_affine(self) -> bool:
        """Whether straight lines with even steps keep both properties."""
        return self.deformation is None and not self.matrix[2, :2].any()

    def forward(self, xy: Array) -> Array:
        """N 2 of A -> N 2 of B; NaN behind the camera."""
        mapped = apply_homography(self.matrix, xy)
        if self.deformation is None:
            return mapped
        return np.asarray(mapped + self.deformation.at(xy))

    def inverse(self, xy: Array) -> Array:
        """N 2 of B -> N 2 of A; NaN where there is none."""
        # The inverse of a matrix keeps places in front of the camera there.
        start = apply_homography(np.linalg.inv(self.matrix), xy)
        if self.deformation is None:
            return start
        found = start.copy()
        open_ = np.flatnonzero(np.isfinite(start).all(axis=1))
        for _ in range(INVERSE_ROUNDS):
            if len(open_) == 0:
                break
            places = found[open_]
            missed = self.forward(places) - xy[open_]
            steps = np.linalg.solve(self.slopes(places), missed[:, :, None])[:, :, 0]
            found[open_] = places - steps
            known = np.isfinite(steps).all(axis=1)
            found[open_[~known]] = np.nan
            open_ = open_[known & (np.abs(steps).max(axis=1) > INVERSE_PX)]
        found[open_] = np.nan  # a fold
        return found

    def slopes(self, xy: Array) -> Array:
        """N 2 2: px of B per px of A along x and y."""
        slopes = local_jacobian(self.matrix, xy)
        if self.deformation is not None:
            slopes = slopes + self.deformation.slopes(xy)
        return slopes
