"""The result of `register_large`: the transform and how well left-out windows confirm it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiepoint.config import LargeModel
from tiepoint.errors import RegistrationError
from tiepoint.geometry import SizeHW
from tiepoint.registration.large.georeference import Georeference
from tiepoint.registration.large.transform import LargeTransform
from tiepoint.registration.result import NO_RESIDUALS, Registration, Residuals

if TYPE_CHECKING:
    from tiepoint.registration.large.matching import Points

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ResidualMap:
    """How far the points of each window are from a fit without them.

    Attributes:
        centres_xy: C 2, mean places of the points of each window in A, px.
        offsets_px: C 2, median offset along x and y, px of B: predicted less matched places.
        distances_px: C, median distance, px of B.
        counts: C, number of points.
    """

    centres_xy: Array
    offsets_px: Array
    distances_px: Array
    counts: NDArray[np.int64]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "centres_xy": np.round(self.centres_xy, 1).tolist(),
            "offsets_px": np.round(self.offsets_px, 3).tolist(),
            "distances_px": np.round(self.distances_px, 3).tolist(),
            "counts": self.counts.tolist(),
        }


@dataclass(frozen=True, eq=False)
class LargeRegistration:
    """The transform between two large images. Check `success`, or let `transform` raise.

    Attributes:
        success: Whether the images are registered.
        reason: "ok", or why the registration failed.
        model: "homography", "affine" or "smooth".
        mapping: The map from px of A to px of B; None if not registered.
        coarse: The registration of the overviews; None for a result read from a file.
        xy_a, xy_b: N 2 float64, matched points, px of each image.
        inliers: N bool, points within the threshold of the model.
        residual_map: Residuals of each window, left out of the fit.
        reprojection_px: Median and rms distance of the inliers from the model, px of B.
        left_out_px: The same for all points, from fits without their window.
        cells: Numbers of windows in which matches agree, and of those compared.
        coverage: Share of the common view with an agreeing window near it, 0..1.
        names: Names of A and B.
        sizes_hw: (height, width) of A and of B, px.
        georeferences: Map positions of A and of B; None for images without one.
        damaged: Windows that could not be read: (image, centre in A).
        exif_orientation: EXIF orientation of A's file, 1 to 8, which is applied to all places in A.
    """

    success: bool
    reason: str
    model: LargeModel
    mapping: LargeTransform | None
    coarse: Registration | None
    xy_a: Array
    xy_b: Array
    inliers: NDArray[np.bool_]
    residual_map: ResidualMap
    reprojection_px: Residuals
    left_out_px: Residuals
    cells: tuple[int, int]
    coverage: float
    names: tuple[str, str]
    sizes_hw: tuple[SizeHW, SizeHW]
    georeferences: tuple[Georeference | None, Georeference | None] = (None, None)
    damaged: tuple[tuple[str, tuple[float, float]], ...] = ()
    exif_orientation: int = 1

    def __repr__(self) -> str:
        if not self.success:
            return f"LargeRegistration(not registered: {self.reason})"
        return (
            f"LargeRegistration({self.model}, {int(self.inliers.sum())} of {len(self.xy_a)} points "
            f"in {self.cells[0]} of {self.cells[1]} windows, "
            f"left out {self.left_out_px.median:.2f} px)"
        )

    def transform(self, xy: ArrayLike) -> Array:
        """Map points of A, N 2 or one point of 2, to px of B; NaN where there is no place.

        Raises:
            RegistrationError: Not registered, or no points.
        """
        points = _points(xy)
        return self.require().forward(points.reshape(-1, 2)).reshape(points.shape)

    def inverse(self, xy: ArrayLike) -> Array:
        """Map points of B to A; see `transform`."""
        points = _points(xy)
        return self.require().inverse(points.reshape(-1, 2)).reshape(points.shape)

    def to_map(self, xy: ArrayLike) -> Array:
        """Map points of A, N 2 or one point of 2 px, to the coordinates of B's map.

        Raises:
            RegistrationError: Not registered, or B has no map position.
        """
        georeference = self.georeferences[1]
        if georeference is None:
            raise RegistrationError(f"{self.names[1]}: image B has no map position")
        return georeference.to_map(self.transform(xy))

    def require(self) -> LargeTransform:
        """The map; raises RegistrationError if the images are not registered."""
        if self.mapping is None:
            raise RegistrationError(f"not registered: {self.reason}")
        return self.mapping

    def summary(self) -> dict[str, Any]:
        """The figures as plain numbers and lists, for JSON; unknown figures are None."""
        return {
            "success": self.success,
            "reason": self.reason,
            "model": self.model,
            "a": self.names[0],
            "b": self.names[1],
            "size_hw": [list(size) for size in self.sizes_hw],
            "points": len(self.xy_a),
            "inliers": int(self.inliers.sum()),
            "cells": list(self.cells),
            "coverage": self.coverage,
            "reprojection_px": _plain(self.reprojection_px),
            "left_out_px": _plain(self.left_out_px),
            "left_out_map": self._in_map_units(),
            "damaged": [[name, *place] for name, place in self.damaged],
        }

    def _in_map_units(self) -> dict[str, Any] | None:
        georeference = self.georeferences[1]
        if georeference is None:
            return None
        unit = georeference.unit_per_px
        values = Residuals(*(value * unit for value in self.left_out_px))
        return {**_plain(values), "crs": georeference.crs or None}


def residual_map(points: Points, left_out: Array) -> ResidualMap:
    """The residuals of each window, from those of its points, N 2 px."""
    cells = np.unique(points.cells)
    members = [np.flatnonzero(points.cells == cell) for cell in cells]
    distances = np.hypot(*left_out.T)
    return ResidualMap(
        np.array([points.xy_a[one].mean(axis=0) for one in members]).reshape(-1, 2),
        np.array([np.median(left_out[one], axis=0) for one in members]).reshape(-1, 2),
        np.array([np.median(distances[one]) for one in members]),
        np.array([len(one) for one in members], np.int64),
    )


def residuals_of(offsets: Array) -> Residuals:
    """Median and rms length of offsets, N 2; unknown without any."""
    if len(offsets) == 0:
        return NO_RESIDUALS
    distances = np.hypot(*offsets.T)
    return Residuals(float(np.median(distances)), float(np.sqrt(np.square(distances).mean())))


def _points(xy: ArrayLike) -> Array:
    points = np.asarray(xy, np.float64)
    if points.shape != (2,) and (points.ndim != 2 or points.shape[1] != 2):
        raise RegistrationError(
            f"points have shape {points.shape}, expected (N, 2), or (2,) for one point"
        )
    return points


def _plain(residuals: Residuals) -> dict[str, float | None]:
    return {k: v if math.isfinite(v) else None for k, v in residuals._asdict().items()}
