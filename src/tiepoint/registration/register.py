"""Register two images: estimate the transform between them, with its uncertainty, or refuse.

Detect, match, find the model that most matches agree on, fit it to them by least squares, then
check it: a wrong answer is worse than none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import CELL_PX
from tiepoint.config import RegistrationConfig, RegistrationOptions, resolve
from tiepoint.detector import Detector
from tiepoint.errors import ConfigError
from tiepoint.features import Features, Matches, covariances_of
from tiepoint.geometry import Matrix, SizeHW
from tiepoint.matching.guided import match_guided
from tiepoint.matching.learned.choice import MatcherSource, checked_matcher
from tiepoint.matching.learned.matcher import LearnedMatcher
from tiepoint.matching.match import match
from tiepoint.matching.products import on_one_core
from tiepoint.matching.views import kept, view_of
from tiepoint.registration import epipolar, repeats
from tiepoint.registration.appearance import Picture, picture_of
from tiepoint.registration.estimation import estimate_model, matched_xy, shuffled
from tiepoint.registration.fit import FORWARD, Fit, Names, Pair
from tiepoint.registration.result import Registration
from tiepoint.registration.verdict import (
    CHECKS,
    WHOLE_VIEW_CHECKS,
    failure,
    objection_to,
    report,
)

logger = logging.getLogger(__name__)

LEAST_SIDE_PX = 4 * CELL_PX
"""Shorter side, px of the network's input, below which few keypoints are found."""

GUIDED_REACH = 1.5
"""Search radius of guided matching, in inlier thresholds. A radius of 1 would only find matches
that agree with the model already."""


def register(
    a: Any,
    b: Any,
    *,
    matches: Matches | None = None,
    matcher: MatcherSource = None,
    detector: Detector | None = None,
    checkpoint: str | Path = "default",
    mask_a: Any = None,
    mask_b: Any = None,
    intrinsics: Any = None,
    config: RegistrationConfig | None = None,
    **overrides: Unpack[RegistrationOptions],
) -> Registration:
    """Estimate the transform from image A to image B; the order of keypoints has no effect.

    If the matches of a learned matcher give none, those of nearest neighbours are tried.

    Args:
        a, b: Each a path, URL, bytes, PIL image, array or tensor, or its Features.
        matches: Matches between features `a` and `b`; None matches by `method`, rotated images too.
        matcher: Learned matcher, for `method="learned"`; see `tiepoint.match`.
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
        ConfigError: Neither an image nor features; a setting out of range or unknown; intrinsics
            missing or malformed; features that cannot be matched; a mask for features.
    """
    settings = resolve(config or RegistrationConfig(), overrides)
    matcher = _loaded(settings, matches, matcher)
    cameras = epipolar.read_cameras(intrinsics, settings.model)
    guided = settings.guided and matches is None
    if matches is None:
        best, make_detector = settings.max_keypoints, partial(_detector, detector, str(checkpoint))
        first = _pictured(a, mask_a, make_detector, best)
        second = _pictured(b, mask_b, make_detector, best)
    else:
        first, second = _matched((a, mask_a), (b, mask_b), matches)
    first, second, names = ordered(first, second)
    if names != FORWARD:
        cameras = None if cameras is None else cameras[::-1]
        matches = None if matches is None else matches.reversed()

    def found(matches: Matches) -> Registration:
        pair = paired(first, second, names, matches, settings, cameras)
        return registered(pair, guided=guided)

    if matches is not None:
        return found(matches)
    return _matched_and(found, first.features, second.features, settings, matcher)


def registered(pair: Pair, *, guided: bool) -> Registration:
    """The transform between two matched images, or the reason why there is none.

    Args:
        pair: The images in the order of `ordered`, and their matches.
        guided: Match again near the positions that an accepted plane model predicts.
    """
    counts = len(pair.features_a), len(pair.features_b)
    logger.info("%d and %d keypoints, %d matches", *counts, len(pair.matches))
    with on_one_core(*counts):
        return _registered(pair, guided=guided)


def _registered(pair: Pair, *, guided: bool) -> Registration:
    fit = _fit(pair)
    if isinstance(fit, str):
        return failure(pair if pair.names == FORWARD else pair.reversed(), fit)
    fit, objection = _decided(fit)
    if guided and objection is None and fit.facts.kind == "plane":
        fit = _guided(fit)
    return report(fit, objection)


