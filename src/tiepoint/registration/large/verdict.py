"""The verdict on large images: what a fit of windows must show; the first objection refuses it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import LargeConfig
from tiepoint.geometry import SizeHW
from tiepoint.registration.large.cells import common_samples
from tiepoint.registration.large.fitting import LargeFit
from tiepoint.registration.large.matching import Points
from tiepoint.registration.verdict import DIFFERENT, MAX_ZOOM

Array = NDArray[np.float64]

LEAST_FITTING = 0.5
"""Least share of the points that a model must fit: most come from windows that agree in
themselves, so a model that fits fewer has the wrong form."""
LEAST_CELLS = 3
"""Windows that must agree however small the common view is."""
LEAST_COVERAGE = 0.15
"""Least share of the common view near agreeing windows, for a model that is free to bend."""
NEAR_CELLS = 1.0
"""Distance from an agreeing window up to which a place counts as covered, in distances between
neighbouring windows."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the verdict is about: the points, the fit, and the images."""

    points: Points
    fit: LargeFit
    config: LargeConfig
    sizes_hw: tuple[SizeHW, SizeHW]

    @property
    def coverage(self) -> float:
        """Share of the common view that is near agreeing windows, 0..1."""
        samples, area = common_samples(self.fit.transform, *self.sizes_hw)
        agreeing = self.points.centres_xy[self.points.agreeing]
        if len(samples) == 0 or len(agreeing) == 0:
            return 0.0
        spacing = math.sqrt(area * len(samples) / len(self.points.centres_xy))
        apart = np.abs(samples[:, None] - agreeing[None]).max(axis=2).min(axis=1)
        return float((apart <= NEAR_CELLS * spacing).mean())


BENT = 'the images may be bent: register with model "smooth"'
"""Advice where a plane model fits few of the points."""


Check = Callable[[Evidence], str | None]
"""An objection in plain words; None without one."""


def objection_to_points(points: Points, config: LargeConfig) -> str | None:
    """`min_cells`, before any model is fitted; all windows if there is no room for that many."""
    agreeing, compared = int(points.agreeing.sum()), len(points.centres_xy)
    needed = min(config.min_cells, max(LEAST_CELLS, compared))
    if agreeing >= needed:
        return None
    return (
        f"{agreeing} of {compared} windows agree with the registration of the overviews, "
        f"{needed} are asked for: {DIFFERENT}"
    )


def objection_to(evidence: Evidence) -> str | None:
    """The first objection to a fitted model."""
    return next((text for check in CHECKS if (text := check(evidence)) is not None), None)


def fits_most(evidence: Evidence) -> str | None:
    """`LEAST_FITTING`."""
    share = float(evidence.fit.inliers.mean())
    if share >= LEAST_FITTING:
        return None
    model, limit = evidence.config.model, evidence.config.threshold_px
    advice = "raise threshold_px, or match more windows" if model == "smooth" else BENT
    return f"the {model} model fits {share:.0%} of the points within {limit:g} px: {advice}"


def predicts_left_out(evidence: Evidence) -> str | None:
    """Windows left out of the fit must be where it predicts them."""
    distances = np.hypot(*evidence.fit.left_out.T)
    median, limit = float(np.median(distances)), evidence.config.threshold_px
    if median <= limit:
        return None
    return (
        f"windows left out of the fit are {median:.2g} px from where it predicts them, "
        f"{limit:g} px are allowed: they are too few or too scattered for this model"
    )


def does_not_fold(evidence: Evidence) -> str | None:
    """Neighbours must remain neighbours, not mirrored, at a plausible zoom."""
    samples, _ = common_samples(evidence.fit.transform, *evidence.sizes_hw)
    if len(samples) == 0:
        return "the two images would have no common view"
    areas = np.linalg.det(evidence.fit.transform.slopes(samples))
    if (areas > 0).all():
        zooms = np.sqrt(areas)
        if zooms.min() >= 1 / MAX_ZOOM and zooms.max() <= MAX_ZOOM:
            return None
        return f"image A would be scaled by {zooms.min():.2g} to {zooms.max():.2g}"
    return "the model folds or mirrors image A in places"


def covers_enough(evidence: Evidence) -> str | None:
    """`LEAST_COVERAGE`, for "smooth"."""
    coverage = evidence.coverage
    if evidence.config.model != "smooth" or coverage >= LEAST_COVERAGE:
        return None
    return (
        f"windows that agree cover {coverage:.0%} of the common view, {LEAST_COVERAGE:.0%} are "
        'asked for by a smooth model: register with model "homography" or "affine"'
    )


CHECKS: tuple[Check, ...] = (fits_most, predicts_left_out, does_not_fold, covers_enough)
