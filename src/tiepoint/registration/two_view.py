"""Matches of two images -> the geometry between them: which model holds, and its inliers.

The decision between the models follows COLMAP (Schoenberger and Frahm, Structure-from-Motion
Revisited, CVPR 2016, section 4.1). Consensus, least squares and the evidence against chance are
those of `register`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import Model, RegistrationConfig
from tiepoint.features import Features, Matches, covariances_of
from tiepoint.geometry import Matrix
from tiepoint.registration.epipolar import Cameras, Pose
from tiepoint.registration.estimation import Estimate, estimate_model, shuffled
from tiepoint.registration.fit import Fit, Pair
from tiepoint.registration.verdict import (
    DEGENERATE_SHARE,
    enough_inliers,
    neighbours_move_alike,
    not_mirrored,
    objection_to,
    unlikely_by_chance,
)

Geometry = Literal["degenerate", "calibrated", "uncalibrated", "planar or panoramic"]
"""What holds between two images; "degenerate" if nothing does."""

WITHIN_PX = 2.0
"""Inlier threshold of all three models, px of the network's input, so that their counts compare."""

CALIBRATED_SHARE = 0.7
"""Inliers of the essential matrix, as a share of the fundamental matrix's, from which the focal
lengths are taken for right. COLMAP has .95 (`min_E_F_inlier_ratio`); but where structure repeats,
the two more freedoms of the fundamental matrix fit a second plane of wrong matches (measured on the
set entry-P10 of benchmarks/reconstruction.py)."""


@dataclass(frozen=True, eq=False)
class TwoView:
    """The geometry of two images.

    Attributes:
        geometry: The model that holds.
        inliers: M bool: the matches that fit it; none if it is "degenerate".
        fundamental, essential, homography: 3x3 from A to B, those that passed their checks.
        pose: Pose of B relative to A; of "calibrated" only.
    """

    geometry: Geometry
    inliers: NDArray[np.bool_]
    fundamental: Matrix | None = None
    essential: Matrix | None = None
    homography: Matrix | None = None
    pose: Pose | None = None


def verify(
    features_a: Features,
    features_b: Features,
    matches: Matches,
    *,
    cameras: Cameras | None = None,
    rays_px: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    seed: int = 0,
) -> TwoView:
    """Find the model that the matches of two images follow.

    Args:
        features_a, features_b: Of both images; descriptors are not used.
        matches: M matches between them.
        cameras: (K_A, K_B), 3x3, if the focal lengths are known; px, (0, 0) at the centre of the
            first pixel. None estimates no essential matrix.
        rays_px: N_A 2 and N_B 2, px: keypoints without the distortion of the lenses, for the
            essential matrix; None takes those of the features.
        seed: Seed of the consensus.
    """
    fundamental = _fit(features_a, features_b, matches, "fundamental", seed=seed)
    homography = _fit(features_a, features_b, matches, "homography", seed=seed)
    essential = None
    if cameras is not None:
        if rays_px is not None:
            features_a, features_b = _at(features_a, rays_px[0]), _at(features_b, rays_px[1])
        essential = _fit(features_a, features_b, matches, "essential", cameras, seed=seed)
    matrices = (_matrix(fundamental), _matrix(essential), _matrix(homography))
    epipolar_fit = fundamental
    if essential is not None and essential.inliers >= CALIBRATED_SHARE * _count(fundamental):
        epipolar_fit = essential
    if homography is not None and homography.inliers > DEGENERATE_SHARE * _count(epipolar_fit):
        best = max((homography, epipolar_fit or homography), key=_count)
        return TwoView("planar or panoramic", best.estimate.inliers, *matrices)
    if epipolar_fit is None:
        return TwoView("degenerate", np.zeros(len(matches), bool))
    estimate = epipolar_fit.estimate
    geometry: Geometry = "calibrated" if epipolar_fit is essential else "uncalibrated"
    return TwoView(geometry, estimate.inliers, *matrices, estimate.pose)


def _fit(
    features_a: Features,
    features_b: Features,
    matches: Matches,
    model: Model,
    cameras: Cameras | None = None,
    *,
    seed: int,
) -> Fit | None:
    """The fit of one model; None without consensus, or if chance could bring it."""
    settings = RegistrationConfig(model=model, threshold_px=WITHIN_PX, seed=seed)
    pair = Pair(
        features_a=features_a,
        features_b=features_b,
        matches=matches,
        settings=settings,
        cameras=cameras,
    )
    order = shuffled(*pair.xy, seed)
    if len(order) < settings.min_inliers:
        return None
    xy_a, xy_b = pair.xy
    estimate = estimate_model(
        xy_a[order],
        xy_b[order],
        model=model,
        within_px=pair.within_px,
        cameras=cameras,
        covariances=covariances_of(features_a, features_b, matches.pairs[order]),
        seed=seed,
    )
    if estimate is None:
        return None
    inliers = np.zeros(len(matches), bool)
    inliers[order[estimate.inliers]] = True
    fit = pair.fitted(Estimate(estimate.matrix, inliers, estimate.pose))
    objection = objection_to(fit, (enough_inliers, unlikely_by_chance))
    if objection is None:
        last = not_mirrored if fit.facts.kind == "plane" else neighbours_move_alike
        objection = last(fit)
    return fit if objection is None else None


def _matrix(fit: Fit | None) -> Matrix | None:
    return None if fit is None else fit.estimate.matrix


def _count(fit: Fit | None) -> int:
    return 0 if fit is None else fit.inliers


def _at(features: Features, xy: NDArray[np.float64]) -> Features:
    """The features at other positions."""
    return Features(
        xy.astype(np.float32),
        features.scores,
        None,
        features.size_hw,
        covariance=features.covariance,
        px_per_input_px=features.px_per_input_px,
    )