def _matched_and(
    found: Callable[[Matches], Registration],
    a: Features,
    b: Features,
    settings: RegistrationConfig,
    matcher: LearnedMatcher | None,
) -> Registration:
    """What is found with matches of the method, or else of nearest neighbours."""
    result = found(match(a, b, matcher=matcher, method=settings.method, layers=settings.layers))
    if settings.method == "nearest" or result.success:
        return result
    logger.info("%s; nearest neighbours are tried", result.reason)
    by_nearest = found(match(a, b))
    return by_nearest if by_nearest.success else result


class Pictured(NamedTuple):
    """One of the two images: its features, and its picture if it is known."""

    features: Features
    picture: Picture | None = None


def registration_detector(checkpoint: str | Path = "default", **options: Any) -> Detector:
    """A `Detector` without score threshold, so that `max_keypoints` alone limits the keypoints."""
    return Detector(checkpoint, threshold=0.0, **options)


def ordered(first: Pictured, second: Pictured) -> tuple[Pictured, Pictured, Names]:
    """The two images in one order whatever the caller's, and the caller's names of them.

    So A and B exchanged give the same verdict and the inverse matrix.
    """
    if _key(second.features) < _key(first.features):
        return second, first, FORWARD[::-1]
    return first, second, FORWARD


def paired(
    first: Pictured,
    second: Pictured,
    names: Names,
    matches: Matches,
    settings: RegistrationConfig,
    cameras: epipolar.Cameras | None = None,
) -> Pair:
    """Two images in the order of `ordered`, with the matches between them."""
    pictures = None
    if first.picture is not None and second.picture is not None:
        pictures = first.picture, second.picture
    return Pair(
        features_a=first.features,
        features_b=second.features,
        matches=matches,
        settings=settings,
        cameras=cameras,
        pictures=pictures,
        names=names,
    )


def _loaded(
    settings: RegistrationConfig, matches: Matches | None, matcher: MatcherSource
) -> LearnedMatcher | None:
    """The given matcher; raises for a method that contradicts the other arguments."""
    if matches is not None and settings.method != "nearest":
        raise ConfigError(
            f"method is {settings.method!r} and matches are given, which need no method: leave out "
            "one of them"
        )
    return checked_matcher(settings.method, matcher, layers=settings.layers)


def _fit(pair: Pair) -> Fit | str:
    """Consensus and least squares; or the reason why there is no model.

    Plane models are estimated in both directions. Matches scatter by the coarser pixels of the two
    images, so the direction towards the image that shows less detail has more inliers.
    """
    order = shuffled(*pair.xy, pair.settings.seed)  # of the finite matches
    least = pair.settings.min_inliers
    if len(order) < least:
        named = zip(pair.names, (pair.features_a, pair.features_b), strict=True)
        empty = sorted(name for name, features in named if len(features) == 0)
        where = "images A and B" if len(empty) == 2 else f"image {''.join(empty)}"
        why = f"no keypoints in {where}" if empty else f"{len(order)} matches"
        return f"{why}, {least} matches are asked for{_too_thin(pair)}"
    fits = [_fit_one_way(pair, order)]
    if pair.facts.kind == "plane":
        fits.append(_fit_one_way(pair.reversed(), order))
    found = [fit for fit in fits if fit is not None]
    if not found:
        return f"the {len(pair.matches)} matches agree on no model"
    return max(found, key=lambda fit: fit.inliers)


def _too_thin(pair: Pair) -> str:
    """Advice for long strips, of which a reduction to `max_side` leaves hardly anything."""
    for name, one in zip(pair.names, (pair.features_a, pair.features_b), strict=True):
        height, width = (max(1, round(side / one.px_per_input_px)) for side in one.size_hw)
        if one.px_per_input_px > 1 and min(height, width) < LEAST_SIDE_PX:
            seen = f"the network saw image {name} at {width}x{height} px"
            return f"; {seen}: raise max_side (--max-side)"
    return ""


