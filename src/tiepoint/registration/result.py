"""The result of `register`: the transform and its uncertainty, or the reason for failure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiepoint.config import Model
from tiepoint.errors import RegistrationError
from tiepoint.features import Features, Matches
from tiepoint.features.display import facts_html
from tiepoint.geometry import Matrix, apply_homography
from tiepoint.registration.models import PLANE_MODELS

OK = "ok"


class Residuals(NamedTuple):
    """Distances of the inliers from the model, px of image B: median and rms."""

    median: float
    rms: float


NO_RESIDUALS = Residuals(math.nan, math.nan)


@dataclass(frozen=True, eq=False)
class Registration:
    """The transform between two images. Check `success`, or let `transform` raise.

    Attributes:
        success: Whether the images are registered. If not, `matrix` is None, and the figures
            below describe the rejected model.
        reason: "ok", or why the registration failed.
        model: "homography", "affine", "similarity", "translation", "fundamental", "essential".
        matrix: 3x3 float64, or None. The first four map px of A to px of B, x_B ~ H x_A;
            "fundamental" is F with x_B^T F x_A = 0 in px; "essential" is E with the same equation
            in normalised image coordinates.
        features_a, features_b: The features that were matched.
        matches: M pairs between them.
        inliers: M bool, the matches that fit the matrix.
        coverage: Share of the common view that contains inliers, 0..1, on a 10x10 grid over the
            image with more of its cells inside the other. For "fundamental" and "essential" the
            common view is unknown, and all cells of A count.
        reprojection_px: Median and rms distance of the inliers in B; the Sampson distance from
            the epipolar geometry for two-view models. NaN without inliers.
        agreement: Share of all keypoints in the common view whose surroundings look alike in both
            images, 0..1. NaN for two-view models, and where only features are known.
        overlap_sd_px: Standard deviation of a transformed point, rms over the common view, px of
            B, propagated from the scatter of the matches. NaN for two-view models.
        corner_sd_px: The same at A's four corners, which may be far outside the common view.
        rotation, translation: Pose of "essential": X_B = R X_A + t, 3x3 and 3 of length 1; None
            for other models.
    """

    success: bool
    reason: str
    model: Model
    matrix: Matrix | None
    features_a: Features
    features_b: Features
    matches: Matches
    inliers: NDArray[np.bool_]
    coverage: float = 0.0
    agreement: float = math.nan
    reprojection_px: Residuals = NO_RESIDUALS
    overlap_sd_px: float = math.nan
    corner_sd_px: float = math.nan
    rotation: Matrix | None = None
    translation: NDArray[np.float64] | None = None

    def __repr__(self) -> str:
        if not self.success:
            return f"Registration(not registered: {self.reason})"
        count = f"{int(self.inliers.sum())} of {len(self.matches)} matches"
        known = "" if math.isnan(self.overlap_sd_px) else f", known to {self.overlap_sd_px:.2f} px"
        return f"Registration({self.model}, {count}{known})"

    def _repr_html_(self) -> str:
        figures = {"model": self.model, "matches": len(self.matches)}
        if not self.success:
            return facts_html("Not registered", {"reason": self.reason, **figures})
        return facts_html("Registration", {**figures, **self._shown_figures()})

    def _shown_figures(self) -> dict[str, str | None]:
        agreement, sd_px = _plain(self.agreement), _plain(self.overlap_sd_px)
        return {
            "inliers": f"{int(self.inliers.sum())} ({self.inlier_ratio:.0%})",
            "median error": f"{self.reprojection_px.median:.2f} px",
            "standard deviation over the overlap": None if sd_px is None else f"{sd_px:.2f} px",
            "coverage": f"{self.coverage:.0%}",
            "agreement": None if agreement is None else f"{agreement:.0%}",
        }

    @property
    def inlier_ratio(self) -> float:
        """Inliers among the matches, 0..1; 0 without matches."""
        return float(self.inliers.mean()) if len(self.inliers) else 0.0

    @property
    def xy_a(self) -> NDArray[np.float32]:
        """M 2: positions of the matches in A, px."""
        return self.features_a.xy[self.matches.pairs[:, 0]]

    @property
    def xy_b(self) -> NDArray[np.float32]:
        """M 2: positions of the matches in B, px."""
        return self.features_b.xy[self.matches.pairs[:, 1]]

    def transform(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Map points of A, N 2 or one point of 2, to px of B; NaN behind the camera of B.

        Raises:
            RegistrationError: Not registered, or a two-view model, which maps points to lines.
        """
        return _mapped(self._plane_matrix("transform"), xy)

    def inverse(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Map points of B to A; see `transform`."""
        return _mapped(np.linalg.inv(self._plane_matrix("inverse")), xy)

    def summary(self) -> dict[str, Any]:
        """The figures as plain numbers and lists, for JSON; unknown figures are None."""
        return {
            "success": self.success,
            "reason": self.reason,
            "model": self.model,
            "matrix": _plain(self.matrix),
            "rotation": _plain(self.rotation),
            "translation": _plain(self.translation),
            "keypoints": [len(self.features_a), len(self.features_b)],
            "matches": len(self.matches),
            "inliers": int(self.inliers.sum()),
            "inlier_ratio": self.inlier_ratio,
            "coverage": self.coverage,
            "agreement": _plain(self.agreement),
            "reprojection_px": {k: _plain(v) for k, v in self.reprojection_px._asdict().items()},
            "overlap_sd_px": _plain(self.overlap_sd_px),
            "corner_sd_px": _plain(self.corner_sd_px),
            "size_hw": [list(self.features_a.size_hw), list(self.features_b.size_hw)],
        }

    def _plane_matrix(self, method: str) -> Matrix:
        if not self.success or self.matrix is None:
            raise RegistrationError(f"not registered: {self.reason}")
        if self.model not in PLANE_MODELS:
            raise RegistrationError(
                f"a {self.model} matrix gives a line for each point, not a place: {method} needs "
                f"one of {', '.join(PLANE_MODELS)}"
            )
        return self.matrix


def _mapped(matrix: ArrayLike, xy: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(xy, dtype=np.float64)
    if points.shape != (2,) and (points.ndim != 2 or points.shape[1] != 2):
        raise RegistrationError(
            f"points have shape {points.shape}, expected (N, 2), or (2,) for one point"
        )
    return apply_homography(matrix, points).reshape(points.shape)


def _plain(value: NDArray[np.float64] | float | None) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value if value is not None and math.isfinite(value) else None
