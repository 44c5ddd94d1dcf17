"""Register two images: estimate the transform between them, with its uncertainty, or refuse.

Detect, match, find the model that most matches agree on, fit it to them by least squares, then
check it: a wrong answer is worse than none.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from tiepoint.config import RegistrationConfig, RegistrationOptions, resolve
from tiepoint.detector import Detector
from tiepoint.errors import ConfigError
from tiepoint.features import Features, Matches, covariances_of
from tiepoint.matching.guided import match_guided
from tiepoint.matching.match import match
from tiepoint.registration import epipolar
from tiepoint.registration.estimation import estimate_model, matched_xy, shuffled
from tiepoint.registration.models import inlier_px
from tiepoint.registration.result import Registration
from tiepoint.registration.verdict import Fit, judge

logger = logging.getLogger(__name__)

GUIDED_ROUNDS, GUIDED_REACH = 2, 1.5
"""Rounds of guided matching, and its search radius in inlier thresholds. A radius of 1 would only
find matches that agree with the model already."""


def register(
    a: Any,
    b: Any,
    *,
    matches: Matches | None = None,
    detector: Detector | None = None,
    checkpoint: str | Path = "default",
    mask_a: Any = None,
    mask_b: Any = None,
    intrinsics: Any = None,
    config: RegistrationConfig | None = None,
    **overrides: Unpack[RegistrationOptions],
) -> Registration:
    """Estimate the transform from image A to image B; the order of keypoints has no effect.

    Args:
        a, b: Each a path, URL, bytes, PIL image, array or tensor, or its Features.
        matches: Matches between features `a` and `b`; None matches mutual nearest neighbours,
            rotated images too (see `tiepoint.match`).
        detector: Detector for images; None takes `registration_detector(checkpoint)`, kept for
            the next call.
        mask_a, mask_b: Where keypoints are allowed in each image, an array or a file; as `mask` of
            a `Detector`'s call.
        intrinsics: For "essential": the camera matrix K, 3x3, of both images, or a pair (K_A,
            K_B); in px with (0, 0) at the centre of the top-left pixel.
        config, overrides: Settings; single ones, such as `model`, replace those of `config`.

    Returns:
        Registration. Check `success`; `reason` explains a failure.

    Raises:
        ImageError: An image or a mask cannot be read.
        ConfigError: A setting out of range or unknown; intrinsics missing or malformed; features
            that cannot be matched; a mask for features.
    """
    settings = resolve(config or RegistrationConfig(), overrides)
    cameras = epipolar.read_cameras(intrinsics, settings.model)
    guided = settings.guided and matches is None
    if matches is None:
        best = settings.max_keypoints
        features_a = _features(a, mask_a, detector, checkpoint, best)
        features_b = _features(b, mask_b, detector, checkpoint, best)
        matches = match(features_a, features_b)
    else:
        features_a, features_b = _matched(a, b, matches)
    fit = _fit(features_a, features_b, matches, settings, cameras)
    if isinstance(fit, str):
        none = np.zeros(len(matches), bool)
        return Registration(False, fit, settings.model, None, features_a, features_b, matches, none)
    registration = judge(fit)
    if guided and fit.facts.kind == "plane" and registration.success:
        return _guided(fit, registration)
    return registration


def registration_detector(checkpoint: str | Path = "default", **options: Any) -> Detector:
    """A `Detector` without score threshold, so that `max_keypoints` alone limits the keypoints."""
    return Detector(checkpoint, threshold=0.0, **options)


def _fit(
    features_a: Features,
    features_b: Features,
    matches: Matches,
    settings: RegistrationConfig,
    cameras: epipolar.Cameras | None,
) -> Fit | str:
    """Consensus and least squares; or the reason why there is no model."""
    xy_a, xy_b = matched_xy(features_a, features_b, matches.pairs)  # M 2
    order = shuffled(xy_a, xy_b, settings.seed)  # of the finite matches
    if len(order) < settings.min_inliers:
        empty = [name for name, f in (("A", features_a), ("B", features_b)) if len(f) == 0]
        why = f"no keypoints in image {' and '.join(empty)}" if empty else f"{len(order)} matches"
        return f"{why}, {settings.min_inliers} matches are asked for"
    input_px = features_b.px_per_input_px
    if cameras is not None:
        input_px = max(input_px, features_a.px_per_input_px)
    within_px = inlier_px(settings) * input_px
    estimate = estimate_model(
        xy_a[order],
        xy_b[order],
        model=settings.model,
        within_px=within_px,
        cameras=cameras,
        covariances=covariances_of(features_a, features_b, matches.pairs[order]),
        pose_search=settings.pose_search,
        seed=settings.seed,
    )
    if estimate is None:
        return f"the {len(matches)} matches agree on no model"
    inliers = np.zeros(len(matches), bool)
    inliers[order[estimate.inliers]] = True
    estimate = replace(estimate, inliers=inliers)
    return Fit(features_a, features_b, matches, settings, cameras, input_px, within_px, estimate)


def _guided(fit: Fit, registration: Registration) -> Registration:
    """Refit an accepted plane model to matches found near it.

    The verdict comes first, because matches chosen by a model are no evidence for it.
    """
    a, b, best = fit.features_a, fit.features_b, registration
    for _ in range(GUIDED_ROUNDS):
        assert best.matrix is not None
        reach_px = GUIDED_REACH * fit.within_px
        matches = match_guided(a, b, best.matrix, reach_px, turned_deg=fit.matches.turned_deg)
        estimate = estimate_model(
            *matched_xy(a, b, matches.pairs),
            model=registration.model,
            within_px=fit.within_px,
            covariances=covariances_of(a, b, matches.pairs),
            start=best.matrix,
        )
        assert estimate is not None
        if estimate.inliers.sum() < registration.inliers.sum():
            logger.debug("guided matching lost inliers; the first fit is kept")
            return registration
        best = judge(replace(fit, matches=matches, estimate=estimate))
        if not best.success:
            logger.debug("guided matching was refused (%s); the first fit is kept", best.reason)
            return registration
    return best


@lru_cache(maxsize=1)
def _kept_detector(checkpoint: str) -> Detector:
    return registration_detector(checkpoint)


def _features(
    source: Any, mask: Any, detector: Detector | None, checkpoint: str | Path, max_keypoints: int
) -> Features:
    if isinstance(source, Features):
        if mask is not None:
            raise ConfigError(
                "a mask is given with Features, expected an image: mask its keypoints"
            )
        return source.top(max_keypoints)
    if isinstance(source, list | tuple):
        raise ConfigError(f"register takes one image at a time, got a {type(source).__name__}")
    detect = detector or _kept_detector(str(checkpoint))
    features: Features = detect(source, mask=mask, max_keypoints=max_keypoints)
    return features


def _matched(a: Any, b: Any, matches: Matches) -> tuple[Features, Features]:
    """Features that these matches can belong to."""
    if not isinstance(a, Features) or not isinstance(b, Features):
        raise ConfigError("matches are given, expected the Features that they index for a and b")
    if len(matches) and (
        matches.pairs.min() < 0 or (matches.pairs.max(axis=0) >= (len(a), len(b))).any()
    ):
        raise ConfigError(
            f"matches name keypoints beyond the {len(a)} of a and {len(b)} of b: pass the "
            "features that were matched"
        )
    return a, b