def _fit_one_way(pair: Pair, order: NDArray[np.int64]) -> Fit | None:
    """The model from A to B; `order` selects and orders the matches."""
    xy_a, xy_b = pair.xy
    a, b, settings = pair.features_a, pair.features_b, pair.settings
    estimate = estimate_model(
        xy_a[order],
        xy_b[order],
        model=settings.model,
        within_px=pair.within_px,
        cameras=pair.cameras,
        covariances=covariances_of(a, b, pair.matches.pairs[order]),
        pose_search=settings.pose_search,
        seed=settings.seed,
    )
    if estimate is None:
        return None
    inliers = np.zeros(len(pair.matches), bool)
    inliers[order[estimate.inliers]] = True
    return pair.fitted(replace(estimate, inliers=inliers))


def _decided(fit: Fit) -> tuple[Fit, str | None]:
    """The fit, or the rival model that the pictures prefer, and the first objection."""
    objection = objection_to(fit, CHECKS[fit.settings.model])
    if objection is not None or fit.facts.kind == "two-view":
        return fit, objection
    rival, ambiguity = repeats.decide(fit)
    if ambiguity is not None:
        return fit, objection_to(fit, WHOLE_VIEW_CHECKS) or ambiguity
    if rival is not None:
        refitted = _rematched(fit, rival.matrix)
        objection = objection_to(refitted, CHECKS[fit.settings.model])
        if objection is not None:
            return fit, repeats.ambiguous(fit, rival)
        logger.debug("a rival model of repeated structure is preferred: %s", refitted)
        fit = refitted
    return fit, objection_to(fit, WHOLE_VIEW_CHECKS)


def _guided(fit: Fit) -> Fit:
    """Refit an accepted plane model to matches found near it, once: more rounds change nothing.

    The verdict comes first, because matches chosen by a model are no evidence for it.
    """
    better = _rematched(fit, fit.estimate.matrix)
    if better.inliers < fit.inliers:
        logger.debug("guided matching lost inliers; the first fit is kept")
        return fit
    objection = objection_to(better, CHECKS[fit.settings.model])
    if objection is not None:
        logger.debug("guided matching was refused (%s); the first fit is kept", objection)
        return fit
    return better


def _rematched(fit: Fit, matrix: Matrix) -> Fit:
    """The fit to matches near the places that a plane model predicts."""
    a, b = fit.features_a, fit.features_b
    reach_px = GUIDED_REACH * fit.within_px
    matches = match_guided(a, b, matrix, reach_px, turned_deg=fit.matches.turned_deg)
    estimate = estimate_model(
        *matched_xy(a, b, matches.pairs),
        model=fit.settings.model,
        within_px=fit.within_px,
        covariances=covariances_of(a, b, matches.pairs),
        start=matrix,
    )
    assert estimate is not None
    return replace(fit, matches=matches, estimate=estimate)


def _key(features: Features) -> tuple[SizeHW, int, bytes]:
    """A sort key that depends on the keypoints, in whatever order they are."""
    xy = features.xy[np.lexsort(features.xy.T)]  # N 2
    return features.size_hw, len(xy), xy.tobytes()


def _detector(given: Detector | None, checkpoint: str) -> Detector:
    return given or _kept_detector(checkpoint)


@kept
def _kept_detector(checkpoint: str) -> Detector:
    return registration_detector(checkpoint)


def _pictured(
    source: Any, mask: Any, make_detector: Callable[[], Detector], max_keypoints: int
) -> Pictured:
    features, image = view_of(source, mask, make_detector, "register", max_keypoints=max_keypoints)
    if image is None:
        return Pictured(features.top(max_keypoints))
    return Pictured(features, picture_of(image))


def _matched(
    first: tuple[Any, Any], second: tuple[Any, Any], matches: Matches
) -> tuple[Pictured, Pictured]:
    """Features that these matches can belong to, each given with a mask, which they do not have."""
    (a, mask_a), (b, mask_b) = first, second
    if not isinstance(a, Features) or not isinstance(b, Features):
        raise ConfigError("matches are given, expected the Features that they index for a and b")
    if mask_a is not None or mask_b is not None:
        raise ConfigError("a mask is given with matches, expected images: mask their keypoints")
    if len(matches) and (
        matches.pairs.min() < 0 or (matches.pairs.max(axis=0) >= (len(a), len(b))).any()
    ):
        raise ConfigError(
            f"matches name keypoints beyond the {len(a)} of a and {len(b)} of b: pass the "
            "features that were matched"
        )
    return Pictured(a), Pictured(b)
